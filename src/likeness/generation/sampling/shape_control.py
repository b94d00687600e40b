"""The source of face shapes of a clip, and the sliders that change the shape."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from likeness.errors import ConfigError, WeightsError
from likeness.generation.inputs.prompts import FANTASY_ID_NAMES
from likeness.identity.face_shape import load_source
from likeness.identity.face_shape.beside import SUFFIXES, find_vertices
from likeness.identity.face_shape.flame import FlameShape, setup_instructions
from likeness.identity.face_shape.sliders import EditedShapeSource, FaceShape

if TYPE_CHECKING:
    from likeness.generation.inputs.settings import GenerationSettings


_SOURCES_NOT_IN_FLAME = ("learned", "puppet", "mediapipe")
"""Sources whose heads are not in FLAME's topology."""
_SOURCES_WITHOUT_SLIDERS = ("flame", "beside", "mean_head", "mediapipe")


def check_shape(
    shape: str | None,
    sliders: FaceShape | None = None,
    *,
    method: str | type,
    faces: Sequence[Path] = (),
    is_published_checkpoint: bool = False,
) -> None:
    """Refuse an unusable source of shapes before any model is loaded. Files of vertices are read and checked.

    Args:
        shape: The value of `--shape`.
        sliders: The sliders that were set.
        method: Name or class of the method.
        faces: Files of the reference pictures; none for a character.
        is_published_checkpoint: The method is the published FantasyID, which reads heads in FLAME's topology.

    Raises:
        ConfigError: The method uses no shapes, no source has that name, or its file holds no valid head.
        WeightsError: A file is missing.
    """
    has_sliders = sliders is not None and not sliders.is_neutral
    name = method if isinstance(method, str) else method.__name__
    if name not in FANTASY_ID_NAMES:
        # A custom class may use shapes; `use_shape_source` checks it once it is loaded.
        if isinstance(method, str) and (shape is not None or has_sliders):
            raise _reads_no_shape_error(shape, name)
        return
    if is_published_checkpoint and has_sliders:
        raise ConfigError(
            "A slider of the face's shape was set, and the released FantasyID reads heads in FLAME's topology, which "
            "sliders do not move. Leave the sliders out."
        )
    if shape is None:
        return
    source_name, _, argument = shape.partition(":")
    if is_published_checkpoint and source_name in _SOURCES_NOT_IN_FLAME:
        raise ConfigError(
            f"`shape` is {shape!r}, and the released FantasyID reads heads in FLAME's topology. Use `mean_head`, "
            "`flame:FILE` or `beside`, or leave it out."
        )
    if has_sliders and source_name in _SOURCES_WITHOUT_SLIDERS:
        raise ConfigError(
            f"A slider of the face's shape was set, and `{shape}` gives heads of another topology than sliders move. "
            "Leave the sliders out, or use `--shape learned`."
        )
    if source_name == "mean_head":
        from likeness.identity.face_shape.mean_head import MeanHeadShape, parse_pitch  # It imports a face engine.

        MeanHeadShape(np.zeros((0, 3)), pitch_deg=parse_pitch(argument))  # The vertices come with the weights.
    elif source_name == "beside" and not argument:
        _check_beside(faces)
    elif source_name != "learned":  # The network of `learned` is bundled and needs torch.
        load_source(shape)


def _check_beside(faces: Sequence[Path]) -> None:
    """Read and check the vertices beside the first picture that has any."""
    if not faces:
        raise ConfigError(
            "`--shape beside` reads the file beside a picture, and no picture was given: a character holds none. "
            "Use `--face`, or name the file: `--shape flame:FILE`."
        )
    vertex_file = next(filter(None, map(find_vertices, faces)), None)
    if vertex_file is None:
        expected = " or ".join(Path(faces[0]).with_suffix(suffix).name for suffix in SUFFIXES)
        raise WeightsError(f"No vertices lie beside {faces[0]}: {expected} is missing. {setup_instructions()}")
    FlameShape(vertex_file)


def _reads_no_shape_error(shape: str | None, method: str) -> ConfigError:
    problem = f"`shape` is {shape!r}" if shape is not None else "A slider of the face's shape was set"
    return ConfigError(f"{problem}, but {method} reads no shape of a face. Use `--method fantasy_id`, or leave it out.")


def reads_shapes(method: Any) -> bool:
    """Whether a method encodes vertices: it has a `shape_source`, and was not built without the shape branch."""
    return hasattr(method, "shape_source") and bool(method.config.get("has_vertices", True))


@contextmanager
def use_shape_source(method: Any, settings: "GenerationSettings") -> Iterator[None]:
    """Set the method's shape source by `settings` for the duration of a block.

    Without a source in `settings` the method keeps its own; a method without one gets `learned`.

    Raises:
        ConfigError: The method reads no shapes, but a source or a slider was given; or no source has that name.
        WeightsError: Files of the source are missing.
    """
    sliders = settings.face_shape or FaceShape()
    if not reads_shapes(method):
        if settings.shape is not None or not sliders.is_neutral:
            raise _reads_no_shape_error(settings.shape, type(method).__name__)
        yield
        return
    from likeness.identity.face_shape.mean_head import MeanHeadShape

    previous = method.shape_source
    if settings.shape is None and previous is not None:
        source = previous
    else:
        template = previous.template if isinstance(previous, MeanHeadShape) else None
        source = load_source(settings.shape or "learned", template=template)
    method.shape_source = source if sliders.is_neutral else EditedShapeSource(source, sliders)
    try:
        yield
    finally:
        method.shape_source = previous
