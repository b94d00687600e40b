"""Clips as latents on disk, so that a transformer never waits for a VAE."""

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from likeness.backbones import codec
from likeness.runtime import choose_training_dtype
from likeness.training import parallel, render
from likeness.training.data import Shards, to_float, unpack_mask
from likeness.training.progress import Journal


def latents(
    settings: render.PuppetSettings,
    vae: codec.Vae,
    cache: Path,
    journal: Journal,
    *,
    batch: int = 16,
) -> Shards:
    """Render and encode what is missing of a set, then read it.

    Shapes:
        latents: (samples, latent_frames, channels, height, width) float16, scaled as the pipeline scales them
        mask: (samples, latent_frames, height, width) float16, the share of each latent pixel that is face
        maps: (samples, latent_frames, channels, 2 * height, 2 * width) uint8, dense ground truth where it was rendered
            (`likeness.puppets.maps`)
    """
    if parallel.rank() == 0:
        for done, total in render.build(settings, cache):
            journal.say(f"rendering {settings.kind}: {done} of {total} shards")
    parallel.wait()
    source = render.folder(settings, cache)
    target = cache / f"{source.name}_{_fingerprint(vae)}"
    target.mkdir(parents=True, exist_ok=True)
    paths = sorted(source.glob("[0-9]*.json"))
    for number, path in enumerate(paths):
        if number % parallel.world() != parallel.rank() or (target / path.name).exists():
            continue
        shard = load_file(path.with_suffix(".safetensors"))
        parts = [_encode(vae, shard["frames"][i : i + batch]) for i in range(0, len(shard["frames"]), batch)]
        tensors = {"latents": torch.cat(parts), "mask": shrink_mask(unpack_mask(shard["mask"])).half()}
        if "maps" in shard:
            tensors["maps"] = average_frames(shard["maps"].float()).round().byte()
        partial = target / f"{path.stem}.partial"
        save_file(tensors, partial)
        partial.rename(target / f"{path.stem}.safetensors")
        partial.write_text(path.read_text())
        partial.rename(target / path.name)
        journal.say(f"encoding {settings.kind}: {number + 1} of {len(paths)} shards")
    parallel.wait()
    return Shards.read(target)


def shrink_mask(mask: Tensor) -> Tensor:
    """(samples, frames, height, width) booleans to the latent grid: the first frame alone, then fours, 8x8 pixels."""
    return average_frames(F.avg_pool2d(mask.float(), 8))


def average_frames(values: Tensor) -> Tensor:
    """(samples, frames, ...) to (samples, latent_frames, ...): the first frame alone, then means of fours."""
    first, rest = values[:, :1], values[:, 1:]
    if not rest.shape[1]:
        return first
    return torch.cat([first, rest.unflatten(1, (-1, 4)).mean(dim=2)], dim=1)


@torch.no_grad()
def _encode(vae: codec.Vae, frames: Tensor) -> Tensor:
    pixels = to_float(frames).transpose(1, 2).to(choose_training_dtype("auto"))
    mean, _ = codec.encode(vae, pixels)
    return (mean.float() * vae.config.scaling_factor).transpose(1, 2).half().contiguous()


def _fingerprint(vae: codec.Vae) -> str:
    digest = hashlib.sha256(repr(vae.config.scaling_factor).encode())
    for value in vae.encoder.state_dict().values():
        digest.update(value.half().numpy().tobytes())
    return digest.hexdigest()[:12]
