"""People who do not exist: a small renderer of procedural faces, with the exact truth about each picture."""

from likeness.puppets.anatomy import GROUPS, IDENTITY_NUMBERS, NUM_IDENTITY, Person, sample_person
from likeness.puppets.clip import FPS, PuppetClip, sample_clip, sample_picture
from likeness.puppets.performance import ACTIONS
from likeness.puppets.scene import CLOTHING_COLORS, SETTINGS

__all__ = [
    "ACTIONS",
    "CLOTHING_COLORS",
    "FPS",
    "GROUPS",
    "IDENTITY_NUMBERS",
    "NUM_IDENTITY",
    "SETTINGS",
    "Person",
    "PuppetClip",
    "sample_clip",
    "sample_person",
    "sample_picture",
]
