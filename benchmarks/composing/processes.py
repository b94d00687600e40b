"""One video on two processes of this machine."""

import multiprocessing
import tempfile
import warnings
from typing import Any

import torch
import torch.distributed as dist
from diffusers import CogVideoXPipeline, ContextParallelConfig

from composing.features import Switch, run
from composing.subject import Subject
from likeness.adapters.diffusers.parallel import enable_context_parallel, enable_guidance_parallel


def over_processes(subject: Subject, switch: Switch, **changes: Any) -> float:
    """Return the largest difference between one process and two that share the work over gloo."""
    plain = run(subject, [])
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"file://{folder}/meeting"
        processes = [
            context.Process(target=_process, args=(subject, switch, rank, meeting, results, changes))
            for rank in range(2)
        ]
        for process in processes:
            process.start()
        try:
            videos = [results.get(timeout=300) for _ in processes]
        finally:
            for process in processes:
                process.kill()  # It has given its result, or never will.
                process.join()
    failures = [video for video in videos if isinstance(video, str)]
    if failures:
        raise RuntimeError(failures[0])
    return max((torch.from_numpy(video) - plain).abs().max().item() for video in videos)


def _process(subject: Subject, switch: Switch, rank: int, meeting: str, results: Any, changes: dict[str, Any]) -> None:
    warnings.simplefilter("ignore")
    # A forked process has lost the threads that OpenMP believes it has, and would wait for them.
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
        pipe = subject.pipe()
        method = subject.method(pipe).attach(pipe)
        switch(pipe)
        results.put(subject.sample(pipe, method, **changes).numpy())
    except Exception as error:
        results.put(f"{type(error).__name__}: {error}")
    finally:
        dist.destroy_process_group()


def context_parallel(pipe: CogVideoXPipeline, **options: Any) -> None:
    config = ContextParallelConfig(ulysses_degree=2, **options)
    enable_context_parallel(pipe.transformer, config)


PROCESSES: dict[str, Switch] = {
    "context_parallel": context_parallel,
    "guidance_parallel": enable_guidance_parallel,
}
