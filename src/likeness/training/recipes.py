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
    from likeness.training.base.recognizer import DistillRecipe
    from likeness.training.base.shape_network import ShapeRecipe
    from likeness.training.base.transformer import BaseRecipe
    from likeness.training.base.vae import VaeRecipe
    from likeness.training.methods.fantasy_id import FantasyIDRecipe
    from likeness.training.methods.magic_mirror import MagicMirrorRecipe
    from likeness.training.methods.two_person import TwoPersonRecipe

    return {
        "vae": VaeRecipe,
        "base": BaseRecipe,
        "distill": DistillRecipe,
        "magic_mirror": MagicMirrorRecipe,
        "two_person": TwoPersonRecipe,
        "fantasy_id": FantasyIDRecipe,
        "shape": ShapeRecipe,
    }
