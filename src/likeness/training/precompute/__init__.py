"""Everything that training reads of files, encoded once: latents, text states, faces and references.

`store.py` keeps encoded items by content, `encode.py` makes them, `dataset.py` offers them to the trainer as if they
were in memory, and `run.py` does what is missing for a recipe.
"""
