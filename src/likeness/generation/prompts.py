"""The word for the person: what to say when a prompt does not mark it.

A prompt names its person by a class word followed by the trigger, as in "a woman img waves". How the words become
embeddings is the business of `identity.prompt`; this file only proposes better sentences and adds a style.
"""

import re

from likeness.errors import PromptError
from likeness.identity.prompt import TRIGGER, count_people, split_prompt

CLASS_WORDS = (
    "man|woman|boy|girl|baby|person|child|kid|lady|gentleman|guy|gal|male|female|teenager|teen|toddler|infant|"
    "grandmother|grandfather|grandma|grandpa|mother|father|doctor|nurse|officer|chef|teacher|astronaut|singer|dancer"
)
"""A pattern of words by which prompts name people."""


def place_trigger(prompt: str, num_people: int = 1) -> str:
    """Propose the same sentence with one trigger word, after the first class word, or with one for each of several."""
    bare = " ".join(re.sub(rf"\b{TRIGGER}\d*\b", " ", prompt).split())
    if num_people > 1:
        return _place_several(bare, num_people)
    found = re.search(rf"\b({CLASS_WORDS})\b", bare, flags=re.IGNORECASE)
    if found is None:
        return f"a person {TRIGGER} {bare}".strip()
    return f"{bare[: found.end()]} {TRIGGER}{bare[found.end() :]}"


def _place_several(bare: str, num_people: int) -> str:
    found = list(re.finditer(rf"\b({CLASS_WORDS})\b", bare, flags=re.IGNORECASE))[:num_people]
    if len(found) < num_people:
        named = [f"a person {TRIGGER}{number}" for number in range(1, num_people + 1)]
        return f"{' and '.join(named)} {bare}".strip()
    for number, match in reversed(list(enumerate(found, start=1))):
        bare = f"{bare[: match.end()]} {TRIGGER}{number}{bare[match.end() :]}"
    return bare


def check_prompt(prompt: str, num_people: int = 1) -> None:
    """Demand exactly one trigger word, with a word before it; or for several people a numbered one for each.

    Raises:
        PromptError: It is not so. The message holds a sentence that would work.
    """
    try:
        if num_people == 1:
            split_prompt(prompt)
        elif (named := count_people(prompt)) != num_people:
            raise PromptError(
                f'The prompt "{prompt}" names {named} {"person" if named == 1 else "people"}, but faces of {num_people} '
                "were given."
            )
    except PromptError as error:
        raise PromptError(f'{error} Try: "{place_trigger(prompt, num_people)}"') from error


def check_style(style: str) -> None:
    """Demand that a style says nothing of who is shown.

    Raises:
        PromptError: It holds the trigger word, which names the person in the prompt alone.
    """
    if re.search(rf"\b{TRIGGER}\b", style):
        raise PromptError(
            f'The style "{style}" holds the trigger word `{TRIGGER}`, which marks the person in the prompt alone. '
            'Say only how it looks: "watercolor".'
        )


def add_style(prompt: str, style: str) -> str:
    """Put a style behind a prompt, always in the same words; an empty one changes nothing.

    Example:
        add_style("a woman img waves.", "watercolor")  # "a woman img waves, in the style of watercolor"
    """
    if not style.strip():
        return prompt
    return f"{prompt.strip().rstrip('.,;')}, in the style of {style.strip()}"
