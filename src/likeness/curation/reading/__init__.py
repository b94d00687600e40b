"""Finds the sources of a recipe: files in folders, rows of lists, members of tar files."""
