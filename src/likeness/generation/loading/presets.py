"""What can be run under which name: backbone, adapters, licence, and the settings that suit them.

A preset is a promise about licences as much as about sizes: every output says which one made it.
"""

import difflib
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from likeness.errors import ConfigError
from likeness.weights import CHECKPOINTS, MODELS, home

METHODS = ("magic_mirror", "fantasy_id")


class Preset(BaseModel):
    """A backbone and how to run it well."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    backbone_name: str
    """For people to read."""
    weights: str
    """The backbone's name in the registry of weights."""
    licence: str
    """Of the weights, in words for the record beside every output."""
    is_bundled: bool
    """The weights ship inside the package, so the network is never asked."""
    steps: int
    """Denoising steps."""
    guidance: float
    """How strongly the prompt is followed; 1 turns guidance off and halves the time."""
    frames: int
    """Frames of a video, a multiple of eight plus one."""
    fps: float
    identity_scales: dict[str, float] = {}
    """How strong the reference is by default with a method, by the name of its class; 1 where none stands here."""
    stands_apart: bool = False
    """The backbone has seen one person at a time: people who share a video stand in frames of its size, side by side."""

    @property
    def backbone(self) -> str:
        """The folder where the backbone lies or belongs; `locate_backbone` says whether it is there."""
        folder: Path = CHECKPOINTS / self.weights if self.is_bundled else home() / "models" / self.weights
        return str(folder)


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
            # Stronger, the face is nearer to the reference where one is found, and found in fewer frames.
            identity_scales={"MagicMirror": 0.85, "FantasyID": 0.85},
            frames=17,
            fps=8.0,
            stands_apart=True,
        ),
        Preset(
            name="research",
            backbone_name="CogVideoX-5B",
            weights="cogvideox-5b",
            licence=MODELS["cogvideox-5b"].licence,
            is_bundled=False,
            steps=50,
            guidance=6.0,
            frames=49,
            fps=8.0,
        ),
        Preset(
            name="open",
            backbone_name="CogVideoX-2B",
            weights="cogvideox-2b",
            licence=MODELS["cogvideox-2b"].licence,
            is_bundled=False,
            steps=50,
            guidance=6.0,
            frames=49,
            fps=8.0,
        ),
    )
}


def find_preset(name: str) -> Preset:
    return PRESETS[known("preset", name, tuple(PRESETS))]


def known(kind: str, name: str, names: tuple[str, ...]) -> str:
    """Return `name` if it is one of `names`.

    Raises:
        ConfigError: It is not; the message proposes the closest.
    """
    if name in names:
        return name
    close = difflib.get_close_matches(name, names, n=1)
    advice = f"Did you mean `{close[0]}`?" if close else f"Known: {', '.join(names)}."
    raise ConfigError(f"Unknown {kind} `{name}`. {advice}")
