"""Loads a base pipeline and a method: presets, files, published checkpoints."""
