"""Validation of a method in training, on people outside of the training set: error on faces, and sample sheets."""

from pathlib import Path
from typing import Any

import torch

from likeness import media
from likeness.training.data.datasets import to_bytes, to_pixels
from likeness.training.objectives import diffusion
from likeness.training.objectives.denoiser import DenoiserInputs

VALIDATION_PROMPTS = (
    "a {} img in a red sweater turns the head to the left in a park",
    "a {} img in a blue shirt smiles at the camera in a studio",
)


@torch.no_grad()
def face_loss(stage: Any, count: int = 64) -> float:
    """The squared error of v (with the stage's guidance) on the faces of validation people, at fixed noise.

    References show another scene than the target.
    """
    faces, rows = stage.data.references["validation"], torch.arange(min(count, len(stage.validation)))
    views = faces.rows_of("person")
    people = [views[stage.validation.facts[int(row)]["person"]] for row in rows]
    chosen = torch.tensor([own[-1] if own[-1] != int(row) else own[0] for own, row in zip(people, rows, strict=True)])
    device = stage.device
    clean = stage.validation["latents"][rows].float().to(device)
    timesteps = torch.linspace(20, 980, len(rows)).long()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).to(device)
    noisy, target = diffusion.noisy_and_velocity(clean, noise, stage.alphas_cumprod[timesteps].to(device))
    token_ids = stage.validation_prompts.ids[1][rows]
    extra = stage.method_spec.extra_conditioning(stage.data, "validation", chosen[:, None])
    inputs = DenoiserInputs(
        token_ids=token_ids.to(device),
        class_mask=stage.validation_prompts.masks[1][rows].to(device),
        pixels=to_pixels(faces["crop"][chosen]).to(device, stage.dtype),
        extra_conditioning=None if extra is None else extra.to(device),
        active=torch.ones(len(rows), dtype=torch.bool),
        noisy=noisy.to(stage.dtype),
        timesteps=timesteps.to(device),
        text=stage.text_states(token_ids),
    )
    velocity = stage.denoiser(inputs).float()
    if stage.guidance is not None:
        target = target + stage.settings.attention_guidance * stage.guidance(inputs)
    face = stage.validation["mask"][rows].float().unsqueeze(2).to(device)
    return float(((velocity - target).square() * face).sum() / (face.sum() * clean.shape[2]))


@torch.no_grad()
def draw_validation_samples(stage: Any, path: Path) -> None:
    """One row for each person: the reference, then frames generated from it."""
    if stage.data.text_states is not None:
        _draw_own_prompts(stage, path)
        return
    length = stage.pipe.transformer.config.max_text_seq_length
    frames = 1 if stage.settings.data == "images" else stage.pipe.transformer.config.sample_frames
    faces, rows = stage.data.references["validation"], []
    people = list(faces.rows_of("person").values())[: 4 if frames > 1 else 8]
    first = torch.tensor([views[0] for views in people])
    pixels = to_pixels(faces["crop"][first])
    extra_conditioning = stage.method_spec.extra_conditioning(stage.data, "validation", first[:, None])
    for template in VALIDATION_PROMPTS:
        identity = stage.method.encode_tensors(pixels, extra_conditioning)
        prompts = [template.format(faces.facts[views[0]]["group"]) for views in people]
        with stage.method.identity(identity):
            prompt = stage.method.prompt(prompts, max_sequence_length=length)
            clips = diffusion.sample(stage.pipe, num_frames=frames, seed=0, guidance=stage.settings.guidance, **prompt)
        rows += _sheet_rows(to_bytes(pixels[:, 0]), clips)
    media.write_image(path, media.contact_sheet(rows, cell_px=96, gap_px=2))


def _draw_own_prompts(stage: Any, path: Path, count: int = 4) -> None:
    """The sheet where no text encoder is loaded: prompts of the validation set, at its size."""
    shards, prompts = stage.validation, stage.validation_prompts
    chosen = list({fact["person"]: row for row, fact in reversed(list(enumerate(shards.facts)))}.values())[:count]
    rows = torch.tensor(chosen)
    references = torch.tensor([shards.reference_rows[row][0] for row in chosen])
    pixels = to_pixels(stage.data.references["validation"]["crop"][references]).to(stage.device)
    extra = stage.method_spec.extra_conditioning(stage.data, "validation", references[:, None])
    identity = stage.method.encode_tensors(pixels, None if extra is None else extra.to(stage.device))
    text = stage.text_states(prompts.ids[1][rows]).to(pixels)
    text = stage.method.fuse(text, prompts.masks[1][rows].to(stage.device), identity)
    bucket = shards.buckets[chosen[0]]
    # Whole clips of full size, decoded at once, need more memory than training.
    stage.pipe.vae.enable_slicing()
    stage.pipe.vae.enable_tiling()
    with stage.method.identity(identity):
        clips = diffusion.sample(
            stage.pipe,
            num_frames=bucket.frames,
            height=bucket.height_px,
            width=bucket.width_px,
            seed=0,
            guidance=stage.settings.guidance,
            prompt_embeds=text.to(stage.pipe.transformer.dtype),
            negative_prompt_embeds=stage.text_states(prompts.empty.expand(len(rows), -1)).to(
                stage.pipe.transformer.dtype
            ),
        )
    media.write_image(path, media.contact_sheet(_sheet_rows(to_bytes(pixels[:, 0]), clips), cell_px=96, gap_px=2))


def _sheet_rows(crops: Any, clips: list[Any]) -> list[list[Any]]:
    if len(clips[0]) == 1:
        return [list(crops), [clip[0] for clip in clips]]
    return [[crop, *clip[::2]] for crop, clip in zip(crops, clips, strict=True)]
