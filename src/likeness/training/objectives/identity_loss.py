"""The identity loss: 1 - cos between the embedding of a decoded frame and that of the reference.

It is the L_id of Magic Mirror (arXiv:2501.03931v1) with the distilled recognizer in the place of the face model.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from likeness.backbones import codec
from likeness.identity.encoders.recognizer import Recognizer, align, contrastive_loss


class IdentityLoss:
    """Decodes the first frame of latents and compares its face with the reference.

    Args:
        vae: Decodes; frozen.
        recognizer: Embeds faces; frozen.
        dtype: Of decoding.
        num_views: Crops of each face that the loss is averaged over. Those after the first are jittered and every other
            one is mirrored, so that patterns that depend on exact pixel positions are not rewarded.
        contrast_weight: Weight of telling each person from the others of the batch (InfoNCE, arXiv:1807.03748v2,
            Eq. 4).
    """

    def __init__(
        self, vae: Any, recognizer: Recognizer, dtype: torch.dtype, *, num_views: int = 1, contrast_weight: float = 0.0
    ) -> None:
        self.vae, self.recognizer, self.dtype = vae, recognizer, dtype
        self.num_views, self.contrast_weight = num_views, contrast_weight

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

    def terms(self, latents: Tensor, landmarks: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Mean 1 - cos, and the mean InfoNCE loss (0 without `contrast_weight`).

        Embeddings are standardized first: raw ones of dlib share a mean that hides the differences between people.

        Shapes:
            latents: (batch, frames, channels, height, width); only the first frame is used
            landmarks: (batch, landmarks, 2) px, or (batch, people, landmarks, 2)
            embedding: (batch, embedding_width), or (batch, people, embedding_width)
            returns: (), twice
        """
        scaled = latents[:, :1].transpose(1, 2) / self.vae.config.scaling_factor
        frames = codec.decode(self.vae, scaled.to(self.dtype)).squeeze(2).float()  # (batch, 3, height, width)
        landmarks, embedding = landmarks.flatten(0, -3), embedding.flatten(0, -2)  # (batch * people, ...)
        frames = frames.repeat_interleave(len(landmarks) // len(frames), dim=0)
        target = self.recognizer.standardize(embedding)
        distances, contrasts = [], [torch.zeros(())]
        for view in range(self.num_views):
            points = jitter_landmarks(landmarks) if view else landmarks
            crops = align(frames, points, self.recognizer.size_px)
            predicted = self.recognizer(crops.flip(-1) if view % 2 else crops)
            distances.append(1 - F.cosine_similarity(predicted, target).mean())
            if self.contrast_weight:
                contrasts.append(contrastive_loss(predicted, target))
        return torch.stack(distances).mean(), torch.stack(contrasts).sum() / self.num_views


def jitter_landmarks(points: Tensor, shift: float = 0.05, scale: float = 0.05) -> Tensor:
    """Move and scale landmarks (batch, points, 2) at random; `shift` and `scale` are shares of the face's extent."""
    center = points.mean(dim=1, keepdim=True)
    extent = (points.amax(dim=1, keepdim=True) - points.amin(dim=1, keepdim=True)).amax(dim=2, keepdim=True)
    factor = 1 + scale * torch.randn(len(points), 1, 1)
    return center + (points - center) * factor + shift * extent * torch.randn(len(points), 1, 2)
