"""People who do not exist: a small renderer of procedural faces, with the exact truth about each picture."""

import logging
import os
from importlib import import_module
from tempfile import TemporaryDirectory

from numba.core import config

try:
    import_module("likeness.puppets.rendering.raster")
except RuntimeError as error:
    # Numba refuses to compile where it can write neither beside the source nor in the home folder.
    if "no locator available" not in str(error):
        raise
    _CACHE = TemporaryDirectory(prefix="likeness-")
    os.environ["NUMBA_CACHE_DIR"] = _CACHE.name  # For worker processes too.
    config.reload_config()
    logging.getLogger(__name__).warning(
        "No folder for compiled code can be written; puppets are compiled anew, which takes half a minute. "
        "Set NUMBA_CACHE_DIR to a folder that can be written."
    )

from likeness.puppets.anatomy import GROUPS, IDENTITY_NUMBERS, NUM_IDENTITY, PuppetPerson, sample_person
from likeness.puppets.clip import FPS, PuppetClip, sample_clip, sample_image
from likeness.puppets.performance import ACTIONS
from likeness.puppets.scene import CLOTHING_COLORS, SETTINGS
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
