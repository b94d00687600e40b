"""What can be run under which name: backbone, adapters, licence, and the settings that suit them.

A preset is a promise about licences as much as about sizes: every output says which one made it.
"""

import difflib

from pydantic import BaseModel, ConfigDict

from likeness.errors import ConfigError
from likeness.weights import CHECKPOINTS

METHODS = ("magic_mirror",)


class Preset(BaseModel):
    """A backbone and how to run it well."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    backbone_name: str
    """For people to read."""
    backbone: str
    """A folder or hub name that `CogVideoXPipeline.from_pretrained` takes."""
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


PRESETS = {
    preset.name: preset
    for preset in (
        # Measured on two cores: see docs/evidence.md.
        Preset(
            name="tiny",
            backbone_name="tiny (CogVideoX, 64 px)",
            backbone=str(CHECKPOINTS / "tiny"),
            licence="Apache-2.0 (weights made by this project, from drawn people only)",
            is_bundled=True,
            steps=25,
            guidance=2.0,
            frames=17,
            fps=8.0,
        ),
        Preset(
            name="research",
            backbone_name="CogVideoX-5B",
            backbone="zai-org/CogVideoX-5b",
            licence="CogVideoX License (research free of charge; commercial use needs registration)",
            is_bundled=False,
            steps=50,
            guidance=6.0,
            frames=49,
            fps=8.0,
        ),
        Preset(
            name="open",
            backbone_name="CogVideoX-2B",
            backbone="zai-org/CogVideoX-2b",
            licence="Apache-2.0",
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
