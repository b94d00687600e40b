"""The parts of the GPU table, in an order that needs only one transformer."""

import statistics
from typing import Any

import torch
from diffusers.hooks.mag_cache import MagCacheConfig
from torch import nn

from likeness.backbones.attention import use_dispatch
from on_gpu.clock import Meter
from on_gpu.fp8 import quantize_blocks
from on_gpu.models import Size, make, make_identity, make_inputs, make_mirror, make_transformer, make_vae
from on_gpu.small_decoder import SmallDecoder

BACKENDS = ("native", "_native_flash", "_native_cudnn")
"""Attention kernels that come with PyTorch; the fastest one is used afterwards."""
STEPS = 50
CACHE_RETAINED, CACHE_SKIPPED = 0.1, 3
"""The first tenth of the steps is computed, then one in four."""
PAIRS = 5


class Bench:
    """One transformer, on which the parts are measured one after the other."""

    def __init__(self, size: Size, meter: Meter, dtype: torch.dtype, *, compiles: bool) -> None:
        self.size = size
        self.meter = meter
        self.dtype = dtype
        self.compiles = compiles
        self.device = meter.device
        self.transformer = make_transformer(size, self.device, dtype)
        self.inputs = make_inputs(size, self.device, dtype)
        self.mirror: Any = None

    @torch.no_grad()
    def base(self) -> torch.Tensor:
        return self.transformer(**self.inputs)[0]

    @torch.no_grad()
    def adapted(self) -> torch.Tensor:
        """The second of two adapted steps: values that depend on the step alone are cached by then."""
        self.adapted_s()
        return self.output

    @torch.no_grad()
    def adapted_s(self) -> float:
        with self.mirror.conditioned(self.identity):
            self.step()
            return self.meter.once(self.step)

    def step(self) -> None:
        self.output = self.transformer(**self.inputs)[0]

    def machine(self) -> dict[str, Any]:
        """Speed of the device: a matrix product, a copy."""
        side = self.size.matrix
        a, b = (torch.randn(side, side, device=self.device, dtype=self.dtype) for _ in range(2))
        product_s = self.meter.median(lambda: a @ b, 10)["seconds"]
        big = torch.randn(16, side, side, device=self.device)
        copy_s = self.meter.median(big.clone, 5)["seconds"]
        return {
            "seconds": product_s,
            "teraflops": 2 * side**3 / product_s / 1e12,
            "terabytes_per_s": 2 * big.nbytes / copy_s / 1e12,
        }

    def stock(self) -> dict[str, Any]:
        """Stock diffusers."""
        return self.meter.median(self.base) | {"parameters": count(self.transformer)}

    def attention(self, backend: str) -> dict[str, Any]:
        """Our processor with one kernel, and its distance from the stock one."""
        if not any(hasattr(p, "_attention_backend") for p in self.transformer.attn_processors.values()):
            self.expected = self.base()
            use_dispatch(self.transformer)
        self.transformer.set_attention_backend(backend)
        return self.meter.median(self.base) | {"error": relative(self.base(), self.expected)}

    def choose(self, measured: dict[str, float]) -> str:
        """Select the fastest kernel that ran."""
        best = min(measured, key=lambda name: measured[name]) if measured else "native"
        self.transformer.set_attention_backend(best)
        return best

    def attach(self) -> None:
        self.mirror = make_mirror(self.size, self.transformer, self.device, self.dtype)
        self.mirror.attach(self.transformer)
        self.identity = make_identity(self.mirror, self.inputs["hidden_states"])

    def adapted_pairs(self) -> dict[str, Any]:
        """Adapted step against the same transformer without an identity."""
        result = self.meter.pairs(lambda: self.meter.once(self.base), self.adapted_s, PAIRS)
        self.meter.start_peak()
        self.adapted()
        return result | self.meter.peak() | {"effect": relative(self.adapted(), self.base())}

    def train(self) -> dict[str, Any]:
        """One step of Magic Mirror's layers at batch 1: frozen base, gradient checkpointing, AdamW."""
        learned = [p.requires_grad_() for p in self.mirror.layers.parameters()]
        optimizer = torch.optim.AdamW(learned, lr=1e-5)
        inputs = make_inputs(self.size, self.device, self.dtype, batch=1)
        self.transformer.enable_gradient_checkpointing()
        self.transformer.train()

        def step() -> None:
            with self.mirror.conditioned(self.identity):
                loss = (self.transformer(**inputs)[0] - inputs["hidden_states"]).float().square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        try:
            return self.meter.median(step, 2)
        finally:
            optimizer.zero_grad(set_to_none=True)
            self.mirror.requires_grad_(False)
            self.transformer.disable_gradient_checkpointing()
            self.transformer.eval()

    def decode(self) -> dict[str, Any]:
        """The VAE on whole frames, then in tiles."""
        vae = make_vae(self.size, self.device, self.dtype)
        latents = self.inputs["hidden_states"][:1].transpose(1, 2)

        @torch.no_grad()
        def decode() -> torch.Tensor:
            return vae.decode(latents).sample

        whole = self.meter.median(decode, 2)
        vae.enable_tiling()
        tiled = self.meter.median(decode, 2)
        return whole | {f"tiled_{name}": value for name, value in tiled.items()}

    def decode_small(self) -> dict[str, Any]:
        decoder = make(lambda: SmallDecoder(self.size.decoder_width), self.device, self.dtype)
        latents = self.inputs["hidden_states"][:1]
        with torch.no_grad():
            result = self.meter.median(lambda: decoder(latents), 2)
            frames = decoder(latents).shape[1]
        assert frames == self.size.frames
        return result | {"parameters": count(decoder)}

    def compiled(self) -> dict[str, Any]:
        """Our attention with each block compiled."""
        self.compile_blocks()
        return self.meter.median(self.base)

    def compiled_pairs(self) -> dict[str, Any]:
        first_s = self.meter.once(self.adapted)
        return self.adapted_pairs() | {"first_s": first_s}

    def fp8(self) -> dict[str, Any]:
        """The same with the large products in 8 bits."""
        expected = self.base()
        self.restore_blocks()
        replaced = quantize_blocks(self.transformer)
        self.compile_blocks()
        result = self.meter.median(self.base)
        self.adapted_s()
        adapted_s = statistics.median(self.adapted_s() for _ in range(self.meter.times))
        error = relative(self.base(), expected)
        return result | {"adapted_s": adapted_s, "layers": replaced, "error": error}

    def cached(self) -> dict[str, Any]:
        """All steps of a clip with MagCache on a fixed schedule, over what was done before; seconds for one step.

        Random weights give no real ratios, so they are set to one: the cache then skips as often as it may.
        """
        config = MagCacheConfig(
            threshold=1e9,
            max_skip_steps=CACHE_SKIPPED,
            retention_ratio=CACHE_RETAINED,
            num_inference_steps=STEPS,
            mag_ratios=[1.0] * STEPS,
        )
        block = self.transformer.transformer_blocks[1]
        forward, computed = block.forward, 0

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal computed
            computed += 1
            return forward(*args, **kwargs)

        # Outside of what is compiled and inside of the cache's hook, which sees this as the block's own.
        block.forward = counted
        self.transformer.enable_cache(config)
        try:
            with (
                torch.no_grad(),
                self.mirror.conditioned(self.identity),
                self.transformer.cache_context("cond_uncond"),
            ):
                seconds = self.meter.once(lambda: [self.step() for _ in range(STEPS)])
        finally:
            self.transformer.disable_cache()
            block.forward = forward
        return {"seconds": seconds / STEPS, "computed": computed, "steps": STEPS}

    def compile_blocks(self) -> None:
        """Compile the blocks' forward. Hooks added later, such as a cache's, stay outside."""
        if not self.compiles:
            return
        torch._dynamo.reset()
        for block in self.transformer.transformer_blocks:
            block.forward = torch.compile(block.forward, dynamic=False)

    def restore_blocks(self) -> None:
        for block in self.transformer.transformer_blocks:
            block.__dict__.pop("forward", None)


def relative(value: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of the expected value."""
    return float((value.float() - expected.float()).norm() / expected.float().norm())


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
