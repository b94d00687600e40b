"""Training data: rendered puppets, shards, latents, pairs of references and targets."""
