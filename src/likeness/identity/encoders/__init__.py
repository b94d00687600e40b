"""Encoders of face images and recognizer embeddings."""
