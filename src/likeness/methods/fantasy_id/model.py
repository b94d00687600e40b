"""FantasyID: Face Knowledge Enhanced ID-Preserving Video Generation (arXiv:2502.13995v1).

A face is encoded as appearance (patches through the C-Abstractor: X_F) and as shape (neutral vertices through
SpiralNet++: X_V); a transformer fuses the two into the id descriptor V_F. A cross-attention behind every block of the
video transformer attends to V_F (Eq. 2). `docs/papers/fantasy_id.md` lists each symbol with its module, and every
deviation. Training and sampling loops are not here.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock, CogVideoXTransformer3DModel
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn

from likeness.adapters.blocks.fantasy_id import InjectionBlock, InjectionLayer, wrap
from likeness.adapters.conditioning.identity_settings import Branch
from likeness.adapters.diffusers.attach import transformer_sizes
from likeness.adapters.sampling.kv_cache import KVCache
from likeness.errors import ConfigError
from likeness.faces.geometry.ffhq import align_ffhq
from likeness.identity.face_shape.flame_check import NUM_VERTICES, check_head
from likeness.identity.mesh.spirals import MeshTopology
from likeness.identity.prompt import TRIGGER, PromptTokens, tokenize_without_trigger
from likeness.identity.reference import FaceInput, read_faces, stack_head_crops
from likeness.identity.tokens import PersonTokens
from likeness.media.pictures import to_image
from likeness.methods.fantasy_id.descriptor import Descriptor, DescriptorConfig
from likeness.methods.fantasy_id.released import ReleasedDescriptor, ReleasedTokens
from likeness.methods.fantasy_id.settings import COGVIDEOX_5B, PAPER, TINY
from likeness.methods.method import Method
from likeness.records import Face


class ShapeSource(Protocol):
    """Estimates one person's shape, (vertices, 3) in the adapter's topology, from their pictures.

    The paper profile needs neutral heads; the released one needs heads posed as in the picture, in meters.
    """

    def __call__(self, faces: Sequence[Face], /) -> NDArray[np.floating]: ...


class FantasyID(Method):
    """The method: the id descriptor, and one injection layer for each block of a CogVideoX transformer.

    It holds no weights of the base. `attach(pipe)` adds the layers, `detach()` removes them.

    `tiny_config` and `cogvideox_5b_config` give the arguments for a transformer.

    Args:
        width: Channels of the transformer's tokens.
        num_layers: Blocks of the transformer.
        profile: "paper", the model of the paper; or "released", that of the published weights (loaded by
            `published.py`).
        layer_step: Inject behind blocks 0, layer_step, 2 layer_step, ... The paper: all.
        encoder: Encoder of patches: "vit", a small one that is trained with the method, or "clip"; "eva" in the
            released profile.
        encoder_width: Its channels.
        encoder_depth: Its blocks.
        encoder_heads: Its attention heads.
        encoder_stem: With "vit", channels of the convolutions before it, one for each halving of the picture down
            to a patch. Empty for one linear layer.
        image_size_px: Side of its input pictures.
        patch_size_px: Side of its patches.
        abstractor: "convolutions" is the C-Abstractor; "queries" is the paper's ablation (Q-Former).
        downsampling: Patches for each face token along each side.
        abstractor_hidden_width: Channels of the abstractor's convolutions.
        face_width: Channels of X_f, the paper's C.
        num_vertices: Vertices of the mesh at each level, the paper's N first and N' last.
        vertex_widths: Channels of the vertex encoder after each level; the last, C', is that of the fusion.
        spiral_length: Vertices in a spiral.
        fusion_depth: Layers of the fusion transformer, the paper's L.
        fusion_heads: Its attention heads.
        context_width: Channels of V_F.
        injection_width: Channels inside the cross-attentions.
        head_width: Channels of one of their heads.
        has_vertices: With the shape branch. False is the paper's ablation: V_F from X_F alone.
        is_layer_aware: With F_l. False is the paper's ablation: a plain output layer.
        trigger: The word that marks the class word for other methods; it is removed from prompts.
        frozen: Name prefixes of parameters that never train.

    Example:
        ```python
        fantasy = FantasyID.from_pretrained("folder").attach(pipe)
        with fantasy.identity(fantasy.encode(["me.jpg"], vertices=my_vertices)):
            video = pipe(**fantasy.prompt("a woman waves at the camera")).frames
        ```
    """

    _keep_in_fp32_modules = ["vertex_encoder"]  # noqa: RUF012 - diffusers wants a list.

    @register_to_config
    def __init__(
        self, width: int, num_layers: int, profile: Literal["paper", "released"] = "paper", layer_step: int = 1,
        encoder: Literal["vit", "clip", "eva"] = "vit", encoder_width: int = 128, encoder_depth: int = 4,
        encoder_heads: int = 4, encoder_stem: Sequence[int] = (), image_size_px: int = 64, patch_size_px: int = 4,
        abstractor: Literal["convolutions", "queries"] = "convolutions", downsampling: int = 4,
        abstractor_hidden_width: int = 128, face_width: int = 128,
        num_vertices: Sequence[int] = (2562, 641, 161), vertex_widths: Sequence[int] = (32, 64),
        spiral_length: int = 9, fusion_depth: int = 6, fusion_heads: int = 4, context_width: int = 128,
        injection_width: int = 128, head_width: int = 32, has_vertices: bool = True, is_layer_aware: bool = True,
        trigger: str = TRIGGER, frozen: Sequence[str] = (),
    ) -> None:  # fmt: skip
        super().__init__()
        if profile not in ("paper", "released") or (profile == "released") != (encoder == "eva"):
            raise ConfigError(
                f"`profile` is {profile!r} with the encoder {encoder!r}; 'paper' goes with 'vit' or 'clip', "
                "and 'released' with 'eva'. Use those."
            )
        descriptor_config = DescriptorConfig(
            encoder=encoder,
            encoder_width=encoder_width,
            encoder_depth=encoder_depth,
            encoder_heads=encoder_heads,
            encoder_stem=encoder_stem,
            image_size_px=image_size_px,
            patch_size_px=patch_size_px,
            abstractor=abstractor,
            downsampling=downsampling,
            abstractor_hidden_width=abstractor_hidden_width,
            face_width=face_width,
            num_vertices=num_vertices,
            vertex_widths=vertex_widths,
            spiral_length=spiral_length,
            fusion_depth=fusion_depth,
            fusion_heads=fusion_heads,
            context_width=context_width,
            has_vertices=has_vertices,
        )
        self.descriptor: Any = (ReleasedDescriptor if profile == "released" else Descriptor)(descriptor_config)
        # The released code conditions both branches of guidance.
        self.branch: Branch = "both" if profile == "released" else "conditional"
        build_layer = partial(
            InjectionLayer, width, context_width=context_width, inner_width=injection_width, head_width=head_width,
            is_layer_aware=is_layer_aware,
        )  # fmt: skip
        self.layers = nn.ModuleDict({str(number): build_layer() for number in range(0, num_layers, layer_step)})
        self.trigger = trigger
        self.frozen = tuple(frozen)
        self.shape_source: ShapeSource | None = None
        """Estimates vertices where `encode` is called without them."""

    @staticmethod
    def tiny_config(transformer_config: Any, **changes: Any) -> dict[str, Any]:
        """Settings for a small transformer: sizes from its config, those of tiny, then `changes`."""
        return {**_sizes(transformer_config), **TINY, **changes}

    @staticmethod
    def cogvideox_5b_config(transformer_config: Any = None, **changes: Any) -> dict[str, Any]:
        """Settings of the paper, and of the released code where the paper does not give them."""
        sizes = _sizes(transformer_config) if transformer_config else COGVIDEOX_5B
        return {**sizes, **PAPER, **changes}

    def set_topology(self, topology: MeshTopology) -> None:
        """Set the topology of the vertices, before training. It is saved with the weights."""
        if self.descriptor.vertex_encoder is not None:
            self.descriptor.vertex_encoder.set_topology(topology)

    def encode(
        self, faces: FaceInput | Sequence[FaceInput], *, vertices: NDArray[np.floating] | None = None
    ) -> PersonTokens:
        """Encode one person from one or more reference pictures (`Face` records or paths).

        Results are cached by the content of the pictures and the weights.

        Args:
            faces: The pictures.
            vertices: (vertices, 3), the person's shape in the adapter's topology, as in `ShapeSource`; None to use
                `shape_source`.

        Raises:
            ConfigError: There is no reference, no shape, or the shape is of another topology, unit or direction.
        """
        records = read_faces(faces)
        is_released = self.config["profile"] == "released"
        heads = (
            np.stack([align_ffhq(face) for face in records])
            if is_released
            else stack_head_crops(records, self.config["image_size_px"])
        )
        arrays = [heads]
        if self.descriptor.vertex_encoder is not None:
            arrays.append(self._shape_of(records, vertices))

        def encode() -> PersonTokens:
            pixels = rearrange(self._tensor(arrays[0]), "refs y x c -> 1 refs c y x") / 127.5 - 1
            shape = torch.from_numpy(arrays[1]).to(self.device)[None] if len(arrays) > 1 else None
            tokens = self.encode_tensors(pixels, shape)
            if not is_released:
                return tokens
            return ReleasedTokens(face_tokens=tokens.face_tokens, picture=torch.from_numpy(arrays[0][:1]))

        return self._encode_cached(arrays, encode)

    def pipeline_arguments(self, identity: PersonTokens) -> dict[str, Any]:
        """Return the first frame that the base of the released profile needs."""
        if not isinstance(identity, ReleasedTokens):
            return {}
        return {"image": [to_image(picture) for picture in identity.picture.cpu().numpy()]}

    def encode_tensors(self, pixels: Tensor, vertices: Tensor | None) -> PersonTokens:
        """Return V_F of a batch of people, with gradients.

        Shapes:
            pixels: (batch, references, 3, height, width) in [-1, 1]
            vertices: (batch, vertices, 3); None without the shape branch
        """
        return PersonTokens(face_tokens=self.descriptor(pixels, vertices))

    def tokenize(
        self,
        prompts: Sequence[str],
        tokenizer: Any,
        *,
        num_references: int | Sequence[int],
        max_length: int,
    ) -> PromptTokens:
        """Return token ids without the trigger word, if there is one, and no positions. Raises PromptError.

        References do not change this method's prompts.
        """
        del num_references
        return tokenize_without_trigger(prompts, tokenizer, max_length=max_length, trigger=self.trigger)

    def fuse(self, prompt_embeds: Tensor, mask: Tensor, identity: PersonTokens, *, scale: float = 1.0) -> Tensor:
        """Return the embeddings unchanged: this method does not use the prompt."""
        del mask, identity, scale
        return prompt_embeds

    def _shape_of(self, faces: Sequence[Face], vertices: NDArray[np.floating] | None) -> NDArray[np.float32]:
        encoder = self.descriptor.vertex_encoder
        assert encoder is not None
        if not encoder.has_topology:
            raise ConfigError(
                "This adapter has no mesh topology for its vertices yet. Call `set_topology` before anything else."
            )
        if vertices is None:
            if self.shape_source is None:
                raise ConfigError(
                    "This adapter needs a face's shape, and nothing estimates it from pictures. Pass "
                    "`vertices` to `encode`, or set `shape_source`."
                )
            vertices = self.shape_source(faces)
        shape = np.asarray(vertices, dtype=np.float32)
        if shape.shape != tuple(encoder.template.shape) or not np.isfinite(shape).all():
            raise ConfigError(
                f"Vertices have the shape {shape.shape}; {tuple(encoder.template.shape)} finite numbers were expected. "
                "Use a shape in the topology that the adapter was trained on."
            )
        if self.config["profile"] == "released" and len(shape) == NUM_VERTICES:
            check_head(shape, faces[0].source)
        return shape

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(device=self.device, dtype=next(self.layers.parameters()).dtype)

    def _make_sampling_cache(self, transformer: CogVideoXTransformer3DModel) -> KVCache:
        del transformer
        return KVCache()

    def _wrap(self, block: CogVideoXBlock, block_adapter: nn.Module | None, block_index: int) -> InjectionBlock:
        return wrap(block, block_adapter, block_index)


def _sizes(transformer_config: Any) -> dict[str, Any]:
    sizes = transformer_sizes(transformer_config)
    return {"width": sizes["width"], "num_layers": sizes["num_layers"]}
