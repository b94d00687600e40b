"""What tests of several packages use: a random checkpoint of a few thousand parameters, and random faces."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from likeness.records import Face, Pose

if TYPE_CHECKING:
    from diffusers import CogVideoXPipeline
    from transformers import PreTrainedTokenizerFast

WORDS = (
    "<pad> </s> <unk> a an the woman man img in red sweater blue shirt smiles nods turns to left park with"
)


def build_tokenizer() -> "PreTrainedTokenizerFast":
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(WORDS.split())}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=16
    )


def build_backbone() -> "CogVideoXPipeline":
    import diffusers
    from transformers import T5Config, T5EncoderModel

    text_encoder = T5EncoderModel(
        T5Config(vocab_size=len(WORDS.split()), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )
    vae = diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
        sample_height=64,
        sample_width=64,
    )
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=16,
        num_layers=2,
        sample_width=8,
        sample_height=8,
        sample_frames=17,
        max_text_seq_length=16,
        use_rotary_positional_embeddings=True,
    )
    scheduler = diffusers.CogVideoXDDIMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    return diffusers.CogVideoXPipeline(build_tokenizer(), text_encoder, vae, transformer, scheduler)


def build_checkpoint(folder: Path) -> Path:
    """Write backbone and adapter to `folder`; outputs are noise, shapes and interfaces are real."""
    import torch

    from likeness.methods.magic_mirror import MagicMirror

    torch.manual_seed(0)
    pipeline = build_backbone()
    pipeline.save_pretrained(folder)
    sizes = {
        "encoder_width": 16,
        "encoder_depth": 2,
        "identity_width": 32,
        "face_width": 32,
        "face_tokens": 4,
    }
    mirror = MagicMirror(**MagicMirror.tiny_config(pipeline.transformer.config, **sizes))
    for parameter in mirror.parameters():  # New layers start at zero; a trained adapter is not.
        torch.nn.init.normal_(parameter, std=0.2)
    mirror.save_pretrained(folder / "magic_mirror")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("tiny"))


def make_face(seed: int = 0) -> Face:
    random = np.random.default_rng(seed)
    return Face(
        box=(10.0, 20.0, 110.0, 120.0),
        landmarks=random.uniform(20, 100, (5, 2)).astype(np.float32),
        pose=Pose(yaw_deg=0.0, pitch_deg=0.0, roll_deg=0.0),
        embedding=random.normal(0, 0.1, 128).astype(np.float32),
        score=1.0,
        crop=random.integers(0, 256, (224, 224, 3), dtype=np.uint8),
        engine="dlib",
        source=f"face{seed}",
        threshold=0.6,
    )


@pytest.fixture
def face_of() -> Callable[[int], Face]:
    """Somebody for each seed."""
    return make_face
