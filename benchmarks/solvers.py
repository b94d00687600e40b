"""Which of CogVideoX's solvers, in how many steps, shows whole faces that do what the prompt says?"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from claims import Benchmark
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler, CogVideoXPipeline
from tiny import generate, judge

from likeness.evaluation.actions import RULES
from likeness.generation.presets import PRESETS
from likeness.puppets import sample_clip
from likeness.weights import CHECKPOINTS

SOLVERS = {"ddim": CogVideoXDDIMScheduler, "dpm": CogVideoXDPMScheduler}


def main() -> None:
    preset = PRESETS["tiny"]
    benchmark = Benchmark("solvers", seed=410_000_000)
    benchmark.parser.add_argument("--checkpoint", type=Path, default=CHECKPOINTS / "tiny")
    benchmark.parser.add_argument("--clips", type=int, help="prompts; by default 49, seven of each action")
    benchmark.parser.add_argument("--guidance", type=float, default=preset.guidance)
    benchmark.parser.add_argument("--steps", type=int, action="append", help="by default 20 and 50")
    benchmark.parser.add_argument("--batch", type=int, default=16)
    arguments = benchmark.arguments()
    count = arguments.clips or (7 if arguments.quick else 49)
    actions = [list(RULES)[number % len(RULES)] for number in range(count)]
    prompts = [
        sample_clip(arguments.seed + number, action=action).caption for number, action in enumerate(actions)
    ]
    pipe = CogVideoXPipeline.from_pretrained(arguments.checkpoint, dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    noise = pipe.scheduler.config
    face_rates = {}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for name, solver in SOLVERS.items():
            for steps in arguments.steps or (20, 50):
                pipe.scheduler = solver.from_config(noise)
                videos = generate(
                    pipe,
                    prompts,
                    seed=arguments.seed,
                    steps=steps,
                    guidance=arguments.guidance,
                    batch=arguments.batch,
                )
                judged = list(pool.map(judge, zip(videos, actions, strict=True)))
                face_rates[name, steps] = float(np.mean([rate for rate, _, _ in judged]))
                benchmark.note(f"solvers.{name}_{steps}.face_rate", face_rates[name, steps])
                benchmark.note(
                    f"solvers.{name}_{steps}.action_right", float(np.mean([seen for _, seen, _ in judged]))
                )
    fewest = min(steps for _, steps in face_rates)
    gained = face_rates["dpm", fewest] - face_rates["ddim", fewest]
    benchmark.claim("solvers.dpm_over_ddim.face_rate_gained", gained, ">=", 0)
    benchmark.finish()


if __name__ == "__main__":
    main()
