"""Presets: a backbone, its licence and its default settings.

The record of every output names its preset, because the preset decides the licence.
"""

import difflib
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from likeness.errors import ConfigError
from likeness.weights import CHECKPOINTS, MODELS, home

METHODS = ("magic_mirror", "fantasy_id")


class Preset(BaseModel):
    """A backbone and its default settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    backbone_name: str
    """Display name."""
    weights: str
    """The name in the registry of weights."""
    licence: str
    """Licence of the weights, for the record of every output."""
    is_bundled: bool
    """The weights are part of the package; the network is never used."""
    steps: int
    """Denoising steps."""
    guidance: float
    """Scale of classifier-free guidance; 1 turns it off and halves the time."""
    frames: int
    """Frames of a video, a multiple of eight plus one."""
    fps: float
    identity_scales: dict[str, float] = {}
    """Default `identity_scale` by class name of the method; 1 if the class is not listed."""
    is_single_person: bool = False
    """The backbone was trained on one person: each of several people gets a frame of its size, side by side."""

    @property
    def backbone(self) -> str:
        """The folder of the backbone, whether or not it exists; `locate_backbone` checks that."""
        folder: Path = CHECKPOINTS / self.weights if self.is_bundled else home() / "models" / self.weights
        return str(folder)


def _cogvideox(name: str, backbone_name: str, weights: str) -> Preset:
    """A published CogVideoX with the settings of its authors' example."""
    return Preset(
        name=name,
        backbone_name=backbone_name,
        weights=weights,
        licence=MODELS[weights].licence,
        is_bundled=False,
        steps=50,
        guidance=6.0,
        frames=49,
        fps=8.0,
    )


PRESETS = {
    preset.name: preset
    for preset in (
        # Measured on two cores: see docs/evidence.md.
        Preset(
            name="tiny",
            backbone_name="tiny (CogVideoX, 64 px)",
            weights="tiny",
            licence="Apache-2.0 (weights made by this project, from drawn people only)",
            is_bundled=True,
            steps=20,
            guidance=1.5,
            # A larger scale raises the similarity of detected faces and lowers the face rate.
            identity_scales={"MagicMirror": 0.85, "FantasyID": 0.85},
            frames=17,
            fps=8.0,
            is_single_person=True,
        ),
        _cogvideox("research", "CogVideoX-5B", "cogvideox-5b"),
        _cogvideox("open", "CogVideoX-2B", "cogvideox-2b"),
    )
}


def find_preset(name: str) -> Preset:
    return PRESETS[require_known("preset", name, tuple(PRESETS))]


def require_known(kind: str, name: str, names: tuple[str, ...]) -> str:
    """Return `name` if it is one of `names`.

    Raises:
        ConfigError: It is not; the message proposes the closest.
    """
    if name in names:
        return name
    close = difflib.get_close_matches(name, names, n=1)
    advice = f"Did you mean `{close[0]}`?" if close else f"Known: {', '.join(names)}."
    raise ConfigError(f"Unknown {kind} `{name}`. {advice}")
