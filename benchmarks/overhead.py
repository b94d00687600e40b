"""What Magic Mirror adds to CogVideoX-5B: products, bytes, operators and resident weights, counted at true size.

Nothing is computed: base and adapted transformer run on torch's meta device, where tensors have shapes and no memory,
and every operator that would run is counted. An operator moves its inputs and its outputs once; attention is one
operator; views, which move nothing, are none. What a clock would show is not measured here.

    python benchmarks/overhead.py --json overhead.json
"""

import sys
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from claims import Benchmark
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_flop_count
from transformers import T5Config, T5EncoderModel

from likeness.adapters.sampling.precompute import ModulationCache
from likeness.methods.magic_mirror import MagicMirror, MagicMirrorIdentity

PAPER_TIME, PAPER_MEMORY = 209 / 204, 28.6 / 24.9
"""Table 3 of arXiv:2501.03931v1: seconds and GiB, with the method and without."""
STEPS, TEXT_TOKENS, LATENT = 50, 226, (13, 16, 60, 90)
COGVIDEOX_5B: dict[str, Any] = {
    "num_attention_heads": 48, "attention_head_dim": 64, "in_channels": 16, "out_channels": 16, "time_embed_dim": 512,
    "text_embed_dim": 4096, "num_layers": 42, "sample_width": 90, "sample_height": 60, "sample_frames": 49,
    "max_text_seq_length": TEXT_TOKENS, "use_rotary_positional_embeddings": True,
}  # fmt: skip
T5_XXL: dict[str, Any] = {
    "vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
    "feed_forward_proj": "gated-gelu", "is_encoder_decoder": False, "use_cache": False,
}  # fmt: skip
VAE: dict[str, Any] = {
    "down_block_types": ("CogVideoXDownBlock3D",) * 4, "up_block_types": ("CogVideoXUpBlock3D",) * 4,
    "block_out_channels": (128, 256, 256, 512), "layers_per_block": 3, "latent_channels": 16,
}  # fmt: skip


@dataclass(kw_only=True, slots=True)
class Cost:
    """What one pass would run."""

    flops: int = 0
    moved_bytes: int = 0
    operators: int = 0


class Counter(TorchDispatchMode):
    """Counts every operator that is no view: its FLOPs by torch's formulas, and the bytes of its inputs and outputs."""

    def __init__(self, cost: Cost) -> None:
        super().__init__()
        self.cost = cost

    def __torch_dispatch__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        returns = function._schema.returns
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        if is_view or function is torch.ops.aten._unsafe_view.default:
            return output
        self.cost.operators += 1
        self.cost.moved_bytes += _bytes(args, kwargs, output)
        if function.overloadpacket in flop_registry:
            formula = flop_registry[function.overloadpacket]
            self.cost.flops += formula(*args, **(kwargs or {}), out_val=output)
        return output


def _attended(query: Any, key: Any, value: Any, attn_mask: Any = None, *_: Any, **__: Any) -> tuple[Any, ...]:
    """What attention reads, of the arguments that `scaled_dot_product_attention` takes."""
    return query, key, value, attn_mask


class AttentionAsOne(TorchFunctionMode):
    """Counts attention as the one kernel that it is on a GPU, without the matrix of its scores."""

    def __init__(self, cost: Cost) -> None:
        super().__init__()
        self.cost = cost

    def __torch_function__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is not F.scaled_dot_product_attention:
            return function(*args, **kwargs)
        query, key, value, mask = _attended(*args, **kwargs)
        with _disable_current_modes():
            batch, heads, tokens, _ = query.shape
            output = query.new_empty(batch, tokens, heads, value.shape[-1]).transpose(1, 2)
        self.cost.operators += 1
        self.cost.moved_bytes += _bytes(query, key, value, mask, output)
        self.cost.flops += sdpa_flop_count(query.shape, key.shape, value.shape)
        return output


def count(run: Callable[[], object]) -> Cost:
    """Count what `run` would run."""
    cost = Cost()
    with torch.no_grad(), Counter(cost), AttentionAsOne(cost):
        run()
    return cost


def resident_bytes(*modules: nn.Module) -> int:
    """Bytes of all parameters and buffers, each counted once."""
    tensors = {id(x): x for module in modules for x in (*module.parameters(), *module.buffers())}
    return sum(_bytes(x) for x in tensors.values())


class Stage:
    """A whole pipeline of true size without memory, and one sampling step of it."""

    def __init__(self) -> None:
        with torch.device("meta"):
            transformer = CogVideoXTransformer3DModel(**COGVIDEOX_5B)
            vae = AutoencoderKLCogVideoX(**VAE)
            text_encoder = T5EncoderModel(T5Config(**T5_XXL))
        for module in (transformer, vae, text_encoder):
            nn.Module.to(module, torch.bfloat16).requires_grad_(False).eval()
        scheduler = CogVideoXDDIMScheduler(timestep_spacing="trailing", rescale_betas_zero_snr=True)
        scheduler.set_timesteps(STEPS)
        tokenizer: Any = None
        self.pipe = CogVideoXPipeline(tokenizer, text_encoder, vae, transformer, scheduler)
        self.transformer = transformer
        head_width = COGVIDEOX_5B["attention_head_dim"]
        video_tokens = LATENT[0] * LATENT[2] * LATENT[3] // 4
        empty = torch.empty(2, *LATENT, dtype=torch.bfloat16, device="meta")
        self.inputs = {
            "hidden_states": empty,
            "encoder_hidden_states": empty.new_empty(2, TEXT_TOKENS, COGVIDEOX_5B["text_embed_dim"]),
            "image_rotary_emb": tuple(torch.empty(video_tokens, head_width, device="meta") for _ in range(2)),
        }

    def step(self) -> None:
        """Run the transformer once, with guidance, in the second step of a call."""
        # The adapter reads the timestep, so it has a value; the transformer gets its shape alone.
        timestep = self.pipe.scheduler.timesteps[1].expand(2)
        hook = self.transformer.register_forward_pre_hook(_on_meta, with_kwargs=True)
        vars(self.pipe).update(_current_timestep=timestep[0], _num_timesteps=STEPS, _guidance_scale=6.0)
        self.transformer(timestep=timestep, **self.inputs)
        hook.remove()

    @contextmanager
    def adapted(self, *, num_people: int = 1, branch: Any = "conditional", **changes: Any) -> Any:
        """Attach Magic Mirror as the paper has it, with an identity on."""
        with torch.device("meta"):
            mirror = MagicMirror(**MagicMirror.cogvideox_5b_config(self.transformer.config, **changes))
        mirror = nn.Module.to(mirror, torch.bfloat16).eval().requires_grad_(False).attach(self.pipe)
        config = mirror.config
        face_tokens = num_people * config["face_tokens"] if config["has_face"] else 0
        empty = torch.empty(1, face_tokens, config["width"], dtype=torch.bfloat16, device="meta")
        identity = MagicMirrorIdentity(
            id_tokens=empty.new_empty(1, config["tokens_per_reference"], config["identity_width"]),
            face_tokens=empty,
        )
        try:
            with mirror.conditioned(identity, branch=branch):
                yield mirror
        finally:
            mirror.detach()


@contextmanager
def training_path() -> Any:
    """Compute everything in the blocks, as in training."""
    with mock.patch.object(ModulationCache, "is_applicable", return_value=False):
        yield


def measure_steps(benchmark: Benchmark, stage: Stage, base: Cost) -> None:
    """One step with guidance: the identity in the conditional branch alone, and in both."""
    for branch, goal in (("conditional", 1.0009), ("both", 1.0018)):
        with training_path(), stage.adapted(branch=branch):
            _row(benchmark, f"{branch}.in_blocks", count(stage.step), base)
        with stage.adapted(branch=branch):
            first = count(stage.step)
            cost = count(stage.step)
        _row(benchmark, f"{branch}.sampling_path", cost, base)
        benchmark.claim(f"overhead.{branch}.flop_ratio", cost.flops / base.flops, "<=", goal)
        benchmark.claim(f"overhead.{branch}.operators_added", cost.operators - base.operators, "<=", 63)
        added = (cost.moved_bytes - base.moved_bytes) / 1e9
        benchmark.claim(f"overhead.{branch}.gb_moved_added", added, "<=", 14)
        if branch == "conditional":
            measure_one_off(benchmark, stage, base, Cost(flops=first.flops - cost.flops,
                            moved_bytes=first.moved_bytes - cost.moved_bytes))  # fmt: skip
            with stage.adapted(has_face=False, has_norm=False):
                count(stage.step)
                own = count(stage.step)
            _row(benchmark, "own_base", own, base)
            benchmark.note("over_own_base.flop_ratio", cost.flops / own.flops)
            benchmark.note("over_own_base.operators_added", cost.operators - own.operators)
            benchmark.note("over_own_base.gb_moved_added", (cost.moved_bytes - own.moved_bytes) / 1e9)


def measure_one_off(benchmark: Benchmark, stage: Stage, base: Cost, tables: Cost) -> None:
    """Work once per person and call: tokens of a picture, tables of all steps, K and V."""
    with stage.adapted() as mirror:
        size = mirror.config["image_size_px"]
        pixels = torch.empty(1, 1, 3, size, size, dtype=torch.bfloat16, device="meta")
        embedding = pixels.new_empty(1, 1, mirror.config["embedding_width"])
        tokens = count(lambda: mirror.encode_tensors(pixels, embedding))
    benchmark.note("one_off.tokens_tflop", tokens.flops / 1e12)
    benchmark.note("one_off.tables_tflop", tables.flops / 1e12)
    benchmark.note("one_off.tables_gb_moved", tables.moved_bytes / 1e9)
    norms = [norm.linear for block in stage.transformer.transformer_blocks for norm in (block.norm1, block.norm2)]
    benchmark.note("one_off.of_which_stock_moves_in_its_steps_gb", STEPS * resident_bytes(*norms) / 1e9)
    benchmark.claim("overhead.one_off_share_of_step", (tokens.flops + tables.flops) / base.flops, "<=", 0.005)


def measure_memory(benchmark: Benchmark, stage: Stage) -> None:
    """Weights and tables on the device while the loop runs."""
    stock = resident_bytes(stage.transformer, stage.pipe.text_encoder, stage.pipe.vae)
    transformer = resident_bytes(stage.transformer)
    with stage.adapted() as mirror:
        before = resident_bytes(stage.transformer, mirror)
        count(stage.step)
        sampling_cache = mirror._session.sampling_cache
        buffers = resident_bytes(stage.transformer, mirror) - before
        during = before + buffers - sampling_cache.offloaded_bytes + sampling_cache.cached_bytes
        benchmark.note("memory.adapter_gb", (before - transformer) / 1e9)
        benchmark.note("memory.released_gb", sampling_cache.offloaded_bytes / 1e9)
        benchmark.note("memory.tables_gb", sampling_cache.cached_bytes / 1e9)
        benchmark.note("memory.transformer_ratio", during / transformer)
    benchmark.note("memory.stock_pipeline_gb", stock / 1e9)
    benchmark.note("memory.training_path_ratio", (stock - transformer + before) / stock)
    benchmark.claim("overhead.resident_ratio", (stock - transformer + during) / stock, "<=", 1.0)


def measure_growth(benchmark: Benchmark, stage: Stage, base: Cost, people: tuple[int, ...]) -> None:
    """FLOPs over the base for 1 to 8 people, 32 face tokens each, in both branches; and how straight the line is."""
    shares = []
    for number in people:
        with stage.adapted(num_people=number, branch="both"):
            count(stage.step)
            shares.append(count(stage.step).flops / base.flops - 1)
        benchmark.note(f"growth.{number}_percent", 100 * shares[-1])
    r_squared = torch.corrcoef(torch.tensor([people, shares], dtype=torch.float64))[0, 1].item() ** 2
    benchmark.claim("overhead.growth.8_people_percent", 100 * shares[-1], "<=", 1.5)
    benchmark.claim("overhead.growth.r_squared", r_squared, ">=", 0.999)


def main() -> int:
    """Count, claim, and print the table."""
    benchmark = Benchmark("overhead", seed=0)
    arguments = benchmark.arguments()
    torch.manual_seed(arguments.seed)
    benchmark.note("paper.time_ratio", PAPER_TIME)
    benchmark.note("paper.memory_ratio", PAPER_MEMORY)
    stage = Stage()
    base = count(stage.step)
    _row(benchmark, "stock", base, base)
    measure_steps(benchmark, stage, base)
    measure_memory(benchmark, stage)
    measure_growth(benchmark, stage, base, (1, 8) if arguments.quick else (1, 2, 4, 8))
    return benchmark.finish()


def _row(benchmark: Benchmark, name: str, cost: Cost, base: Cost) -> None:
    ratios = f"x{cost.flops / base.flops:.5f}, x{cost.moved_bytes / base.moved_bytes:.4f}"
    benchmark.note(
        f"step.{name}",
        f"{cost.flops / 1e12:.3f} TFLOP, {cost.moved_bytes / 1e9:.1f} GB, {cost.operators} operators ({ratios})",
    )


def _bytes(*values: object) -> int:
    return sum(x.numel() * x.element_size() for x in tree_leaves(values) if isinstance(x, torch.Tensor))


def _on_meta(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    return args, {**kwargs, "timestep": torch.empty_like(kwargs["timestep"], device="meta")}


if __name__ == "__main__":
    sys.exit(main())
