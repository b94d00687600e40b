"""Checks that need puppets (rendered synthetic people) or their prompts: actions, smiles, colors, rank-1."""
