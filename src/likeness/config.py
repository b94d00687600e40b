"""Reads settings from TOML into frozen pydantic models, and saves them as JSON. Defines no setting itself."""

import difflib
import json
import tomllib
import types
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from likeness import __version__, files
from likeness.errors import ConfigError


class Settings(BaseModel):
    """Base class of settings: frozen, unknown keys are errors, numbers are finite, fields are documented below them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


T = TypeVar("T", bound=BaseModel)
_INT64_BOUND = 2**63
"""Larger numbers cannot be converted to float, and no library takes them."""


def read(settings_class: type[T], path: str | Path, overrides: Iterable[str] = ()) -> T:
    """Read the TOML file `path` as a `settings_class`; overrides have the form `a.b=value`, as for `--set`.

    Raises:
        ConfigError: The file is missing or not TOML, or a setting is unknown, missing or out of range.
    """
    return build(settings_class, read_toml(path, overrides), where=Path(path).name)


def read_toml(path: str | Path, overrides: Iterable[str] = ()) -> dict[str, Any]:
    """The values in a TOML file (with or without a byte-order mark), with overrides applied.

    Raises:
        ConfigError: The file is missing or not TOML, or an override has another form.
    """
    try:
        values = parse_toml(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist. Name a recipe (a TOML file).") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}. Correct it.") from error
    return apply_overrides(values, overrides)


def parse_toml(text: str) -> dict[str, Any]:
    """The values in a TOML text; a ValueError if it is not TOML."""
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("tables or lists are nested too deeply") from error


def build(settings_class: type[T], values: dict[str, Any], *, where: str) -> T:
    """Build a `settings_class` from plain values; `where` names their origin in messages.

    Raises:
        ConfigError: A setting is unknown, missing or out of range; all of them are listed.
    """
    try:
        built = settings_class.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            "\n".join(_describe_problem(settings_class, problem, where) for problem in _first_causes(error.errors()))
        ) from error
    for name, number in iterate_integers(built.model_dump()):
        if not -_INT64_BOUND <= number < _INT64_BOUND:
            raise ConfigError(
                f"{where}: `{name}` is {_shorten(number)}. Whole numbers go from -2^63 to 2^63 - 1, as in TOML."
            )
    return built


def iterate_integers(value: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """All whole numbers in nested settings, tables and lists, with their paths."""
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from iterate_integers(inner, f"{name}.{key}".lstrip("."))
    elif isinstance(value, int) and not isinstance(value, bool):
        yield name, value


def apply_overrides(values: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Apply overrides of the form `a.b=1` to nested values; the right side is a TOML value, or else plain text.

    Raises:
        ConfigError: An override has another form, or its path leads into a setting that is not a table.
    """
    overrides = list(overrides)
    result = json.loads(json.dumps(values, default=str)) if overrides else values
    for override in overrides:
        path, equals, text = override.partition("=")
        names = [name.strip() for name in path.split(".")]
        if not equals or not all(names):
            raise ConfigError(f"`{override}` is not a setting. Write `name=value` or `table.name=value`.")
        table = result
        for name in names[:-1]:
            table = _enter_table(table, name, override)
        _set_value(table, names[-1], _parse_value(text.strip()), override)
    return result


def save(settings: BaseModel, path: str | Path) -> None:
    """Write the resolved settings and the version of the code as JSON."""
    record = {"likeness_version": __version__, "settings": settings.model_dump(mode="json")}
    files.write_text(path, json.dumps(record, indent=2) + "\n")


def load(settings_class: type[T], path: str | Path) -> T:
    """Read what `save` wrote.

    Raises:
        ConfigError: The file is missing, damaged, or of another kind.
    """
    path = Path(path)
    try:
        values = files.read_json(path)["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} has no saved settings ({error!r}). Name the JSON file of a run.") from error
    return build(settings_class, values, where=path.name)


def _enter_table(table: Any, name: str, override: str) -> Any:
    if isinstance(table, list):
        return table[_list_index(table, name, override)]
    inner = table.setdefault(name, {})
    if not isinstance(inner, dict | list):
        raise ConfigError(f"`{override}`: `{name}` is {inner!r}, not a table. Set `{name}` itself.")
    return inner


def _set_value(table: Any, name: str, value: Any, override: str) -> None:
    if isinstance(table, list):
        table[_list_index(table, name, override)] = value
    else:
        table[name] = value


def _list_index(entries: Sequence[Any], name: str, override: str) -> int:
    known = [str(number) for number in range(len(entries))]
    if name not in known:
        advice = f"Use a number from 0 to {len(entries) - 1}" if entries else "The list is empty"
        raise ConfigError(f"`{override}`: `{name}` names no entry. {advice}.")
    return int(name)


def _parse_value(text: str) -> Any:
    try:
        parsed = parse_toml(f"value = {text}")
    except ValueError:
        return text
    return parsed["value"] if len(parsed) == 1 else text  # A line break could start another setting.


def _first_causes(problems: Sequence[Any]) -> list[Any]:
    """Without lists that count as too short only because one of their entries is wrong."""
    containers = {problem["loc"][:depth] for problem in problems for depth in range(len(problem["loc"]))}
    return [problem for problem in problems if problem["type"] != "too_short" or problem["loc"] not in containers]


def _describe_problem(settings_class: type[BaseModel], problem: Any, where: str) -> str:
    name = ".".join(str(part) for part in problem["loc"]) or "settings"
    if problem["type"] == "extra_forbidden":
        known = _fields_at(settings_class, problem["loc"][:-1])
        close = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        advice = f"Did you mean `{close[0]}`?" if close else f"Known settings: {', '.join(known)}."
        return f"{where}: unknown setting `{name}`. {advice}"
    if problem["type"] == "missing":
        return f"{where}: `{name}` is required and missing. Set it."
    return f"{where}: `{name}` is {_shorten(problem['input'])}. {problem['msg']}."


def _shorten(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4,300 digits.
        return "a number of thousands of digits"
    return text if len(text) <= 200 else f"{text[:200]}..."


def _fields_at(settings_class: Any, location: Sequence[int | str]) -> list[str]:
    """Names of the fields of the model at `location` inside `settings_class`."""
    models = _models_in(settings_class)
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
