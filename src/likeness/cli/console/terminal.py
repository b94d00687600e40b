"""Print text safely: prompts, names and messages may contain control characters that a terminal would interpret."""

import logging
import sys
import unicodedata
from typing import TextIO

_CONTROL = {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories: control characters, surrogates, unassigned code points, separators of lines and paragraphs."""
_DIRECTIONS = {*"\u061c\u200e\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
"""Marks that change the direction of the following text, and so could disguise it."""


def printable(text: object, *, lines: bool = True) -> str:
    r"""Escape every control character, as `\x1b` or `\u202e`.

    Args:
        text: Any object, converted by `str`.
        lines: Whether new lines and tabs are kept, as in messages. Names and values have one line.
    """
    kept = "\n\t" if lines else ""
    return "".join(one if one in kept else _escape(one) if _is_control(one) else one for one in str(text))


def say(text: object, *, lines: bool = True, stream: TextIO | None = None) -> None:
    """Print a line made `printable`; characters that the stream cannot encode are escaped as well."""
    stream = stream or sys.stdout
    line = printable(text, lines=lines)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream)


class PrintableHandler(logging.Handler):
    """Print warnings of the library on the error stream, made `printable`: they name files."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record), stream=sys.stderr)


def print_warnings() -> None:
    """Print the library's warnings by `PrintableHandler`, unless the process handles them by itself."""
    logger = logging.getLogger("likeness")
    if not logger.hasHandlers():
        logger.addHandler(PrintableHandler(logging.WARNING))


def _is_control(one: str) -> bool:
    return one in _DIRECTIONS or (not one.isprintable() and unicodedata.category(one) in _CONTROL)


def _escape(one: str) -> str:
    number = ord(one)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
