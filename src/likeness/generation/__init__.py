"""Prompt and face in, `Clip` out, and the pictures and pages that show it.

Names are imported when they are first used: a wrong prompt or picture is told before any model is loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from likeness.generation.characters import Character as Character
    from likeness.generation.likeness import GenerationRequest as GenerationRequest
    from likeness.generation.likeness import GenerationSettings as GenerationSettings
    from likeness.generation.likeness import Likeness as Likeness
    from likeness.generation.presets import PRESETS as PRESETS
    from likeness.generation.presets import Preset as Preset
    from likeness.generation.references import read_faces as read_faces
    from likeness.generation.report import ReportItem as ReportItem
    from likeness.generation.report import write_report as write_report
    from likeness.generation.saving import save_clip as save_clip
    from likeness.generation.similarity import measure_similarity as measure_similarity
    from likeness.generation.stories import Story as Story
    from likeness.generation.stories import read_story as read_story

_HOME = {
    "Character": "characters",
    "GenerationRequest": "likeness",
    "GenerationSettings": "likeness",
    "Likeness": "likeness",
    "PRESETS": "presets",
    "Preset": "presets",
    "ReportItem": "report",
    "Story": "stories",
    "measure_similarity": "similarity",
    "read_faces": "references",
    "read_story": "stories",
    "save_clip": "saving",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
