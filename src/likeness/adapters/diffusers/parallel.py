"""One video on several processes: context parallelism splits its tokens, CFG parallelism the branches of guidance.

Context parallelism uses diffusers' own attention over processes (`ContextParallelConfig`: Ulysses or ring) and its own
gathering. This module adds the face: its tokens, behind the text, are split like text and video, while the keys of the
cross-attention stay whole in every process. Every process has to start from the same noise.
"""

from dataclasses import replace
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from diffusers.hooks.context_parallel import EquipartitionSharder, PartitionAnythingSharder
from diffusers.hooks.faster_cache import FasterCacheConfig
from diffusers.hooks.hooks import HookRegistry, ModelHook
from diffusers.models._modeling_parallel import ContextParallelConfig, ParallelConfig
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock, CogVideoXTransformer3DModel
from diffusers.pipelines.cogvideo.pipeline_cogvideox import CogVideoXPipeline
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from likeness.adapters.blocks.base import AdaptedBlock
from likeness.adapters.blocks.magic_mirror import FaceBlock
from likeness.adapters.conditioning.condition import CONDITION_KEY
from likeness.adapters.conditioning.pipeline_call import CFG_RANK, cfg_rank
from likeness.adapters.diffusers.compatibility import refuse_cache_over_processes
from likeness.errors import ConfigError

_FORWARD = signature(CogVideoXBlock.forward)
_BLOCK_HOOK, _OUTPUT_HOOK = "likeness_context_block", "likeness_context_output"
_BATCHED = ("hidden_states", "encoder_hidden_states", "timestep", "timestep_cond", "ofs")


def enable_context_parallel(transformer: CogVideoXTransformer3DModel, config: ContextParallelConfig) -> None:
    """Split the tokens of every forward pass over the processes of `config`. Each process calls this, after `attach`.

    `transformer.enable_parallelism` does the same for models with a parallel plan. CogVideoX has none, and that
    function needs an accelerator.

    Args:
        transformer: A transformer with an attached method.
        config: Degrees and mesh. Plain Ulysses needs heads, text, face and video tokens divisible by its degree;
            `ulysses_anything=True` does not.

    Raises:
        ConfigError: Nothing is attached, processes are not started, or heads or tokens cannot be divided.
    """
    _refuse_lone_process("Context parallelism")
    blocks = list(transformer.transformer_blocks)
    if not all(isinstance(block, AdaptedBlock) for block in blocks):
        raise ConfigError("Nothing is attached to this transformer. Call `attach(pipe)` first.")
    if not all(isinstance(block, FaceBlock) for block in blocks):
        raise ConfigError(
            "Context parallelism splits the video's tokens, but this adapter's layers look at neighboring ones. "
            "Use CFG parallelism instead."
        )
    if any(block.reinjects_face for block in blocks if isinstance(block, FaceBlock)):
        raise ConfigError(
            "Context parallelism splits one stream of face tokens, but this adapter was trained with "
            "`reinjects_face`, which starts it anew in every block. Use CFG parallelism instead."
        )
    refuse_cache_over_processes(transformer._cache_config)
    heads, degree = transformer.config["num_attention_heads"], config.ulysses_degree or 1
    if heads % degree and not config.ulysses_anything:
        raise ConfigError(
            f"`ulysses_degree` is {degree}, but the transformer has {heads} heads, which it has to divide. "
            "Take another degree, or `ulysses_anything=True`."
        )
    mesh = config.mesh or init_device_mesh(
        transformer.device.type, config.mesh_shape, mesh_dim_names=config.mesh_dim_names
    )
    parallel = ParallelConfig(context_parallel_config=config)
    parallel.setup(dist.get_rank(), dist.get_world_size(), transformer.device, mesh=mesh)
    transformer._parallel_config = parallel
    _set_parallel(transformer, parallel)
    for index, block in enumerate(blocks):
        registry = HookRegistry.check_if_exists_or_initialize(block)
        registry.register_hook(_SplitHook(config, is_first=index == 0), _BLOCK_HOOK)
    output = HookRegistry.check_if_exists_or_initialize(transformer.proj_out)
    output.register_hook(_GatherHook(config), _OUTPUT_HOOK)


def _set_parallel(transformer: CogVideoXTransformer3DModel, parallel: ParallelConfig | None) -> None:
    for module in transformer.modules():
        if isinstance(module, Attention | AttentionModuleMixin):
            processor: Any = module.processor
            if not hasattr(processor, "_parallel_config"):
                raise ConfigError(
                    f"A block attends by `{type(processor).__name__}`, which cannot split its tokens. "
                    "Attach to a transformer with its own attention processors."
                )
            processor._parallel_config = parallel


class _SplitHook(ModelHook):
    """Select this process's part of all streams in the first block, and of the rotary positions in every block."""

    def __init__(self, config: ContextParallelConfig, *, is_first: bool) -> None:
        super().__init__()
        self.config = config
        self.is_first = is_first

    def pre_forward(
        self,
        module: nn.Module,  # noqa: ARG002
        *args: Any,
        **kwargs: Any,
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        bound = _FORWARD.bind(None, *args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        del given["self"]
        if given["image_rotary_emb"] is not None:
            given["image_rotary_emb"] = tuple(self._part(x, 0, "video") for x in given["image_rotary_emb"])
        batch, num_text = len(given["hidden_states"]), given["encoder_hidden_states"].shape[1]
        if self.is_first:
            for name, stream in (("hidden_states", "video"), ("encoder_hidden_states", "text")):
                given[name] = self._part(given[name], 1, stream)
        condition = (given["attention_kwargs"] or {}).get(CONDITION_KEY)
        if condition is None:
            return (), given
        if condition.region_masks is not None:
            raise ConfigError(
                "Context parallelism splits the video's tokens, but masks for several people need all of them. "
                "Use CFG parallelism instead."
            )
        if self.is_first and condition.split(batch)[0]:
            text = given["encoder_hidden_states"]
            face = condition.face.to(text).repeat(batch // len(condition.face), 1, 1)
            given["encoder_hidden_states"] = torch.cat([text, self._part(face, 1, "face")], dim=1)
        text_tokens = condition.layout.text_tokens
        if self.is_first:
            assert num_text == text_tokens
        rank, degree = self._rank_and_degree()
        local = text_tokens // degree + (rank < text_tokens % degree)
        condition = replace(condition, layout=replace(condition.layout, text_tokens=local))
        return (), given | {"attention_kwargs": {**given["attention_kwargs"], CONDITION_KEY: condition}}

    def _rank_and_degree(self) -> tuple[int, int]:
        mesh = self.config._flattened_mesh
        return dist.get_rank(mesh.get_group()), mesh.size()

    def _part(self, x: Tensor, dim: int, name: str) -> Tensor:
        rank, degree = self._rank_and_degree()
        is_even = not (self.config.ulysses_anything or self.config.ring_anything)
        if is_even and x.shape[dim] % degree:
            raise ConfigError(
                f"There are {x.shape[dim]} {name} tokens, which {degree} processes cannot share evenly. "
                "Take another number of processes, or `ulysses_anything=True`."
            )
        return x.tensor_split(degree, dim=dim)[rank]


class _GatherHook(ModelHook):
    """Gather the video of all processes before the patches are joined."""

    def __init__(self, config: ContextParallelConfig) -> None:
        super().__init__()
        self.config = config

    def post_forward(self, module: nn.Module, output: Tensor) -> Tensor:  # noqa: ARG002
        mesh = self.config._flattened_mesh
        if self.config.ulysses_anything or self.config.ring_anything:
            return PartitionAnythingSharder.unshard_anything(output, 1, mesh)
        return EquipartitionSharder.unshard(output, 1, mesh)


def enable_guidance_parallel(pipe: CogVideoXPipeline, group: dist.ProcessGroup | None = None) -> None:
    """Run the unconditional branch in the first of two processes and the conditional one in the second.

    Both call this and then the pipeline, with the same arguments and noise; both get the whole video. Without guidance
    each process computes the whole video.

    Args:
        pipe: The pipeline; before or after `attach`.
        group: Two processes; all started processes by default.

    Raises:
        ConfigError: There are not two processes, or it is on already.
    """
    _refuse_lone_process("CFG parallelism")
    if dist.get_world_size(group) != 2:
        raise ConfigError(
            f"Guidance has two branches, but the group has {dist.get_world_size(group)} processes. "
            "Give a `group` of two."
        )
    transformer = pipe.transformer
    if cfg_rank(transformer) is not None:
        raise ConfigError("CFG parallelism is on already. Call `disable_guidance_parallel(pipe)` first.")
    rank = dist.get_rank(group)

    def keep_branch(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if pipe.guidance_scale <= 1:
            return None
        if isinstance(transformer._cache_config, FasterCacheConfig):
            raise ConfigError(
                "FasterCache makes the unconditional branch from the conditional one, but they run in two processes. "
                "Call `transformer.disable_cache()`, or `disable_guidance_parallel(pipe)`."
            )
        branch = {
            name: value.chunk(2)[rank] if name in _BATCHED and torch.is_tensor(value) else value
            for name, value in kwargs.items()
        }
        return args, branch

    def join(_module: nn.Module, _args: Any, output: Any) -> Any:
        if pipe.guidance_scale <= 1:
            return None
        branches = [torch.empty_like(output[0]) for _ in range(2)]
        dist.all_gather(branches, output[0].contiguous(), group=group)
        whole = torch.cat(branches)
        return (whole,) if isinstance(output, tuple) else type(output)(sample=whole)

    transformer._cfg_parallel_handles = (  # pyright: ignore[reportAttributeAccessIssue]
        transformer.register_forward_pre_hook(keep_branch, prepend=True, with_kwargs=True),
        transformer.register_forward_hook(join),
    )
    vars(transformer)[CFG_RANK] = rank


def disable_guidance_parallel(pipe: CogVideoXPipeline) -> None:
    """Undo `enable_guidance_parallel`."""
    for handle in vars(pipe.transformer).pop("_cfg_parallel_handles"):
        handle.remove()
    del vars(pipe.transformer)[CFG_RANK]


def _refuse_lone_process(what: str) -> None:
    if not (dist.is_available() and dist.is_initialized()):
        raise ConfigError(
            f"{what} needs several processes, and none are started. Run the script by `torchrun` and call "
            "`torch.distributed.init_process_group()` first."
        )
