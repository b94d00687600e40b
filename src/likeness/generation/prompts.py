"""The word for the person: what to say when a prompt does not mark it.

A prompt names its person by a class word followed by the trigger, as in "a woman img waves". How the words become
embeddings is the business of `identity.prompt`; this file only proposes better sentences.
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
