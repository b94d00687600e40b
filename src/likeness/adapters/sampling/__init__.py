"""Sampling caches: values of an identity that are computed once, and the block that runs on them."""
