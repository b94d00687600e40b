"""Do generated faces follow the sliders of their shape? Five settings of two people, measured and laid out as sheets.

What frames show at a setting is the mean over a few seeds: one clip's proportions hang on its expression and pose too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from claims import Benchmark
from identity import draw_subject, write_prompt
from numpy.typing import NDArray

from likeness.errors import ConfigError, WeightsError
from likeness.faces import FRAME_DETECTION_PX, find_faces, prominence
from likeness.faces.geometry.proportions import measure_landmarks, measure_mask, skin_mask
from likeness.generation import Likeness
from likeness.generation.inputs.settings import GenerationOptions
from likeness.generation.sampling.shape_control import reads_shapes
from likeness.identity.face_shape import load_source
from likeness.identity.face_shape.draw import draw_head
from likeness.identity.face_shape.proportions import measure
from likeness.identity.face_shape.sliders import SHAPE_NUMBERS, FaceShape
from likeness.media import contact_sheet, write_image
from likeness.records import Face

SETTINGS = (-3.0, -1.5, 0.0, 1.5, 3.0)
IN_FRAMES = {
    "face_width": "face_width",
    "face_length": "nose_length",
    "jaw": "jaw_width",
    "nose": "nose_length",
    "eyes": "eye_spacing",
}
"""The proportion measured in frames (`likeness.faces.geometry.proportions`) for each slider; the chin has none."""


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
    **choices: Unpack[GenerationOptions],
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
        faces = find_faces(frame, enlarge_to_px=FRAME_DETECTION_PX)
        if faces:
            points = max(faces, key=prominence).landmarks
            measured = {**measure_mask(skin_mask(frame, points), points), **measure_landmarks(points)}
            found.append(measured[IN_FRAMES[slider]])
    seen = np.array(found)[np.isfinite(found)]
    return float(np.median(seen)) if len(seen) else float("nan")


def rises(values: Sequence[float]) -> float:
    """The share of steps from one setting to the next that go up: 1 is monotonic."""
    return float((np.diff(values) > 0).mean())


def draw_sheet(people: Sequence[tuple[Face, Sequence[SliderStep]]], *, cell_px: int = 128) -> NDArray[np.uint8]:
    """Two rows for each person: the reference and a frame at each setting, then the encoded heads."""
    rows, labels = [], []
    for face, steps in people:
        rows.append([face.crop, *(step.frames[len(step.frames) // 2] for step in steps)])
        blank = np.full((cell_px, cell_px, 3), 255, dtype=np.uint8)
        rows.append([blank, *(draw_head(step.vertices, cell_px) for step in steps)])
        labels += ["reference, frames", "  ".join(f"{step.deviations:+g}" for step in steps)]
    return contact_sheet(rows, labels, cell_px=cell_px)


def mean_in_frames(takes: list[list[SliderStep]]) -> list[float]:
    """For each setting the mean over seeds of what frames show; one in which no face was found says nothing."""
    measured = np.array([[step.in_frames for step in steps] for steps in takes])
    return [
        float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else float("nan")
        for values in measured.T
    ]


def main() -> None:
    benchmark = Benchmark("sliders", seed=500_000_000)
    benchmark.parser.add_argument("--checkpoint", type=Path, help="another folder of backbone and adapter")
    benchmark.parser.add_argument("--adapter", type=Path, help="another folder of the adapter alone")
    benchmark.parser.add_argument("--slider", choices=tuple(SHAPE_NUMBERS), action="append", help="by default all")
    benchmark.parser.add_argument("--people", type=int, default=2)
    benchmark.parser.add_argument("--takes", type=int, help="seeds that each setting is a mean of; by default 3")
    benchmark.parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks"))
    arguments = benchmark.arguments()
    arguments.takes = arguments.takes or (1 if arguments.quick else 3)
    sliders = arguments.slider or (["jaw"] if arguments.quick else list(SHAPE_NUMBERS))
    try:
        likeness = Likeness.load(method="fantasy_id", backbone=arguments.checkpoint, adapter=arguments.adapter)
    except WeightsError as error:
        benchmark.note("sliders.left_out", str(error))
        benchmark.finish()
        return
    subjects = [draw_subject(arguments.seed + number) for number in range(arguments.people)]
    for slider in sliders:
        made, shown = [], []
        for number, subject in enumerate(subjects):
            prompt = write_prompt(subject.group, number)
            takes = [
                slide(likeness, prompt, [subject.face], slider, seed=number + 100 * take)
                for take in range(arguments.takes)
            ]
            made.append((subject.face, takes[0]))
            shown.append(mean_in_frames(takes))
            on_vertices = [step.on_vertices for step in takes[0]]
            for where, values in (("on_vertices", on_vertices), ("in_frames", shown[-1])):
                line = " ".join(f"{value:.3f}" for value in values)
                benchmark.note(f"sliders.{slider}.{subject.name}.{where}", line)
        write_image(arguments.folder / f"sliders_{slider}.png", draw_sheet(made))
        exact = [rises([step.on_vertices for step in steps]) for _, steps in made]
        benchmark.claim(f"sliders.{slider}.on_vertices_rises", min(exact), ">=", 1)
        if slider in IN_FRAMES:
            linear = [np.corrcoef(SETTINGS, values)[0, 1] for values in shown]
            benchmark.note(f"sliders.{slider}.in_frames_r", float(np.mean(linear)))
            benchmark.claim(f"sliders.{slider}.in_frames_rises", min(map(rises, shown)), ">=", 1)
    benchmark.finish()


if __name__ == "__main__":
    main()
