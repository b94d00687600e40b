"""The data sets that a method is trained on: target images and clips as latents, and references of the same people."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from torch import Tensor

from likeness.training.data.datasets import ShardedDataset, load_puppets
from likeness.training.data.latents import load_latents, pool_to_latent_frames
from likeness.training.data.render_puppets import PuppetSettings
from likeness.training.engine.logging import TrainingLogger

Split = Literal["train", "validation"]
VertexLookup = Callable[[Tensor], Tensor]
"""From indices of references (batch, references) to mesh vertices (batch, vertices, 3)."""


@dataclass(kw_only=True)
class TrainingData:
    """The data sets of a method's training. People of the two splits are different."""

    references: dict[Split, ShardedDataset]
    """`crop` (samples, size_px, size_px, 3) uint8, `embedding` and `landmarks` of several images of each person."""
    targets: dict[str, ShardedDataset]
    """`latents`, `mask` and `landmarks` (of each latent frame, px of the target) of `images` and `clips`. Landmarks are
    NaN where a frame shows no face, and may be of fewer frames than the latents."""
    validation_targets: dict[str, ShardedDataset]
    """`latents` and `mask` of `images` and `clips` of validation people."""
    vertices: dict[Split, VertexLookup] = field(default_factory=dict)
    """Heads of the people in `references`, for methods that read them."""
    text_states: Callable[[Tensor], Tensor] | None = None
    """From token ids (batch, tokens) to precomputed states of the text encoder, (batch, tokens, width)."""
    waited_s: Callable[[], float] = float
    """Seconds that reading rows has taken so far; 0 for data in memory."""
    face_engine: str = "dlib"
    """Name of the face engine that made `embedding`."""


def read_data(
    sets: dict[str, PuppetSettings], pipe: CogVideoXPipeline, cache: Path, logger: TrainingLogger
) -> TrainingData:
    """Render and encode what is missing of `faces`, `clips` and `validation`, then read all of it.

    Row i of `references["train"]` and row i of `targets["images"]` show the same scene.
    """
    frame_px = 8 * pipe.transformer.config.sample_height
    images = sets["faces"].model_copy(update={"kind": "images", "size_px": frame_px})
    people = sets["validation"].people
    changes = {"kind": "clips", "size_px": frame_px, "count": people, "shard": max(1, people // 4)}
    validation_clips = sets["validation"].model_copy(update=changes)
    validation_images = sets["validation"].model_copy(update={"kind": "images", "size_px": frame_px})
    names = ("crop", "embedding", "landmarks")
    references: dict[Split, ShardedDataset] = {
        "train": load_puppets(sets["faces"], cache, logger, names),
        "validation": load_puppets(sets["validation"], cache, logger, names),
    }
    targets = {
        "images": load_latents(images, pipe.vae, cache, logger),
        "clips": load_latents(sets["clips"], pipe.vae, cache, logger),
    }
    validation_targets = {
        "images": load_latents(validation_images, pipe.vae, cache, logger),
        "clips": load_latents(validation_clips, pipe.vae, cache, logger),
    }
    clips = load_puppets(sets["clips"], cache, logger, ("landmarks",))
    image_landmarks = latent_frame_landmarks(references["train"], sets["faces"].size_px, frame_px)
    clip_landmarks = latent_frame_landmarks(clips, sets["clips"].size_px, frame_px)
    return TrainingData(
        references=references,
        targets={
            "images": targets["images"].with_tensor("landmarks", image_landmarks),
            "clips": targets["clips"].with_tensor("landmarks", clip_landmarks),
        },
        validation_targets=validation_targets,
    )


def latent_frame_landmarks(dataset: ShardedDataset, size_px: int, frame_px: int) -> Tensor:
    """Landmarks of latent frames, in pixels of frames of another size: (samples, latent_frames, 5, 2).

    A latent frame after the first codes four frames; its landmarks are their mean.
    """
    return (pool_to_latent_frames(dataset["landmarks"]) + 0.5) * (frame_px / size_px) - 0.5
