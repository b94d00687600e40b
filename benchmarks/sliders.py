"""Do generated faces follow the sliders of their shape? Five settings of two people, measured and laid out as sheets.

What frames show at a setting is the mean over a few seeds: one clip's proportions hang on its expression and pose too.
"""

from pathlib import Path

import numpy as np
from claims import Benchmark
from identity import draw_sitter, write_prompt

from likeness.errors import WeightsError
from likeness.generation import Likeness
from likeness.generation.slider_sheet import IN_FRAMES, SETTINGS, SliderStep, draw_sheet, rises, slide
from likeness.identity.face_shape.sliders import SHAPE_NUMBERS
from likeness.media import write_image


def mean_in_frames(takes: list[list[SliderStep]]) -> list[float]:
    """For each setting the mean over seeds of what frames show; one in which no face was found says nothing."""
    told = np.array([[step.in_frames for step in steps] for steps in takes])
    return [
        float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else float("nan") for values in told.T
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
    sitters = [draw_sitter(arguments.seed + number) for number in range(arguments.people)]
    for slider in sliders:
        made, shown = [], []
        for number, sitter in enumerate(sitters):
            prompt = write_prompt(sitter.group, number)
            takes = [
                slide(likeness, prompt, [sitter.face], slider, seed=number + 100 * take)
                for take in range(arguments.takes)
            ]
            made.append((sitter.face, takes[0]))
            shown.append(mean_in_frames(takes))
            on_vertices = [step.on_vertices for step in takes[0]]
            for where, values in (("on_vertices", on_vertices), ("in_frames", shown[-1])):
                told = " ".join(f"{value:.3f}" for value in values)
                benchmark.note(f"sliders.{slider}.{sitter.name}.{where}", told)
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
