"""The frozen video models, one file each."""
