"""Reads lists of files with facts: text, CSV, JSON Lines, Parquet."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from likeness.errors import ConfigError

LIST_SUFFIXES = (".txt", ".csv", ".jsonl", ".parquet")
_NOT_FACTS = ("media", "references", "repeats", "boxes", "figures")
"""Columns of manifests that say nothing of a single raw file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A file as a list, a folder or a tar file names it."""

    path: Path
    name: str
    """The path as it was named, for records."""
    facts: dict[str, str] = field(default_factory=dict)


def read_list(path: Path) -> Iterator[Entry]:
    """The files that a list names; their paths start from the folder of the list.

    Raises:
        ConfigError: The list is missing, of another kind, or a row cannot be read.
    """
    if path.suffix.lower() not in LIST_SUFFIXES:
        raise ConfigError(f"{path} is not a list by its suffix. Use one of {', '.join(LIST_SUFFIXES)}.")
    if not path.is_file():
        raise ConfigError(f"{path} does not exist. Check `read.lists`.")
    for where, row in _rows(path):
        name = row.get("media")
        if not isinstance(name, str) or not name.strip() or "\0" in name:
            raise ConfigError(f"{where}: `media` is {name!r}. Name a photograph or video in each row.")
        yield Entry(path=(path.parent / name.strip()).absolute(), name=name.strip(), facts=to_facts(row))


def to_facts(row: Mapping[str, Any]) -> dict[str, str]:
    """The cells of a row that are texts or numbers, as text, without empty ones."""
    found = {}
    for name, value in row.items():
        is_scalar = isinstance(value, str | int | float) and not (isinstance(value, float) and math.isnan(value))
        if name not in _NOT_FACTS and is_scalar and str(value).strip():
            found[str(name)] = str(value).strip()
    return found


def read_facts(caption: bytes | None, record: bytes | None, *, where: str) -> dict[str, str]:
    """Facts that stand beside a file: a caption as text, and a JSON object.

    Raises:
        ConfigError: The record is no JSON object.
    """
    facts = {}
    if record is not None:
        facts = to_facts(_parse_object(record, f"The .json beside {where}", "Correct or remove it."))
    text = " ".join((caption or b"").decode("utf-8-sig", errors="replace").split())
    return {**facts, "caption": text} if text else facts


def _parse_object(text: str | bytes, subject: str, remedy: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{subject} is not JSON ({error}). {remedy}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{subject} is no object. {remedy}")
    return values


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix.lower() == ".parquet":
        yield from _parquet_rows(path)
        return
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as UTF-8: {error}. Save it again.") from error
    if path.suffix.lower() == ".csv":
        yield from _csv_rows(text, path)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and path.suffix.lower() == ".txt":
            yield f"{path}:{number}", {"media": line.strip()}
        elif line.strip():
            where = f"{path}:{number}"
            yield where, _parse_object(line, where, 'Write an object {"media": ...} on each line.')


def _csv_rows(text: str, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [cell.strip() for cell in next(reader, [])]
        for cells in reader:
            if cells and len(cells) != len(header):
                raise ConfigError(
                    f"{path}:{reader.line_num} has {len(cells)} cells under {len(header)} columns. Put a text with "
                    "commas in double quotes."
                )
            if cells:
                yield f"{path}:{reader.line_num}", dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise ConfigError(f"{path}:{reader.line_num} is not CSV ({error}). Close every double quote.") from error


def _parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise ConfigError(f"{path} cannot be read as Parquet ({error}). Write it again.") from error
    yield from ((f"{path} row {number}", row) for number, row in enumerate(rows, start=1))
