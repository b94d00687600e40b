"""The identity loss: 1 - cos between the embedding of a decoded frame and that of the reference.

It is the L_id of Magic Mirror (arXiv:2501.03931v1), with any recognizer that has gradients: ArcFace, which the paper
uses, or the one distilled from dlib's.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from likeness.errors import ConfigError
from likeness.identity.encoders.recognizer import IdentityRecognizer, contrastive_loss
from likeness.training.objectives.face_decoder import FaceDecoder

Average = Literal["qualifying", "all"]
"""Whether a mean is over the samples that qualify, or over all and those that are not decoded count as zero."""


class IdentityLoss:
    """Decodes the face of one latent frame of each sample and compares it with the reference.

    Args:
        decoder: Decodes windows around faces; frozen.
        recognizer: Embeds faces; frozen.
        num_views: Crops of each face that the loss is averaged over. Those after the first are jittered and every other
            one is mirrored, so that patterns that depend on exact pixel positions are not rewarded.
        contrast_weight: Weight of telling each person from the others of the batch (InfoNCE, arXiv:1807.03748v2,
            Eq. 4).
        frames: Which latent frame: a random one of those whose landmarks are known, or the first.
    """

    def __init__(
        self,
        decoder: FaceDecoder,
        recognizer: IdentityRecognizer,
        *,
        num_views: int = 1,
        contrast_weight: float = 0.0,
        frames: Literal["any", "first"] = "any",
    ) -> None:
        self.decoder, self.recognizer = decoder, recognizer
        self.num_views, self.contrast_weight, self.frames = num_views, contrast_weight, frames

    def __call__(
        self, name: str, latents: Tensor, landmarks: Tensor, embedding: Tensor, metrics: dict[str, float]
    ) -> Tensor:
        """The loss; its parts are added to `metrics` as `name` and `name_contrast`. Shapes as in `terms`."""
        distance, contrast = self.terms(latents, landmarks, embedding)
        metrics[name] = float(distance.detach())
        if not self.contrast_weight:
            return distance
        metrics[f"{name}_contrast"] = float(contrast.detach())
        return distance + self.contrast_weight * contrast

    def has_face(self, landmarks: Tensor) -> Tensor:
        """Which samples have a latent frame that can be used: (batch,). NaN marks frames without a face."""
        known = _is_known(landmarks)
        return known[:, 0] if self.frames == "first" else known.any(dim=1)

    def terms(self, latents: Tensor, landmarks: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Mean 1 - cos, and the mean InfoNCE loss (0 without `contrast_weight`).

        Shapes:
            latents: (batch, frames, channels, height, width)
            landmarks: (batch, frames, 5, 2) px, or (batch, frames, people, 5, 2); of as many first frames as are known
            embedding: (batch, embedding_width), or (batch, people, embedding_width)
            returns: (), twice
        """
        chosen = self.choose_frames(landmarks)
        row = torch.arange(len(latents))
        points = landmarks[row, chosen].flatten(0, -3).float()  # (batch * people, 5, 2)
        embedding = embedding.flatten(0, -2)
        frames = latents[row.to(latents.device), chosen.to(latents.device)]
        frames = frames.repeat_interleave(len(points) // len(frames), dim=0)
        views = torch.stack([jitter_landmarks(points) if view else points for view in range(self.num_views)])
        pictures, views = self.decoder(frames, views)
        target = self.recognizer.standardize(embedding)
        distances, contrasts = [], [pictures.new_zeros(())]
        for view, moved in enumerate(views):
            embedded = self.recognizer.embed(pictures, moved, is_mirrored=view % 2 == 1)
            predicted = self.recognizer.standardize(embedded)
            distances.append(1 - F.cosine_similarity(predicted, target).mean())
            if self.contrast_weight:
                contrasts.append(contrastive_loss(predicted, target))
        return torch.stack(distances).mean(), torch.stack(contrasts).sum() / self.num_views

    def choose_frames(self, landmarks: Tensor) -> Tensor:
        """A latent frame of each sample, (batch,), with known landmarks."""
        if self.frames == "first" or landmarks.shape[1] == 1:
            return torch.zeros(len(landmarks), dtype=torch.long)
        return torch.multinomial(_is_known(landmarks).float().cpu(), 1)[:, 0]


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodedSamples:
    """The samples of this process that an auxiliary loss is computed of."""

    rows: Tensor
    """(samples,), ascending."""
    loss_factor: float
    """What their mean loss is multiplied by, so that the processes' gradients, averaged, are those of the mean over
    the qualifying samples of the whole step."""


def choose_samples(
    qualifies: Tensor,
    limit: int,
    name: str,
    metrics: dict[str, float],
    *,
    average: Average = "qualifying",
    num_in_step: int | None = None,
    micro_batches: int = 1,
) -> DecodedSamples:
    """Choose which samples are decoded, at random where more qualify than can be.

    The expected loss is the mean over all qualifying samples of an optimizer step: a process with q of the Q qualifying
    ones in W processes and A micro-batches weights its mean by A W q / Q, however many it decodes; the gradients of
    micro-batches are averaged later. All processes have to call it for every micro-batch.

    Args:
        qualifies: (batch,), boolean, of this process.
        limit: Samples that one process decodes at most; at least 1.
        name: Of the loss; how many samples of all processes qualify and are decoded is added to `metrics`.
        metrics: Of the step.
        average: Of what the weighted loss is the mean.
        num_in_step: Qualifying samples of this process in all micro-batches of the step; None for one micro-batch.
        micro_batches: A.
    """
    qualifying = qualifies.nonzero()[:, 0].cpu()
    rows = qualifying if len(qualifying) <= limit else qualifying[torch.randperm(len(qualifying))[:limit]].sort().values
    counts = torch.tensor(
        [len(qualifying), len(rows), len(qualifying) if num_in_step is None else num_in_step], dtype=torch.float64
    )
    processes = 1
    if dist.is_available() and dist.is_initialized():
        processes = dist.get_world_size()
        counts = counts.to(qualifies.device if dist.get_backend() == "nccl" else "cpu")
        dist.all_reduce(counts)
    num_qualifying, num_decoded, step_qualifying = counts.tolist()
    metrics |= {f"{name}_qualifying": num_qualifying, f"{name}_decoded": num_decoded}
    if average == "all":
        return DecodedSamples(rows=rows, loss_factor=len(rows) / len(qualifies))
    return DecodedSamples(rows=rows, loss_factor=micro_batches * processes * len(qualifying) / max(step_qualifying, 1))


def check_embedding_width(recognizer: IdentityRecognizer, embedding: Tensor) -> None:
    """Refuse references whose embeddings are of another recognizer.

    Raises:
        ConfigError: The widths differ.
    """
    if embedding.shape[-1] != recognizer.embedding_width:
        raise ConfigError(
            f"The references' embeddings hold {embedding.shape[-1]} numbers, and the recipe's `recognizer` gives "
            f"{recognizer.embedding_width}. Use the recognizer of the engine that the data was made with."
        )


def jitter_landmarks(points: Tensor, shift: float = 0.05, scale: float = 0.05) -> Tensor:
    """Move and scale landmarks (batch, points, 2) at random; `shift` and `scale` are shares of the face's extent."""
    center = points.mean(dim=1, keepdim=True)
    extent = (points.amax(dim=1, keepdim=True) - points.amin(dim=1, keepdim=True)).amax(dim=2, keepdim=True)
    factor = 1 + scale * torch.randn(len(points), 1, 1).to(points)
    return center + (points - center) * factor + shift * extent * torch.randn(len(points), 1, 2).to(points)


def _is_known(landmarks: Tensor) -> Tensor:
    """Which frames have finite landmarks of all people: (batch, frames)."""
    return landmarks.isfinite().flatten(2).all(dim=2)
