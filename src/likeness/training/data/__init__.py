"""Training data: puppets (rendered synthetic people), shards, latents, pairs of references and targets."""
