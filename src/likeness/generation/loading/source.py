"""Which weights a load will use, and what their configs refuse: known before anything heavy is imported."""

from pathlib import Path

from likeness import weights
from likeness.backbones.transformer_config import read_transformer_config, refuse_frames
from likeness.generation.loading.presets import Preset
from likeness.weights.local_files import cached_hub_folder

RELEASED = "fantasyid"
"""The released FantasyID in the registry of weights."""


def uses_released(preset: Preset, method: str, backbone: str | Path | None, adapter: str | Path | None) -> bool:
    """Whether a load uses the released FantasyID.

    `fantasy_id` with the preset `research` does, unless an adapter is given or exists in the backbone's folder. So
    does a backbone given as a folder in the published layout.
    """
    if method != "fantasy_id" or adapter is not None:
        return False
    if backbone is not None:
        return is_published(Path(backbone))
    return preset.name == "research" and not (Path(preset.backbone) / method).is_dir()


def is_published(folder: Path) -> bool:
    """Whether a folder holds a transformer with FantasyID's published settings."""
    return "is_train_face" in (read_transformer_config(folder) or {})


def check_frames(
    frames: int, preset: Preset, *, method: str, backbone: str | Path | None, adapter: str | Path | None = None
) -> None:
    """Refuse a number of frames that the backbone does not make, from its config alone.

    A folder that does not exist, or a hub name that is not cached, is not checked here; `Likeness` repeats the check.

    Raises:
        ConfigError: The backbone has learned positions for another number of frames.
    """
    config = read_transformer_config(_backbone_folder(preset, method, backbone, adapter))
    if config is not None:
        refuse_frames(config, frames)


def _backbone_folder(preset: Preset, method: str, backbone: str | Path | None, adapter: str | Path | None) -> Path:
    if backbone is None:
        return weights.entry(RELEASED).folder if uses_released(preset, method, None, adapter) else Path(preset.backbone)
    return Path(backbone) if Path(backbone).is_dir() else cached_hub_folder(str(backbone)) or Path(backbone)
