"""A whole CogVideoX pipeline with random weights, small enough that a call takes a fraction of a second."""

import copy
from functools import cache

import numpy as np
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from likeness.methods.magic_mirror import MagicMirror
from likeness.records import Face, Pose

WORDS = ["a", "woman", "man", "elderly", "waves", "nods", "at", "the", "camera", ",", "in", "red"]
TEXT_TOKENS = 12
PROMPT, CLEAN = "a woman img waves", "a woman waves"
ROPE = get_3d_rotary_pos_embed(16, ((0, 0), (2, 2)), (2, 2), temporal_size=3)


def make_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def make_transformer(num_layers=4) -> CogVideoXTransformer3DModel:
    torch.manual_seed(0)
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=16,
        num_layers=num_layers,
        sample_width=4,
        sample_height=4,
        sample_frames=9,
        max_text_seq_length=TEXT_TOKENS,
        use_rotary_positional_embeddings=True,
    )
    return transformer.requires_grad_(False).eval()


@cache
def _built_vae() -> AutoencoderKLCogVideoX:
    torch.manual_seed(0)
    kind = "CogVideoX{}Block3D"
    return AutoencoderKLCogVideoX(
        down_block_types=(kind.format("Down"),) * 4,
        up_block_types=(kind.format("Up"),) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=2,
        sample_height=32,
        sample_width=32,
    ).eval()


def make_vae() -> AutoencoderKLCogVideoX:
    """A copy: building its three hundred modules takes longer than a short video."""
    return copy.deepcopy(_built_vae())


def make_pipe(vae: AutoencoderKLCogVideoX | None = None) -> CogVideoXPipeline:
    transformer = make_transformer()
    text_encoder = T5EncoderModel(
        T5Config(vocab_size=len(WORDS) + 3, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )
    scheduler = CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    pipe = CogVideoXPipeline(make_tokenizer(), text_encoder.eval(), vae or make_vae(), transformer, scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def make_mirror(transformer, *, is_trained=True, **changes) -> MagicMirror:
    torch.manual_seed(1)
    small = {
        "encoder_width": 16, "encoder_depth": 2, "encoder_heads": 2, "image_size_px": 16, "embedding_width": 128,
        "identity_width": 16, "identity_depth": 1, "face_tokens": 3, "face_width": 16, "face_depth": 1, "head_width": 8,
        "norm_width": 8, "norm_hidden_width": 8,
    }  # fmt: skip
    mirror = MagicMirror(**MagicMirror.tiny_config(transformer.config, **{**small, **changes})).eval()
    if is_trained:
        for name, parameter in mirror.named_parameters():
            if "layers." in name or "layer_norm" in name:
                torch.nn.init.normal_(parameter, std=0.3)
    return mirror


def make_face(seed=0) -> Face:
    random = np.random.default_rng(seed)
    return Face(
        box=(0.0, 0.0, 224.0, 224.0),
        landmarks=np.zeros((5, 2), np.float32),
        pose=Pose(yaw_deg=0.0, pitch_deg=0.0, roll_deg=0.0),
        embedding=random.normal(size=128).astype(np.float32),
        score=1.0,
        crop=random.integers(0, 256, (224, 224, 3), dtype=np.uint8),
        engine="none",
        source="random numbers",
    )


def sample(pipe, *, guidance_scale=6.0, num_inference_steps=2, **prompt):
    prompt.setdefault("max_sequence_length", TEXT_TOKENS)
    return pipe(
        height=32, width=32, num_frames=9, num_inference_steps=num_inference_steps, guidance_scale=guidance_scale,
        generator=torch.Generator().manual_seed(0), output_type="latent", **prompt,
    ).frames  # fmt: skip


def make_inputs(batch=2):
    torch.manual_seed(5)
    return {
        "hidden_states": torch.randn(batch, 3, 4, 4, 4),
        "encoder_hidden_states": torch.randn(batch, TEXT_TOKENS, 16),
        "timestep": torch.arange(100, 100 + 50 * batch, 50),
        "image_rotary_emb": ROPE,
    }


def random_identity(mirror, batch=2, references=1):
    torch.manual_seed(6)
    return mirror.encode_tensors(torch.rand(batch, references, 3, 16, 16) * 2 - 1, torch.randn(batch, references, 128))
