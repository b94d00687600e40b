"""The shape of a face while a clip is made: which source reads it, and how the sliders move it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from likeness.errors import ConfigError
from likeness.generation.settings import GenerationSettings
from likeness.identity.face_shape import load_source
from likeness.identity.face_shape.sliders import FaceShape, MovedShape


def reads_shapes(method: Any) -> bool:
    """Whether a method encodes vertices: it has a `shape_source`, and was not built without the shape branch."""
    return hasattr(method, "shape_source") and bool(method.config.get("has_vertices", True))


@contextmanager
def reading_shapes(method: Any, settings: GenerationSettings) -> Iterator[None]:
    """Let the method read shapes as `settings` say, and as before afterwards.

    Where they name no source, the method keeps its own, and one without takes `learned`.

    Raises:
        ConfigError: The method reads no shapes, but a source or a slider was given; or no source has that name.
        WeightsError: What the source needs is not here.
    """
    sliders = settings.face_shape or FaceShape()
    if not reads_shapes(method):
        if settings.shape is not None or not sliders.is_neutral:
            given = (
                f"`shape` is {settings.shape!r}"
                if settings.shape is not None
                else "A slider of the face's shape was set"
            )
            raise ConfigError(
                f"{given}, but {type(method).__name__} reads no shape of a face. Use `--method fantasy_id`, or leave it out."
            )
        yield
        return
    before = method.shape_source
    source = (
        before if settings.shape is None and before is not None else load_source(settings.shape or "learned")
    )
    method.shape_source = source if sliders.is_neutral else MovedShape(source, sliders)
    try:
        yield
    finally:
        method.shape_source = before
