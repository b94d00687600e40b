"""Lets a base act from text alone, and judges whether faces are there and do what was said."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import torch
from diffusers import CogVideoXPipeline

from likeness.evaluation.puppet_checks.actions import RULES, is_seen
from likeness.evaluation.puppet_checks.color import name_clothing
from likeness.evaluation.puppet_checks.face_track import track_face
from likeness.puppets import PuppetClip, sample_clip


def true_clips(seed: int, count: int) -> list[PuppetClip]:
    """Draw clips that go through the actions in turn; their captions are the prompts."""
    actions = list(RULES)
    return [sample_clip(seed + number, action=actions[number % len(actions)]) for number in range(count)]


def generate(
    pipe: CogVideoXPipeline,
    prompts: list[str],
    *,
    seed: int,
    steps: int,
    guidance: float,
    batch: int,
    num_frames: int | None = None,
) -> np.ndarray:
    """Make one clip for each prompt: (clips, frames, height, width, 3) uint8."""
    videos = []
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        generators = [torch.Generator("cpu").manual_seed(seed + start + number) for number in range(len(part))]
        output = pipe(
            part,
            num_frames=num_frames,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            max_sequence_length=pipe.transformer.config.max_text_seq_length,
            output_type="np",
        )
        videos.append((np.asarray(output.frames) * 255).round().astype(np.uint8))
        print(f"  {start + len(part)} of {len(prompts)} clips made", flush=True)
    return np.concatenate(videos)


def judge(task: tuple[np.ndarray, str]) -> tuple[float, bool, str]:
    """Face rate, whether the action is seen, and the color of the clothing."""
    frames, action = task
    track = track_face(frames)
    return track.face_rate, is_seen(action, track), name_clothing(frames)


def rates(pool: ProcessPoolExecutor, videos: np.ndarray, truths: Sequence[PuppetClip]) -> tuple[float, float]:
    """Shares of frames with a face, and of clips whose action is recognized."""
    judged = list(pool.map(judge, zip(videos, [truth.action for truth in truths], strict=True)))
    return float(np.mean([rate for rate, _, _ in judged])), float(np.mean([seen for _, seen, _ in judged]))
