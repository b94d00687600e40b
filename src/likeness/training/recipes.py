"""Reads a recipe: TOML in, one of the settings classes of this package out; every mistake is named with its place."""

import difflib
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from likeness.errors import ConfigError


def read(path: Path, overrides: Sequence[str] = ()) -> BaseModel:
    """Read a recipe of any kind and apply `a.b=1` overrides to it."""
    kinds = _kinds()
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError as error:
        raise ConfigError(f"No recipe at {path}. The recipes of this project lie in recipes/.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}.") from error
    for override in overrides:
        apply(values, override)
    kind = values.get("kind")
    if kind not in kinds:
        raise ConfigError(f"{path.name}: `kind` is {kind!r}; a recipe's kind is one of {', '.join(kinds)}.")
    return build(kinds[kind], values, where=path.name)


def build(kind: type[BaseModel], values: dict[str, Any], *, where: str) -> BaseModel:
    """Validate `values`, turning what pydantic says into one message with remedies."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [_explain(kind, item) for item in error.errors()]
        raise ConfigError(f"{where}: " + " ".join(lines)) from None


def apply(values: dict[str, Any], override: str) -> None:
    """Set one value: `stages.0.minutes=3` or `model.widths=[16,32,64,96]`. Words need no quotes."""
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise ConfigError(f"`--set {override}` was given; it must read like `--set stages.0.minutes=3`.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = name.split(".")
    place: Any = values
    for key in path:
        try:
            place = place[int(key)] if isinstance(place, list) else place.setdefault(key, {})
        except (ValueError, IndexError, AttributeError) as error:
            raise ConfigError(f"`--set {override}`: there is no `{key}` in this recipe.") from error
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value


def _kinds() -> dict[str, type[BaseModel]]:
    from likeness.training.vae import VaeRecipe

    return {"vae": VaeRecipe}


def _explain(kind: type[BaseModel], item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = list(_known_names(kind))
        close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        advice = f"Did you mean `{close[0]}`?" if close else f"Known settings: {', '.join(known)}."
        return f"unknown setting `{name}`. {advice}"
    if item["type"] == "missing":
        return f"`{name}` is required."
    return f"`{name}` is {item['input']!r}: {item['msg']}."


def _known_names(kind: type[BaseModel]) -> Iterable[str]:
    seen: dict[str, None] = {}
    queue: list[Any] = [kind]
    while queue:
        current = queue.pop()
        if isinstance(current, type) and issubclass(current, BaseModel):
            for name, field in current.model_fields.items():
                seen[name] = None
                queue.append(field.annotation)
        queue.extend(getattr(current, "__args__", ()))
    return seen
