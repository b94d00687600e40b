"""Print text safely: prompts, names and messages may contain control characters that a terminal would interpret."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from likeness.text import escape_bidi_controls
from likeness.text import escape_control_characters as escape_control_characters


def echo(text: object, *, lines: bool = True, stream: TextIO | None = None) -> None:
    """Print a line with control characters escaped, and characters that the stream cannot encode."""
    stream = stream or sys.stdout
    line = escape_control_characters(text, lines=lines)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def print_json(value: object, *, indent: int | None = None) -> None:
    """Print a value as JSON in ASCII, with null for NaN: the only output of a command with `--json`."""
    from likeness.files import nan_to_none

    print(json.dumps(nan_to_none(value), indent=indent).replace("\x7f", r"\u007f"))


class EscapingHandler(logging.Handler):
    """Print warnings of the library on the error stream, control characters escaped: they name files."""

    def emit(self, record: logging.LogRecord) -> None:
        echo(self.format(record), stream=sys.stderr)


def install_warning_handler() -> None:
    """Print the library's warnings by `EscapingHandler`, unless the process handles them by itself."""
    logger = logging.getLogger("likeness")
    if not logger.hasHandlers():
        logger.addHandler(EscapingHandler(logging.WARNING))


class _BidiEscapingStream:
    """A stream that escapes bidirectional controls, which disguise text; typer repeats wrong words with them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(escape_bidi_controls(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def error_stream_without_bidi_controls() -> Iterator[None]:
    """Escape bidirectional controls in all that is printed on the error stream."""
    before = sys.stderr
    sys.stderr = _BidiEscapingStream(before)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        sys.stderr = before
