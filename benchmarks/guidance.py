"""The effect of perturbed-attention guidance on a base while sampling, by block and weight, beside other guidance.

`recipes/tiny/base_guided.toml` takes its settings from here. Run it on the base before that, `--checkpoint
runs/base/model`.
"""

import copy
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from acting import generate, rates, true_clips
from claims import Benchmark
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline

from likeness.generation.loading.presets import PRESETS
from likeness.media import contact_sheet, write_image
from likeness.training.base.pipelines import read_base
from likeness.training.objectives.perturbed_guidance import PerturbedAttnProcessor
from likeness.weights import CHECKPOINTS

TRIED = (
    ((), 0.0, 2.0), ((), 0.0, 1.5), ((3,), 0.5, 2.0), ((4,), 0.5, 2.0), ((3, 4), 0.5, 2.0),
    ((3, 4), 0.3, 2.0), ((3, 4), 0.5, 1.5), ((3, 4), 1.0, 1.5), ((2, 3, 4), 0.5, 1.5), ((3, 4, 5), 0.5, 1.5),
)  # fmt: skip
"""Perturbed blocks, weight, guidance by the prompt."""
CHOSEN, CONTROL = ((3, 4), 0.5, 1.5), ((), 0.0, 1.5)
"""What `base_guided.toml` teaches, and the same without it."""


class PerturbedGuidance:
    """Puts the guidance on a pipeline's transformer: in the rows with a prompt, while `layers` are set."""

    def __init__(self, pipe: CogVideoXPipeline) -> None:
        self.transformer: Any = pipe.transformer
        self.plain = self.transformer.forward
        self.perturbed: Any = None
        self.scale = 0.0
        self.transformer.forward = self

    def choose(self, layers: tuple[int, ...], scale: float) -> None:
        self.scale, self.perturbed = scale, None
        if layers:
            self.transformer.forward = self.plain
            self.perturbed = copy.deepcopy(self.transformer)
            self.transformer.forward = self
            for number in layers:
                self.perturbed.transformer_blocks[number].attn1.set_processor(PerturbedAttnProcessor())

    def __call__(self, **inputs: Any) -> tuple[torch.Tensor]:
        (velocity,) = self.plain(**inputs)
        if self.perturbed is None:
            return (velocity,)
        half = len(velocity) // 2  # Rows without a prompt come first.
        rows = ("hidden_states", "encoder_hidden_states", "timestep")
        (apart,) = self.perturbed(**{**inputs, **{name: inputs[name][half:] for name in rows}})
        velocity[half:] += self.scale * (velocity[half:] - apart)
        return (velocity,)


def main() -> None:
    benchmark = Benchmark("guidance", seed=410_000_000)
    benchmark.parser.add_argument("--checkpoint", type=Path, default=CHECKPOINTS / "tiny")
    benchmark.parser.add_argument("--clips", type=int, help="prompts; by default 28, four of each action")
    benchmark.parser.add_argument("--batch", type=int, default=14)
    benchmark.parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks"))
    arguments = benchmark.arguments()
    count = arguments.clips or (7 if arguments.quick else 28)
    truths = true_clips(arguments.seed, count)
    prompts = [truth.caption for truth in truths]
    pipe = read_base(arguments.checkpoint)
    perturbed = PerturbedGuidance(pipe)
    found: dict[tuple[tuple[int, ...], float, float], float] = {}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for layers, scale, guidance in TRIED:
            perturbed.choose(layers, scale)
            steps = PRESETS["tiny"].steps
            videos = generate(pipe, prompts, seed=arguments.seed, steps=steps, guidance=guidance, batch=arguments.batch)
            face_rate, action_right = rates(pool, videos, truths)
            name = f"guidance.blocks_{'_'.join(map(str, layers)) or 'none'}.{scale:g}.{guidance:g}"
            found[layers, scale, guidance] = face_rate
            benchmark.note(f"{name}.face_rate", face_rate)
            benchmark.note(f"{name}.action_right", action_right)
            write_image(arguments.folder / f"{name}.png", contact_sheet([list(clip[::4]) for clip in videos]))
    benchmark.claim("guidance.chosen.face_rate_gained", found[CHOSEN] - found[CONTROL], ">=", 0.05)
    benchmark.finish()


if __name__ == "__main__":
    main()
