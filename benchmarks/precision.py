"""What bfloat16 costs in training on this processor: a step of a method and of Muon in either dtype, as ratios.

Seconds of the processor, so that other work beside it counts little; each dtype is also held against itself.
"""

import time
from collections.abc import Callable

import torch
from claims import Benchmark
from torch import nn

from likeness.methods.magic_mirror import MagicMirror
from likeness.runtime import choose_training_dtype
from likeness.training.base.pipelines import read_base
from likeness.training.engine.optimizers import Float32Muon
from likeness.training.objectives.denoiser import DenoiserInputs, MethodDenoiser
from likeness.training.objectives.diffusion import CastParameters, cast_base
from likeness.weights import CHECKPOINTS

BATCH = 12
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def seconds(run: Callable[[], object], times: int) -> float:
    """Of the processor, the least of `times` runs after one that warms up."""
    run()
    found = []
    for _ in range(times):
        begin = time.process_time()
        run()
        found.append(time.process_time() - begin)
    return min(found)


def method_step(dtype: torch.dtype) -> Callable[[], object]:
    """Forward and backward through Magic Mirror on tiny, a batch of clips."""
    pipe = read_base(CHECKPOINTS / "tiny")
    method = MagicMirror(**MagicMirror.tiny_config(pipe.transformer.config)).attach(pipe)
    for parameter in method.trainable_parameters():
        nn.init.normal_(parameter, std=0.02)
    cast_base(pipe.transformer, method, dtype)
    keep_in_fp32_modules = tuple(method._keep_in_fp32_modules or ())
    denoise = CastParameters(MethodDenoiser(pipe, method), dtype, keep_in_fp32_modules=keep_in_fp32_modules)
    token_ids = torch.randint(3, 200, (BATCH, pipe.transformer.config.max_text_seq_length))
    inputs = DenoiserInputs(
        token_ids=token_ids,
        class_mask=torch.zeros(token_ids.shape, dtype=torch.bool),
        pixels=torch.randn(BATCH, 1, 3, 64, 64, dtype=dtype),
        extra_conditioning=torch.randn(BATCH, 1, 128),
        active=torch.ones(BATCH, dtype=torch.bool),
        noisy=torch.randn(BATCH, 5, 16, 8, 8, dtype=dtype),
        timesteps=torch.full((BATCH,), 500),
    )
    return lambda: denoise(inputs).float().square().mean().backward()


def muon_step(kind: type[torch.optim.Muon]) -> Callable[[], object]:
    """One update of the matrices of FantasyID's injections on tiny."""
    matrices = [nn.Parameter(0.05 * torch.randn(shape)) for shape in 6 * [(192, 192), (384, 128), (192, 192)]]
    muon = kind(matrices, lr=1e-3, adjust_lr_fn="match_rms_adamw")
    for matrix in matrices:
        matrix.grad = torch.randn_like(matrix)
    return muon.step


def main() -> None:
    benchmark = Benchmark("precision", seed=0)
    arguments = benchmark.arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    times = 1 if arguments.quick else 3
    steps = {name: method_step(dtype) for name, dtype in DTYPES.items()}
    updates = {"float32": muon_step(Float32Muon), "bfloat16": muon_step(torch.optim.Muon)}
    for what, runs in (("method", steps), ("muon", updates)):
        seconds_of = {name: seconds(run, times) for name, run in runs.items()}
        again = {name: seconds(run, times) for name, run in runs.items()}
        for name in DTYPES:
            benchmark.note(f"precision.{what}.{name}_ms", 1000 * seconds_of[name])
            benchmark.note(f"precision.{what}.{name}_over_itself", again[name] / seconds_of[name])
        benchmark.note(f"precision.{what}.bfloat16_over_float32", seconds_of["bfloat16"] / seconds_of["float32"])
    benchmark.note("precision.chosen", str(choose_training_dtype("auto")))
    benchmark.finish()


if __name__ == "__main__":
    main()
