"""Finds the word of a caption that names the person, and puts the trigger behind it.

"a woman in a red dress waves" becomes "a woman img in a red dress waves": the class word of element M6. The rule reads
nouns and what stands around them; it has no parser and no model. It decides only where one person is named: captions of
several people, of nobody, or of a person whose only mention is a possessive ("a woman's hand") are returned with
a reason, and a manifest's `class_word` decides them. Captions are English.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from likeness.errors import PromptError
from likeness.identity.class_words import names_nobody
from likeness.identity.prompt import TRIGGER
from likeness.training.files import person_words as words

if TYPE_CHECKING:
    from likeness.training.files.sample import Sample

_STRAIGHT = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"'})
"""Typographic quotes and apostrophes, which language models write."""
_TOKEN = re.compile(r"\w+(?:[-']\w+)*'?")
_QUOTED = re.compile(r"\"[^\"]*\"|(?<!\w)'[^']*'(?!\w)")
_MAX_ADJECTIVES = 5
_DETERMINERS = words.INDEFINITE | words.DEFINITE | words.POSSESSIVE | words.OTHER_DETERMINERS
_PHRASE_BREAKS = words.PHRASE_ENDERS | words.LINKING_VERBS | words.WORDS_BEFORE_VERBS


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassWord:
    """Where a caption names its person."""

    word: str
    start: int
    end: int
    """Characters of the word in the caption."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Undecided:
    """A caption without exactly one word for the person."""

    caption: str
    reason: str
    row: int = 0
    """Number of the sample."""


class _Token(NamedTuple):
    """A word of a caption; a tuple, since long captions have a hundred."""

    text: str
    """In small letters, without the possessive ending."""
    start: int
    end: int
    is_possessive: bool
    follows_break: bool
    """Whether something other than spaces stands before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Mention:
    index: int
    word: str
    determiners: frozenset[str]
    first: int
    """Index of the first token of the phrase."""
    is_possessive: bool

    @property
    def is_definite(self) -> bool:
        return not self.determiners & (words.INDEFINITE | words.POSSESSIVE | words.OTHER_DETERMINERS)


def add_trigger(caption: str, class_word: str | None = None, *, trigger: str = TRIGGER) -> str | Undecided:
    """The prompt of a caption: the trigger stands behind the word for the person.

    Args:
        caption: A text without a trigger.
        class_word: The word, if it is known; `woman:2` is its second occurrence.
        trigger: The trigger word.

    Returns:
        The prompt, or why there is none.

    Raises:
        PromptError: The caption does not have `class_word`.
    """
    class_word_or_reason = find_class_word(caption) if class_word is None else locate_class_word(caption, class_word)
    if isinstance(class_word_or_reason, Undecided):
        return class_word_or_reason
    return f"{caption[: class_word_or_reason.end]} {trigger}{caption[class_word_or_reason.end :]}"


def add_triggers(samples: "Sequence[Sample]", *, trigger: str = TRIGGER) -> tuple[list[str | None], list[Undecided]]:
    """The prompt of each sample, None where there is none, and the samples that are undecided.

    Raises:
        PromptError: Captions lack the class word that a manifest names; all are listed.
    """
    prompts: list[str | None] = []
    undecided: list[Undecided] = []
    wrong: list[str] = []
    for row, sample in enumerate(samples):
        prompts.append(None)
        try:
            prompt = add_trigger(sample.caption, sample.class_word, trigger=trigger)
        except PromptError as error:
            wrong.append(f"  {sample.media.name}: {error}")
            continue
        if isinstance(prompt, Undecided):
            undecided.append(Undecided(caption=prompt.caption, reason=prompt.reason, row=row))
        else:
            prompts[row] = prompt
    if wrong:
        more = f"\n  and {len(wrong) - 20} more" if len(wrong) > 20 else ""
        raise PromptError(f"{len(wrong)} captions lack their class word:\n" + "\n".join(wrong[:20]) + more)
    return prompts, undecided


def describe_undecided(lines: Sequence[str], total: int, *, num_listed: int = 20) -> str:
    """A message that lists captions without a class word, one line each, and what to do."""
    listed = "\n".join(f"  {line}" for line in lines[:num_listed])
    more = f"\n  and {len(lines) - num_listed} more" if len(lines) > num_listed else ""
    return (
        f"{len(lines)} of {total} captions do not name exactly one person:\n{listed}{more}\n"
        "Rewrite them, or say which word names the person in the manifest's `class_word` (`woman`, or `woman:2` for "
        "the second one). Samples without a class word cannot be used by a method that needs the trigger."
    )


def locate_class_word(caption: str, class_word: str) -> ClassWord:
    """Find a given word, or its n-th occurrence: `woman:2`.

    Raises:
        PromptError: The caption has no such occurrence, or the word cannot precede a trigger.
    """
    word, _, number = class_word.partition(":")
    if not word.strip() or not word.strip()[-1].isalnum() or (number and not number.isdigit()) or number == "0":
        raise PromptError(f"`class_word` is `{class_word}`. Write a word of the caption, or `woman:2` for the second.")
    if names_nobody(word.strip(), ""):
        raise PromptError(f"`class_word` is `{class_word}`, which names no person. Use a noun, such as `woman`.")
    pattern = rf"(?<![\w-]){re.escape(word.strip())}(?![\w-]|'\w)"
    occurrences = list(re.finditer(pattern, caption.translate(_STRAIGHT), flags=re.IGNORECASE))
    occurrence_number = int(number or 1)
    if len(occurrences) < occurrence_number:
        times = {0: "not at all", 1: "once"}.get(len(occurrences), f"{len(occurrences)} times")
        raise PromptError(
            f'The caption "{caption}" has the class word `{word}` {times}; occurrence {occurrence_number} is needed. '
            "Correct the caption or `class_word`."
        )
    match = occurrences[occurrence_number - 1]
    return ClassWord(word=caption[match.start() : match.end()], start=match.start(), end=match.end())


def find_class_word(caption: str) -> ClassWord | Undecided:
    """Find the word that names the only person of a caption.

    Returns:
        The word, or why none or more than one fits.
    """
    tokens = _tokenize(caption)
    mentions = [mention for index in range(len(tokens)) if (mention := _read_mention(tokens, index))]
    if plural := _find_plural_mention(tokens):
        return Undecided(caption=caption, reason=f'it names several people ("{plural}")')
    if not mentions:
        return Undecided(caption=caption, reason="it has no word for a person")
    main = mentions[0]
    for other in mentions[1:]:
        if not _is_same_person(main, other, tokens, caption):
            return Undecided(caption=caption, reason=f'it may name two people ("{main.word}" and "{other.word}")')
    named = next((mention for mention in mentions if not mention.is_possessive), None)
    if named is None:
        return Undecided(caption=caption, reason=f'"{main.word}" is only a possessive, which the trigger cannot follow')
    if named.word in words.AMBIGUOUS_NOUNS:
        return Undecided(caption=caption, reason=f'"{named.word}" may be no person')
    token = tokens[named.index]
    return ClassWord(word=caption[token.start : token.end], start=token.start, end=token.end)


def _tokenize(caption: str) -> list[_Token]:
    """Words of a caption; those in quotes are words on things."""
    text = _QUOTED.sub(lambda match: '"' * len(match[0]), caption.translate(_STRAIGHT))
    tokens: list[_Token] = []
    end = 0
    for match in _TOKEN.finditer(text):
        word = match[0].lower()
        is_possessive = word.endswith(("'s", "s'"))
        base = word.removesuffix("'s") if word.endswith("'s") else word.rstrip("'")
        tokens.append(
            _Token(
                text=base,
                start=match.start(),
                end=match.end(),
                is_possessive=is_possessive,
                follows_break=bool(text[end : match.start()].strip()),
            )
        )
        end = match.end()
    return tokens


@cache
def _names_person(word: str) -> bool:
    if word in words.SINGULAR_NOUNS or word in words.AMBIGUOUS_NOUNS:
        return True
    return word.endswith("man") and len(word) > 5 and word not in words.NON_PERSON_WORDS


def _read_mention(tokens: list[_Token], index: int) -> _Mention | None:
    """The person that a token names; None if it names none."""
    token = tokens[index]
    if not _names_person(token.text):
        return None
    following = tokens[index + 1] if index + 1 < len(tokens) and not tokens[index + 1].follows_break else None
    first, determiners = _read_phrase(tokens, index)
    if token.is_possessive:
        shows_body = following is not None and any(
            part.text in words.BODY_PARTS for part in tokens[index + 1 : index + 4] if not part.follows_break
        )
        if not shows_body:
            return None
    elif following is not None and _is_adjective_before(following.text) and not _is_second_subject(tokens, first):
        return None
    if token.text in words.PERSON_WORDS_AS_VERBS and not determiners and index and not token.follows_break:
        return None
    if _is_role_or_picture(tokens, first):
        return None
    return _Mention(
        index=index, word=token.text, determiners=determiners, first=first, is_possessive=token.is_possessive
    )


def _is_adjective_before(word: str) -> bool:
    """Whether a person word before `word` only describes it: "cowboy hat", "guitar player", "woman doctor"."""
    if word in words.PHRASE_ENDERS or word[0].isdigit():
        return False
    if word in words.NOUNS_ENDING_IN_S or _names_person(word):
        return True
    return not word.endswith(("s", "ing", "ed", "ly", "n't"))


def _is_second_subject(tokens: list[_Token], first: int) -> bool:
    """Whether a phrase is joined to a person: the verb behind "a man and a woman" has no ending, as nouns have none."""
    return first > 1 and tokens[first - 1].text == "and" and _names_person(tokens[first - 2].text)


def _read_phrase(tokens: list[_Token], index: int) -> tuple[int, frozenset[str]]:
    """First token and determiners of the noun phrase that ends at `index`."""
    determiners: set[str] = set()
    first = index
    for position in range(index - 1, max(-1, index - 2 - _MAX_ADJECTIVES), -1):
        if tokens[position + 1].follows_break and not _is_listed_adjective(tokens, position, index):
            break
        word = tokens[position].text
        if word in _DETERMINERS:
            determiners.add(word)
            first = position
            if word not in words.OTHER_DETERMINERS:
                return first, frozenset(determiners)
        elif tokens[position].is_possessive:
            return position, frozenset({*determiners, "his"})
        elif word in _PHRASE_BREAKS:
            break
    return first, frozenset(determiners)


def _is_listed_adjective(tokens: list[_Token], position: int, index: int) -> bool:
    """Whether a comma behind `position` separates adjectives: "a tall, thin man"."""
    before = [token.text for token in tokens[max(0, position - 2) : position]]
    return index - position <= 2 and bool(set(before) & (words.INDEFINITE | words.DEFINITE))


def _is_role_or_picture(tokens: list[_Token], first: int) -> bool:
    """Whether a phrase is a costume, a comparison, a statement about somebody named before, or a picture."""
    before = tokens[max(0, first - 3) : first]
    if not before or tokens[first].follows_break:
        return False
    last = before[-1].text
    previous = before[-2].text if len(before) > 1 else ""
    if last == "like" or (last == "as" and previous in words.ROLE_PARTICIPLES):
        return True
    if last in words.LINKING_VERBS:
        return previous not in {*words.INTRODUCING_SUBJECTS, ""}
    if last in words.WORDS_BEFORE_VERBS and tokens[first].text in words.PERSON_WORDS_AS_VERBS:
        return True
    return last == "of" and previous in words.DEPICTIONS


def _find_plural_mention(tokens: list[_Token]) -> str | None:
    """A word for several people who matter; None if there is none."""
    for index, token in enumerate(tokens):
        if token.is_possessive or token.text in words.CROWD_WORDS:
            continue
        following = tokens[index + 1].text if index + 1 < len(tokens) else ""
        if token.text in words.PLURAL_NOUNS:
            if token.text in words.GROUP_NOUNS and following == "of":
                counted = [other.text for other in tokens[index + 2 : index + 5]]
                if not any(word in words.PLURAL_NOUNS - words.CROWD_WORDS or _is_plural(word) for word in counted):
                    continue
            return token.text
        if _is_plural(token.text) and (token.text not in words.PERSON_WORDS_AS_VERBS or _counts(tokens, index)):
            return token.text
    return None


@cache
def _is_plural(word: str) -> bool:
    if word.endswith("men") and _names_person(f"{word[:-2]}an"):
        return True
    singular = {word[:-1]} if word.endswith("s") and not word.endswith("ss") else set()
    singular |= {word[:-2]} if word.endswith("es") else set()
    return (
        word not in words.NOUNS_ENDING_IN_S
        and word not in words.SINGULAR_NOUNS
        and bool(singular & words.SINGULAR_NOUNS)
    )


def _counts(tokens: list[_Token], index: int) -> bool:
    """Whether a word before a plural counts people."""
    numbers = {"two", "three", "four", "five", "six", "several", "many", "some", "the", "of", "these", "those", "both"}
    return index > 0 and tokens[index - 1].text in numbers


def _is_same_person(main: _Mention, other: _Mention, tokens: list[_Token], caption: str) -> bool:
    """Whether a later mention can only be the first person again."""
    if _is_apposition(main, other, tokens, caption):
        return _is_compatible_gender(main.word, other.word)
    if not other.is_definite:
        return False
    if other.word == main.word:
        return True
    if not _is_compatible_gender(main.word, other.word):
        return False
    if other.word in words.GENERIC_NOUNS:
        return True
    is_occupation = main.word not in words.ADULT_NOUNS | words.CHILD_NOUNS
    if other.word in words.ADULT_NOUNS:
        return is_occupation or main.word in words.ADULT_NOUNS
    return other.word in words.CHILD_NOUNS and main.word in words.CHILD_NOUNS


def _is_apposition(main: _Mention, other: _Mention, tokens: list[_Token], caption: str) -> bool:
    """Whether two phrases name one person: "a woman, a nurse from Ohio, smiles"."""
    between = caption[tokens[main.index].end : tokens[other.first].start].strip()
    if between != "," or other.first != main.index + 1:
        return False
    return not any(token.text == "and" for token in tokens[other.index + 1 : other.index + 3])


def _is_compatible_gender(one: str, other: str) -> bool:
    return not (_gender(one) | _gender(other)) >= {"male", "female"}


def _gender(word: str) -> set[str]:
    if word in words.FEMALE_NOUNS or word.endswith("woman"):
        return {"female"}
    return {"male"} if word in words.MALE_NOUNS else set()
