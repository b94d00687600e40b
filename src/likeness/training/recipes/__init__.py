"""Recipes: reads one of any kind, checks what it needs, and compares it with the run that it continues."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from likeness import config
from likeness.errors import ConfigError
from likeness.training.recipes import upgrade

_LOG = logging.getLogger(__name__)


def read(path: Path, overrides: Sequence[str] = ()) -> config.Settings:
    """Read a recipe and apply `a.b=1` overrides. Names of earlier versions are upgraded with a warning.

    Raises:
        ConfigError: The recipe or an override is invalid.
    """
    values, renamed = upgrade.upgrade(config.read_toml(path), where=path.name)
    overrides = [upgrade.upgrade_override(override) for override in overrides]
    # Overrides can bring old values too, such as `images.kind="pictures"`.
    values, also_renamed = upgrade.upgrade(config.apply_overrides(values, overrides), where=path.name)
    if renamed := [*renamed, *also_renamed]:
        _LOG.warning(
            "%s uses names of an earlier version, which were read as: %s. Rename them in the file.",
            path.name,
            ", ".join(renamed),
        )
    return build(values, where=path.name)


def build(values: dict[str, Any], *, where: str) -> config.Settings:
    """Build a recipe from plain values; `where` names their origin in messages.

    Raises:
        ConfigError: The kind is unknown, or a setting is invalid.
    """
    kinds, kind = _kinds(), values.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"{where}: `kind` is {kind!r}; the kind of a recipe is one of {', '.join(kinds)}.")
    return config.build(kinds[kind], values, where=where)


def _kinds() -> dict[str, type[config.Settings]]:
    from likeness.training.base.recognizer import RecognizerRecipe
    from likeness.training.base.shape_network import ShapeRecipe
    from likeness.training.base.transformer import BaseRecipe
    from likeness.training.base.vae import VaeRecipe
    from likeness.training.methods.fantasy_id import FantasyIDRecipe
    from likeness.training.methods.magic_mirror import MagicMirrorRecipe
    from likeness.training.methods.two_person import TwoPersonRecipe

    return {
        "vae": VaeRecipe,
        "base": BaseRecipe,
        "recognizer": RecognizerRecipe,
        "magic_mirror": MagicMirrorRecipe,
        "two_person": TwoPersonRecipe,
        "fantasy_id": FantasyIDRecipe,
        "shape": ShapeRecipe,
    }
