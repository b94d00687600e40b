"""Which word before a trigger can name a person: "a woman img" can, "a woman waving img" cannot.

Any noun may name a person ("a violinist img"), so only words that certainly do not are refused.
"""

import re

CLASS_WORDS = (
    "man|woman|boy|girl|baby|person|child|kid|lady|gentleman|guy|gal|male|female|teenager|teen|toddler|infant|human|adult|"
    "grandmother|grandfather|grandma|grandpa|mother|father|mom|dad|son|daughter|brother|sister|wife|husband|uncle|aunt|"
    "doctor|nurse|officer|policeman|policewoman|firefighter|soldier|pilot|astronaut|chef|cook|waiter|waitress|barista|"
    "teacher|student|scientist|worker|farmer|fisherman|businessman|businesswoman|athlete|boxer|runner|player|"
    "singer|dancer|musician|pianist|guitarist|artist|painter|actor|actress|bride|groom|"
    "knight|king|queen|prince|princess|wizard|witch|warrior|cowboy|samurai|superhero|hero|heroine"
)
"""A pattern of class words."""
_FUNCTION_WORDS = (
    "a an the this that of in on at with by for from to into onto over under near behind and or but nor as than "
    "is are was were be being has have had who which whose where while my your his her its our their no not"
)
_MODIFIERS = (
    "young old elderly happy sad angry serious beautiful handsome pretty cute tall short big small little red"
    " orange yellow green blue purple pink brown black white gray grey dark bright very quickly slowly "
    "happily sadly softly gently alone outside inside outdoors indoors here there"
)
_OBJECTS_AND_PLACES = (
    "park street beach forest city room kitchen garden camera sweater shirt dress hat jacket coat suit glasses scarf "
    "beard smile hair table chair car bicycle bike guitar piano book phone coffee rain snow sunset night background "
    "studio office portrait photo photograph picture image video scene"
)
_NOUNS_IN_ING = "king viking sibling darling underling hireling foundling earthling halfling weakling"
_PLURAL_OR_VERB = re.compile(r"[a-z]{2,}[^suiao'\W]s")
"""Words in -s, but not the nouns in -ss, -us, -is, -as, -os (boss, genius)."""
_CLASS_WORD = re.compile(rf"\b(?:{CLASS_WORDS})\b", flags=re.IGNORECASE)


def is_function_word(word: str) -> bool:
    """Whether a word is an article, preposition, conjunction, auxiliary verb or pronoun."""
    return word.lower() in _FUNCTION_WORDS.split()


def is_modifier(word: str) -> bool:
    """Whether a word describes a noun or a verb: an adjective, an adverb or a participle in -ing."""
    word = word.lower()
    return word in _MODIFIERS.split() or (word.endswith("ing") and len(word) > 4 and word not in _NOUNS_IN_ING.split())


def names_nobody(word: str, preceding_text: str) -> bool:
    """Whether a word certainly names no person.

    Args:
        word: The word before the trigger.
        preceding_text: The text before that word. Where it has a class word, a word in -s is a verb or a plural.
    """
    lower = word.lower()
    if _CLASS_WORD.fullmatch(lower):
        return False
    if is_function_word(lower) or is_modifier(lower) or lower in _OBJECTS_AND_PLACES.split() or lower.isdigit():
        return True
    return _PLURAL_OR_VERB.fullmatch(lower) is not None and _CLASS_WORD.search(preceding_text) is not None
