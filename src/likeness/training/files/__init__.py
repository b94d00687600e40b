"""Data sets of photographs and videos: from files on disk to samples, buckets, and frames of one size."""
