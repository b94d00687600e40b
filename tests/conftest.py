"""What tests of several packages use: a random checkpoint of a few thousand parameters, and random faces."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from likeness.records import Face, Pose

if TYPE_CHECKING:
    from diffusers import CogVideoXPipeline

WORDS = "a an the woman man in red sweater blue shirt smiles nods turns to left park with"


@pytest.fixture(autouse=True)
def attention_as_it_was() -> Iterator[None]:
    """Leave no attention behind for the next test: choosing a backend, or training in bfloat16, holds process-wide."""
    yield
    if dispatch := sys.modules.get("diffusers.models.attention_dispatch"):
        dispatch._AttentionBackendRegistry.set_active_backend(dispatch.AttentionBackendName.NATIVE)
    if torch := sys.modules.get("torch"):
        torch.backends.cuda.enable_flash_sdp(True)


def build_backbone() -> "CogVideoXPipeline":
    from likeness.backbones import tiny

    text = tiny.TextSettings(width=16, num_layers=1, num_heads=2, hidden_width=32)
    tokenizer = tiny.build_tokenizer([WORDS])
    return tiny.assemble(
        tiny.build_vae(tiny.VaeSettings(widths=(8, 8, 8, 8), norm_num_groups=2)),
        tiny.build_text_encoder(text, tokenizer),
        tokenizer,
        tiny.build_transformer(
            tiny.TransformerSettings(num_heads=2, head_width=16, num_layers=2, time_width=8, text_length=16),
            text,
        ),
    )


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


@pytest.fixture(scope="session")
def face_of() -> Callable[[int], Face]:
    """Somebody for each seed."""
    return make_face
