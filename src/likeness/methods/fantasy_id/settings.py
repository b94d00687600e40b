"""Sizes of FantasyID: the paper's, the released code's where the paper gives none, and those of the released weights.

The paper is arXiv:2502.13995v1.
"""

from typing import Any

COGVIDEOX_5B: dict[str, Any] = {"width": 3072, "num_layers": 42}
"""Sizes of the transformer, for use without one."""

# fmt: off
TINY: dict[str, Any] = {
    "patch_size_px": 8, "downsampling": 2,
    "num_vertices": (2562, 641, 161, 41), "vertex_widths": (32, 64, 128),
    "injection_width": 192,
}
"""Differences of tiny from the defaults: one more level of the mesh, because on a CPU the fusion of 161 vertices takes
longer than the video."""

PAPER: dict[str, Any] = {
    "encoder": "clip", "encoder_width": 1024, "encoder_depth": 24, "encoder_heads": 16,
    "image_size_px": 336, "patch_size_px": 14, "downsampling": 4,
    "abstractor_hidden_width": 256, "face_width": 2048,
    "num_vertices": (5023, 1256, 314), "vertex_widths": (64, 128),
    "fusion_depth": 6, "fusion_heads": 4,
    "context_width": 2048, "injection_width": 2048, "head_width": 128,
    "frozen": ("descriptor.face_encoder",),
}

RELEASED: dict[str, Any] = {
    "profile": "released",
    # The last four of the encoder's 24 blocks, and the first four of the five mapped depths, do not affect the output.
    "encoder": "eva", "encoder_width": 1024, "encoder_depth": 20, "encoder_heads": 16,
    "image_size_px": 336, "patch_size_px": 14, "downsampling": 4,
    "abstractor_hidden_width": 256, "face_width": 1024,
    "num_vertices": (5023, 1256, 314), "vertex_widths": (128,), "spiral_length": 9,
    "fusion_depth": 6, "fusion_heads": 4,
    "context_width": 2048, "injection_width": 2048, "head_width": 128,
    "is_layer_aware": False,
}
# fmt: on
