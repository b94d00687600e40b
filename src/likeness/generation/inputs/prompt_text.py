"""Check that a text suits a text encoder trained on English captions, without heavy imports.

CogVideoX's T5 silently replaces letters of other scripts and emoji by its unknown token, so they are refused here.
Other languages in Latin letters give poor results, but cannot be distinguished from English with certainty: they give a
warning.
"""

import logging
import re
import unicodedata
from functools import cache

from likeness.errors import PromptError

logger = logging.getLogger(__name__)

_ENGLISH = (
    "a an the this that in of on at with by for from to into over under near behind and or is are as while his her "
    "their he she they him it its who woman man boy girl person"
)
_OTHER_LANGUAGES = (
    # German, Dutch, Swedish
    "ein eine einen einem einer und der das den dem mit auf ist im am vor frau mann junge lächelt winkt een het en "
    "vrouw van met op lacht och ett kvinna med "
    # French, Spanish, Portuguese, Italian
    "une le la les des du et dans sur avec est femme homme qui souriant el los las un una uno con por que mujer hombre "
    "sonríe saluda uma um mulher homem com em sorri il lo gli di della nel donna uomo che sorride "
    # Polish, Turkish
    "kobieta mężczyzna się jest bir ve"
)
"""Frequent words of captions in other languages that are not English words."""
_FIRST_SYMBOL = 0x2190
"""Symbols below it (the signs for degrees or copyright) are known to T5."""
_EMOJI_PARTS = frozenset("\u200d\ufe0e\ufe0f\u20e3")


def check_text(text: str, *, what: str = "prompt", example: str = "a woman img waves at the camera") -> None:
    """Refuse text that the encoder would drop, and warn of other languages.

    Args:
        text: A prompt, a style or a negative prompt.
        what: Its name in messages.
        example: An English text of that kind.

    Raises:
        PromptError: It contains emoji, control characters or letters of another script. The message proposes the text
            without them, if enough is left.
    """
    dropped = [character for character in dict.fromkeys(text) if _is_dropped(character)]
    letters = [character for character in dict.fromkeys(text) if _script(character) not in ("", "LATIN")]
    if dropped or letters:
        scripts = dict.fromkeys(_script(letter).capitalize().replace("Cjk", "Chinese") for letter in letters)
        problems = [f"letters of another script ({', '.join(scripts)})"] if letters else []
        problems += [f"{', '.join(map(_describe_character, dropped[:4]))}"] if dropped else []
        raise PromptError(
            f"The {what} holds {' and '.join(problems)}, and the text encoder reads English alone. "
            f'Write it in English: "{_remove_characters(text, {*dropped, *letters}) or example}"'
        )
    words = re.findall(r"[^\W\d_]+", text.lower())
    foreign = [word for word in words if word in _word_set(_OTHER_LANGUAGES)]
    if len(foreign) > sum(word in _word_set(_ENGLISH) for word in words):
        _warn_once(
            f'The {what} "{text}" does not look English ("{foreign[0]}"), and the text encoder was trained on English '
            f'captions. Write it in English, as in "{example}".'
        )


@cache
def _word_set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _is_dropped(character: str) -> bool:
    category = unicodedata.category(character)
    if category in ("Cc", "Cf", "Co", "Cs", "Cn"):
        return not character.isspace()
    is_symbol = category in ("So", "Sk") and ord(character) >= _FIRST_SYMBOL
    return is_symbol or character in _EMOJI_PARTS


def _script(letter: str) -> str:
    """The script of a letter, from its Unicode name; empty for other characters."""
    if not letter.isalpha() or ord(letter) < 0x100:
        return ""
    script = unicodedata.name(letter, "UNKNOWN").split()[0].split("-")[0]
    return "LATIN" if script == "FULLWIDTH" else script


def _describe_character(character: str) -> str:
    name = unicodedata.name(character, "control character").lower()
    shown = f"{character} " if character.isprintable() else ""
    return f"{shown}(U+{ord(character):04X}, {name})"


def _remove_characters(text: str, refused: set[str]) -> str:
    """The text without some characters, or nothing if fewer than three words are left."""
    cleaned = "".join(" " if character in refused else character for character in text)
    cleaned = re.sub(r"\s+([,.;:!?])", r"\1", " ".join(cleaned.split()))
    return cleaned if len(re.findall(r"[a-zA-Z]{2,}", cleaned)) >= 3 else ""


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)
