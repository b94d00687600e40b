"""Settings of generation, apart from prompt, face and seed, with their checks. Imports no model."""

import difflib
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypedDict

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from likeness.errors import ConfigError
from likeness.generation.inputs.prompts import check_negative_prompt, check_style
from likeness.generation.loading.presets import Preset
from likeness.identity.face_shape.sliders import FaceShape

MAX_BLOCKS = 1000
"""Upper limit for block numbers, before the transformer is known."""
_BLOCKS = re.compile(r"[0-9]+-[0-9]+|[0-9]+(,[0-9]+)*")


def format_blocks(blocks: Any) -> Any:
    """Write block numbers as text: `0-20` for a range, both ends included, or `0,2,4`. Other values are kept."""
    if isinstance(blocks, range) and blocks and blocks.step == 1:
        return f"{blocks[0]}-{blocks[-1]}"
    if isinstance(blocks, range) and blocks[MAX_BLOCKS:]:
        raise ValueError(f"these are more than {MAX_BLOCKS} blocks")
    if isinstance(blocks, range | list | tuple):
        return ",".join(str(number) for number in blocks)
    return blocks.replace(" ", "") if isinstance(blocks, str) else blocks


def parse_blocks(text: str | None) -> range | tuple[int, ...] | None:
    """Parse the text of `format_blocks`.

    Raises:
        ConfigError: It is neither a range nor a list of numbers, or the range runs backwards.
    """
    if text is None:
        return None
    if (
        any(len(number) > len(str(MAX_BLOCKS)) for number in re.findall(r"[0-9]+", text))
        or text.count(",") > MAX_BLOCKS
    ):
        raise ConfigError(
            f"`identity_blocks` is {_shorten(text)}; no transformer has more than {MAX_BLOCKS} blocks. Name fewer."
        )
    if not _BLOCKS.fullmatch(text):
        raise ConfigError(
            f"`identity_blocks` is {_shorten(text)}; block numbers are needed. Write a range such as 0-20, or 0,2,4."
        )
    if "-" not in text:
        return tuple(int(number) for number in text.split(","))
    first, last = (int(number) for number in text.split("-"))
    if last < first:
        raise ConfigError(f"`identity_blocks` is {text!r}, which runs backwards. Write {last}-{first}.")
    return range(first, last + 1)


def _shorten(text: str) -> str:
    return repr(text) if len(text) <= 40 else f"{text[:40]!r}..."


class GenerationSettings(BaseModel):
    """Settings of a clip, apart from its prompt, face and seed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(ge=1, le=1000)
    """Denoising steps. 15, 24, 28, 48 and others do not suit CogVideoX's solver: the error names the nearest valid
    numbers."""
    guidance: float = Field(ge=1, le=30)
    """Scale of classifier-free guidance; 1 turns it off."""
    identity_scale: float = Field(default=1.0, ge=0, le=4)
    """Weight of the reference; 0 is the stock pipeline."""
    identity_start: float = Field(default=0.0, ge=0, le=1)
    """Share of the steps before the reference is applied. A larger share leaves pose and composition to the prompt."""
    identity_end: float = Field(default=1.0, ge=0, le=1)
    """Share of the steps after which the reference is no longer applied."""
    identity_blocks: Annotated[str | None, BeforeValidator(format_blocks)] = None
    """Blocks in which it is applied: `0-20`, both ends included, or `0,2,4`; None for all adapted blocks."""
    identity_branch: Literal["conditional", "both"] = "conditional"
    """The CFG branches that get the reference."""
    frames: int = Field(ge=1, le=257)
    """A multiple of eight plus one; 1 makes a picture."""
    negative_prompt: str = ""
    """Content to avoid."""
    style: str = ""
    """Appended to every prompt as ", in the style of ..."."""
    shape: str | None = None
    """Source of the face shape for methods that use one: `learned`, `mediapipe`, `flame:FILE`, `beside`,
    `mean_head:PITCH_DEG`, `puppet:SEED`."""
    face_shape: FaceShape | None = None
    """Sliders that change that shape."""

    def identity_controls(self) -> dict[str, Any]:
        """The keyword arguments of `Method.identity`."""
        return {
            "scale": self.identity_scale,
            "start": self.identity_start,
            "end": self.identity_end,
            "blocks": parse_blocks(self.identity_blocks),
            "branch": self.identity_branch,
        }


class GenerationOptions(TypedDict, total=False):
    """The fields of `GenerationSettings` as keyword arguments; omitted ones and None take the preset's value."""

    steps: int | None
    guidance: float | None
    identity_scale: float | None
    identity_start: float
    identity_end: float
    identity_blocks: str | range | Sequence[int] | None
    identity_branch: Literal["conditional", "both"] | None
    frames: int | None
    negative_prompt: str
    style: str
    shape: str | None
    face_shape: FaceShape | None


def resolve_settings(preset: Preset, chosen: dict[str, Any]) -> GenerationSettings:
    """Complete settings with the preset's defaults, and check them.

    Raises:
        ConfigError: A setting is unknown, out of range or contradicts another.
        PromptError: Style or negative prompt contains the trigger word, or is not English.
    """
    defaults = {name: getattr(preset, name) for name in ("steps", "guidance", "frames")}
    overrides = {name: value for name, value in chosen.items() if value is not None}
    for name in overrides:
        if name not in GenerationSettings.model_fields:
            close = difflib.get_close_matches(name, GenerationSettings.model_fields, n=1)
            known = ", ".join(GenerationSettings.model_fields)
            raise ConfigError(
                f"Unknown setting `{name}`. {f'Did you mean `{close[0]}`?' if close else f'Known: {known}.'}"
            )
    try:
        settings = GenerationSettings(**(defaults | overrides))
    except ValidationError as error:
        problems = "; ".join(f"`{e['loc'][0]}` is {e['input']!s:.80}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"{problems}. Leave it out to use the preset's value.") from error
    if settings.frames % 8 != 1:
        nearest = max(1, round((settings.frames - 1) / 8) * 8 + 1)
        raise ConfigError(
            f"`frames` is {settings.frames}; the backbone makes a multiple of eight plus one. Try {nearest}."
        )
    if settings.identity_start >= settings.identity_end:
        raise ConfigError(
            f"`identity_start` is {settings.identity_start:g} and `identity_end` {settings.identity_end:g}; the end "
            "has to be larger. Both are shares of the steps: 0 and 1 are all of them."
        )
    parse_blocks(settings.identity_blocks)
    check_style(settings.style)
    check_negative_prompt(settings.negative_prompt)
    return settings
