"""Scores, records, statistics and comparisons of systems."""
