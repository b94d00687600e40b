"""Magic Mirror: ID-Preserved Video Generation in Video Diffusion Transformers (arXiv:2501.03931v1).

A face is encoded twice: as an identity (x_id, two tokens for each picture) and as structure (x_face). x_id is fused
into the prompt's class word (Eq. 4) and shifts the modulation of the even layers (CAN, Eq. 6); x_face joins their
attention as a third modality (Eqs. 5 and 7). One class covers every size of CogVideoX. `docs/papers/magic_mirror.md`
lists each symbol with its module, and every deviation. Training and sampling loops are not here.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock, CogVideoXTransformer3DModel
from einops import rearrange, reduce
from torch import Tensor, nn

from likeness.adapters.blocks.magic_mirror import FaceBlock, FaceLayer
from likeness.adapters.blocks.modulation import NormFactors
from likeness.adapters.diffusers.attach import transformer_sizes
from likeness.adapters.sampling.precompute import ModulationCache
from likeness.identity.encoders.perceiver import FacePerceiver, IdentityPerceiver
from likeness.identity.encoders.vit import ClipVisionEncoder, SmallVisionTransformer
from likeness.identity.fuse import IdentityFuse
from likeness.identity.prompt import TRIGGER, PromptTokens, tokenize_prompts
from likeness.identity.reference import EncoderInput, FaceInput, read_references
from likeness.methods.magic_mirror.identity import MagicMirrorIdentity
from likeness.methods.magic_mirror.settings import COGVIDEOX_5B, PAPER
from likeness.methods.method import Method


class MagicMirror(Method):
    """The method: perceivers, fuse, and one adapter layer for each even block of a CogVideoX transformer.

    It holds no weights of the base. `attach(pipe)` adds the layers, `detach()` removes them.

    `tiny_config` and `cogvideox_5b_config` give the arguments for a transformer.

    Args:
        width: Channels of the transformer's tokens.
        time_width: Channels of its time embedding.
        text_width: Channels of the text encoder.
        num_layers: Blocks of the transformer.
        layer_step: Adapt blocks 0, layer_step, 2 layer_step, ... The paper: the even ones.
        encoder: F_face: "vit", a small one that is trained with the method, or "clip".
        encoder_width: Channels of F_face.
        encoder_depth: Blocks of F_face.
        encoder_heads: Attention heads of F_face.
        image_size_px: Side of the pictures that F_face reads.
        patch_size_px: Side of its patches.
        embedding_width: Numbers in the recognizer's embedding (F_id): dlib 128, ArcFace 512.
        tokens_per_reference: Tokens of x_id for each reference picture.
        identity_width: Channels of x_id, the paper's c.
        identity_depth: Layers of tau_id.
        face_tokens: Tokens of x_face.
        face_width: Channels inside tau_face.
        face_depth: Layers of tau_face.
        head_width: Channels of one attention head in both perceivers.
        norm_width: Channels of CAN's global projection, the paper's c1.
        norm_hidden_width: Channels inside CAN.
        norm_factors: Factors that CAN predicts; "shift+gate" leaves the base's scales unchanged.
        norm_reads_time: Whether CAN reads t and mu1_vid in addition to the identity.
        has_norm: With CAN. False is the paper's ablation.
        has_face: With the face branch: x_face, phi_face and cross-attention. False is the paper's ablation.
        reinjects_face: Start every adapted layer with x_face, instead of one stream through all of them.
        trigger: The word that marks the class word before it.
        frozen: Name prefixes of parameters that never train.
        encoder_input: What F_face reads of a reference: "head_crop", or "whole_image", on which PhotoMaker-V2's CLIP
            was trained (docs/papers/magic_mirror.md, row 1a).

    Example:
        ```python
        mirror = MagicMirror.from_pretrained("folder").attach(pipe)
        with mirror.identity(["me.jpg"]):
            video = pipe(**mirror.prompt("a woman img waves at the camera")).frames
        ```
    """

    @register_to_config
    def __init__(
        self, width: int, time_width: int, text_width: int, num_layers: int, layer_step: int = 2,
        encoder: Literal["vit", "clip"] = "vit", encoder_width: int = 128, encoder_depth: int = 4,
        encoder_heads: int = 4, image_size_px: int = 64, patch_size_px: int = 8,
        embedding_width: int = 128, tokens_per_reference: int = 2, identity_width: int = 128, identity_depth: int = 2,
        face_tokens: int = 16, face_width: int = 128, face_depth: int = 2, head_width: int = 32,
        norm_width: int = 64, norm_hidden_width: int = 128, norm_factors: NormFactors = "shift+scale+gate",
        norm_reads_time: bool = True, has_norm: bool = True, has_face: bool = True, reinjects_face: bool = False,
        trigger: str = TRIGGER, frozen: Sequence[str] = (), encoder_input: EncoderInput = "head_crop",
    ) -> None:  # fmt: skip
        super().__init__()
        encoder_class = {"vit": SmallVisionTransformer, "clip": ClipVisionEncoder}[encoder]
        self.face_encoder = encoder_class(
            encoder_width,
            depth=encoder_depth,
            num_heads=encoder_heads,
            image_size_px=image_size_px,
            patch_size_px=patch_size_px,
        )
        # Embeddings are standardized before tau_id; (0, 1) leaves them raw, as in PhotoMaker-V2.
        self.register_buffer("embedding_mean", torch.zeros(embedding_width))
        self.register_buffer("embedding_std", torch.ones(embedding_width))
        self.identity_perceiver = IdentityPerceiver(
            identity_width,
            embedding_width=embedding_width,
            feature_width=encoder_width,
            depth=identity_depth,
            head_width=head_width,
            num_tokens=tokens_per_reference,
        )
        self.face_perceiver = None
        if has_face:
            self.face_perceiver = FacePerceiver(
                face_width,
                output_width=width,
                feature_width=encoder_width,
                depth=face_depth,
                head_width=head_width,
                num_tokens=face_tokens,
            )
        self.fuse_module = IdentityFuse(text_width, identity_width)
        self.norm_projection = nn.Linear(tokens_per_reference * identity_width, norm_width) if has_norm else None
        build_layer = partial(
            FaceLayer, width, time_width=time_width, identity_width=norm_width, hidden_width=norm_hidden_width,
            factors=norm_factors, reads_time=norm_reads_time, has_face=has_face, has_norm=has_norm,
        )  # fmt: skip
        self.layers = nn.ModuleDict({str(number): build_layer() for number in range(0, num_layers, layer_step)})
        self.width = width
        self.tokens_per_reference = tokens_per_reference
        self.reinjects_face = reinjects_face
        self.trigger = trigger
        self.frozen = tuple(frozen)
        self.encoder_input: EncoderInput = encoder_input

    @staticmethod
    def tiny_config(transformer_config: Any, **changes: Any) -> dict[str, Any]:
        """Settings for a small transformer: sizes from its config, the rest as the defaults, then `changes`."""
        return {**transformer_sizes(transformer_config), **changes}

    @staticmethod
    def cogvideox_5b_config(transformer_config: Any = None, **changes: Any) -> dict[str, Any]:
        """Settings of the paper, from its text and its parameter count (docs/papers/magic_mirror.md)."""
        sizes = transformer_sizes(transformer_config) if transformer_config else COGVIDEOX_5B
        return {**sizes, **PAPER, **changes}

    def standardize_embeddings(self, embeddings: Tensor) -> None:
        """Set the mean and standard deviation of F_id from (count, embedding_width) examples, before training starts.

        dlib's embeddings share a large mean: unrelated people have a cosine of 0.84.
        """
        self.embedding_mean.copy_(embeddings.mean(dim=0))
        self.embedding_std.copy_(embeddings.std(dim=0).clamp(min=1e-6))

    def encode(self, faces: FaceInput | Sequence[FaceInput]) -> MagicMirrorIdentity:
        """Encode one person from one or more reference pictures (`Face` records or paths).

        Results are cached by the content of the pictures and the weights.

        Raises:
            ConfigError: There is no reference, or its embedding has another width than `embedding_width`.
        """
        arrays = read_references(faces, embedding_width=len(self.embedding_mean), encoder_input=self.encoder_input)

        def encode() -> MagicMirrorIdentity:
            crops, embedding = (torch.from_numpy(array).to(self.embedding_mean) for array in arrays)
            pixels = rearrange(crops, "refs y x c -> 1 refs c y x") / 127.5 - 1
            return self.encode_tensors(pixels, embedding[None])

        return self._encode_cached(arrays, encode)

    def encode_people(self, people: Sequence[FaceInput | Sequence[FaceInput]]) -> MagicMirrorIdentity:
        """Encode several people for one video, each from one or more pictures."""
        return MagicMirrorIdentity.together([self.encode(faces) for faces in people])

    def encode_tensors(self, pixels: Tensor, embedding: Tensor) -> MagicMirrorIdentity:
        """Return x_id and x_face of a batch of people, with gradients.

        Shapes:
            pixels: (batch, references, 3, height, width) in [-1, 1]
            embedding: (batch, references, embedding_width)
        """
        batch = len(pixels)
        encoder_features = self.face_encoder(rearrange(pixels, "b refs c y x -> (b refs) c y x"))
        standardized = ((embedding - self.embedding_mean) / self.embedding_std).to(pixels)
        id_tokens = self.identity_perceiver(rearrange(standardized, "b refs w -> (b refs) w"), encoder_features.last)
        id_tokens = rearrange(id_tokens, "(b refs) n w -> b (refs n) w", b=batch)
        if self.face_perceiver is None:
            face_tokens = id_tokens.new_zeros(batch, 0, self.width)
        else:
            features = rearrange(encoder_features.penultimate, "(b refs) n w -> b (refs n) w", b=batch)
            face_tokens = self.face_perceiver(features)
        return MagicMirrorIdentity(id_tokens=id_tokens, face_tokens=face_tokens)

    def tokenize(
        self,
        prompts: Sequence[str],
        tokenizer: Any,
        *,
        num_references: int | Sequence[int],
        max_length: int,
    ) -> PromptTokens:
        """Return token ids without trigger words, and the positions of the class words. Raises PromptError.

        A class word is repeated for each token of x_id; with no reference it stays single. For several people give a
        number of references for each.
        """
        counts = (num_references,) if isinstance(num_references, int) else num_references
        num_copies = [max(1, count * self.tokens_per_reference) for count in counts]
        return tokenize_prompts(prompts, tokenizer, num_copies=num_copies, max_length=max_length, trigger=self.trigger)

    def fuse(self, prompt_embeds: Tensor, mask: Tensor, identity: MagicMirrorIdentity, *, scale: float = 1.0) -> Tensor:
        """Fuse every person into their class word (Eq. 4). Rows with an empty mask are returned unchanged.

        `mask` is the number of the person that each word names: True or 1 for the first person, then 2, and so on.
        """
        mask = mask.to(prompt_embeds.device)
        for number, tokens in enumerate(identity.people, start=1):
            prompt_embeds = self.fuse_module(prompt_embeds, mask == number, tokens, scale=scale)
        return prompt_embeds

    def _project(self, identity: MagicMirrorIdentity) -> Tensor | None:
        """CAN's global projection of x_id. Its input has a fixed size, so several references are averaged."""
        if self.norm_projection is None:
            return None
        means = [
            reduce(tokens, "b (refs n) w -> b n w", "mean", n=self.tokens_per_reference).flatten(1)
            for tokens in identity.people
        ]
        if len(means) > 1:
            return self.norm_projection(torch.stack(means, dim=1))
        return self.norm_projection(means[0])

    def _num_references(self, identity: MagicMirrorIdentity) -> int | Sequence[int]:
        counts = [tokens.shape[1] // self.tokens_per_reference for tokens in identity.people]
        return counts[0] if len(counts) == 1 else counts

    def _make_sampling_cache(self, transformer: CogVideoXTransformer3DModel) -> ModulationCache:
        return ModulationCache(transformer, self)

    def _wrap(self, block: CogVideoXBlock, block_adapter: nn.Module | None, block_index: int) -> FaceBlock:
        assert block_adapter is None or isinstance(block_adapter, FaceLayer)
        return FaceBlock(block, block_adapter, block_index=block_index, reinjects_face=self.reinjects_face)
