"""Videos of a person from a photograph of their face and a sentence.

Public names are imported when they are first used, so that `import likeness` and `likeness --help` stay cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from likeness.errors import ConfigError as ConfigError
    from likeness.errors import FaceError as FaceError
    from likeness.errors import LikenessError as LikenessError
    from likeness.errors import MediaError as MediaError
    from likeness.errors import WeightsError as WeightsError
    from likeness.faces import compare as compare
    from likeness.faces import find_faces as find_faces
    from likeness.faces import read_face as read_face
    from likeness.generation import Character as Character
    from likeness.generation import Likeness as Likeness
    from likeness.generation import Story as Story
    from likeness.methods.magic_mirror import MagicMirror as MagicMirror
    from likeness.records import Clip as Clip
    from likeness.records import Comparison as Comparison
    from likeness.records import Face as Face
    from likeness.records import Pose as Pose
    from likeness.records import Similarity as Similarity

__version__ = "0.1.0"

_LAZY_MODULES = {
    "Character": "generation",
    "Clip": "records",
    "Comparison": "records",
    "ConfigError": "errors",
    "Face": "records",
    "FaceError": "errors",
    "Likeness": "generation",
    "LikenessError": "errors",
    "MagicMirror": "methods.magic_mirror",
    "MediaError": "errors",
    "Pose": "records",
    "Similarity": "records",
    "Story": "generation",
    "WeightsError": "errors",
    "compare": "faces",
    "find_faces": "faces",
    "read_face": "faces",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY_MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*_LAZY_MODULES, "__version__"])
