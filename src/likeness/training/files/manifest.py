"""Reads and writes manifests: JSON Lines, CSV or Parquet with one row for each photograph or video.

Columns: `media` and `caption` (required), `person`, `references` (a list; in CSV separated by `;`), `class_word`,
`source`, `licence`, `consent`, `repeats`. Paths start from the manifest's folder, or from `media_root`. All problems of
a manifest are found before it is used, and one error lists them.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from likeness import files
from likeness.errors import ConfigError, PromptError
from likeness.generation.inputs.prompt_text import check_text
from likeness.training.files.sample import Problems, Sample, check_suffix, describe_unknown, finish, resolve_media_path

MANIFEST_SUFFIXES = (".jsonl", ".csv", ".parquet")
COLUMNS = tuple(field.name for field in fields(Sample))
_TEXT_COLUMNS = ("class_word", "source", "licence", "consent")
_SEPARATOR = ";"

Row = tuple[str, Mapping[str, Any]]
"""Where a row stands (`people.csv:12`), and its values by column."""


def read_manifest(path: Path, *, media_root: Path | None = None) -> list[Sample]:
    """Read a manifest.

    Args:
        path: A `.jsonl`, `.csv` or `.parquet` file.
        media_root: Folder of all media; by default that of the manifest.

    Raises:
        ConfigError: Something is wrong; up to 20 problems are listed with their lines.
    """
    problems = Problems(subject=str(path))
    rows = list(read_rows(path, problems))
    root = media_root or path.parent
    _check_columns(rows, path, problems)
    found = [(where, sample) for where, row in rows if (sample := _read_row(row, root, problems, where)) is not None]
    if not rows and not problems.entries:
        problems.add(path.name, "there are no rows", "Write one row for each photograph or video.")
    if rows and not any(_cell_text(row.get("person")) for _, row in rows):
        problems.warn(
            path.name,
            "there is no `person`, so every file counts as a person of its own and its references come from the file "
            "itself. Add the column to use other pictures of a person",
        )
    return finish(found, problems, root=root)


def write_manifest(path: Path, samples: Sequence[Sample], *, root: Path | None = None) -> None:
    """Write samples as a manifest of the kind of the suffix; `read_manifest` returns equal ones.

    Args:
        path: A `.jsonl`, `.csv` or `.parquet` file.
        samples: Their media and references must lie in `root`.
        root: Folder that paths are relative to; by default that of `path`.

    Raises:
        ConfigError: The suffix is another, or a file lies outside `root`.
        FileWriteError: The file cannot be written.
    """
    rows = [to_row(sample, root or path.parent) for sample in samples]
    if path.suffix == ".jsonl":
        kept = ({name: value for name, value in row.items() if value not in (None, [])} for row in rows)
        files.write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
    elif path.suffix == ".csv":
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS)
        writer.writeheader()
        writer.writerows({**row, "references": _SEPARATOR.join(row["references"])} for row in rows)
        files.write_bytes(path, text.getvalue().encode())
    elif path.suffix == ".parquet":
        text = pyarrow.string()
        column_types = {"references": pyarrow.list_(text), "repeats": pyarrow.int64()}
        schema = pyarrow.schema([(name, column_types.get(name, text)) for name in COLUMNS])
        with files.write_atomically(path) as draft:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), draft)
    else:
        raise ConfigError(f"{path} is not a manifest by its suffix. Use one of {', '.join(MANIFEST_SUFFIXES)}.")


def to_row(sample: Sample, root: Path) -> dict[str, Any]:
    """The columns of a sample, with paths relative to `root`.

    Raises:
        ConfigError: A file lies outside `root`.
    """
    row = {name: getattr(sample, name) for name in COLUMNS}
    row["media"] = _relative(sample.media, root)
    row["references"] = [_relative(path, root) for path in sample.references]
    return row


def read_rows(path: Path, problems: Problems) -> Iterator[Row]:
    """Rows of a `.jsonl`, `.csv`, `.parquet` or `.json` (a list of rows) file; what cannot be read is a problem."""
    if path.suffix == ".parquet":
        yield from _parquet_rows(path, problems)
        return
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        problems.add(path.name, f"it cannot be read: {error.strerror}", "Check the path.")
        return
    except UnicodeDecodeError as error:
        problems.add(path.name, f"byte {error.start} is not UTF-8", "Save the file as UTF-8.")
        return
    if path.suffix == ".csv":
        yield from _csv_rows(text, path.name, problems)
    elif path.suffix == ".json":
        yield from _json_rows(text, path.name, problems)
    else:
        yield from _jsonl_rows(text, path.name, problems)


def read_caption(value: Any, problems: Problems, where: str) -> str | None:
    """A caption with single spaces; None, with a problem, if it is empty or no English text."""
    caption = " ".join(_cell_text(value).split())
    if not caption:
        problems.add(where, "the caption is empty", "Describe what the picture or video shows.")
        return None
    try:
        check_text(caption, what="caption", example="a woman waves at the camera")
    except PromptError as error:
        problems.add(where, str(error).rstrip("."), "")
        return None
    return caption


def _jsonl_rows(text: str, name: str, problems: Problems) -> Iterator[Row]:
    # Not `splitlines`, which also breaks lines at characters that JSON allows inside strings.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            problems.add(where, f"this is not JSON ({error})", "Write one object in braces on a line.")
            continue
        if isinstance(row, dict):
            yield where, row
        else:
            problems.add(where, f"this is a {type(row).__name__}, not an object", 'Write {"media": ..., ...}.')


def _json_rows(text: str, name: str, problems: Problems) -> Iterator[Row]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        problems.add(name, f"this is not JSON ({error})", "Correct it.")
        return
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        problems.add(name, "this is not a list of objects", "Write [{...}, {...}].")
        return
    yield from ((f"{name}[{number}]", row) for number, row in enumerate(rows))


def _csv_rows(text: str, name: str, problems: Problems) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            where = f"{name}:{reader.line_num}"
            if header is None:
                header = [cell.strip() for cell in cells]
                if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
                    problems.add(where, "columns are not separated by commas", "Save the table with commas.")
                    return
            elif cells and len(cells) != len(header):
                problems.add(
                    where,
                    f"there are {len(cells)} cells under {len(header)} columns",
                    "Put a caption with commas in double quotes.",
                )
            elif cells:
                yield where, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        problems.add(f"{name}:{reader.line_num}", f"this is not CSV ({error})", "Close every double quote.")


def _parquet_rows(path: Path, problems: Problems) -> Iterator[Row]:
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        problems.add(path.name, f"it cannot be read as Parquet ({error})", "Write it again.")
        return
    yield from ((f"{path.name} row {number}", row) for number, row in enumerate(rows, start=1))


def _check_columns(rows: Iterable[Row], path: Path, problems: Problems) -> None:
    names = dict.fromkeys(name for _, row in rows for name in row)
    if unknown := [describe_unknown(str(name), COLUMNS) for name in names if name not in COLUMNS]:
        problems.warn(
            path.name, f"unknown columns are not used: {', '.join(unknown)}. Known columns: {', '.join(COLUMNS)}"
        )


def _read_row(row: Mapping[str, Any], root: Path, problems: Problems, where: str) -> Sample | None:
    """The sample of a row; None, with problems, if it cannot be used. Every value is checked."""
    before = len(problems.entries)
    for name in ("media", "caption", *_TEXT_COLUMNS):
        if not isinstance(row.get(name) or "", str) and _cell_text(row.get(name)):
            problems.add(where, f"`{name}` is {row[name]!r}, which is no text", "Write it in double quotes.")
            return None
    media = _read_media(row.get("media"), root, problems, where)
    caption = read_caption(row.get("caption"), problems, where)
    texts = {name: _cell_text(row.get(name)).strip() or None for name in _TEXT_COLUMNS}
    references = [
        resolved
        for text in _read_references(row.get("references"), problems, where)
        if (resolved := resolve_media_path(text, root, problems, where)) is not None
        and check_suffix(resolved, problems, where)
    ]
    repeats = _read_repeats(row.get("repeats"), problems, where)
    if media is None or caption is None or len(problems.entries) > before:
        return None
    return Sample(
        media=media,
        caption=caption,
        person=_cell_text(row.get("person")).strip(),
        references=tuple(references),
        repeats=repeats,
        **texts,
    )


def _read_media(value: Any, root: Path, problems: Problems, where: str) -> Path | None:
    if not _cell_text(value).strip():
        problems.add(where, "`media` is missing", "Name the photograph or video of this row.")
        return None
    media = resolve_media_path(_cell_text(value), root, problems, where)
    return media if media is not None and check_suffix(media, problems, where) else None


def _read_references(value: Any, problems: Problems, where: str) -> list[str]:
    if value is None:
        return []
    if isinstance(value, str):
        value = value.split(_SEPARATOR)
    if not isinstance(value, list | tuple) or not all(isinstance(entry, str) for entry in value):
        problems.add(where, f"`references` is {value!r}", "Write a list of paths; in CSV, separate them by `;`.")
        return []
    return [entry for entry in value if entry.strip()]


def _read_repeats(value: Any, problems: Problems, where: str) -> int:
    # Tables with empty cells hold their whole numbers as floats.
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else _cell_text(value).strip()
    if not text:
        return 1
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 1_000_000:
        problems.add(where, f"`repeats` is {value!r}", "Write a whole number from 1 on, or leave it out.")
        return 1
    return int(text)


def _cell_text(value: Any) -> str:
    """A cell as text; empty cells of tables may be NaN."""
    is_empty = value is None or (isinstance(value, float) and math.isnan(value))
    return "" if is_empty else str(value)


def _relative(path: Path, root: Path) -> str:
    try:
        return path.relative_to(root).as_posix()
    except ValueError as error:
        raise ConfigError(f"{path} lies outside {root}. Copy it there, or choose another `root`.") from error
