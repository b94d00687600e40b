"""Data curation: turns raw photographs and videos into training shards, with nothing lost and nothing twice."""
