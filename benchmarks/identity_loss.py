"""What the identity loss costs at CogVideoX-5B's size, counted, and what its two approximations change, measured.

Costs are counted on torch's meta device, where tensors have shapes and no memory: FLOPs by torch's formulas, of the
decoder, the aligned crop, ArcFace R100 and the way back, recomputation included; and bytes of the storages that
are alive, of which `kept` are those that the forward pass leaves behind and `peak` is the most at any time. Weights,
latents and workspaces of kernels are not in them. A step is the 1,241 TFLOP of one clip with checkpoints.

Errors are measured: of decoding a window instead of the frame, at the tiny VAE on rendered faces and at a random VAE
of CogVideoX's shape and small width; and of decoding a later latent frame as a first one, at the tiny VAE.

    python benchmarks/identity_loss.py --json identity_loss.json
"""

import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from claims import Benchmark
from diffusers import AutoencoderKLCogVideoX
from overhead import LATENT, VAE
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from likeness import weights
from likeness.backbones import vae_forward
from likeness.backbones.taecvx import TaecvxDecoder
from likeness.faces.geometry.layouts import EYE_CENTERS
from likeness.identity.encoders.alignment import arcface_template, crop_corners
from likeness.identity.encoders.arcface import DEPTHS, ArcFace
from likeness.identity.encoders.recognizer import TEMPLATE, Recognizer
from likeness.puppets import sample_clip, sample_image, sample_person
from likeness.training.data.latents import pool_to_latent_frames
from likeness.training.objectives.face_decoder import (
    LATENT_PX,
    FaceDecoder,
    FrameDecoder,
    TaecvxFrameDecoder,
    VaeFrameDecoder,
    Windows,
    face_windows,
)

STEP_TFLOP = 1241.0
"""Of one clip: forward pass, the same again for the checkpoints, and the gradients of the activations."""
MOST_OF_STEP, MOST_GB = 0.02, 3.0
CROPS_PX = {"a face of 112 px": 112, "a face of 224 px": 224}
"""Sides of ArcFace's crop in the frame. At 224 px the crop is nearly half of the frame's height."""
MARGIN = 4
"""The default of `identity_margin`."""


class LiveBytes(TorchDispatchMode):
    """Bytes of the storages that operators have made and that are still alive."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.device.type == "meta":
                self.add(leaf.untyped_storage())
        return output

    def add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self.known:
            return
        size = storage.nbytes()
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.remove, key, size)

    def remove(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


@dataclass(kw_only=True, slots=True)
class Cost:
    """Of the identity loss of one sample."""

    tflop: float
    kept_gb: float
    peak_gb: float


def count(loss: Callable[[Tensor], Tensor]) -> Cost:
    """Count a loss of one latent frame, forward and back."""
    latents = torch.empty(1, *LATENT[1:], dtype=torch.float32, device="meta", requires_grad=True)
    live = LiveBytes()
    with FlopCounterMode(display=False) as flops, live:
        value = loss(latents)
        kept = live.now
        value.backward()
    return Cost(tflop=flops.get_total_flops() / 1e12, kept_gb=kept / 1e9, peak_gb=live.peak / 1e9)


def face_of(side_px: int) -> Tensor:
    """ArcFace's five points (1, 5, 2) of a face whose crop has this side, in the middle of the frame."""
    center = torch.tensor([LATENT[3], LATENT[2]]) * LATENT_PX / 2
    return ((arcface_template(EYE_CENTERS) - 0.5) * side_px + center)[None]


def measure_costs(benchmark: Benchmark) -> None:
    """FLOPs and activations of a whole frame, of windows and of TAECVX, kept or recomputed."""
    with torch.device("meta"):
        vae = AutoencoderKLCogVideoX(**VAE, scaling_factor=0.7).requires_grad_(False)
        taecvx = TaecvxDecoder().to(torch.bfloat16).requires_grad_(False)
        arcface = ArcFace(DEPTHS[100]).requires_grad_(False)
    nn.Module.to(vae, torch.bfloat16)
    arcface.template = arcface_template(EYE_CENTERS)
    largest = max(CROPS_PX)
    cases = [("whole frame", CROPS_PX[largest], 90), *((name, side, MARGIN) for name, side in CROPS_PX.items())]
    for is_checkpointed in (False, True):
        decoders = {
            "VAE": VaeFrameDecoder(vae=vae, dtype=torch.bfloat16, is_checkpointed=is_checkpointed),
            "TAECVX": TaecvxFrameDecoder(model=taecvx, dtype=torch.bfloat16, is_checkpointed=is_checkpointed),
        }
        for kind, decode in decoders.items():
            for name, side, margin in cases:
                decoder = FaceDecoder(decode=decode, template=arcface.template, margin=margin)

                def loss(latents: Tensor, decoder: FaceDecoder = decoder, side: int = side) -> Tensor:
                    pictures, views = decoder(latents, face_of(side)[None])
                    return 1 - F.cosine_similarity(arcface.embed(pictures, views[0]), latents.new_ones(512)).mean()

                report(benchmark, f"{kind}, {name}", count(loss), is_checkpointed=is_checkpointed)


def report(benchmark: Benchmark, name: str, cost: Cost, *, is_checkpointed: bool) -> None:
    key = f"identity_loss.{name}, {'checkpointed' if is_checkpointed else 'kept'}"
    share = cost.tflop / STEP_TFLOP
    benchmark.note(key, f"{cost.tflop:.2f} TFLOP, {100 * share:.2f} % of a step, kept {cost.kept_gb:.2f} GB, "
                        f"peak {cost.peak_gb:.2f} GB")  # fmt: skip
    if is_checkpointed:
        benchmark.claim(f"{key}.share_of_step", share, "<=", MOST_OF_STEP)
        benchmark.claim(f"{key}.peak_gb", cost.peak_gb, "<=", MOST_GB)


@torch.no_grad()
def read_puppets(vae: Any, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Frames, latents and landmarks of rendered clips.

    Shapes:
        returns: (clips, frames, 3, size_px, size_px), (clips, latent_frames, 16, ...) as diffusion has them,
            (clips, frames, 5, 2)
    """
    clips = [sample_clip(seed + index, person=sample_person(seed + index)) for index in range(count)]
    frames = torch.stack([torch.from_numpy(clip.frames).permute(0, 3, 1, 2) / 127.5 - 1 for clip in clips])
    mean, _ = vae_forward.encode(vae, frames.transpose(1, 2))
    landmarks = torch.stack([torch.as_tensor(clip.landmarks, dtype=torch.float32) for clip in clips])
    return frames, (mean * vae.config.scaling_factor).transpose(1, 2), landmarks


@torch.no_grad()
def read_images(vae: Any, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Latents and landmarks of rendered images of 192 px in which heads are as large as in tiny's frames of 64 px."""
    images = [sample_image(seed + index, size_px=192, zoom=1 / 3) for index in range(count)]
    frames = torch.stack([torch.from_numpy(image.frames).permute(3, 0, 1, 2) / 127.5 - 1 for image in images])
    mean, _ = vae_forward.encode(vae, frames)
    landmarks = torch.stack([torch.as_tensor(image.landmarks[0], dtype=torch.float32) for image in images])
    return mean[:, :, 0] * vae.config.scaling_factor, landmarks


def window_error(
    decode: FrameDecoder, latents: Tensor, landmarks: Tensor, margin: int, embed: Any = None
) -> dict[str, float]:
    """How a window differs from the whole frame where the crop is.

    Returns:
        `share`: of the frame that the window has; `rms`: of the pixels, as a share of their standard deviation;
        `gradient`: the cosine of the gradients of a loss over the crop with respect to the latents of the frame;
        `embedding`: the cosine of the embeddings.
    """
    latents = latents.clone().requires_grad_()
    height, width = latents.shape[-2:]
    windows = face_windows(crop_corners(landmarks, TEMPLATE), height=height, width=width, margin=margin)
    everything = Windows(top=0 * windows.top, left=0 * windows.left, height=height, width=width)
    whole, part = decode(latents, everything), decode(latents, windows)
    inner = face_windows(crop_corners(landmarks, TEMPLATE), height=height, width=width, margin=0)
    sums, crops = [], []
    for frames, offset in ((whole, (0 * windows.top, 0 * windows.left)), (part, (windows.top, windows.left))):
        tops, lefts = ((LATENT_PX * (a - b)).tolist() for a, b in zip((inner.top, inner.left), offset, strict=True))
        size_y, size_x = LATENT_PX * inner.height, LATENT_PX * inner.width
        crop = torch.stack([f[:, y : y + size_y, x : x + size_x]
                            for f, y, x in zip(frames, tops, lefts, strict=True)])  # fmt: skip
        crops.append(crop)
        if embed is None:
            pattern = torch.randn(crop.shape, generator=torch.Generator().manual_seed(0))
            sums.append((crop * F.avg_pool2d(pattern, 9, 1, 4)).sum())
        else:
            moved = landmarks - LATENT_PX * torch.stack([offset[1], offset[0]], dim=-1)[:, None]
            sums.append(embed(frames, moved))
    a, b = (crop.detach() for crop in crops)
    share = windows.height * windows.width / (height * width)
    result = {"share": share, "rms": float((a - b).square().mean().sqrt() / a.std())}
    if embed is not None:
        result["embedding"] = float(F.cosine_similarity(*(each.detach() for each in sums)).mean())
        # The loss to an embedding that neither has.
        other = sums[0].detach().roll(1, dims=0)
        sums = [(1 - F.cosine_similarity(each, other)).sum() for each in sums]
    gradients = [torch.autograd.grad(each, latents)[0].flatten(1) for each in sums]
    return result | {"gradient": float(F.cosine_similarity(*gradients).mean())}


def measure_windows(benchmark: Benchmark, vae: Any, recognizer: Recognizer, data: Any) -> None:
    """The error of windows by margin: at the tiny VAE, and at a random one of CogVideoX's shape."""
    latents, landmarks = data
    decode = VaeFrameDecoder(vae=vae, dtype=torch.float32, is_checkpointed=False)
    embed = lambda frames, points: recognizer.standardize(recognizer.embed(frames, points))  # noqa: E731
    for margin in (0, 1, 2, 3, 4):
        error = window_error(decode, latents, landmarks, margin, embed)
        benchmark.note(f"window.tiny.margin_{margin}", describe(error))
    benchmark.claim("identity_loss.window.tiny.embedding_at_default", error["embedding"], ">=", 0.99)
    random = AutoencoderKLCogVideoX(**{**VAE, "block_out_channels": (8, 16, 16, 32), "norm_num_groups": 2})
    decode = VaeFrameDecoder(vae=random.requires_grad_(False), dtype=torch.float32, is_checkpointed=False)
    noise = torch.randn(1, 16, LATENT[2], LATENT[3])
    smooth = F.interpolate(torch.randn(1, 16, LATENT[2] // 5, LATENT[3] // 5), size=noise.shape[-2:], mode="bilinear")
    face = (TEMPLATE[None] - 0.5) * 224 + torch.tensor([300.0, 220.0])
    errors = {}
    for margin in (0, 1, 2, 4, 8, 16, 32):
        errors[margin] = window_error(decode, 0.5 * noise + smooth, face, margin)
        benchmark.note(f"window.random.margin_{margin}", describe(errors[margin]))

    def decode_alone(latents: Tensor, windows: Windows) -> Tensor:
        return vae_forward.decode_frame(random, windows.crop(latents) / random.config.scaling_factor)

    alone = window_error(decode_alone, 0.5 * noise + smooth, face, MARGIN)
    benchmark.note(f"window.random.by_its_own_statistics.margin_{MARGIN}", describe(alone))
    benchmark.claim("identity_loss.window.random.rms_at_default", errors[MARGIN]["rms"], "<=", 0.01)
    benchmark.claim("identity_loss.window.random.gradient_at_default", errors[MARGIN]["gradient"], ">=", 0.95)


@torch.no_grad()
def measure_frames(benchmark: Benchmark, vae: Any, recognizer: Recognizer, data: Any) -> None:
    """What a latent frame shows when it is decoded as a first one, against the four frames of the whole clip."""
    frames, latents, landmarks = data
    scaled = (latents / vae.config.scaling_factor).transpose(1, 2)
    whole = vae_forward.decode(vae, scaled).transpose(1, 2)  # (clips, frames, 3, px, px)
    mean_points = pool_to_latent_frames(landmarks)
    embed = lambda pictures, points: recognizer.standardize(recognizer.embed(pictures, points))  # noqa: E731
    reference = embed(frames[:, 0], landmarks[:, 0])
    rows: dict[str, list[Tensor]] = {}
    for index in range(1, latents.shape[1]):
        alone = vae_forward.decode_frame(vae, scaled[:, :, index])
        four = slice(4 * index - 3, 4 * index + 1)
        for place, frame in enumerate(range(four.start, four.stop)):
            rows.setdefault(f"error_to_frame_{place}", []).append((alone - whole[:, frame]).square().mean())
        rows.setdefault("error_to_mean", []).append((alone - whole[:, four].mean(dim=1)).square().mean())
        rows.setdefault("error_of_neighbors", []).append(
            (whole[:, four.start] - whole[:, four.stop - 1]).square().mean()
        )
        found = embed(alone, mean_points[:, index])
        inside = [embed(whole[:, frame], landmarks[:, frame]) for frame in range(four.start, four.stop)]
        for name, each in (("alone", found), ("whole", torch.stack(inside).mean(dim=0))):
            rows.setdefault(f"loss_{name}", []).append((1 - F.cosine_similarity(each, reference)).mean())
        for name, each in (("alone_to_whole", found),):
            other = torch.stack(inside).mean(dim=0)
            rows.setdefault(f"cosine_{name}", []).append(F.cosine_similarity(each, other).mean())
    first = embed(vae_forward.decode_frame(vae, scaled[:, :, 0]), landmarks[:, 0])
    benchmark.note("frame.first.loss", float((1 - F.cosine_similarity(first, reference)).mean()))
    for name, values in rows.items():
        value = float(torch.stack(values).mean())
        benchmark.note(f"frame.later.{name}", value**0.5 if name.startswith("error") else value)
    bias = float(torch.stack(rows["loss_alone"]).mean() - torch.stack(rows["loss_whole"]).mean())
    benchmark.claim("identity_loss.frame.bias_of_loss", abs(bias), "<=", 0.05)


def describe(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in values.items())


def main() -> int:
    """Count, measure, claim."""
    benchmark = Benchmark("identity_loss", seed=7000)
    arguments = benchmark.arguments()
    torch.manual_seed(arguments.seed)
    measure_costs(benchmark)
    folder = weights.CHECKPOINTS / "tiny"
    vae = AutoencoderKLCogVideoX.from_pretrained(folder / "vae", torch_dtype=torch.float32, local_files_only=True)
    vae.requires_grad_(False).eval()
    recognizer = Recognizer.load(folder / "recognizer").requires_grad_(False).eval()
    count_of_each = 4 if arguments.quick else 24
    measure_windows(benchmark, vae, recognizer, read_images(vae, count_of_each, arguments.seed))
    measure_frames(benchmark, vae, recognizer, read_puppets(vae, count_of_each, arguments.seed))
    return benchmark.finish()


if __name__ == "__main__":
    sys.exit(main())
