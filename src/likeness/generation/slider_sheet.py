"""What a slider of the face's shape does: clips at several settings, measured on vertices and in frames, and a sheet of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from likeness.errors import ConfigError
from likeness.faces import find_faces, prominence
from likeness.faces.geometry.proportions import measure_landmarks, measure_mask, skin_mask
from likeness.generation.inputs.settings import Choices
from likeness.generation.outputs.similarity import DETECTION_PX
from likeness.generation.sampling.shape_control import reads_shapes
from likeness.identity.face_shape import load_source
from likeness.identity.face_shape.draw import draw_head
from likeness.identity.face_shape.proportions import measure
from likeness.identity.face_shape.sliders import SHAPE_NUMBERS, FaceShape
from likeness.media import contact_sheet
from likeness.records import Face

SETTINGS = (-3.0, -1.5, 0.0, 1.5, 3.0)
IN_FRAMES = {
    "face_width": "face_width",
    "face_length": "nose_length",
    "jaw": "jaw_width",
    "nose": "nose_length",
    "eyes": "eye_spacing",
}
"""The proportion of pictures (`likeness.faces.proportions`) that tells of a slider. None tells of the chin."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class SliderStep:
    """One setting of a slider."""

    deviations: float
    frames: NDArray[np.uint8]
    """(frames, height, width, 3)"""
    vertices: NDArray[np.float32]
    """What was encoded, (vertices, 3)."""
    on_vertices: float
    """The slider's proportion, exactly."""
    in_frames: float
    """The same as frames show it: the median over those with a face; not a number where there is none."""


def slide(
    likeness: Any,
    prompt: str,
    faces: Sequence[Face],
    slider: str,
    *,
    settings: Sequence[float] = SETTINGS,
    seed: int = 0,
    **choices: Unpack[Choices],
) -> list[SliderStep]:
    """Make the same clip at several settings of one slider.

    Args:
        likeness: A `Likeness` whose method reads shapes.
        prompt: As `Likeness.generate` takes it.
        faces: Of one person.
        slider: One of `FaceShape`'s.
        settings: In standard deviations.
        seed: Of every clip.
        **choices: As `Likeness.generate` takes them.

    Raises:
        ConfigError: There is no such slider, or the method reads no shapes.
    """
    if slider not in SHAPE_NUMBERS:
        raise ConfigError(f"No slider is called `{slider}`. Known: {', '.join(SHAPE_NUMBERS)}.")
    if not reads_shapes(likeness.method):
        raise ConfigError(
            f"{type(likeness.method).__name__} reads no shape of a face, which sliders would move. Load `fantasy_id`."
        )
    source = likeness.method.shape_source or load_source(choices.get("shape") or "learned")
    own, steps = source(faces), []
    for deviations in settings:
        moved = FaceShape(**{slider: deviations})
        clip = likeness.generate(prompt, list(faces), seed=seed, **{**choices, "face_shape": moved})
        vertices = moved.move(own)
        steps.append(
            SliderStep(
                deviations=deviations,
                frames=clip.frames,
                vertices=vertices,
                on_vertices=measure(vertices)[SHAPE_NUMBERS[slider]],
                in_frames=measure_frames(clip.frames, slider),
            )
        )
    return steps


def measure_frames(frames: NDArray[np.uint8], slider: str) -> float:
    """Measure the slider's proportion in frames (frames, height, width, 3): the median over those with a face."""
    if slider not in IN_FRAMES:
        return float("nan")
    found = []
    for frame in frames:
        faces = find_faces(frame, enlarge_to_px=DETECTION_PX)
        if faces:
            points = max(faces, key=prominence).landmarks
            told = {**measure_mask(skin_mask(frame, points), points), **measure_landmarks(points)}
            found.append(told[IN_FRAMES[slider]])
    seen = np.array(found)[np.isfinite(found)]
    return float(np.median(seen)) if len(seen) else float("nan")


def rises(values: Sequence[float]) -> float:
    """The share of steps from one setting to the next that go up: 1 is monotonic."""
    return float((np.diff(values) > 0).mean())


def draw_sheet(people: Sequence[tuple[Face, Sequence[SliderStep]]], *, cell_px: int = 128) -> NDArray[np.uint8]:
    """Lay out two rows a person: the reference and a frame at each setting, and under them the heads that were encoded."""
    rows, labels = [], []
    for face, steps in people:
        rows.append([face.crop, *(step.frames[len(step.frames) // 2] for step in steps)])
        blank = np.full((cell_px, cell_px, 3), 255, dtype=np.uint8)
        rows.append([blank, *(draw_head(step.vertices, cell_px) for step in steps)])
        labels += ["reference, frames", "  ".join(f"{step.deviations:+g}" for step in steps)]
    return contact_sheet(rows, labels, cell_px=cell_px)
