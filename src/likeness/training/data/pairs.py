"""What methods learn from: images and clips as latents, their sentences, and references of the same people."""

from pathlib import Path
from typing import Any

import torch
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from safetensors import SafetensorError
from torch import Tensor

from likeness.errors import PromptError, WeightsError
from likeness.methods.method import Method
from likeness.training.base.transformer import caption
from likeness.training.data.datasets import Shards, puppets
from likeness.training.data.latents import latents
from likeness.training.data.render_puppets import PuppetSettings
from likeness.training.engine.logging import Journal
from likeness.training.objectives import diffusion


class TokenizedPrompts:
    """Token ids of a set's sentences: plain, and with the class word repeated for one or two references."""

    def __init__(self, pipe: CogVideoXPipeline, method: Method, shards: Shards) -> None:
        length = pipe.transformer.config.max_text_seq_length
        self.plain = diffusion.tokenize(pipe.tokenizer, [caption(fact) for fact in shards.facts], length)
        self.empty = diffusion.tokenize(pipe.tokenizer, [""], length)[0]
        self.ids: dict[int, Tensor] = {}
        self.masks: dict[int, Tensor] = {}
        for count in (1, 2):
            ids, masks = self.plain.clone(), torch.zeros(self.plain.shape, dtype=torch.bool)
            for row, fact in enumerate(shards.facts):
                try:
                    tokens = method.tokenize([fact["prompt"]], pipe.tokenizer, num_references=count, max_length=length)
                except PromptError:  # A long sentence stays plain: its person is seen by the adapters alone.
                    continue
                ids[row], masks[row] = tokens.ids[0], tokens.mask[0]
            self.ids[count], self.masks[count] = ids, masks


def read_data(
    sets: dict[str, PuppetSettings], pipe: CogVideoXPipeline, cache: Path, journal: Journal
) -> dict[str, Any]:
    """References, and latents of images and clips, with landmarks of their first frames; the same of validation people."""
    frame_px = 8 * pipe.transformer.config.sample_height
    images = sets["faces"].model_copy(update={"kind": "images", "size_px": frame_px})
    people = sets["validation"].people
    films = {"kind": "clips", "size_px": frame_px, "count": people, "shard": max(1, people // 4)}
    validation_clips = sets["validation"].model_copy(update=films)
    validation_images = sets["validation"].model_copy(update={"kind": "images", "size_px": frame_px})
    names = ("crop", "embedding", "landmarks")
    data: dict[str, Any] = {
        "faces": puppets(sets["faces"], cache, journal, names),
        "validation": puppets(sets["validation"], cache, journal, names),
        "images": latents(images, pipe.vae, cache, journal),
        "clips": latents(sets["clips"], pipe.vae, cache, journal),
        "validation_images": latents(validation_images, pipe.vae, cache, journal),
        "validation_clips": latents(validation_clips, pipe.vae, cache, journal),
    }
    clips = puppets(sets["clips"], cache, journal, ("landmarks",))
    data["landmarks"] = {
        "images": landmarks_of(data["faces"], sets["faces"].size_px, frame_px),
        "clips": landmarks_of(clips, sets["clips"].size_px, frame_px),
    }
    return data


def read_base(folder: Path) -> CogVideoXPipeline:
    """A trained pipeline, frozen, float32."""
    if not (folder / "model_index.json").exists():
        raise WeightsError(f"No pipeline at {folder}. Train one: `likeness train recipes/tiny/base.toml`.")
    try:
        pipe = CogVideoXPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise WeightsError(
            f"The pipeline at {folder} cannot be read ({error}). Train it again, or name another."
        ) from error
    pipe.set_progress_bar_config(disable=True)
    for part in (pipe.vae, pipe.text_encoder, pipe.transformer):
        part.requires_grad_(False).eval()
    return pipe


def landmarks_of(shards: Shards, size_px: int, frame_px: int) -> Tensor:
    """Landmarks of first frames, in pixels of frames of another size: (samples, 5, 2)."""
    return (shards["landmarks"][:, 0] + 0.5) * (frame_px / size_px) - 0.5
