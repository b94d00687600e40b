"""Arrays measured on the pixels of one video, shared by all metrics."""
