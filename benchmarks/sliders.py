"""Do generated faces follow the sliders of their shape? Five settings of two people, measured and laid out as sheets."""

from pathlib import Path

import numpy as np
from claims import Benchmark
from identity import draw_sitter, write_prompt

from likeness.errors import WeightsError
from likeness.generation import Likeness
from likeness.generation.slider_sheet import IN_FRAMES, SETTINGS, draw_sheet, rises, slide
from likeness.identity.face_shape.sliders import SHAPE_NUMBERS
from likeness.media import write_picture


def main() -> None:
    benchmark = Benchmark("sliders", seed=500_000_000)
    benchmark.parser.add_argument("--checkpoint", type=Path, help="another folder of backbone and adapter")
    benchmark.parser.add_argument("--adapter", type=Path, help="another folder of the adapter alone")
    benchmark.parser.add_argument(
        "--slider", choices=tuple(SHAPE_NUMBERS), action="append", help="by default all"
    )
    benchmark.parser.add_argument("--people", type=int, default=2)
    benchmark.parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks"))
    arguments = benchmark.arguments()
    sliders = arguments.slider or (["jaw"] if arguments.quick else list(SHAPE_NUMBERS))
    try:
        likeness = Likeness.load(
            method="fantasy_id", backbone=arguments.checkpoint, adapter=arguments.adapter
        )
    except WeightsError as error:
        benchmark.note("sliders.left_out", str(error))
        benchmark.finish()
        return
    sitters = [draw_sitter(arguments.seed + number) for number in range(arguments.people)]
    for slider in sliders:
        made = []
        for number, sitter in enumerate(sitters):
            prompt = write_prompt(sitter.group, number)
            made.append((sitter.face, slide(likeness, prompt, [sitter.face], slider, seed=number)))
            for where in ("on_vertices", "in_frames"):
                told = " ".join(f"{getattr(step, where):.3f}" for step in made[-1][1])
                benchmark.note(f"sliders.{slider}.{sitter.name}.{where}", told)
        write_picture(arguments.folder / f"sliders_{slider}.png", draw_sheet(made))
        exact = [rises([step.on_vertices for step in steps]) for _, steps in made]
        benchmark.claim(f"sliders.{slider}.on_vertices_rises", min(exact), ">=", 1)
        if slider in IN_FRAMES:
            shown = [rises([step.in_frames for step in steps]) for _, steps in made]
            linear = [np.corrcoef(SETTINGS, [step.in_frames for step in steps])[0, 1] for _, steps in made]
            benchmark.note(f"sliders.{slider}.in_frames_r", float(np.mean(linear)))
            benchmark.claim(f"sliders.{slider}.in_frames_rises", min(shown), ">=", 1)
    benchmark.finish()


if __name__ == "__main__":
    main()
