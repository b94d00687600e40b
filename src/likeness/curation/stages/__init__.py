"""Stages on single sources, and the reader that opens sources for them."""
