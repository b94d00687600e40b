"""Reads recipes of data, and builds their stages."""

import difflib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from likeness import config
from likeness.curation.settings import DataRecipe, StageEntry
from likeness.curation.stage import GIVEN, GlobalStage, Stage, StageKind, check_order, is_global, registered
from likeness.errors import ConfigError

_MODULES = {
    "guard": "stages.guard",
    "shots": "stages.shots",
    "motion": "stages.motion",
    "borders": "stages.borders",
    "tracks": "people.tracks",
    "quality": "stages.quality",
    "text": "stages.text",
    "nsfw": "stages.nsfw",
    "aesthetics": "stages.scores",
    "hashes": "stages.hashes",
    "duplicates": "people.duplicates",
    "identities": "people.identities",
    "views": "people.views",
    "captions": "stages.captions",
    "pairs": "people.pairs",
}
"""The module in `likeness.curation` of each stage of this project. It is imported where a recipe names the stage.

A finished run imports the modules of its stages for their settings, so that they load SciPy and networks when called.
"""


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> DataRecipe:
    """Read a recipe (TOML); overrides have the form `a.b=value`.

    Raises:
        ConfigError: The file or a setting is invalid. Settings of stages are checked by `build_stages`.
    """
    return build_recipe(config.read_toml(path, overrides), where=Path(path).name)


def build_recipe(values: dict[str, Any], *, where: str = "recipe") -> DataRecipe:
    """Build a recipe from plain values; `where` names their origin in messages.

    Raises:
        ConfigError: A setting is unknown, missing or out of range.
    """
    if values.get("kind") != "data":
        raise ConfigError(
            f'{where}: `kind` is {values.get("kind")!r}, but curation needs a recipe of `kind = "data"`. Other kinds '
            "are for `likeness train`."
        )
    return config.build(DataRecipe, values, where=where)


@dataclass(frozen=True, slots=True, eq=False)
class Segment:
    """Stages that run one after another without an exchange between sources, or a single global stage."""

    number: int
    stages: tuple[Stage | GlobalStage, ...]

    @property
    def is_global(self) -> bool:
        return bool(self.stages) and is_global(self.stages[0])


def build_segments(recipe: DataRecipe, modules: Sequence[str] = ()) -> tuple[Segment, ...]:
    """The stages of a recipe, in parts between global stages. Built once in a process.

    Args:
        recipe: The recipe.
        modules: Further Python modules that register stages.

    Raises:
        ConfigError: A stage or one of its settings is unknown, or it reads what no earlier stage writes.
    """
    return _build_segments(tuple(entry.model_dump_json() for entry in recipe.stages), tuple(modules))


@lru_cache(maxsize=8)
def _build_segments(entries: tuple[str, ...], modules: tuple[str, ...]) -> tuple[Segment, ...]:
    for module in modules:
        importlib.import_module(module)
    stages = [_build_stage(StageEntry.model_validate_json(entry), number) for number, entry in enumerate(entries)]
    check_order(stages, GIVEN)
    parts: list[list[Stage | GlobalStage]] = [[]]
    for stage in stages:
        if is_global(stage):
            parts += [[stage], []]
        else:
            parts[-1].append(stage)
    # The first part is kept without stages, too: it opens every source.
    kept = [part for number, part in enumerate(parts) if part or not number]
    return tuple(Segment(number, tuple(part)) for number, part in enumerate(kept))


def _build_stage(entry: StageEntry, number: int) -> Stage | GlobalStage:
    kind = _find(entry.name)
    if kind is None:
        known = sorted({*_MODULES, *registered()})
        close = difflib.get_close_matches(entry.name, known, n=1)
        advice = f"Did you mean `{close[0]}`?" if close else f"Known stages: {', '.join(known)}."
        raise ConfigError(f"stages.{number}: there is no stage `{entry.name}`. {advice}")
    return kind.build(config.build(kind.settings, entry.values, where=f"stages.{number} ({entry.name})"))


def _find(name: str) -> StageKind | None:
    """A stage by its name; no module of another stage is imported."""
    if name in _MODULES:
        importlib.import_module(f"likeness.curation.{_MODULES[name]}")
    return registered().get(name)
