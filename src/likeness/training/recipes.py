"""Reads a recipe of any kind: its `kind` says which settings class of this package it is."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

from likeness import config
from likeness.errors import ConfigError


def read(path: Path, overrides: Sequence[str] = ()) -> config.Settings:
    """Read a recipe and lay `a.b=1` overrides over it."""
    kinds = _kinds()
    try:
        kind = tomllib.loads(path.read_text(encoding="utf-8")).get("kind")
    except (OSError, ValueError):
        kind = next(iter(kinds))  # The reader of settings says what is wrong with the file.
    if kind not in kinds:
        raise ConfigError(f"{path.name}: `kind` is {kind!r}; a recipe's kind is one of {', '.join(kinds)}.")
    return config.read(kinds[kind], path, overrides)


def _kinds() -> dict[str, type[config.Settings]]:
    from likeness.training.base import BaseRecipe
    from likeness.training.distill import DistillRecipe
    from likeness.training.duos import DuosRecipe
    from likeness.training.fantasy_id import FantasyRecipe
    from likeness.training.mirror import MirrorRecipe
    from likeness.training.shape import ShapeRecipe
    from likeness.training.vae import VaeRecipe

    return {
        "vae": VaeRecipe,
        "base": BaseRecipe,
        "distill": DistillRecipe,
        "mirror": MirrorRecipe,
        "duos": DuosRecipe,
        "fantasy_id": FantasyRecipe,
        "shape": ShapeRecipe,
    }
