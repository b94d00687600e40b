"""Is it the same person, does the face move as asked, does the picture follow the text: measured on frames alone."""
