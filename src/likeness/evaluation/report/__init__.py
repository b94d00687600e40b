"""Pages, charts and exported tables of an evaluation."""
