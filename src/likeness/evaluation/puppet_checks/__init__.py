"""Checks that need puppets or their prompts: actions, smiles, colors, rank-1."""
