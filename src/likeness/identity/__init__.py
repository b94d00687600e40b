"""From faces and prompts to identity tokens: the layers and records that methods share, independent of video models."""
