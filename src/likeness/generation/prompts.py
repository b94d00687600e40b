"""The word for the person: what to say when a prompt does not mark it.

A prompt names its person by a class word followed by the trigger, as in "a woman img waves". How the words become
embeddings is the business of `identity.prompt`; this file only proposes better sentences and adds a style.
"""

import re

from likeness.errors import PromptError
from likeness.identity.prompt import TRIGGER, split_prompt

CLASS_WORDS = (
    "man|woman|boy|girl|baby|person|child|kid|lady|gentleman|guy|gal|male|female|teenager|teen|toddler|infant|"
    "grandmother|grandfather|grandma|grandpa|mother|father|doctor|nurse|officer|chef|teacher|astronaut|singer|dancer"
)
"""A pattern of words by which prompts name people."""


def place_trigger(prompt: str) -> str:
    """Propose the same sentence with one trigger word, after the first class word."""
    bare = " ".join(re.sub(rf"\b{TRIGGER}\b", " ", prompt).split())
    found = re.search(rf"\b({CLASS_WORDS})\b", bare, flags=re.IGNORECASE)
    if found is None:
        return f"a person {TRIGGER} {bare}".strip()
    return f"{bare[: found.end()]} {TRIGGER}{bare[found.end() :]}"


def check_prompt(prompt: str) -> None:
    """Demand exactly one trigger word, with a word before it.

    Raises:
        PromptError: It is not so. The message holds a sentence that would work.
    """
    try:
        split_prompt(prompt)
    except PromptError as error:
        raise PromptError(f'{error} Try: "{place_trigger(prompt)}"') from error


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
