"""Encodes media files and prompts: latents, faces in them, reference views, and states of the text encoder."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likeness.errors import FaceError, LikenessError
from likeness.faces.engines.base import FaceEngine, distances
from likeness.faces.geometry.align import crop_head
from likeness.faces.read import DETAIL_PX, WHOLE_IMAGE_PX, find_faces, prominence
from likeness.faces.views import choose_faces
from likeness.media import resize_and_center_crop
from likeness.records import Face
from likeness.training.files.media_tensors import MediaFrames, read_frames

_LOG = logging.getLogger(__name__)

DETECTION_PX = 384
"""Smaller frames are enlarged to this side before faces are searched."""
MAX_VIEW_FRAMES = 32
"""Frames of a video among which reference views are chosen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedTarget:
    """One target of training.

    Shapes:
        latents: (latent_frames, channels, height, width) float16, scaled as the pipeline scales them
        mask: (latent_frames, height, width) float16, the share of each latent pixel that shows the face
        landmarks: (latent_frames, 5, 2) float32, pixels of the frame; NaN where no face was found
    """

    latents: Tensor
    mask: Tensor
    landmarks: Tensor


class LatentEncoder:
    """Encodes frames with the VAE of the base.

    Args:
        vae: A stock `AutoencoderKLCogVideoX`; it is moved to `device`.
        device: Where it runs.
        dtype: Of its activations.
        encode: From (vae, frames as (1, 3, frames, height, width)) to the mean of the latents; the stock encoder by
            default.
    """

    def __init__(
        self,
        vae: Any,
        device: torch.device,
        dtype: torch.dtype,
        encode: Callable[[Any, Tensor], Tensor] | None = None,
    ) -> None:
        self.vae, self.device, self.dtype = vae.to(device), device, dtype
        self._encode = encode or _encode_stock

    @torch.no_grad()
    def __call__(self, media: MediaFrames) -> Tensor:
        """Latents (latent_frames, channels, height, width) in float16."""
        pixels = media.pixels().transpose(0, 1)[None].to(self.device, self.dtype)
        mean = self._encode(self.vae, pixels).float() * self.vae.config.scaling_factor
        return mean[0].transpose(0, 1).half().cpu()


def _encode_stock(vae: Any, pixels: Tensor) -> Tensor:
    return vae.encode(pixels).latent_dist.mode()


class TextEncoder:
    """Encodes token ids with the text encoder of the base."""

    def __init__(self, text_encoder: Any, device: torch.device) -> None:
        self.text_encoder, self.device = text_encoder.to(device).eval(), device

    @torch.no_grad()
    def __call__(self, token_ids: Tensor) -> Tensor:
        """States (batch, tokens, width) of ids (batch, tokens), in the encoder's dtype."""
        return self.text_encoder(token_ids.to(self.device))[0].cpu()


def find_targets(
    media: MediaFrames, engine: FaceEngine, *, min_score: float, person: Sequence[np.ndarray] = ()
) -> tuple[Tensor, Tensor]:
    """Find the person's face in each latent frame: the mask and the landmarks of `EncodedTarget`.

    One frame of the four (one for the first) behind each latent frame is searched. Of several faces the one nearest to
    the person's embeddings counts, without those the most prominent.
    """
    frames, height, width = media.frames.shape[:3]
    counts = (frames - 1) // 4 + 1
    masks = np.zeros((counts, height // 8, width // 8), np.float32)
    landmarks = np.full((counts, 5, 2), np.nan, np.float32)
    for number in range(counts):
        frame = media.frames[0 if number == 0 else 4 * number - 1]
        found = [f for f in find_faces(frame, engine, enlarge_to_px=DETECTION_PX) if is_confident(f, engine, min_score)]
        if not found:
            continue
        face = _nearest(found, person) if len(found) > 1 and person else max(found, key=prominence)
        landmarks[number] = face.landmarks
        masks[number] = draw_mask(face, height, width)
    return torch.from_numpy(masks).half(), torch.from_numpy(landmarks)


def is_confident(face: Face, engine: FaceEngine, min_score: float) -> bool:
    """Whether a face counts for training.

    Detectors of the `open` and `research` engines give probabilities, which `min_score` is compared with. dlib's score
    is no probability; there the engine's own calibrated rule, which has found the face, decides.
    """
    return face.score >= min_score or engine.name == "dlib"


def draw_mask(face: Face, height_px: int, width_px: int) -> np.ndarray:
    """The share of each latent pixel (8 px) that lies in the ellipse inscribed in the face's box.

    Shapes:
        returns: (height_px / 8, width_px / 8) float32
    """
    left, top, right, bottom = face.box
    y, x = np.mgrid[:height_px, :width_px] + 0.5
    x_from_center = (x - (left + right) / 2) / max((right - left) / 2, 1)
    y_from_center = (y - (top + bottom) / 2) / max((bottom - top) / 2, 1)
    inside = (x_from_center**2 + y_from_center**2 <= 1).astype(np.float32)
    return inside.reshape(height_px // 8, 8, width_px // 8, 8).mean(axis=(1, 3))


def find_views(path: Path, engine: FaceEngine, *, num_views: int, min_score: float, fps: float) -> list[Face]:
    """The reference views of a media file: the face of a picture, or the views of a video that differ most (F1).

    Every view has a `detail` crop. The person of a video is the one found in most frames.

    Raises:
        FaceError: There is no face that is certain enough, or a picture shows several people.
        MediaError: The file cannot be decoded.
    """
    frames, is_video = read_frames(path, max_frames=4 * MAX_VIEW_FRAMES, fps=fps)
    frames = frames[:: max(1, len(frames) // MAX_VIEW_FRAMES)] if is_video else frames
    faces: list[Face] = []
    for frame in frames:
        found = find_faces(frame, engine, enlarge_to_px=DETECTION_PX, source=str(path))
        found = [face for face in found if is_confident(face, engine, min_score)]
        if not is_video and len(found) > 1:
            raise FaceError(f"{path} shows {len(found)} faces; a reference shows one person. Crop it.")
        if found:
            face = max(found, key=prominence)
            detail = crop_head(frame, face.landmarks, DETAIL_PX, layout=engine.layout)
            whole = resize_and_center_crop(frame, WHOLE_IMAGE_PX)
            faces.append(replace(face, detail=detail, whole_image=whole))
    if not faces:
        raise FaceError(f"{path} has no face of at least {min_score} confidence. Use another picture or video.")
    return choose_faces(_same_person(faces), num_views) if is_video else faces


def _same_person(faces: list[Face]) -> list[Face]:
    """The faces of the person who is found most often."""
    embeddings = np.stack([face.embedding for face in faces])
    is_same = np.stack([distances(embeddings, face.embedding, face.metric) < face.threshold for face in faces])
    return [faces[number] for number in np.flatnonzero(is_same[is_same.sum(axis=1).argmax()])]


def _nearest(faces: Sequence[Face], person: Sequence[np.ndarray]) -> Face:
    person_embeddings = np.stack(person)
    return min(faces, key=lambda face: float(distances(person_embeddings, face.embedding, face.metric).min()))


def describe_failure(error: LikenessError) -> str:
    """One line for the list of skipped files."""
    return str(error).splitlines()[0]
