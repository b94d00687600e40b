"""Text that came from elsewhere, made safe to show: in a terminal, and in a page.

Prompts, names, paths and messages may contain control characters that a terminal would interpret, marks that disguise
the text after them, and markup.
"""

import html
import unicodedata

_CONTROL = {"Cc", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode categories: control characters, surrogates, unassigned code points, separators of lines and paragraphs."""
_BIDI_CONTROLS = {*"\u061c\u200e\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
"""Bidirectional controls (UAX #9): they change the direction of the following text, and so could disguise it."""


def escape_control_characters(text: object, *, lines: bool = True) -> str:
    r"""Escape every control character, as `\x1b` or `\u202e`.

    Args:
        text: Any object, converted by `str`.
        lines: Whether new lines and tabs are kept, as in messages. Names and values have one line.
    """
    kept_characters = "\n\t" if lines else ""
    return "".join(
        character if character in kept_characters else _escape(character) if _is_control(character) else character
        for character in str(text)
    )


def escape_bidi_controls(text: str) -> str:
    """Escape bidirectional controls alone; control characters that move a cursor or color text stay."""
    return "".join(_escape(character) if character in _BIDI_CONTROLS else character for character in text)


def escape_html(text: object) -> str:
    """Make text safe inside an element or a quoted attribute of a page."""
    return html.escape(escape_control_characters(text))


def _is_control(character: str) -> bool:
    return character in _BIDI_CONTROLS or (not character.isprintable() and unicodedata.category(character) in _CONTROL)


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
