"""Read long prompts for a benchmark, such as VBench's: a text file with one prompt a line.

VBench (github.com/Vchitect/VBench) keeps them in `prompts/augmented_prompts/gpt_enhanced_prompts/`, earlier versions in
`prompts/gpt_enhanced_prompts/`: `all_dimension_longer.txt`, `all_category_longer.txt`, and one file for each dimension
and category (`prompts_per_dimension_longer/human_action_longer.txt`). Line n there is the long form of line n of
`prompts_per_dimension/human_action.txt`. These prompts are not part of likeness.

Magic Mirror (arXiv:2501.03931v1, appendix A.2) takes 77 of the first 200 such prompts: those of one person, with a
standard word for the person and the trigger behind it. It names neither the files nor the 77. Here a prompt is kept if
its first sentence names one person. "A serene individual, dressed in white" becomes "A serene woman img, dressed in
white" for a woman; a more specific word ("a skilled potter", "a bearded man") stays and determines the groups that the
prompt fits.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from likeness.errors import ConfigError
from likeness.identity.prompt import TRIGGER

SUFFIX = ".txt"
MAX_WORDS = 200
"""Longer prompts exceed the 226 tokens of CogVideoX."""
Template = tuple[str, frozenset[str]]
"""Text with the fields of `protocols.fill`, and the groups that it fits."""

_ADULT_GROUPS = frozenset(("man", "woman", "elderly man", "elderly woman", "person"))
_ELDERLY_GROUPS = frozenset(("elderly man", "elderly woman"))
_GROUPS_BY_PRONOUN = {
    "he": frozenset(("man", "elderly man", "boy")),
    "she": frozenset(("woman", "elderly woman", "girl")),
}
_GROUP_BY_NOUN = {
    **dict.fromkeys(("man", "gentleman", "businessman", "father"), "man"),
    **dict.fromkeys(("woman", "lady", "businesswoman", "mother", "ballerina"), "woman"),
    **{"grandfather": "elderly man", "grandmother": "elderly woman", "boy": "boy", "girl": "girl"},
    **dict.fromkeys(("baby", "infant", "toddler"), "baby"),
}
"""Words for people of one group."""
_GENERIC_NOUNS = ("person", "individual")
"""Words that are replaced by the group's word."""
_CHILD_NOUNS = ("child", "kid")
_ROLE_NOUNS = [
    "adventurer",
    "artisan",
    "artist",
    "astronaut",
    "athlete",
    "baker",
    "barber",
    "chef",
    "climber",
    "cyclist",
    "dancer",
    "diver",
    "doctor",
    "driver",
    "drummer",
    "farmer",
    "firefighter",
    "fisherman",
    "gamer",
    "gardener",
    "guitarist",
    "gymnast",
    "hiker",
    "jogger",
    "kayaker",
    "mechanic",
    "musician",
    "nurse",
    "painter",
    "pianist",
    "player",
    "photographer",
    "potter",
    "rider",
    "runner",
    "sailor",
    "scholar",
    "scientist",
    "sculptor",
    "singer",
    "skateboarder",
    "skater",
    "skier",
    "skydiver",
    "snowboarder",
    "soldier",
    "student",
    "surfer",
    "swimmer",
    "teacher",
    "thrill-seeker",
    "traveler",
    "trumpeter",
    "violinist",
    "worker",
    "wrestler",
    "writer",
]
_PERSON_PATTERN = re.compile(
    rf"\b(?:{'|'.join([*_GROUP_BY_NOUN, *_GENERIC_NOUNS, *_CHILD_NOUNS, *_ROLE_NOUNS])})\b", re.IGNORECASE
)
_SEVERAL_PEOPLE_PATTERN = re.compile(
    r"\b(?:two|three|four|several|group|couple|pair|crew|team|family|friends?|twins|men|women|boys|girls|children|kids|"
    r"people|opponents?|partner|brother|sister|son|daughter|(?:an)?other (?:man|woman|person|individual)|"
    r"their (?:child|baby))\b",
    re.IGNORECASE,
)
_PRONOUN_PATTERNS = {
    "he": re.compile(r"\b(?:he|his|him)\b", re.IGNORECASE),
    "she": re.compile(r"\b(?:she|her)\b", re.IGNORECASE),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LongPrompts:
    """The prompts of a file."""

    templates: tuple[Template, ...]
    """Prompts of one person, in their order."""
    left_out: tuple[tuple[int, str], ...]
    """Line and reason of every other prompt."""


def read_long_prompts(path: str | Path) -> LongPrompts:
    """Read a file of one prompt a line.

    Raises:
        ConfigError: It cannot be read, or no line of it shows one person.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read as prompts ({error}). Give a text file with one prompt a line."
        ) from error
    templates, left_out = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        template = make_template(line)
        if isinstance(template, str):
            left_out.append((number, template))
        else:
            templates.append(template)
    if not templates:
        why = f" (line {left_out[0][0]}: {left_out[0][1]})" if left_out else ""
        raise ConfigError(
            f"{path} has no prompt that shows one person{why}. Give a file with one prompt a line, such as VBench's "
            "human_action_longer.txt."
        )
    return LongPrompts(templates=tuple(templates), left_out=tuple(left_out))


def make_template(line: str) -> Template | str:
    """Turn a prompt into a template, or return the reason why that is impossible."""
    text = " ".join(line.split())
    if not text.isprintable():
        return "it holds control characters"
    if len(text.split()) > MAX_WORDS:
        return f"it has more than {MAX_WORDS} words"
    if re.search(rf"\b{TRIGGER}\d*\b", text):
        return f"it holds the trigger word `{TRIGGER}` already"
    first = re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]
    if several := _SEVERAL_PEOPLE_PATTERN.search(first):
        return f"it may show several people (`{several[0]}`)"
    noun = _PERSON_PATTERN.search(first)
    if noun is None:
        return "its first sentence names no person"
    text = text.replace("{", "{{").replace("}", "}}")
    noun = _PERSON_PATTERN.search(text)
    assert noun is not None
    before, word, after = text[: noun.start()], noun[0], text[noun.end() :]
    groups = _groups_of(word.lower(), before, text)
    if not groups:
        return f"it calls one person `{word}` and by pronouns of another"
    if word.lower() not in (*_GENERIC_NOUNS, *_CHILD_NOUNS):
        return f"{before}{word} {TRIGGER}{after}", groups
    # The group's word includes the age.
    before = re.sub(r"\b(?:young|elderly|old) $", "", before, flags=re.IGNORECASE)
    if article := re.search(r"\b(a|A)n? $", before):
        field = "{Who}" if article[1] == "A" else "{who}"
        return f"{before[: article.start()]}{field}{after}", groups
    return f"{before}{{group}} {TRIGGER}{after}", groups


def _groups_of(word: str, before: str, text: str) -> frozenset[str]:
    """Groups that a prompt fits, by the word for the person, the words before it, and its pronouns."""
    described = before.lower().split()[-4:]
    is_old = any(adjective in described for adjective in ("elderly", "old", "senior"))
    is_young = any(adjective in described for adjective in ("young", "teenage"))
    if word in _GROUP_BY_NOUN:
        group = _GROUP_BY_NOUN[word]
        return frozenset((f"elderly {group}" if is_old and group in ("man", "woman") else group,))
    groups = frozenset(("boy", "girl")) if word in _CHILD_NOUNS else _ELDERLY_GROUPS if is_old else _ADULT_GROUPS
    if is_young and word not in _CHILD_NOUNS:
        groups -= _ELDERLY_GROUPS
    for name, pronoun in _PRONOUN_PATTERNS.items():
        if pronoun.search(text):
            groups &= _GROUPS_BY_PRONOUN[name]
    return groups
