"""Folders laid out as on the hub: a SentencePiece tokenizer, shards with an index, the published `model_index.json`."""

import json
import shutil
import sys

import pytest
import sentencepiece
import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXTransformer3DModel

from likeness import Likeness
from likeness.backbones.image_to_video import load_image_pipeline
from likeness.backbones.load import load_pipeline
from likeness.backbones.tokenizer import load_tokenizer
from likeness.errors import WeightsError

TEXT = "a woman img smiles in the park while the sun sets behind her and the wind moves the trees"


def as_published(checkpoint, tokenizer_folder, place, scheduler="CogVideoXDDIMScheduler"):
    """Lay a small checkpoint out as the hub lays out CogVideoX: in shards, with T5's tokenizer."""
    shutil.copytree(checkpoint, place)
    shutil.rmtree(place / "tokenizer")
    shutil.copytree(tokenizer_folder, place / "tokenizer")
    pipeline = load_pipeline(checkpoint, device="cpu")
    for part in ("transformer", "text_encoder"):
        shutil.rmtree(place / part)
        module = getattr(pipeline, part)
        size_bytes = sum(tensor.nbytes for tensor in module.state_dict().values())
        module.save_pretrained(place / part, max_shard_size=size_bytes // 3)
        assert len(list((place / part).glob("*-of-*.safetensors"))) > 1
    config = json.loads((place / "scheduler" / "scheduler_config.json").read_text())
    (place / "scheduler" / "scheduler_config.json").write_text(json.dumps(config | {"_class_name": scheduler}))
    index = {
        "_class_name": "CogVideoXPipeline",
        "_diffusers_version": "0.30.0.dev0",
        "scheduler": ["diffusers", scheduler],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLCogVideoX"],
    }
    (place / "model_index.json").write_text(json.dumps(index))
    return place


def encoded(tokenizer_folder):
    own = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_folder / "spiece.model"))
    return [*own.encode(TEXT), own.eos_id()]


def test_the_hubs_tokenizer_gives_the_pieces_of_its_model(tokenizer_folder):
    assert load_tokenizer(tokenizer_folder)(TEXT).input_ids == encoded(tokenizer_folder)


@pytest.mark.parametrize(
    ("preset", "name", "scheduler"),
    [
        ("open", "cogvideox-2b", "CogVideoXDDIMScheduler"),
        ("research", "cogvideox-5b", "CogVideoXDPMScheduler"),
    ],
)
def test_every_preset_loads_a_folder_as_published(
    monkeypatch, tmp_path, checkpoint, tokenizer_folder, preset, name, scheduler
):
    as_published(checkpoint, tokenizer_folder, tmp_path / "models" / name, scheduler)
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path))
    likeness = Likeness.load(preset, device="cpu")
    assert likeness.pipeline.tokenizer(TEXT).input_ids == encoded(tokenizer_folder)
    assert type(likeness.pipeline.scheduler).__name__ == scheduler


def test_the_image_to_video_base_loads_it_too(tmp_path, checkpoint, tokenizer_folder):
    folder = as_published(checkpoint, tokenizer_folder, tmp_path / "base")
    transformer = CogVideoXTransformer3DModel.from_pretrained(folder / "transformer")
    pipeline = load_image_pipeline(folder, transformer, dtype=torch.float32)
    assert pipeline.tokenizer(TEXT).input_ids == encoded(tokenizer_folder)


def test_another_pipeline_is_refused_by_its_class(tmp_path, checkpoint):
    shutil.copytree(checkpoint, tmp_path / "base")
    index = json.loads((tmp_path / "base" / "model_index.json").read_text())
    index["_class_name"] = "CogVideoXImageToVideoPipeline"
    (tmp_path / "base" / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match="serves the released FantasyID alone"):
        load_pipeline(tmp_path / "base", device="cpu")


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_a_damaged_tokenizer_is_reported_without_the_other_parts(tmp_path, tokenizer_folder, content):
    shutil.copytree(tokenizer_folder, tmp_path / "tokenizer")
    model = tmp_path / "tokenizer" / "spiece.model"
    model.write_bytes(content) if content is not None else model.unlink()
    with pytest.raises(WeightsError, match=r"The tokenizer at .*(cannot be read|is empty|neither spiece\.model)"):
        load_tokenizer(tmp_path / "tokenizer")


def test_a_missing_package_is_named_and_nothing_is_to_be_pulled(monkeypatch, tokenizer_folder):
    from likeness.backbones import tokenizer

    monkeypatch.setattr(tokenizer, "find_spec", lambda name: None if name == "sentencepiece" else object())
    monkeypatch.setitem(sys.modules, "sentencepiece", None)

    def fail(*_, **__):
        raise ImportError("requires the SentencePiece library")

    monkeypatch.setattr(tokenizer.AutoTokenizer, "from_pretrained", fail)
    with pytest.raises(WeightsError, match=r"pip install sentencepiece`; the files need not be pulled again"):
        load_tokenizer(tokenizer_folder)


def test_weights_of_nan_are_refused_in_a_backbone(tmp_path, checkpoint):
    from safetensors.torch import load_file, save_file

    shutil.copytree(checkpoint, tmp_path / "base")
    path = tmp_path / "base" / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["decoder.conv_in.conv.bias"][0] = float("nan")
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=r"vae .* not finite .* decoder\.conv_in\.conv\.bias"):
        load_pipeline(tmp_path / "base", device="cpu")
