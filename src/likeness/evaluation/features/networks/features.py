"""Features of large networks, in batches. torch and a network are loaded on first use."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from likeness.evaluation.features.base import DecodedVideo, Feature, Features
from likeness.evaluation.features.flow import sample_interval, top_mean
from likeness.faces import FaceEngine
from likeness.faces.engines.registry import load_engine
from likeness.records import Detection, Face
from likeness.weights import locate

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Module

BATCH = 16
ARCFACE = "research/buffalo_l"
"""insightface's default pack, which OpenS2V's script uses."""
_PADDING = 0.25
_GRAY = 128


def measure_raft(video: DecodedVideo, _: Features) -> dict[str, np.ndarray]:
    """RAFT's flow between the frames that the dynamic degree samples; shape as of `flow`'s `fast_px`.

    As in VBench, sides are padded to multiples of eight, and the padding counts for the fastest 5 %.
    """
    from likeness.evaluation.features.networks.load import raft
    from likeness.evaluation.features.networks.raft import pad_to_eight

    frames = video.frames[:: sample_interval(video.fps)]
    network, fast_px = raft(), []
    for start in range(0, len(frames) - 1, 4):  # Correlation volumes are large.
        pictures, _sides = pad_to_eight(_to_tensor(frames[start : start + 5], network))
        flow = network(pictures[:-1], pictures[1:])
        fast_px += [top_mean(lengths) for lengths in flow.norm(dim=1).cpu().numpy()]
    return {"fast_px": np.array(fast_px, dtype=np.float32)}


def measure_inception(video: DecodedVideo, _: Features) -> dict[str, np.ndarray]:
    """Class probabilities of all frames, (frames, 1008)."""
    from likeness.evaluation.features.networks.load import inception

    network = inception()
    found = [network(pictures)[1].cpu().numpy() for pictures in _batches(video.frames, network)]
    return {"probabilities": np.concatenate(found)}


def measure_face_inception(video: DecodedVideo, features: Features) -> dict[str, np.ndarray]:
    """Inception features of each face's box, (faces, 2048), rows as in `faces`."""
    faces = features["faces"]
    rows = [inception_of(video.frames[frame], box) for frame, box in zip(faces["frame"], faces["box"], strict=True)]
    return {"features": np.array(rows, dtype=np.float32).reshape(-1, 2048)}


def inception_of(picture: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Inception features of the crop in a box, clipped to the image: (2048,)."""
    from likeness.evaluation.features.networks.load import inception

    left, top, right, bottom = np.maximum(np.round(box), 0).astype(int)
    crop = picture[top : max(bottom, top + 1), left : max(right, left + 1)]
    network = inception()
    return network(_to_tensor(crop[None], network))[0][0].cpu().numpy()


def measure_arcface(video: DecodedVideo, _: Features) -> dict[str, np.ndarray]:
    """ArcFace embedding of the largest face of each frame, (frames, 512), NaN where there is none."""
    return {"embedding": np.stack([arcface_of(frame) for frame in video.frames])}


def arcface_of(picture: np.ndarray) -> np.ndarray:
    """ArcFace embedding of the largest face; detection is repeated with a gray border where none is found."""
    engine = load_engine(ARCFACE)
    found = _largest(engine, picture)
    if found is None:
        height, width = picture.shape[:2]
        down, across = int(height * _PADDING), int(width * _PADDING)
        picture = np.pad(picture, ((down, down), (across, across), (0, 0)), constant_values=_GRAY)
        found = _largest(engine, picture)
    if found is None:
        return np.full(engine.embedding_width, np.nan, dtype=np.float32)
    return engine.embed(picture, found.landmarks)


def measure_viclip(video: DecodedVideo, _: Features) -> dict[str, np.ndarray]:
    """ViCLIP's embedding of eight frames of the video, (768,)."""
    from likeness.evaluation.features.networks.load import viclip
    from likeness.evaluation.features.networks.viclip import middle_frames, prepare

    network = viclip()
    clip = prepare(video.frames[middle_frames(len(video.frames))])
    return {"embedding": network.embed_video(clip.to(_device(network)))[0].cpu().numpy()}


def embed_prompt(prompt: str) -> np.ndarray:
    """ViCLIP's embedding of a prompt, (768,)."""
    from likeness.evaluation.features.networks.load import viclip
    from likeness.evaluation.features.networks.viclip import read_tokenizer, tokenize

    network = viclip()
    tokens = tokenize(read_tokenizer(locate("clip-vocabulary")), prompt)
    return network.embed_text(tokens.to(_device(network)))[0].cpu().numpy()


def _largest(engine: FaceEngine, picture: np.ndarray) -> Detection | None:
    def area(face: Detection) -> float:
        return (face.box[2] - face.box[0]) * (face.box[3] - face.box[1])

    sure = (face for face in engine.detect(picture) if face.score >= engine.min_score)
    return max(sure, key=area, default=None)


def _batches(frames: np.ndarray, network: "Module") -> "Iterator[Tensor]":
    for start in range(0, len(frames), BATCH):
        yield _to_tensor(frames[start : start + BATCH], network)


def _to_tensor(frames: np.ndarray, network: "Module") -> "Tensor":
    """(batch, 3, height, width) float from 0 to 255, on the network's device."""
    import torch

    pictures = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2)
    return pictures.to(_device(network)).float()


def _device(network: "Module") -> "torch.device":
    return next(network.parameters()).device


def _arcface_of_reference(picture: np.ndarray, _: Face) -> np.ndarray:
    return arcface_of(picture)


def _inception_of_reference(picture: np.ndarray, face: Face) -> np.ndarray:
    return inception_of(picture, np.array(face.box))


NETWORK_FEATURES = (
    Feature(name="raft", version=1, compute=measure_raft, weights=("raft",)),
    Feature(name="inception", version=1, compute=measure_inception, weights=("inception",)),
    Feature(
        name="face_inception",
        version=1,
        compute=measure_face_inception,
        depends_on=("faces",),
        weights=("inception",),
        compute_for_reference=_inception_of_reference,
    ),
    Feature(
        name="arcface",
        version=1,
        compute=measure_arcface,
        weights=("buffalo_l",),
        compute_for_reference=_arcface_of_reference,
    ),
    Feature(name="viclip", version=1, compute=measure_viclip, weights=("viclip", "clip-vocabulary")),
)
