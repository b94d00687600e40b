"""The forward passes of the CogVideoX VAE, rewritten for fast training on a CPU. It has no weights of its own.

The functions read the modules of a stock `AutoencoderKLCogVideoX` and give the results of its `encode` and `decode`
(parity is tested), with three differences: weights stay float32 and are cast at use, so activations may be bfloat16;
group norms run in float32; a single frame goes through 2-D convolutions. A causal 3-D convolution pads the first
frame with itself, so on one frame it equals the 2-D convolution with the kernel summed over time.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

ConvCache = dict[nn.Module, Tensor]
"""The last input frames of each causal convolution, (batch, channels, temporal_kernel - 1, height, width), with which
the next chunk is padded. `conv_cache` in diffusers."""
Normalize = Callable[[nn.GroupNorm, Tensor], Tensor]
Statistics = dict[nn.GroupNorm, tuple[Tensor, Tensor]]
"""Mean and inverse standard deviation of each group, (batch, groups) each."""
Vae = Any  # AutoencoderKLCogVideoX; diffusers does not type the attributes in use here.


def encode(vae: Vae, frames: Tensor, *, last_temporal_slice_only: bool = False) -> tuple[Tensor, Tensor]:
    """Mean and log-variance of the latents, in the chunks of the stock encoder.

    Shapes:
        frames: (batch, channels, frames, height, width), the order of this VAE, in [-1, 1]
        returns: two of (batch, latent_channels, latent_frames, height / 8, width / 8)

    Args:
        vae: Its encoder.
        frames: An image or a clip.
        last_temporal_slice_only: For a single frame, use the last temporal slice of each 3-D kernel (that of the
            current frame) instead of the sum over time. The other slices then get no gradient from images, and the
            result is the stock one only after `keep_only_last_temporal_slice`.
    """
    cache: ConvCache = {}
    chunks = [
        _encode_chunk(vae, chunk, cache, last_temporal_slice_only)
        for chunk in _chunks(frames, vae.num_sample_frames_batch_size, frames.shape[2])
    ]
    mean, log_variance = torch.cat(chunks, dim=2).chunk(2, dim=1)
    return mean, log_variance.clamp(-30.0, 20.0)


def decode(vae: Vae, latents: Tensor, *, last_temporal_slice_only: bool = False) -> Tensor:
    """Frames of unscaled latents, in the chunks of the stock decoder; `last_temporal_slice_only` as in `encode`.

    Shapes:
        latents: (batch, latent_channels, latent_frames, height, width)
        returns: (batch, 3, frames, 8 * height, 8 * width)
    """
    cache: ConvCache = {}
    chunks = [
        _decode_chunk(vae, chunk, cache, last_temporal_slice_only)
        for chunk in _chunks(latents, vae.num_latent_frames_batch_size, latents.shape[2])
    ]
    return torch.cat(chunks, dim=2)


def group_norm_statistics(vae: Vae, latents: Tensor) -> Statistics:
    """What every group norm of the decoder subtracts and divides by, for a lone latent frame; without gradients.

    Shapes:
        latents: (batch, latent_channels, height, width), unscaled
    """
    statistics: Statistics = {}

    def measure(norm: nn.GroupNorm, hidden: Tensor) -> Tensor:
        groups = hidden.float().unflatten(1, (norm.num_groups, -1)).flatten(2)  # (batch, groups, ...)
        variance, mean = torch.var_mean(groups, dim=2, correction=0)
        statistics[norm] = mean, (variance + norm.eps).rsqrt()
        return _normalize(norm, hidden)

    with torch.no_grad():
        decode_frame(vae, latents, normalize=measure)
    return statistics


def normalize_by(statistics: Statistics) -> Normalize:
    """Group norms with given statistics, such as those of a whole frame for a window of it."""

    def normalize(norm: nn.GroupNorm, hidden: Tensor) -> Tensor:
        mean, factor = (value.repeat_interleave(hidden.shape[1] // norm.num_groups, 1) for value in statistics[norm])
        factor = factor * norm.weight
        shift = norm.bias - mean * factor
        shape = (*factor.shape, *(1,) * (hidden.ndim - 2))
        return torch.addcmul(shift.view(shape), hidden.float(), factor.view(shape)).to(hidden.dtype)

    return normalize


def decode_frame(
    vae: Vae, latents: Tensor, *, is_checkpointed: bool = False, normalize: Normalize | None = None
) -> Tensor:
    """The frame of a lone latent frame, as `decode` gives it.

    Shapes:
        latents: (batch, latent_channels, height, width), unscaled
        returns: (batch, 3, 8 * height, 8 * width)

    Args:
        vae: Its decoder.
        latents: Of any frame; it is decoded as the first one.
        is_checkpointed: Keep only what goes from one residual block to the next for the backward pass, which computes
            the rest again (arXiv:1604.06174v2).
        normalize: The group norms; by statistics of `latents` themselves if None.
    """
    norm = normalize or _normalize

    def run(part: Callable[..., Tensor], *inputs: Any) -> Tensor:
        # Each part gets a cache of its own: there is no later chunk, and it must be empty when a part runs again.
        def fresh(*tensors: Any) -> Tensor:
            return part(*tensors, {}, False, norm)

        if is_checkpointed and torch.is_grad_enabled():
            return checkpoint(fresh, *inputs, use_reentrant=False)
        return fresh(*inputs)

    decoder, zq = vae.decoder, latents.unsqueeze(2)
    hidden = run(lambda layer, inputs, *rest: _convolve(layer, inputs, *rest[:2]), decoder.conv_in, zq)
    for resnet in decoder.mid_block.resnets:
        hidden = run(_resnet, resnet, hidden, zq)
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            hidden = run(_resnet, resnet, hidden, zq)
        for resampler in block.upsamplers or ():
            hidden = run(lambda layer, inputs, *_: _upsample(layer, inputs), resampler, hidden)
    return run(_finish, decoder, hidden, zq).squeeze(2)


def keep_only_last_temporal_slice(vae: Vae) -> None:
    """Move every 3-D kernel's sum over time into its last temporal slice, the one of the current frame.

    The result for a single frame is unchanged, and a clip is coded frame by frame: a good initialization for training
    on images and then on clips.
    """
    with torch.no_grad():
        for module in vae.modules():
            if isinstance(module, nn.Conv3d) and module.kernel_size[0] > 1:
                total = module.weight.sum(dim=2)
                module.weight.zero_()
                module.weight[:, :, -1] = total


def _chunks(frames: Tensor, size: int, count: int) -> Iterator[Tensor]:
    """The chunks of the stock VAE: `size` frames each, the first longer by the remainder."""
    number, rest = max(count // size, 1), count % size if count >= size else 0
    if count < size:
        yield frames
        return
    for index in range(number):
        start = 0 if index == 0 else size * index + rest
        yield frames[:, :, start : size * (index + 1) + rest]


def _encode_chunk(vae: Vae, frames: Tensor, cache: ConvCache, last_slice_only: bool) -> Tensor:
    encoder = vae.encoder
    hidden = _convolve(encoder.conv_in, frames, cache, last_slice_only)
    for block in encoder.down_blocks:
        for resnet in block.resnets:
            hidden = _resnet(resnet, hidden, None, cache, last_slice_only)
        for resampler in block.downsamplers or ():
            hidden = _downsample(resampler, hidden)
    for resnet in encoder.mid_block.resnets:
        hidden = _resnet(resnet, hidden, None, cache, last_slice_only)
    return _convolve(encoder.conv_out, F.silu(_normalize(encoder.norm_out, hidden)), cache, last_slice_only)


def _decode_chunk(vae: Vae, latents: Tensor, cache: ConvCache, last_slice_only: bool) -> Tensor:
    decoder = vae.decoder
    hidden = _convolve(decoder.conv_in, latents, cache, last_slice_only)
    for resnet in decoder.mid_block.resnets:
        hidden = _resnet(resnet, hidden, latents, cache, last_slice_only)
    for block in decoder.up_blocks:
        for resnet in block.resnets:
            hidden = _resnet(resnet, hidden, latents, cache, last_slice_only)
        for resampler in block.upsamplers or ():
            hidden = _upsample(resampler, hidden)
    return _finish(decoder, hidden, latents, cache, last_slice_only)


def _finish(
    decoder: Any,
    hidden: Tensor,
    latents: Tensor,
    cache: ConvCache,
    last_slice_only: bool,
    normalize: Normalize | None = None,
) -> Tensor:
    """The decoder's last norm, which reads the latents (`zq` in diffusers), and its last convolution to RGB."""
    return _convolve(
        decoder.conv_out, F.silu(_modulate(decoder.norm_out, hidden, latents, normalize)), cache, last_slice_only
    )


def _convolve(module: Any, hidden: Tensor, cache: ConvCache, last_slice_only: bool) -> Tensor:
    """A causal convolution over the current and the two previous frames; the first frame is repeated."""
    layer = getattr(module, "conv", module)
    weight, bias = layer.weight.to(hidden.dtype), layer.bias.to(hidden.dtype)
    temporal_kernel, margin = weight.shape[2], weight.shape[3] // 2
    if hidden.shape[2] == 1 and layer not in cache:
        kernel = weight[:, :, -1] if last_slice_only or temporal_kernel == 1 else weight.sum(dim=2)
        if temporal_kernel > 1:
            cache[layer] = hidden.expand(-1, -1, temporal_kernel - 1, -1, -1)
        return F.conv2d(hidden.squeeze(2), kernel, bias, padding=margin).unsqueeze(2)
    if temporal_kernel > 1:
        before = cache[layer] if layer in cache else hidden[:, :, :1].expand(-1, -1, temporal_kernel - 1, -1, -1)
        hidden = torch.cat([before, hidden], dim=2)
        cache[layer] = hidden[:, :, -temporal_kernel + 1 :]
    return F.conv3d(hidden, weight, bias, padding=(0, margin, margin))


def _normalize(norm: nn.GroupNorm, hidden: Tensor) -> Tensor:
    # In bfloat16 the backward pass of a group norm is four times as slow on a CPU as in float32.
    weight, bias = norm.weight.float(), norm.bias.float()
    if hidden.shape[2] == 1:
        flat = F.group_norm(hidden.squeeze(2).float(), norm.num_groups, weight, bias, norm.eps)
        return flat.to(hidden.dtype).unsqueeze(2)
    return F.group_norm(hidden.float(), norm.num_groups, weight, bias, norm.eps).to(hidden.dtype)


def _modulate(norm: Any, hidden: Tensor, latents: Tensor, normalize: Normalize | None = None) -> Tensor:
    """The decoder's norm: scale and shift are 1x1 convolutions of the latents.

    The stock layer upsamples the latents before the convolution; a 1x1 convolution commutes with nearest upsampling,
    so it is done first, on small tensors.
    """
    scale, shift = (_convolve(layer, latents, {}, False) for layer in (norm.conv_y, norm.conv_b))
    normalized = (normalize or _normalize)(norm.norm_layer, hidden)
    return torch.addcmul(_repeat(shift, hidden), normalized, _repeat(scale, hidden))


def _repeat(small: Tensor, like: Tensor) -> Tensor:
    """Upsample by nearest neighbor to the frames and sides of `like`, (batch, channels, frames, height, width).

    An odd number of frames is a video's beginning: its first latent frame codes one frame and is repeated in space
    alone; the others code as many frames each as the rest divides into.
    """
    size = like.shape[-3:]
    if size[0] == 1:
        return F.interpolate(small.squeeze(2), size=size[1:]).unsqueeze(2)
    if size[0] % 2 == 1:
        first, rest = small[:, :, :1], small[:, :, 1:]
        rest_size = (size[0] - 1, *size[1:])
        return torch.cat([_repeat(first, like[:, :, :1]), F.interpolate(rest, size=rest_size)], dim=2)
    return F.interpolate(small, size=size)


def _resnet(
    block: Any,
    hidden: Tensor,
    latents: Tensor | None,
    cache: ConvCache,
    last_slice_only: bool,
    normalize: Normalize | None = None,
) -> Tensor:
    def norm(layer: Any, inputs: Tensor) -> Tensor:
        return _normalize(layer, inputs) if latents is None else _modulate(layer, inputs, latents, normalize)

    out = _convolve(block.conv1, F.silu(norm(block.norm1, hidden)), cache, last_slice_only)
    out = _convolve(block.conv2, F.silu(norm(block.norm2, out)), cache, last_slice_only)
    if block.in_channels != block.out_channels:
        hidden = _convolve(block.conv_shortcut, hidden, cache, last_slice_only)
    return out + hidden


def _by_frame(layer: Any, hidden: Tensor, stride: int, padding: int) -> Tensor:
    """A 2-D convolution of each frame of (batch, channels, frames, height, width)."""
    batch, channels, frames, height, width = hidden.shape
    weight, bias = layer.weight.to(hidden.dtype), layer.bias.to(hidden.dtype)
    if frames == 1:
        return F.conv2d(hidden.squeeze(2), weight, bias, stride=stride, padding=padding).unsqueeze(2)
    flat = hidden.transpose(1, 2).reshape(batch * frames, channels, height, width)
    flat = F.conv2d(flat, weight, bias, stride=stride, padding=padding)
    return flat.unflatten(0, (batch, frames)).transpose(1, 2)


def _downsample(resampler: Any, hidden: Tensor) -> Tensor:
    """Halve the sides and, with `compress_time`, average pairs of frames; of an odd number the first stays alone."""
    frames = hidden.shape[2]
    if resampler.compress_time and frames > 1:
        first, rest = hidden[:, :, : frames % 2], hidden[:, :, frames % 2 :]
        hidden = torch.cat([first, (rest[:, :, 0::2] + rest[:, :, 1::2]) / 2], dim=2)
    return _by_frame(resampler.conv, F.pad(hidden, (0, 1, 0, 1)), stride=2, padding=0)


def _upsample(resampler: Any, hidden: Tensor) -> Tensor:
    """Double the sides and, with `compress_time`, repeat frames; of an odd number the first stays alone."""
    frames = hidden.shape[2]
    height, width = hidden.shape[-2:]
    if resampler.compress_time and frames > 1:
        first, rest = hidden[:, :, : frames % 2], hidden[:, :, frames % 2 :]
        hidden = torch.cat([first, rest.repeat_interleave(2, dim=2)], dim=2)
    if frames == 1:
        hidden = F.interpolate(hidden.squeeze(2), scale_factor=2.0).unsqueeze(2)
    else:
        hidden = F.interpolate(hidden, size=(hidden.shape[2], 2 * height, 2 * width))
    return _by_frame(resampler.conv, hidden, stride=1, padding=1)
