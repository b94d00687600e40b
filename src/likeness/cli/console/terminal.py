"""Print text safely: prompts, names and messages may contain control characters that a terminal would interpret."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from likeness.text import escape_directions
from likeness.text import printable as printable


def say(text: object, *, lines: bool = True, stream: TextIO | None = None) -> None:
    """Print a line made `printable`; characters that the stream cannot encode are escaped as well."""
    stream = stream or sys.stdout
    line = printable(text, lines=lines)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def print_json(value: object, *, indent: int | None = None) -> None:
    """Print a value as JSON in ASCII, with null for NaN: the only output of a command with `--json`."""
    from likeness.files import nan_to_none

    print(json.dumps(nan_to_none(value), indent=indent).replace("\x7f", r"\u007f"))


class PrintableHandler(logging.Handler):
    """Print warnings of the library on the error stream, made `printable`: they name files."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record), stream=sys.stderr)


def print_warnings() -> None:
    """Print the library's warnings by `PrintableHandler`, unless the process handles them by itself."""
    logger = logging.getLogger("likeness")
    if not logger.hasHandlers():
        logger.addHandler(PrintableHandler(logging.WARNING))


class _WithoutDirections:
    """A stream that escapes marks of direction; typer repeats wrong words with them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(escape_directions(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def error_stream_without_directions() -> Iterator[None]:
    """Escape marks of direction in all that is printed on the error stream."""
    before = sys.stderr
    sys.stderr = _WithoutDirections(before)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        sys.stderr = before
