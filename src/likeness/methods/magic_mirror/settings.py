"""Settings of Magic Mirror at the paper's size, from its text and its parameter count (docs/papers/magic_mirror.md)."""

from typing import Any

COGVIDEOX_5B: dict[str, Any] = {"width": 3072, "time_width": 512, "text_width": 4096, "num_layers": 42}
"""Sizes of the transformer, for use without one."""

# fmt: off
PAPER: dict[str, Any] = {
    "encoder": "clip", "encoder_width": 1024, "encoder_depth": 24, "encoder_heads": 16,
    "image_size_px": 224, "patch_size_px": 14, "embedding_width": 512,
    "identity_width": 2048, "identity_depth": 4, "face_tokens": 32, "face_width": 2048, "face_depth": 12,
    "head_width": 128, "encoder_input": "whole_image", "norm_width": 512, "norm_hidden_width": 512,
    "frozen": ("face_encoder", "identity_perceiver"),
}
# fmt: on
