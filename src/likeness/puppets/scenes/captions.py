"""Captions of clips in varied wording, with the trigger word after the class word."""

import re

import numpy as np

from likeness.puppets.people.anatomy import HAIR_COLORS, PuppetPerson
from likeness.puppets.scenes.setting import CLOTHING_COLORS, GARMENTS

TRIGGER = "img"
PAIR_TRIGGERS = ("img1", "img2")
MAX_PAIR_WORDS = 28
"""Most words and marks of a caption of two people: with repeated class words it fits the tiny backbone's 32 tokens."""

_ACTION_WORDS = {
    "turn_left": (
        "turns {his} head to the left",
        "turns left",
        "slowly looks to the left",
        "turns {his} face to the left",
    ),
    "turn_right": (
        "turns {his} head to the right",
        "turns right",
        "slowly looks to the right",
        "turns {his} face to the right",
    ),
    "nod": ("nods", "nods {his} head", "is nodding", "nods twice"),
    "shake": ("shakes {his} head", "is shaking {his} head", "shakes {his} head to say no"),
    "smile": ("smiles", "begins to smile", "smiles at the camera", "gives a big smile"),
    "laugh": ("laughs", "is laughing", "laughs out loud", "bursts into laughter"),
    "talk": ("talks", "is talking", "talks to the camera", "speaks"),
    "wink": ("winks", "winks at the camera", "gives a wink"),
    "raise_brows": (
        "raises {his} eyebrows",
        "raises the eyebrows",
        "looks surprised and raises {his} eyebrows",
    ),
    "tilt": ("tilts {his} head", "tilts {his} head to the side", "leans {his} head to one side"),
    "look_around": ("looks around", "is looking around", "looks around, from side to side"),
    "come_closer": (
        "comes closer",
        "comes closer to the camera",
        "moves towards the camera",
        "leans in closer",
    ),
    "look_up": ("looks up", "raises {his} head and looks up", "looks upwards"),
    "look_down": ("looks down", "lowers {his} head", "looks downwards"),
    "wave": ("waves", "waves at the camera", "is waving", "waves hello"),
    "look": ("looks at the camera", "looks into the camera", "stays still"),
}
_SETTING_WORDS = {
    "studio": ("in a studio", "in front of a plain background"), "park": ("in a park", "in a green park"),
    "beach": ("on a beach", "on a sunny beach"), "street": ("on a street", "in a city street"),
    "library": ("in a library", "in front of a bookshelf"), "brick wall": ("in front of a brick wall",),
    "living room": ("in a living room", "at home"), "kitchen": ("in a kitchen",),
    "mountains": ("in the mountains", "in front of mountains"), "night city": ("in a city at night", "at night"),
}  # fmt: skip
_POSSESSIVES = {
    "man": "his",
    "elderly man": "his",
    "boy": "his",
    "woman": "her",
    "elderly woman": "her",
    "girl": "her",
    "baby": "its",
}


def appearance_phrases(person: PuppetPerson) -> list[str]:
    """Phrases that describe a person's appearance, one per attribute."""
    words = []
    style, color = person.hair_style, person.hair_color_name
    if style == "bald":
        words.append("a bald head")
    elif style == "receding":
        words.append(f"thin {color} hair")
    else:
        named = {
            "buzz": "very short",
            "short": "short",
            "side part": "short",
            "fringe": "short",
            "bob": "shoulder-length",
            "long": "long",
        }
        adjective = named.get(style)
        noun = {
            "bun": "hair in a bun",
            "afro": "afro hair",
            "curly": "curly hair",
            "ponytail": "hair in a ponytail",
        }.get(style, "hair")
        words.append(" ".join(part for part in (adjective, color, noun) if part))
    if person.beard_style != "none":
        words.append(
            {"stubble": "stubble", "mustache": "a mustache", "goatee": "a goatee", "full": "a beard"}[
                person.beard_style
            ]
        )
    if person.glasses_style != "none":
        words.append("glasses")
    return words


def describe(
    person: PuppetPerson, action: str, clothing: str, garment: str, setting: str, rng: np.random.Generator
) -> str:
    """A caption for a clip.

    Returns:
        For example "a woman img in a red sweater nods in a park".
    """

    def choose(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    wear = choose(("in {a} {color} {garment}", "wearing {a} {color} {garment}", "dressed in {a} {color} {garment}"))
    wear = wear.format(a=_article(clothing), color=clothing, garment=garment)
    act = choose(_ACTION_WORDS[action]).format(his=_POSSESSIVES[person.group])
    where = choose(_SETTING_WORDS[setting])
    looks = ""
    if rng.random() < 0.4:
        chosen = [word for word in appearance_phrases(person) if rng.random() < 0.75]
        looks = f" with {' and '.join(chosen)}" if chosen else ""
    who = f"{_article(person.group)} {person.group} {TRIGGER}{looks}"
    shape = rng.random()
    if shape < 0.55:
        return f"{who} {wear} {act} {where}"
    if shape < 0.75:
        return f"{where}, {who} {wear} {act}"
    if shape < 0.9:
        return f"a close-up video of {who} {wear}, who {act}, {where}"
    return f"{who} {act} {where}, {wear}"


def describe_pair(
    people: tuple[PuppetPerson, PuppetPerson],
    actions: tuple[str, str],
    clothes: tuple[str, str],
    setting: str,
    rng: np.random.Generator,
) -> str:
    """A caption for a clip of two people, who are named from left to right.

    Args:
        people: Left, right.
        actions: The action of each.
        clothes: Color and garment of each, as "red sweater".
        setting: Name of the setting.
        rng: Chooses the wording, and whether clothes are mentioned.

    Returns:
        For example "a man img1 in a red sweater nods and a woman img2 smiles in a kitchen".
    """

    def choose(options: tuple[str, ...]) -> str:
        return options[int(rng.integers(len(options)))]

    while True:
        (left, left_act), (right, right_act) = (
            (
                f"{_article(person.group)} {person.group} {trigger}"
                + (f" in {_article(garment)} {garment}" if rng.random() < 0.5 else ""),
                choose(_ACTION_WORDS[action]).format(his=_POSSESSIVES[person.group]),
            )
            for person, action, garment, trigger in zip(people, actions, clothes, PAIR_TRIGGERS, strict=True)
        )
        where, shape = choose(_SETTING_WORDS[setting]), rng.random()
        if shape < 0.55:
            sentence = f"{left} {left_act} and {right} {right_act} {where}"
        elif shape < 0.75:
            sentence = f"{where}, {left} {left_act} and {right} {right_act}"
        elif shape < 0.9:
            sentence = f"on the left {left} {left_act}, on the right {right} {right_act}, {where}"
        else:
            sentence = f"a video of {left} who {left_act} and {right} who {right_act}, {where}"
        if len(re.findall(r"\w+|[^\w\s]", sentence)) - len(PAIR_TRIGGERS) <= MAX_PAIR_WORDS:
            return sentence


def vocabulary() -> list[str]:
    """Phrases that together contain every word of `describe` and `describe_pair`, except the trigger words."""
    acts = [act.format(his=his) for acts in _ACTION_WORDS.values() for act in acts for his in ("his", "her", "its")]
    places = [where for options in _SETTING_WORDS.values() for where in options]
    looks = [
        "a bald head", "thin", "very short", "shoulder-length", "long", "hair in a bun", "afro hair", "curly hair",
        "hair in a ponytail", "stubble", "a mustache", "a goatee", "a beard", "glasses",
    ]  # fmt: skip
    frame = [
        "a close-up video of", "a video of", "an", "and", "with", "wearing", "dressed in", "who",
        "on the left", "on the right",
    ]  # fmt: skip
    return [*acts, *places, *looks, *frame, *_POSSESSIVES, *HAIR_COLORS, *CLOTHING_COLORS, *GARMENTS]


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"
