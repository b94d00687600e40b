"""From a face to identity tokens: the blocks that methods share. Nothing here knows a video model."""
