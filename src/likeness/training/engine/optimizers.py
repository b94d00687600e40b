"""Optimizers and moving average of parameters."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from likeness.config import Settings
from likeness.errors import ConfigError
from likeness.runtime import choose_training_dtype
from likeness.training.engine.parallel import copy_full_tensor, full_tensor
from likeness.training.engine.schedules import Schedule, learning_rate_factor


class OptimizerSettings(Settings):
    """AdamW, or Muon for the hidden matrices and AdamW for everything else."""

    kind: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    """`muon` trains hidden matrices with Muon; vectors, embeddings and, without `kernels`, kernels use AdamW.
    `adamw8bit` keeps both moments in 8 bits (bitsandbytes; it needs CUDA)."""
    kernels: bool = False
    """Muon also trains kernels of hidden convolutions, each as a matrix of outputs by inputs and taps."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak rate of AdamW."""
    muon_learning_rate: float = Field(default=2e-3, gt=0)
    """Peak rate of Muon, in AdamW's units (its updates are rescaled to the size of AdamW's)."""
    schedule: Schedule = "cosine"
    """How the rate falls after the warm-up."""
    cycles: int = Field(default=1, ge=1)
    """Cycles of `cosine_with_restarts`."""
    final_fraction: float = Field(default=0.02, ge=0, le=1)
    """The schedule ends at this fraction of the peak rate; `constant` ignores it."""
    warmup_steps: int = Field(default=100, ge=0)
    """Steps of linear warm-up."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay of matrices."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """AdamW's decay of the first moment."""
    beta2: float = Field(default=0.99, gt=0, lt=1)
    """AdamW's decay of the second moment."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are scaled down to this global norm."""
    ema: float = Field(default=0.999, ge=0, lt=1)
    """Decay per step of the moving average of parameters, which is sampled and exported; lower in the first steps."""


class Optimizers:
    """The optimizers of one stage behind one `step`."""

    def __init__(self, modules: dict[str, nn.Module], settings: OptimizerSettings) -> None:
        self.settings = settings
        named = [
            (f"{prefix}.{name}", parameter)
            for prefix, module in modules.items()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        ]
        self.parameters = [parameter for _, parameter in named]
        self.learning_rate = 0.0
        """AdamW's rate in the last step."""
        by_muon = [p for name, p in named if settings.kind == "muon" and _is_for_muon(name, p, settings)]
        self.kernels = [(p, nn.Parameter(p.detach().flatten(1).clone())) for p in by_muon if p.ndim > 2]
        """Kernels that Muon trains, each with the matrix that stands for it in the optimizer."""
        matrices = [*(p for p in by_muon if p.ndim == 2), *(matrix for _, matrix in self.kernels)]
        ids = {id(p) for p in by_muon}
        by_adamw = [p for p in self.parameters if id(p) not in ids]
        if matrices and any(isinstance(p, DTensor) for p in matrices):
            raise ConfigError('Muon needs whole matrices, and `parallel = "fsdp2"` shards them. Use AdamW or DDP.')
        groups = [
            {"params": [p for p in by_adamw if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in by_adamw if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizers: dict[str, torch.optim.Optimizer] = {"adamw": _build_adamw(groups, settings)}
        if matrices:
            has_bfloat16 = choose_training_dtype("auto") == torch.bfloat16
            self.optimizers["muon"] = (torch.optim.Muon if has_bfloat16 else Float32Muon)(
                matrices,
                lr=settings.muon_learning_rate,
                weight_decay=settings.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )

    def gradients(self) -> list[Tensor]:
        """Gradients of all parameters, zeros where there is none, so that all processes have the same list."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def step(self, *, step: int, progress: float) -> float:
        """Clip, update, zero gradients; returns the norm before clipping. If it is not finite nothing is updated."""
        settings = self.settings
        total: Any = nn.utils.clip_grad_norm_(self.parameters, settings.max_grad_norm)
        norm = float(total.full_tensor() if isinstance(total, DTensor) else total)
        if not math.isfinite(norm):
            return norm
        factor = learning_rate_factor(
            settings.schedule,
            step=step,
            progress=progress,
            warmup_steps=settings.warmup_steps,
            final_fraction=settings.final_fraction,
            cycles=settings.cycles,
        )
        peaks = {"adamw": settings.learning_rate, "muon": settings.muon_learning_rate}
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = peaks[name] * factor
        self.learning_rate = settings.learning_rate * factor
        self._copy_to_matrices()
        for optimizer in self.optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        self._copy_from_matrices()
        return norm

    @torch.no_grad()
    def _copy_to_matrices(self) -> None:
        for kernel, matrix in self.kernels:
            assert kernel.grad is not None
            matrix.copy_(kernel.flatten(1))
            matrix.grad = kernel.grad.flatten(1)

    @torch.no_grad()
    def _copy_from_matrices(self) -> None:
        for kernel, matrix in self.kernels:
            kernel.copy_(matrix.view(kernel.shape))
            kernel.grad = None


class Float32Muon(torch.optim.Muon):
    """Torch's Muon in float32.

    Torch orthogonalizes updates in bfloat16 whatever dtype the parameters have, which takes seventeen times as long on
    processors without bfloat16 products (`benchmarks/precision.py`).
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        assert closure is None
        for group in self.param_groups:
            assert group["adjust_lr_fn"] == "match_rms_adamw"
            momentum = group["momentum"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                average = state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
                update = parameter.grad.lerp(average, momentum) if group["nesterov"] else average
                update = orthogonalize(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
                rate = group["lr"] * 0.2 * max(parameter.shape) ** 0.5  # "match_rms_adamw"
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)


def orthogonalize(matrix: Tensor, coefficients: Sequence[float], steps: int, eps: float) -> Tensor:
    """Approximate the nearest orthogonal matrix by Muon's fifth-order Newton-Schulz iteration.

    Shapes:
        matrix: (rows, columns)
        returns: as `matrix`; singular values between about 0.5 and 1.2
    """
    a, b, c = coefficients
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if is_tall else matrix) / matrix.norm().clamp(min=eps)
    if x.shape[1] >= 2 * x.shape[0]:  # Far wider than high: the iteration on the Gram matrix alone costs half.
        x = _gram_polynomial(x @ x.T, (a, b, c), steps) @ x
        return x.T if is_tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if is_tall else x


def _gram_polynomial(gram: Tensor, coefficients: tuple[float, float, float], steps: int) -> Tensor:
    """The product of all steps: the factor of each step is a polynomial of the Gram matrix."""
    a, b, c = coefficients
    product: Tensor | None = None
    for step in range(steps):
        factor = b * gram + c * gram @ gram
        factor.diagonal().add_(a)
        product = factor if product is None else factor @ product
        if step + 1 < steps:
            gram = factor @ gram @ factor
    assert product is not None
    return product


def _build_adamw(groups: list[dict[str, Any]], settings: OptimizerSettings) -> torch.optim.Optimizer:
    options: Any = {"lr": settings.learning_rate, "betas": (settings.beta1, settings.beta2)}
    if settings.kind != "adamw8bit":
        return torch.optim.AdamW(groups, fused=True, **options)
    try:
        import bitsandbytes  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            "`optimizer.kind` is adamw8bit, which needs bitsandbytes: `pip install bitsandbytes`, or use adamw."
        ) from error
    if not torch.cuda.is_available():
        raise ConfigError("`optimizer.kind` is adamw8bit, which needs a CUDA device. Use adamw here.")
    return bitsandbytes.optim.AdamW8bit(groups, **options)


class MovingAverage:
    """An exponential moving average of parameters, with a lower decay in the first steps."""

    def __init__(self, modules: dict[str, nn.Module], decay: float) -> None:
        self.decay = decay
        self.names = [
            (prefix, name) for prefix, m in modules.items() for name, p in m.named_parameters() if p.requires_grad
        ]
        self.source_parameters = [p for m in modules.values() for p in m.parameters() if p.requires_grad]
        self.averages = [p.detach().clone() for p in self.source_parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (step + 1) / (step + 10))
        for value, source in zip(self.averages, self.source_parameters, strict=True):
            value.lerp_(source, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the averages and the parameters; a second call puts them back."""
        for value, source in zip(self.averages, self.source_parameters, strict=True):
            current = source.detach().clone()
            source.copy_(value)
            value.copy_(current)

    def pack(self) -> dict[str, Tensor]:
        """The averages as whole tensors on the CPU. All processes have to call it where they are sharded."""
        return {
            f"{prefix}.{name}": full_tensor(value).cpu()
            for (prefix, name), value in zip(self.names, self.averages, strict=True)
        }

    @torch.no_grad()
    def unpack(self, packed: dict[str, Tensor]) -> None:
        """Restore what `pack` returned; a KeyError or ValueError if it is of another model."""
        for (prefix, name), value in zip(self.names, self.averages, strict=True):
            saved = packed[f"{prefix}.{name}"]
            if saved.shape != value.shape:
                raise ValueError(f"the average of {prefix}.{name} has another shape")
            copy_full_tensor(value, saved)


def _is_for_muon(name: str, parameter: nn.Parameter, settings: OptimizerSettings) -> bool:
    adamw_names = ("shared", "embed", "patch_embed", "proj_out", "relative_attention_bias", "queries", "position")
    adamw_names = (*adamw_names, "conv_in", "conv_out")
    hidden = parameter.ndim == 2 or (settings.kernels and parameter.ndim > 2)
    return hidden and not any(word in name for word in adamw_names)
