"""Puppets: a small software renderer of synthetic people, with exact ground truth for every frame.

`people` holds identity and meshes, `rendering` the rasterizer and shading, `scenes` settings, motion and captions;
`clip` and `two_person` sample whole clips.
"""

import logging
import os
from importlib import import_module
from tempfile import TemporaryDirectory

from numba.core import config

try:
    import_module("likeness.puppets.rendering.raster")
except RuntimeError as error:
    # Numba raises if it can write its cache neither beside the source nor in the home folder.
    if "no locator available" not in str(error):
        raise
    _CACHE = TemporaryDirectory(prefix="likeness-")
    os.environ["NUMBA_CACHE_DIR"] = _CACHE.name  # For worker processes too.
    config.reload_config()
    logging.getLogger(__name__).warning(
        "No cache folder for compiled code is writable; puppets are compiled again, which takes half a minute. "
        "Set NUMBA_CACHE_DIR to a writable folder."
    )

from likeness.puppets.clip import FPS, PuppetClip, sample_clip, sample_image
from likeness.puppets.people.anatomy import GROUPS, IDENTITY_NUMBERS, NUM_IDENTITY, PuppetPerson, sample_person
from likeness.puppets.scenes.performance import ACTIONS
from likeness.puppets.scenes.setting import CLOTHING_COLORS, SETTINGS
from likeness.puppets.two_person import TwoPersonClip, sample_two_person_clip

__all__ = [
    "ACTIONS",
    "CLOTHING_COLORS",
    "FPS",
    "GROUPS",
    "IDENTITY_NUMBERS",
    "NUM_IDENTITY",
    "SETTINGS",
    "PuppetClip",
    "PuppetPerson",
    "TwoPersonClip",
    "sample_clip",
    "sample_image",
    "sample_person",
    "sample_two_person_clip",
]
