"""Which of CogVideoX's solvers, in how many steps, shows whole faces that do what the prompt says?"""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from acting import generate, rates, true_clips
from claims import Benchmark
from diffusers import CogVideoXDDIMScheduler, CogVideoXDPMScheduler

from likeness.generation.loading.presets import PRESETS
from likeness.training.base.pipelines import read_base
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
    truths = true_clips(arguments.seed, count)
    prompts = [truth.caption for truth in truths]
    pipe = read_base(arguments.checkpoint)
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
                face_rates[name, steps], action_right = rates(pool, videos, truths)
                benchmark.note(f"solvers.{name}_{steps}.face_rate", face_rates[name, steps])
                benchmark.note(f"solvers.{name}_{steps}.action_right", action_right)
    fewest = min(steps for _, steps in face_rates)
    gained = face_rates["dpm", fewest] - face_rates["ddim", fewest]
    benchmark.claim("solvers.dpm_over_ddim.face_rate_gained", gained, ">=", 0)
    benchmark.finish()


if __name__ == "__main__":
    main()
