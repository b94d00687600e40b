"""The software renderer of puppets."""
