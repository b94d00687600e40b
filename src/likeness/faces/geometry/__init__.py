"""Landmark layouts, alignment, head pose and proportions."""
