"""Reads settings: TOML in, frozen pydantic model out, JSON beside every result. It knows no setting itself."""

import difflib
import json
import tomllib
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from likeness import __version__
from likeness.errors import ConfigError


class Settings(BaseModel):
    """What settings classes inherit: frozen, every field documented under it, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


T = TypeVar("T", bound=BaseModel)


def read(kind: type[T], path: str | Path, overrides: Iterable[str] = ()) -> T:
    """Read the TOML file `path` as a `kind`; each override is `a.b=value`, as `--set` takes it.

    Raises:
        ConfigError: the file is missing or no TOML, or a setting is unknown, missing or out of range.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist. Name a recipe (a TOML file).") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}. Correct it.") from error
    return build(kind, apply_overrides(values, overrides), where=path.name)


def build(kind: type[T], values: dict[str, Any], *, where: str) -> T:
    """Make a `kind` from plain values; `where` names their origin in messages.

    Raises:
        ConfigError: a setting is unknown, missing or out of range; all of them are listed.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(kind, problem, where) for problem in error.errors())) from error


def apply_overrides(values: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Lay `a.b=1` and the like over nested values; the right side is a TOML value, or else plain text.

    Raises:
        ConfigError: an override is not of that form, or steps into a setting that is no table.
    """
    result = json.loads(json.dumps(values, default=str)) if overrides else values
    for override in overrides:
        path, equals, text = override.partition("=")
        names = [name.strip() for name in path.split(".")]
        if not equals or not all(names):
            raise ConfigError(f"`{override}` is no setting. Write `name=value` or `table.name=value`.")
        place = result
        for name in names[:-1]:
            place = _step(place, name, override)
        _put(place, names[-1], _parse(text.strip()), override)
    return result


def save(settings: BaseModel, path: str | Path) -> None:
    """Write the resolved settings and the version of the code as JSON."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"likeness_version": __version__, "settings": settings.model_dump(mode="json")}
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def load(kind: type[T], path: str | Path) -> T:
    """Read what `save` wrote.

    Raises:
        ConfigError: the file is missing, damaged, or of another kind.
    """
    path = Path(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))["settings"]
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} holds no saved settings ({error!r}). Name the JSON file of a run."
        ) from error
    return build(kind, values, where=path.name)


def _step(place: Any, name: str, override: str) -> Any:
    if isinstance(place, list):
        return place[_index(place, name, override)]
    place = place.setdefault(name, {})
    if not isinstance(place, dict | list):
        raise ConfigError(f"`{override}`: `{name}` is {place!r}, not a table. Set `{name}` itself.")
    return place


def _put(place: Any, name: str, value: Any, override: str) -> None:
    if isinstance(place, list):
        place[_index(place, name, override)] = value
    else:
        place[name] = value


def _index(place: Sequence[Any], name: str, override: str) -> int:
    if not name.isdecimal() or int(name) >= len(place):
        raise ConfigError(f"`{override}`: `{name}` names no entry. Use a number from 0 to {len(place) - 1}.")
    return int(name)


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(kind: type[BaseModel], problem: Any, where: str) -> str:
    name = ".".join(str(part) for part in problem["loc"]) or "settings"
    if problem["type"] == "extra_forbidden":
        known = _fields_at(kind, problem["loc"][:-1])
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        advice = f"Did you mean `{close[0]}`?" if close else f"Known settings: {', '.join(known)}."
        return f"{where}: unknown setting `{name}`. {advice}"
    if problem["type"] == "missing":
        return f"{where}: `{name}` is required and missing. Set it."
    return f"{where}: `{name}` is {problem['input']!r}. {problem['msg']}."


def _fields_at(kind: Any, location: Sequence[int | str]) -> list[str]:
    """Names of the fields of the model that lies at `location` inside `kind`."""
    models = _models_in(kind)
    for part in location:
        if isinstance(part, str):
            models = [
                inner
                for model in models
                if part in model.model_fields
                for inner in _models_in(model.model_fields[part].annotation)
            ]
    return sorted({name for model in models for name in model.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (list, tuple, dict, Union, types.UnionType):
        return [model for argument in get_args(annotation) for model in _models_in(argument)]
    return []
