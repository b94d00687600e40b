"""Trains the tiny base models: VAE, transformer, recognizer, shape network."""
