"""What a video leaves behind: files, records, similarity, plots, pages."""
