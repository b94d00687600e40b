"""Several shots in one video: the story file, its rendering, its page."""
