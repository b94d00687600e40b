"""What a transformer's config says about its videos: read before weights are loaded, and without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from likeness.errors import ConfigError
from likeness.files import read_json

TRANSFORMERS = ("transformer_ema", "transformer")
"""Folders of the transformer. FantasyID's averaged weights come first, as in its published code."""
FPS_1_5 = 16.0
"""Frames per second of CogVideoX1.5."""
_FRAME_SIZE_1_5 = (96, 170)
"""Latent rows and columns of the 768 x 1360 pixels for which CogVideoX1.5 was published."""
_MAX_POSITIONS_1_5 = 300
"""Its `sample_height` and `sample_width`: the limits of its positions, 2400 x 2400 pixels."""


def read_transformer_config(folder: Path) -> dict[str, Any] | None:
    """The config of the transformer in a diffusers folder; None if there is none or it is damaged.

    The pipeline's loader reports what is missing or damaged.
    """
    for name in TRANSFORMERS:
        try:
            config = read_json(folder / name / "config.json")
        except FileNotFoundError:
            continue
        except (OSError, ValueError):
            return None
        return config if isinstance(config, dict) else None
    return None


def refuse_frames(config: Mapping[str, Any], frames: int) -> None:
    """Refuse a number of frames for which a transformer with learned positions has none.

    CogVideoX-5B-I2V has learned positions for `sample_frames` frames. For any other number diffusers silently uses
    sine positions, on which the weights were not trained.

    Raises:
        ConfigError: `frames` is not `sample_frames`.
    """
    if config.get("use_learned_positional_embeddings") and frames != (own := config.get("sample_frames", 49)):
        raise ConfigError(
            f"{frames} frames were asked for, and this backbone has learned positions for {own} frames only "
            f"(CogVideoX-5B-I2V). Use `--frames {own}`."
        )


def has_temporal_patches(config: Mapping[str, Any]) -> bool:
    """Whether a token covers several latent frames: CogVideoX1.5."""
    return bool(config.get("patch_size_t"))


def frame_size_px(config: Mapping[str, Any], spatial_factor: int) -> tuple[int, int]:
    """Height and width of the videos that a transformer was trained on.

    Args:
        config: The transformer's.
        spatial_factor: Pixels per latent pixel of the VAE.
    """
    height, width = frame_size_latent(config)
    return height * spatial_factor, width * spatial_factor


def frame_size_latent(config: Mapping[str, Any]) -> tuple[int, int]:
    """Latent rows and columns of the videos that a transformer was trained on."""
    height, width = config["sample_height"], config["sample_width"]
    if has_temporal_patches(config) and height == width == _MAX_POSITIONS_1_5:
        return _FRAME_SIZE_1_5
    return height, width
