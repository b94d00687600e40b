"""Generation: a prompt and a reference face in, a `Clip` out, with its sheets, plots and pages.

Names are imported on first use, so that prompts and files are checked before anything heavy is imported.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from likeness.generation.inputs.characters import Character as Character
    from likeness.generation.inputs.references import read_faces as read_faces
    from likeness.generation.likeness import GenerationRequest as GenerationRequest
    from likeness.generation.likeness import GenerationSettings as GenerationSettings
    from likeness.generation.likeness import Likeness as Likeness
    from likeness.generation.loading.presets import PRESETS as PRESETS
    from likeness.generation.loading.presets import Preset as Preset
    from likeness.generation.outputs.page import ReportItem as ReportItem
    from likeness.generation.outputs.page import write_report as write_report
    from likeness.generation.outputs.save import save_clip as save_clip
    from likeness.generation.outputs.similarity import measure_similarity as measure_similarity
    from likeness.generation.stories.story_file import Story as Story
    from likeness.generation.stories.story_file import read_story as read_story

_LAZY_MODULES = {
    "Character": "inputs.characters",
    "GenerationRequest": "likeness",
    "GenerationSettings": "likeness",
    "Likeness": "likeness",
    "PRESETS": "loading.presets",
    "Preset": "loading.presets",
    "ReportItem": "outputs.page",
    "Story": "stories.story_file",
    "measure_similarity": "outputs.similarity",
    "read_faces": "inputs.references",
    "read_story": "stories.story_file",
    "save_clip": "outputs.save",
    "write_report": "outputs.page",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY_MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY_MODULES[name]}"), name)
