"""Validation of a method in training, on people outside of the training set: error on faces, samples and their scores.

It is done in parts (`ValidationParts`), one after each training step. A part costs at most about as much as a step, so
processes that train at the same time do not wait longer for this one than for a second step.
"""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim_cogvideox import CogVideoXDDIMScheduler
from torch import Tensor

from likeness import media
from likeness.faces import FRAME_DETECTION_PX, find_faces, prominence
from likeness.faces.engines.base import FaceEngine, distances
from likeness.training.data.datasets import crops_to_references, to_uint8
from likeness.training.objectives import diffusion
from likeness.training.objectives.denoiser import DenoiserInputs

ValidationParts = Generator[None, None, dict[str, float]]
"""Yields after each part, and returns the metrics."""
MAX_LOSS_SAMPLES = 64
"""Most samples of the error."""
SAMPLING_STEPS = 20
SCORED_FRAMES = 5
"""Frames of a clip that are scored, at equal distances."""


def validate(stage: Any, path: Path) -> ValidationParts:
    """The error on faces, then a sheet of samples at `path` and their scores."""
    metrics = {"validation_face_loss": (yield from face_loss(stage))}
    metrics |= yield from write_sample_sheet(stage, path)
    return metrics


@torch.no_grad()
def face_loss(stage: Any) -> Generator[None, None, float]:
    """The squared error of v (with the stage's guidance) on the faces of validation people, at fixed noise.

    References show another scene than the target, where there is one.
    """
    rows = torch.arange(min(MAX_LOSS_SAMPLES, len(stage.validation)))
    timesteps = torch.linspace(20, 980, len(rows)).long()
    squares, count = 0.0, 0.0
    for part in rows.split(stage.rows_per_validation_part):
        clean = stage.validation["latents"][part].float().to(stage.device)
        noise = torch.stack([_noise(clean.shape[1:], int(row)) for row in part]).to(stage.device)
        noisy, target = diffusion.noisy_and_velocity(
            clean, noise, stage.alphas_cumprod[timesteps[part]].to(stage.device)
        )
        inputs = _inputs(stage, part).replace(noisy=noisy.to(stage.dtype), timesteps=timesteps[part].to(stage.device))
        velocity = stage.denoiser(inputs).float()
        if stage.guidance is not None:
            target = target + stage.settings.attention_guidance * stage.guidance(inputs)
        face = stage.validation["mask"][part].float().unsqueeze(2).to(stage.device)
        squares += float(((velocity - target).square() * face).sum())
        count += float(face.sum() * clean.shape[2])
        yield
    return squares / count if count else float("nan")


@torch.no_grad()
def write_sample_sheet(stage: Any, path: Path) -> ValidationParts:
    """Generate validation people by prompts of the validation set, draw them beside their references, and score them.

    Weights go on changing while samples are generated.
    """
    is_image = stage.validation["latents"].shape[1] == 1
    rows = torch.tensor(
        [person_rows[0] for person_rows in stage.validation.group_rows("person").values()][: 8 if is_image else 4]
    )
    latents = torch.stack([_noise(stage.validation["latents"].shape[1:], int(row)) for row in rows])
    scheduler: Any = CogVideoXDDIMScheduler.from_config(stage.pipe.scheduler.config)
    scheduler.set_timesteps(SAMPLING_STEPS)
    latents = latents.to(stage.device) * scheduler.init_noise_sigma
    finished = []
    size = max(1, stage.rows_per_validation_part // 2)  # Each sample has a conditional and an unconditional row.
    for part, noisy in zip(rows.split(size), latents.split(size), strict=True):
        inputs = _inputs(stage, part)
        identity = stage.encode(inputs.pixels, inputs.extra_conditioning, inputs.active)
        branches = stage.cfg_branches(inputs.replace(pixels=None, extra_conditioning=None, identity=identity))
        for timestep in scheduler.timesteps:
            velocity = stage.apply_cfg(*branches(noisy, timestep.expand(len(part)).to(stage.device)))
            noisy = scheduler.step(velocity, timestep, noisy).prev_sample
            yield
        finished.append(noisy)
    clips = []
    for noisy in torch.cat(finished).split(1):
        clips.append(_decode(stage, noisy))
        yield
    references = reference_rows(stage, rows)
    crops = stage.data.references["validation"]["crop"][references]
    media.write_image(
        path, media.contact_sheet(_sheet_rows(to_uint8(crops_to_references(crops)[:, 0]), clips), cell_px=96, gap_px=2)
    )
    return (yield from score_faces(stage, clips, references))


def score_faces(stage: Any, clips: list[np.ndarray], references: Tensor) -> ValidationParts:
    """How well generated people match their references, by the face engine that read the references.

    `validation_face_rate` is the share of frames with a face, `validation_distance` the engine's mean distance to the
    reference in those frames, and `validation_rank1` the share of clips whose mean embedding is nearest to the own
    reference among all validation people.

    Args:
        stage: Its `face_engine` scores.
        clips: (frames, height, width, 3) uint8, one for each reference.
        references: (clips,), rows of the validation references.
    """
    engine: FaceEngine = stage.face_engine
    dataset = stage.data.references["validation"]
    people = {person: rows[0] for person, rows in dataset.group_rows("person").items()}
    people |= {dataset.metadata[int(row)]["person"]: int(row) for row in references}
    gallery = dataset["embedding"][torch.tensor(list(people.values()))].float().numpy()
    face_distances: list[float] = []
    is_nearest, num_frames = [], 0
    for clip, row in zip(clips, references.tolist(), strict=True):
        frames = clip[np.linspace(0, len(clip) - 1, min(SCORED_FRAMES, len(clip))).round().astype(int)]
        embeddings = [embedding for frame in frames if (embedding := _embed(frame, engine)) is not None]
        num_frames += len(frames)
        person = list(people).index(dataset.metadata[row]["person"])
        if embeddings:
            face_distances += distances(np.stack(embeddings), gallery[person], engine.metric).tolist()
            to_all = [distances(np.mean(embeddings, axis=0)[None], other, engine.metric)[0] for other in gallery]
            is_nearest.append(int(np.argmin(to_all)) == person)
        else:
            is_nearest.append(False)
        yield
    metrics = {"validation_face_rate": len(face_distances) / num_frames, "validation_rank1": float(np.mean(is_nearest))}
    return metrics | ({"validation_distance": float(np.mean(face_distances))} if face_distances else {})


def reference_rows(stage: Any, rows: Tensor) -> Tensor:
    """A reference of each validation sample: of another scene where there is one; (samples,)."""
    dataset, allowed = stage.validation, stage.validation.reference_rows
    views = stage.data.references["validation"].group_rows("person")
    chosen = []
    for row in rows.tolist():
        possible = allowed[row] if allowed else views[dataset.metadata[row]["person"]]
        chosen.append(possible[-1] if possible[-1] != row else possible[0])
    return torch.tensor(chosen)


def _inputs(stage: Any, rows: Tensor) -> DenoiserInputs:
    """Prompts and references of validation samples, without latents."""
    references = reference_rows(stage, rows)
    prompts = stage.validation_prompts
    extra = stage.method_spec.extra_conditioning(stage.data, "validation", references[:, None])
    pixels = crops_to_references(stage.data.references["validation"]["crop"][references])
    return DenoiserInputs(
        token_ids=prompts.prompt_ids[1][rows].to(stage.device),
        class_mask=prompts.class_masks[1][rows].to(stage.device),
        pixels=pixels.to(stage.device, stage.dtype),
        extra_conditioning=None if extra is None else extra.to(stage.device),
        active=torch.ones(len(rows), dtype=torch.bool),
        noisy=torch.zeros(0),
        timesteps=torch.zeros(0),
        text=stage.text_states(prompts.prompt_ids[1][rows]),
    )


def _noise(shape: torch.Size, seed: int) -> Tensor:
    """Noise that depends on the sample alone, not on how samples are split."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _decode(stage: Any, latents: Tensor) -> np.ndarray:
    """One clip as bytes, (frames, height, width, 3)."""
    pipe, vae = stage.pipe, stage.pipe.vae
    before = vae.dtype
    if stage.device.type == "cpu" and before != torch.float32:  # A CPU decodes in float32 faster than in bfloat16.
        torch.nn.Module.to(vae, torch.float32)  # diffusers' own `to` warns of every cast.
    if not stage.targets.is_in_memory:
        # Whole clips of full size, decoded at once, need more memory than training.
        vae.enable_slicing()
        vae.enable_tiling()
    pictures = pipe.decode_latents(latents.to(vae.dtype))
    if vae.dtype != before:
        torch.nn.Module.to(vae, before)
    clip = pipe.video_processor.postprocess_video(video=pictures, output_type="np")[0]
    return (clip * 255).round().astype(np.uint8)


def _embed(frame: np.ndarray, engine: FaceEngine) -> np.ndarray | None:
    found = find_faces(frame, engine, enlarge_to_px=FRAME_DETECTION_PX)
    return max(found, key=prominence).embedding if found else None


def _sheet_rows(crops: Any, clips: list[Any]) -> list[list[Any]]:
    if len(clips[0]) == 1:
        return [list(crops), [clip[0] for clip in clips]]
    return [[crop, *clip[::2]] for crop, clip in zip(crops, clips, strict=True)]
