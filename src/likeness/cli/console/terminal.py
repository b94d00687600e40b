"""Text on its way to a terminal: prompts, names and messages may hold characters that a terminal would obey."""

import sys
import unicodedata
from typing import TextIO

_OBEYED = {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories: control characters, lone surrogates, what is not assigned, separators of lines and paragraphs."""
_DIRECTIONS = {*"\u061c\u200e\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
"""Marks that turn the direction of what follows: a line could read otherwise than it is."""


def printable(text: object, *, lines: bool = True) -> str:
    r"""Write every character that a terminal would obey as `\x1b` or `\u202e`; all others stay.

    Args:
        text: Anything; `str` is taken of it.
        lines: Whether new lines and tabs stay, as in messages. Names and values are of one line.
    """
    kept = "\n\t" if lines else ""
    return "".join(one if one in kept else _escape(one) if _is_obeyed(one) else one for one in str(text))


def say(text: object, *, lines: bool = True, stream: TextIO | None = None) -> None:
    """Print a line for people, made `printable`; what the stream cannot encode is written as an escape too."""
    stream = stream or sys.stdout
    line = printable(text, lines=lines)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def _is_obeyed(one: str) -> bool:
    return one in _DIRECTIONS or (not one.isprintable() and unicodedata.category(one) in _OBEYED)


def _escape(one: str) -> str:
    number = ord(one)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
