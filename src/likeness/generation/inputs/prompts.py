"""Check the trigger word of prompts, propose corrected prompts, and append a style.

A prompt marks its person by a class word followed by the trigger, as in "a woman img waves", which is PhotoMaker's way
(arXiv:2312.04461). `identity.prompt` turns the words into embeddings. This module imports nothing heavy, so that a
wrong prompt is refused at once.
"""

import re

from likeness.errors import ConfigError, PromptError
from likeness.generation.inputs.prompt_text import check_text
from likeness.identity.class_words import CLASS_WORDS, is_function_word, is_modifier
from likeness.identity.prompt import TRIGGER, count_people, split_mentions, split_prompt

FANTASY_ID_NAMES = ("fantasy_id", "FantasyID")
"""Name and class of the method that uses face shapes, leaves prompt embeddings unchanged and needs no trigger word."""
_CLASS_WORDS_PATTERN = re.compile(rf"\b(?:{CLASS_WORDS})(?:\s+(?:{CLASS_WORDS}))*\b", flags=re.IGNORECASE)
_TRIGGER_VARIANTS = re.compile(
    rf"[<(\[{{\"'*_-]*(?<![A-Za-z0-9]){TRIGGER}\d*(?![A-Za-z0-9])(?:[>)\]}}\"*]|'(?!\w))*",
    flags=re.IGNORECASE,
)
"""A trigger word in any common spelling, also numbered: in capitals, in brackets, joined to the word before it."""
_PRONOUNS = {"he": "a man", "she": "a woman", "they": "a person", "i": "a person", "someone": "a person"}
_ARTICLES = ("a", "an", "the")


def place_trigger(prompt: str, num_people: int = 1) -> str:
    """Propose the same prompt with one trigger word after each class word."""
    prompt = " ".join(prompt.split())
    bare = _tidy(_TRIGGER_VARIANTS.sub(" ", prompt))
    if num_people > 1:
        return _number_triggers(bare, num_people)
    trigger = _TRIGGER_VARIANTS.search(prompt)
    if trigger is not None and (better := _insert_class_word(trigger, prompt)):
        return better
    found = _CLASS_WORDS_PATTERN.search(bare)
    if found is not None:
        return f"{bare[: found.end()]} {TRIGGER}{bare[found.end() :]}"
    return _prepend_people(bare, [TRIGGER])


def _insert_class_word(trigger: re.Match[str], prompt: str) -> str | None:
    """Insert a class word before a trigger word that has none."""
    before, after = prompt[: trigger.start()].rstrip(), _tidy(_TRIGGER_VARIANTS.sub(" ", prompt[trigger.end() :]))
    last = before.split()[-1] if before else ""
    if is_modifier(last) and _CLASS_WORDS_PATTERN.search(before) is None:
        return _tidy(f"{before} person {TRIGGER} {after}")
    if is_function_word(last):
        noun = "person" if last.lower() in (*_ARTICLES, "this", "that", "my", "his", "her", "their") else "a person"
        return _tidy(f"{before} {noun} {TRIGGER} {after}")
    if not before and after and _CLASS_WORDS_PATTERN.match(after) is None:
        return _tidy(f"a person {TRIGGER} {after}")
    return None


def _number_triggers(bare: str, num_people: int) -> str:
    """Put numbered triggers behind the first class words, or people at the start where there are too few."""
    found = list(_CLASS_WORDS_PATTERN.finditer(bare))[:num_people]
    if len(found) < num_people:
        return _prepend_people(bare, [f"{TRIGGER}{number}" for number in range(1, num_people + 1)])
    for number, match in reversed(list(enumerate(found, start=1))):
        bare = f"{bare[: match.end()]} {TRIGGER}{number}{bare[match.end() :]}"
    return bare


def _prepend_people(bare: str, triggers: list[str]) -> str:
    """Put people at the start of a prompt without a class word, in place of its first pronoun."""
    first, _, rest = bare.partition(" ")
    noun = _PRONOUNS.get(first.lower())
    people = " and ".join(f"{noun or 'a person'} {trigger}" for trigger in triggers)
    if noun is not None:
        return f"{people} {rest}".strip()
    comma = "," if first.lower() in _ARTICLES else ""
    return f"{people}{comma} {bare}".strip()


def _tidy(text: str) -> str:
    """Normalize spaces and repeated commas."""
    return re.sub(r"\s*([,.;:!?])(?:\s*,)*", r"\1", " ".join(text.split()))


def check_prompt(prompt: str, num_people: int = 1, *, method: str | type = "magic_mirror") -> None:
    """Require English text with one trigger word after the class word of each person.

    The triggers of several people are numbered. A method that does not change prompt embeddings needs none; if there is
    one, it must be valid, and is removed.

    Args:
        prompt: The prompt.
        num_people: Number of people with reference faces.
        method: Name or class of the method.

    Raises:
        PromptError: The prompt is invalid. The message proposes a corrected one.
        ConfigError: The method supports one person, and faces of several were given.
    """
    check_text(prompt)
    if (method if isinstance(method, str) else method.__name__) in FANTASY_ID_NAMES:
        _check_optional_trigger(prompt, num_people)
        return
    try:
        if num_people == 1:
            split_prompt(prompt)
        elif (named := count_people(prompt)) != num_people:
            raise PromptError(
                f'The prompt "{prompt}" names {named} {"person" if named == 1 else "people"}, '
                f"but faces of {num_people} were given."
            )
    except PromptError as error:
        raise PromptError(f"{error}{_suggest_prompt(prompt, num_people)}") from error


def _check_optional_trigger(prompt: str, num_people: int) -> None:
    """Require a prompt for FantasyID: no trigger word, or one valid one."""
    if num_people > 1:
        raise ConfigError(
            f"FantasyID shows one person, but faces of {num_people} were given. Use `--method magic_mirror`."
        )
    if not prompt.strip():
        raise PromptError('The prompt is empty. Say what happens: "a woman waves at the camera".')
    if not _TRIGGER_VARIANTS.search(prompt):
        return
    try:
        split_prompt(prompt)
    except PromptError as error:
        raise PromptError(
            f'The prompt "{prompt}" holds the trigger word `{TRIGGER}` where no method reads it. FantasyID needs none: '
            f"leave it out, or write it once behind the word for the person.{_suggest_prompt(prompt, 1)}"
        ) from error


def _suggest_prompt(prompt: str, num_people: int) -> str:
    """A corrected prompt, or nothing if there is none."""
    better = place_trigger(prompt, num_people)
    try:
        split_mentions(better)
    except PromptError:
        return ""
    return f' Try: "{better}"'


def check_style(style: str) -> None:
    """Require an English style without the trigger word.

    Raises:
        PromptError: It contains the trigger word, or text that `check_text` refuses.
    """
    check_text(style, what="style", example="watercolor")
    _refuse_trigger(style, "style", "Say only how it looks: ", "watercolor")


def check_negative_prompt(negative_prompt: str) -> None:
    """Require an English negative prompt without the trigger word.

    Raises:
        PromptError: It contains the trigger word, or text that `check_text` refuses.
    """
    check_text(negative_prompt, what="negative prompt", example="blurry, distorted")
    _refuse_trigger(negative_prompt, "negative prompt", "Say only what to avoid: ", "blurry, distorted")


def _refuse_trigger(text: str, what: str, advice: str, example: str) -> None:
    if re.search(rf"\b{TRIGGER}\d*\b", text, flags=re.IGNORECASE):
        raise PromptError(
            f'The {what} "{text}" holds the trigger word `{TRIGGER}`, which marks the person in the prompt alone. '
            f'{advice}"{example}".'
        )


def add_style(prompt: str, style: str) -> str:
    """Append a style to a prompt; an empty style changes nothing.

    Example:
        add_style("a woman img waves.", "watercolor")  # "a woman img waves, in the style of watercolor"
    """
    if not style.strip():
        return prompt
    return f"{prompt.strip().rstrip('.,;')}, in the style of {style.strip()}"
