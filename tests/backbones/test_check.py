"""Strict judging of whole pipelines, on the true layout at a small size, and the arithmetic of the full one."""

import json
import shutil

import pytest
import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel
from safetensors.torch import load_file, save_file

from likeness.backbones.check import build_empty, check_pipeline
from likeness.backbones.load import load_pipeline
from likeness.errors import WeightsError
from likeness.methods.magic_mirror import MagicMirror
from likeness.weights import MODELS

STEM = "diffusion_pytorch_model"

CONFIGS = {
    # As the spec of CogVideoX-5B has them; sizes that are not named are the classes' defaults.
    "transformer": {
        "_class_name": "CogVideoXTransformer3DModel",
        "num_attention_heads": 48,
        "num_layers": 42,
        "use_rotary_positional_embeddings": True,
    },
    "vae": {"_class_name": "AutoencoderKLCogVideoX"},
    "text_encoder": {
        "model_type": "t5",
        "d_model": 4096,
        "d_kv": 64,
        "d_ff": 10240,
        "num_layers": 24,
        "num_heads": 64,
        "vocab_size": 32128,
        "feed_forward_proj": "gated-gelu",
    },
}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The three networks of CogVideoX-5B without memory for their weights, and how many parameters they have."""
    folder = tmp_path_factory.mktemp("full")
    for part, config in CONFIGS.items():
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(json.dumps(config))
    modules = build_empty(folder)
    return {part: count(module) for part, module in modules.items()}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_full_backbone_is_counted(full):
    assert full["transformer"] == 5_570_283_072
    assert round(full["text_encoder"] / 1e9, 3) == 4.762
    assert round(full["vae"] / 1e9, 3) == 0.216
    assert round(sum(full.values()) / 1e9, 3) == 10.548  # 10.5 B in the paper's Table 3.


@pytest.mark.parametrize(("face_depth", "billions"), [(10, 12.704), (12, 12.805)])
def test_the_whole_magic_mirror_pipeline_is_counted(full, face_depth, billions):
    """12.8 B in the paper's Table 3, with twelve layers of tau_face; "most" of what is added extracts (Sec. 4.5)."""
    assert MagicMirror.cogvideox_5b_config()["face_depth"] == 12
    with torch.device("meta"):
        mirror = MagicMirror(**MagicMirror.cogvideox_5b_config(face_depth=face_depth))
    assert round((sum(full.values()) + count(mirror)) / 1e9, 3) == billions
    perceivers = (mirror.face_encoder, mirror.identity_perceiver, mirror.face_perceiver)
    assert (sum(map(count, perceivers)) > count(mirror) / 2) == (face_depth == 12)


def test_the_registry_expects_two_bytes_for_each_parameter(full):
    assert MODELS["cogvideox-5b"].estimated_bytes == 2 * sum(full.values())


@pytest.fixture
def pipeline(checkpoint, tmp_path):
    """A small random checkpoint in the true layout."""
    folder = tmp_path / "pipeline"
    shutil.copytree(checkpoint, folder)
    return folder


def shard(folder):
    """Split the transformer as large ones are split, the index beside the shards."""
    model = CogVideoXTransformer3DModel.from_pretrained(folder / "transformer")
    (folder / "transformer" / f"{STEM}.safetensors").unlink()
    model.save_pretrained(folder / "transformer", max_shard_size="40KB")
    assert len(list((folder / "transformer").glob("*-of-*.safetensors"))) > 1


def test_a_whole_pipeline_loads(pipeline):
    check_pipeline(pipeline)
    assert load_pipeline(pipeline, device="cpu").transformer.config.num_layers == 2


def test_a_sharded_pipeline_loads_the_same_weights(pipeline):
    before = load_file(pipeline / "transformer" / f"{STEM}.safetensors")
    shard(pipeline)
    check_pipeline(pipeline)
    after = load_pipeline(pipeline, device="cpu").transformer.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_lost_shard_is_named(pipeline):
    shard(pipeline)
    lost = sorted((pipeline / "transformer").glob("*-of-*.safetensors"))[0]
    lost.unlink()
    with pytest.raises(WeightsError, match=lost.name):
        load_pipeline(pipeline, device="cpu")


def test_wrong_tensors_of_all_parts_are_in_one_error(pipeline):
    for part, stem, change in (
        ("transformer", STEM, lambda state: state.pop("proj_out.bias")),
        ("vae", STEM, lambda state: state.update(stranger=torch.zeros(1))),
        ("text_encoder", "model", lambda state: state.update({"shared.weight": torch.zeros(3, 3)})),
    ):
        path = pipeline / part / f"{stem}.safetensors"
        state = load_file(path)
        change(state)
        save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError) as caught:
        load_pipeline(pipeline, device="cpu")
    message = str(caught.value)
    assert "missing (1): transformer.proj_out.bias" in message
    assert "extra (1): vae.stranger" in message
    assert "text_encoder.shared.weight is 3x3 instead of" in message


def test_either_name_of_the_text_encoders_table_serves(pipeline):
    path = pipeline / "text_encoder" / "model.safetensors"
    state = load_file(path)
    shared = next(name for name in state if name in ("shared.weight", "encoder.embed_tokens.weight"))
    table = state.pop(shared)
    for name in ("shared.weight", "encoder.embed_tokens.weight"):
        save_file(state | {name: table}, path, metadata={"format": "pt"})
        check_pipeline(pipeline)
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"missing \(2\)"):
        check_pipeline(pipeline)


@pytest.mark.filterwarnings("ignore:It is deprecated to pass a pretrained model name:FutureWarning")
@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "{", ""])
@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "transformer/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_damaged_config_is_refused(pipeline, name, content):
    (pipeline / name).write_text(content)
    with pytest.raises(WeightsError):
        load_pipeline(pipeline, device="cpu")


def test_another_architecture_is_refused(pipeline):
    path = pipeline / "transformer" / "config.json"
    config = json.loads(path.read_text()) | {"_class_name": "WanTransformer3DModel"}
    path.write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="WanTransformer3DModel"):
        check_pipeline(pipeline)
