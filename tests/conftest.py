"""What tests of several packages use: a random checkpoint of a few thousand parameters, and random faces."""

import gc
import os
import sys
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from likeness.records import Face, Pose

if TYPE_CHECKING:
    from diffusers import CogVideoXPipeline

    from likeness.identity.mesh.spirals import MeshTopology
    from likeness.methods.fantasy_id import FantasyID

WORDS = "a an the woman man in red sweater blue shirt smiles nods turns to left park with"


@pytest.fixture(scope="session")
def real_folder() -> Path:
    """Real photographs and videos, where they are at hand: `LIKENESS_REAL`, or beside the repository."""
    folder = Path(os.environ.get("LIKENESS_REAL") or Path(__file__).parents[1] / ".." / "shared" / "real")
    if not folder.is_dir():
        pytest.skip(f"no real photographs at {folder} (LIKENESS_REAL)")
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave what collection imports, half a million objects, to no garbage collection: each takes half a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what wants a GPU where there is none, however it was selected: `-m slow` takes such tests, too."""
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if not wanting:
        return
    import torch

    if not torch.cuda.is_available():
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason="no GPU"))


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
    return tiny.build_pipeline(
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
    build_fantasy_id(pipeline.transformer.config).save_pretrained(folder / "fantasy_id")
    return folder


def build_fantasy_id(transformer_config: Any) -> "FantasyID":
    """The second method over a mesh of random spirals, with as many vertices as the puppets' that ships reads."""
    import torch

    from likeness.methods.fantasy_id import FantasyID

    sizes = {
        "encoder_width": 16, "encoder_depth": 1, "encoder_heads": 2, "abstractor_hidden_width": 16, "face_width": 16,
        "num_vertices": (2562, 40), "vertex_widths": (16,), "fusion_depth": 1, "context_width": 16,
        "injection_width": 32, "head_width": 16,
    }  # fmt: skip
    fantasy = FantasyID(**FantasyID.tiny_config(transformer_config, **sizes))
    for name, parameter in fantasy.named_parameters():
        if "layers." in name:
            torch.nn.init.normal_(parameter, std=0.2)
    fantasy.set_topology(make_topology(2562, 40))
    return fantasy


def make_topology(fine: int, coarse: int) -> "MeshTopology":
    """A mesh that is none: random vertices, and random spirals over them."""
    from likeness.identity.mesh.spirals import MeshTopology

    random = np.random.default_rng(0)
    mean = random.normal(size=(fine, 3)).astype(np.float32)
    return MeshTopology(
        vertices=(mean, mean[:coarse]),
        triangles=(),
        spirals=(random.integers(0, fine, (fine, 9)), random.integers(0, coarse, (coarse, 9))),
        kept=(np.arange(coarse),),
        up_indices=(),
        up_weights=(),
    )


@pytest.fixture(scope="module")
def small_frames() -> Iterator[None]:
    """Search frames for faces at their own size: those of random weights show none, and enlarged it takes long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("likeness.generation.outputs.similarity.FRAME_DETECTION_PX", 32)
        yield


@pytest.fixture(scope="session")
def topology_of() -> "Callable[[int, int], MeshTopology]":
    return make_topology


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
