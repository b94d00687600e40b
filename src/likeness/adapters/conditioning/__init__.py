"""What a forward pass is conditioned on: controls, people, regions."""
