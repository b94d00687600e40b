"""PhotoMaker-V2's encoder at a small size, and its file as it is published."""

from pathlib import Path

import torch

from likeness.identity.encoders.photomaker import PhotoMakerEncoder, PhotoMakerSettings

SMALL = PhotoMakerSettings(
    encoder_width=16,
    encoder_depth=3,
    encoder_heads=2,
    image_size_px=28,
    projection_widths=(12, 20),
    embedding_width=8,
    identity_width=32,
    identity_depth=2,
    head_width=16,
)
LORA = {"down.weight": torch.ones(2, 2)}


def make_encoder() -> PhotoMakerEncoder:
    """Random weights, none of them zero, so that every one of them shows in the output."""
    torch.manual_seed(0)
    encoder = PhotoMakerEncoder(SMALL).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return encoder


def write_published(encoder: PhotoMakerEncoder, folder: Path) -> Path:
    """torch's pickle of two state dicts."""
    path = folder / "photomaker-v2.bin"
    torch.save({"id_encoder": encoder.published_state(), "lora_weights": LORA}, path)
    return path
