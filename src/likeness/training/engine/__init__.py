"""The training loop and its parts: optimizers, checkpoints, processes, logging."""
