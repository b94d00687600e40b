"""Stories as files: several shots of one character in TOML or JSON. `render.py` makes the videos.

Settings at the top of the file apply to every shot, and a shot may override them. Every shot uses the story's seed
unless it has its own, so that moving or adding a shot changes no other.
"""

import difflib
import json
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from likeness.config import Settings, apply_overrides, build
from likeness.errors import ConfigError, PromptError
from likeness.generation.inputs.prompts import check_prompt
from likeness.generation.inputs.search import MAX_SEED, SeedSearch
from likeness.generation.inputs.settings import GenerationSettings, resolve_settings
from likeness.generation.loading.presets import Preset

MAX_SHOTS = 100
MAX_FRAMES = 5000
"""Limit for all shots together: they are joined in memory, where so many take 5 GB at 720 x 480 pixels."""
MAX_FILE_BYTES = 1_000_000


class Shot(Settings):
    """One shot; omitted settings are those of the story. Ranges are those of `GenerationSettings` and `SeedSearch`."""

    prompt: str
    """A sentence with the trigger word after the class word."""
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    """None for the seed of the story."""
    steps: int | None = None
    guidance: float | None = None
    frames: int | None = None
    negative_prompt: str | None = None
    style: str | None = None
    identity_scale: float | None = None
    identity_start: float | None = None
    identity_end: float | None = None
    identity_blocks: str | None = None
    identity_branch: str | None = None
    best_of: int | None = None
    min_similarity: float | None = None


class Story(Settings):
    """A person and a sequence of shots."""

    title: str = "A story"
    faces: tuple[str, ...] = ()
    """Pictures of the person; relative paths start at the folder of the story's file."""
    character: str | None = None
    """A saved character, or its file, instead of pictures."""
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    """The seed of every shot without its own."""
    defaults: dict[str, Any] = Field(default_factory=dict)
    """Settings of every shot, by the names of `Shot`; in a file they are at the top level."""
    shots: tuple[Shot, ...] = Field(min_length=1, max_length=MAX_SHOTS)


def read_story(path: str | Path, overrides: Iterable[str] = ()) -> Story:
    """Read a story from TOML or JSON; each override is `a.b=value`, as `--set` takes it.

    Raises:
        ConfigError: The file is missing or neither, or a setting is unknown, missing or out of range.
    """
    path = Path(path)
    if path.suffix.lower() not in {".toml", ".json"}:
        raise ConfigError(f"{path} is no story: its suffix is {path.suffix or 'missing'}. Use .toml or .json.")
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"it holds more than {MAX_FILE_BYTES // 1_000_000} MB")
        text = path.read_text(encoding="utf-8-sig")  # Some editors begin a file with a byte order mark.
        values = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist. Name a story (a TOML or JSON file).") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as {path.suffix[1:].upper()}: {error}. Correct it.") from error
    _refuse_surrogates(values, path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds no table of settings. Begin as examples/story.toml does.")
    story = build_story(apply_overrides(values, overrides), where=path.name)
    return story.model_copy(update={"faces": tuple(str(path.parent / face) for face in story.faces)})


def build_story(values: dict[str, Any], *, where: str = "story") -> Story:
    """Build a story from plain values; settings of all shots may be at the top level.

    Raises:
        ConfigError: There is no shot, or a setting is unknown, missing or out of range; the message names the shot.
    """
    values = dict(values)
    shots = values.pop("shots", [])
    if not isinstance(shots, list) or not all(isinstance(shot, dict) for shot in shots):
        raise ConfigError(f"{where}: `shots` is no list of tables. Write [[shots]] above each shot.")
    if not 1 <= len(shots) <= MAX_SHOTS:
        raise ConfigError(
            f"{where} has {len(shots)} shots; 1 to {MAX_SHOTS} are needed. Add a [[shots]] table with a `prompt`."
        )
    shared = {name for name in Shot.model_fields if name not in {"prompt", "seed"}}
    _refuse_unknown(values, {*shared, *Story.model_fields} - {"defaults"}, where)
    defaults = {name: values.pop(name) for name in sorted(shared & values.keys())}
    if defaults:
        build(Shot, {"prompt": "", **defaults}, where=where)
    built = [build(Shot, shot, where=f"{where}, shot {number}") for number, shot in enumerate(shots, start=1)]
    return build(Story, {**values, "defaults": defaults, "shots": built}, where=where)


def _refuse_surrogates(values: Any, path: Path) -> None:
    r"""Refuse lone surrogates, which JSON allows (`"\ud83d"`) and which cannot be encoded as UTF-8."""
    try:
        json.dumps(values, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{path} holds text that is no Unicode ({error.reason}). Correct it.") from error


def _refuse_unknown(values: dict[str, Any], known: set[str], where: str) -> None:
    for name in values.keys() - known:
        close = difflib.get_close_matches(name, sorted(known), n=1)
        advice = f"Did you mean `{close[0]}`?" if close else f"Known settings: {', '.join(sorted(known))}."
        raise ConfigError(f"{where}: unknown setting `{name}`. {advice}")


def resolve_shots(
    story: Story, preset: Preset, *, method: str | type = "magic_mirror"
) -> list[tuple[GenerationSettings, SeedSearch]]:
    """Resolve the settings of each shot, before any model is loaded.

    Raises:
        ConfigError: A setting is out of range; the message names the shot.
        PromptError: A prompt lacks the trigger word; the message names the shot.
    """
    resolved = []
    for number, shot in enumerate(story.shots, start=1):
        shot_settings = shot.model_dump(exclude={"prompt", "seed"}, exclude_none=True)
        chosen = {**story.defaults, **shot_settings}
        try:
            check_prompt(shot.prompt, method=method)
            search = SeedSearch.of(chosen.pop("best_of", 1), chosen.pop("min_similarity", None))
            search.check_seed(story.seed if shot.seed is None else shot.seed)
            resolved.append((resolve_settings(preset, chosen), search))
        except (ConfigError, PromptError) as error:
            raise type(error)(f"Shot {number}: {error}") from error
    frames = sum(settings.frames for settings, _ in resolved)
    if frames > MAX_FRAMES:
        raise ConfigError(
            f"The {len(resolved)} shots have {frames} frames together; at most {MAX_FRAMES} are joined. "
            "Make fewer or shorter shots, or several stories."
        )
    return resolved


def check_shot_frames(shots: Sequence[tuple[GenerationSettings, SeedSearch]], check: Callable[[int], None]) -> None:
    """Call `check` with the number of frames of each shot.

    Raises:
        ConfigError: `check` raised it; the message names the shot.
    """
    for number, (settings, _) in enumerate(shots, start=1):
        try:
            check(settings.frames)
        except ConfigError as error:
            raise ConfigError(f"Shot {number}: {error}") from error
