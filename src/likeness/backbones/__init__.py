"""CogVideoX as the frozen backbone: loading and checking pipelines, attention, the VAE's arithmetic, the tiny model."""
