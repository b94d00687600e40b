"""Layers that condition a frozen transformer on identity tokens, and their attachment to diffusers models."""
