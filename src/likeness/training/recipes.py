"""Reads a recipe of any kind: its `kind` says which settings class of this package it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from likeness import config
from likeness.errors import ConfigError


def read(path: Path, overrides: Sequence[str] = ()) -> config.Settings:
    """Read a recipe and lay `a.b=1` overrides over it."""
    return build(config.read_toml(path, overrides), where=path.name)


def build(values: dict[str, Any], *, where: str) -> config.Settings:
    """A recipe of plain values; `where` names their origin in messages."""
    kinds, kind = _kinds(), values.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"{where}: `kind` is {kind!r}; a recipe's kind is one of {', '.join(kinds)}.")
    return config.build(kinds[kind], values, where=where)


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
