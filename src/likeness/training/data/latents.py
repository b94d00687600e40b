"""Data sets encoded by a VAE, cached on disk."""

import hashlib
from contextlib import ExitStack
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from likeness.backbones import vae_forward
from likeness.runtime import choose_training_dtype
from likeness.training.data import render_puppets, shards
from likeness.training.data.datasets import ShardedDataset, ensure_rendered, read_tensors, to_float, unpack_mask
from likeness.training.engine import checkpoints, distributed
from likeness.training.engine.logging import TrainingLogger


def load_latents(
    settings: render_puppets.PuppetSettings,
    vae: vae_forward.Vae,
    cache: Path,
    logger: TrainingLogger,
    *,
    batch: int = 16,
) -> ShardedDataset:
    """Render and encode the missing shards of a data set, then read it.

    Shapes:
        latents: (samples, latent_frames, channels, height, width) float16, scaled as the pipeline scales them
        mask: (samples, latent_frames, height, width) float16, the share of each latent pixel that shows the face
        maps: (samples, latent_frames, channels, 2 * height, 2 * width) uint8, dense ground truth of images and clips
            (`likeness.puppets.rendering.maps`)
    """
    ensure_rendered(settings, cache, logger)
    source = render_puppets.folder(settings, cache)
    target = cache / f"{source.name}_{_vae_hash(vae)}"
    total = -(-settings.count // settings.shard)
    with ExitStack() as stack:
        if distributed.rank() == 0:
            stack.enter_context(shards.lock_folder(target))
        distributed.barrier()
        for index in range(distributed.rank(), total, distributed.world_size()):
            if shards.is_complete(target, index, render_puppets.num_shard_samples(settings, index)):
                continue
            _encode_shard(vae, source, target, index, batch)
            logger.info(f"encoding {settings.kind}: {index + 1} of {total} shards")
        distributed.barrier()
    return ShardedDataset.read(target, count=settings.count)


def _encode_shard(vae: vae_forward.Vae, source: Path, target: Path, index: int, batch: int) -> None:
    path = source / f"{index:05d}.safetensors"
    shard = read_tensors(path)
    parts = [_encode(vae, shard["frames"][i : i + batch]) for i in range(0, len(shard["frames"]), batch)]
    tensors = {"latents": torch.cat(parts), "mask": downsample_mask(unpack_mask(shard["mask"])).half()}
    if "maps" in shard:
        tensors["maps"] = pool_to_latent_frames(shard["maps"].float()).round().byte()
    checkpoints.check_finite(tensors.items(), f"Latents of {path} are not written")
    arrays = {name: value.numpy() for name, value in tensors.items()}
    shards.write(target, index, arrays, shards.read_metadata(path.with_suffix(".json")))


def downsample_mask(mask: Tensor) -> Tensor:
    """Boolean masks (samples, frames, height, width), averaged over the pixels of each latent pixel."""
    return pool_to_latent_frames(F.avg_pool2d(mask.float(), 8))


def pool_to_latent_frames(values: Tensor) -> Tensor:
    """(samples, frames, ...) to (samples, latent_frames, ...): the first frame, then means of four frames each."""
    first, rest = values[:, :1], values[:, 1:]
    if not rest.shape[1]:
        return first
    return torch.cat([first, rest.unflatten(1, (-1, 4)).mean(dim=2)], dim=1)


@torch.no_grad()
def _encode(vae: vae_forward.Vae, frames: Tensor) -> Tensor:
    pixels = to_float(frames).transpose(1, 2).to(choose_training_dtype("auto"))
    mean, _ = vae_forward.encode(vae, pixels)
    return (mean.float() * vae.config.scaling_factor).transpose(1, 2).half().contiguous()


def _vae_hash(vae: vae_forward.Vae) -> str:
    digest = hashlib.sha256(repr(vae.config.scaling_factor).encode())
    for value in vae.encoder.state_dict().values():
        digest.update(value.half().numpy().tobytes())
    return digest.hexdigest()[:12]
