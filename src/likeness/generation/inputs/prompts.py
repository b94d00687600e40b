"""The word for the person: what to say when a prompt does not mark it.

A prompt names its person by a class word followed by the trigger, as in "a woman img waves". How the words become
embeddings is the business of `identity.prompt`; this file only proposes better sentences and adds a style. Nothing heavy is
imported, so a wrong prompt is refused at once.
"""

import re

from likeness.errors import ConfigError, PromptError
from likeness.generation.inputs.prompt_text import check_text
from likeness.identity.prompt import NON_NOUNS, TRIGGER, count_people, split_mentions, split_prompt

CLASS_WORDS = (
    "man|woman|boy|girl|baby|person|child|kid|lady|gentleman|guy|gal|male|female|teenager|teen|toddler|infant|human|adult|"
    "grandmother|grandfather|grandma|grandpa|mother|father|mom|dad|son|daughter|brother|sister|wife|husband|uncle|aunt|"
    "doctor|nurse|officer|policeman|policewoman|firefighter|soldier|pilot|astronaut|chef|cook|waiter|waitress|barista|"
    "teacher|student|scientist|worker|farmer|fisherman|businessman|businesswoman|athlete|boxer|runner|player|"
    "singer|dancer|musician|pianist|guitarist|artist|painter|actor|actress|bride|groom|"
    "knight|king|queen|prince|princess|wizard|witch|warrior|cowboy|samurai|superhero|hero|heroine"
)
"""A pattern of words by which prompts name people."""
METHODS_WITHOUT_TRIGGER = ("fantasy_id", "FantasyID")
"""Names and classes of the methods that write nothing into the prompt, so that it may lack the trigger word."""
_PERSON = re.compile(rf"\b(?:{CLASS_WORDS})(?:\s+(?:{CLASS_WORDS}))*\b", flags=re.IGNORECASE)
_MARK = re.compile(
    rf"[<(\[{{\"'*_-]*(?<![A-Za-z0-9]){TRIGGER}\d*(?![A-Za-z0-9])(?:[>)\]}}\"*]|'(?!\w))*",
    flags=re.IGNORECASE,
)
"""A trigger word as people write it: in capitals, in brackets, joined to the word before it."""
_PRONOUNS = {"he": "a man", "she": "a woman", "they": "a person", "i": "a person", "someone": "a person"}
_ARTICLES = ("a", "an", "the")


def place_trigger(prompt: str, num_people: int = 1) -> str:
    """Propose the same sentence with one trigger word, after the word for the person, or with one for each of several."""
    prompt = " ".join(prompt.split())
    bare = _tidy(_MARK.sub(" ", prompt))
    if num_people > 1:
        return _place_several(bare, num_people)
    marked = _MARK.search(prompt)
    if marked is not None and (better := _place_at(marked, prompt)):
        return better
    found = _PERSON.search(bare)
    if found is not None:
        return f"{bare[: found.end()]} {TRIGGER}{bare[found.end() :]}"
    return _begin(bare, [TRIGGER])


def _place_at(marked: re.Match[str], prompt: str) -> str | None:
    """Put the missing word where the trigger stands, if no class word has to go there."""
    before, after = prompt[: marked.start()].rstrip(), _tidy(_MARK.sub(" ", prompt[marked.end() :]))
    last = before.split()[-1] if before else ""
    if last.lower() in NON_NOUNS.split():
        noun = "person" if last.lower() in (*_ARTICLES, "this", "that", "my", "his", "her", "their") else "a person"
        return _tidy(f"{before} {noun} {TRIGGER} {after}")
    if not before and after and _PERSON.match(after) is None:
        return _tidy(f"a person {TRIGGER} {after}")
    return None


def _place_several(bare: str, num_people: int) -> str:
    found = list(_PERSON.finditer(bare))[:num_people]
    if len(found) < num_people:
        return _begin(bare, [f"{TRIGGER}{number}" for number in range(1, num_people + 1)])
    for number, match in reversed(list(enumerate(found, start=1))):
        bare = f"{bare[: match.end()]} {TRIGGER}{number}{bare[match.end() :]}"
    return bare


def _begin(bare: str, marks: list[str]) -> str:
    """A sentence that names nobody, with its people in front: in the place of a pronoun, where it begins with one."""
    first, _, rest = bare.partition(" ")
    noun = _PRONOUNS.get(first.lower())
    people = " and ".join(f"{noun or 'a person'} {mark}" for mark in marks)
    if noun is not None:
        return f"{people} {rest}".strip()
    comma = "," if first.lower() in _ARTICLES else ""
    return f"{people}{comma} {bare}".strip()


def _tidy(text: str) -> str:
    """One space between words, none before punctuation, and no comma twice."""
    return re.sub(r"\s*([,.;:!?])(?:\s*,)*", r"\1", " ".join(text.split()))


def check_prompt(prompt: str, num_people: int = 1, *, method: str | type = "magic_mirror") -> None:
    """Demand text that the encoder reads, and one trigger word behind the word for each person.

    Several people have numbered ones. A method that writes nothing into the prompt needs none; one that stands there is
    left out, and has to stand as other methods want it.

    Args:
        prompt: The sentence.
        num_people: How many people faces were given of.
        method: Name or class of the method that reads it.

    Raises:
        PromptError: It is not so. The message holds a sentence that would work.
        ConfigError: The method shows one person, and faces of several were given.
    """
    check_text(prompt)
    if (method if isinstance(method, str) else method.__name__) in METHODS_WITHOUT_TRIGGER:
        _check_optional(prompt, num_people)
        return
    try:
        if num_people == 1:
            split_prompt(prompt)
        elif (named := count_people(prompt)) != num_people:
            raise PromptError(
                f'The prompt "{prompt}" names {named} {"person" if named == 1 else "people"}, but faces of {num_people} '
                "were given."
            )
    except PromptError as error:
        raise PromptError(f"{error}{_propose(prompt, num_people)}") from error


def _check_optional(prompt: str, num_people: int) -> None:
    if num_people > 1:
        raise ConfigError(
            f"FantasyID shows one person, but faces of {num_people} were given. Use `--method magic_mirror`."
        )
    if not prompt.strip():
        raise PromptError('The prompt is empty. Say what happens: "a woman waves at the camera".')
    if not _MARK.search(prompt):
        return
    try:
        split_prompt(prompt)
    except PromptError as error:
        raise PromptError(
            f'The prompt "{prompt}" holds the trigger word `{TRIGGER}` where no method reads it. FantasyID needs none: leave '
            f"it out, or write it once behind the word for the person.{_propose(prompt, 1)}"
        ) from error


def _propose(prompt: str, num_people: int) -> str:
    """A sentence that works, or nothing where none can be made of this one."""
    better = place_trigger(prompt, num_people)
    try:
        split_mentions(better)
    except PromptError:
        return ""
    return f' Try: "{better}"'


def check_style(style: str) -> None:
    """Demand that a style is English and says nothing of who is shown.

    Raises:
        PromptError: It holds the trigger word, which names the person in the prompt alone, or what `check_text` refuses.
    """
    check_text(style, what="style", example="watercolor")
    _refuse_trigger(style, "style", "Say only how it looks: ", "watercolor")


def check_negative_prompt(negative_prompt: str) -> None:
    """Demand that what a video should not show is English and says nothing of who is shown.

    Raises:
        PromptError: It holds the trigger word, or what `check_text` refuses.
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
    """Put a style behind a prompt, always in the same words; an empty one changes nothing.

    Example:
        add_style("a woman img waves.", "watercolor")  # "a woman img waves, in the style of watercolor"
    """
    if not style.strip():
        return prompt
    return f"{prompt.strip().rstrip('.,;')}, in the style of {style.strip()}"
