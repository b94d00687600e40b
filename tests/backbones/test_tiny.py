import json
import subprocess
import sys

import pytest
import torch
from diffusers import CogVideoXPipeline
from torch.testing import assert_close

from likeness import weights
from likeness.backbones import tiny

SENTENCES = ["a woman in a red sweater nods, in a park", "an elderly man smiles"]


@pytest.fixture(scope="module")
def pipe():
    torch.manual_seed(0)
    tokenizer = tiny.build_tokenizer(SENTENCES)
    text = tiny.TextSettings(width=32, num_heads=2, hidden_width=32, num_layers=1)
    transformer = tiny.TransformerSettings(num_heads=1, head_width=16, num_layers=1, time_width=16)
    return tiny.build_pipeline(
        tiny.build_vae(tiny.VaeSettings(widths=(4, 4, 4, 4), norm_num_groups=2)),
        tiny.build_text_encoder(text, tokenizer),
        tokenizer,
        tiny.build_transformer(transformer, text),
    )


def test_any_sentence_can_be_tokenized():
    tokenizer = tiny.build_tokenizer(SENTENCES)
    ids = tokenizer("An Elderly Wömán, waving at 7 zebras!").input_ids
    assert tokenizer.unk_token_id not in ids
    assert ids[-1] == tokenizer.eos_token_id == 1
    assert tokenizer.pad_token_id == 0
    assert tokenizer.convert_ids_to_tokens(tokenizer("red sweater").input_ids) == ["red", "sweater", "</s>"]
    assert tokenizer.convert_tokens_to_ids("img") == tokenizer.unk_token_id


def test_the_scheduler_is_that_of_cogvideox_5b():
    alphas_cumprod = tiny.build_scheduler().alphas_cumprod
    assert_close(
        alphas_cumprod[[0, 1, 500]],
        torch.tensor([0.99915, 0.99823, 0.24102], dtype=alphas_cumprod.dtype),
        atol=1e-5,
        rtol=0,
    )
    assert alphas_cumprod[999] == 0


def test_a_written_folder_names_only_classes_of_stock_libraries(pipe, tmp_path):
    tiny.save_pipeline(pipe, tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    parts = {name: value for name, value in index.items() if isinstance(value, list)}
    assert {library for library, _ in parts.values()} == {"diffusers", "transformers"}
    loaded = CogVideoXPipeline.from_pretrained(tmp_path)
    assert all(type(loaded.components[name]).__name__ == kind for name, (_, kind) in parts.items())
    clip = loaded("a woman nods", max_sequence_length=32, num_inference_steps=1, output_type="np").frames
    assert clip.shape == (1, 17, 64, 64, 3)


@pytest.mark.slow
def test_a_written_folder_loads_in_stock_diffusers_without_this_package(pipe, tmp_path):
    before = {name: value.clone() for name, value in pipe.transformer.state_dict().items()}
    tiny.save_pipeline(pipe, tmp_path)
    script = (
        "import sys, torch\n"
        "from diffusers import CogVideoXPipeline\n"
        f"pipe = CogVideoXPipeline.from_pretrained({str(tmp_path)!r})\n"
        "clip = pipe('a woman nods', max_sequence_length=32, num_inference_steps=1, output_type='np').frames\n"
        "assert clip.shape == (1, 17, 64, 64, 3), clip.shape\n"
        "assert not any(name.startswith('likeness') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, timeout=300)
    for name, value in pipe.transformer.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, before[name])


def test_the_checksums_name_every_file(pipe, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "CHECKPOINTS", tmp_path)
    tiny.save_pipeline(pipe, tmp_path / "tiny")
    names = {file.path.relative_to(tmp_path / "tiny").parts[0] for file in weights.verify("tiny").files}
    assert names == {"model_index.json", "scheduler", "text_encoder", "tokenizer", "transformer", "vae"}


def transformer_of(patch_size):
    settings = tiny.TransformerSettings(num_heads=1, head_width=16, num_layers=1, time_width=16, patch_size=patch_size)
    return tiny.build_transformer(settings, tiny.TextSettings(width=32))


@pytest.mark.parametrize("fine", [1, 2, 4])
def test_finer_patches_make_the_tokens_of_an_even_picture_and_its_color(fine):
    torch.manual_seed(0)
    coarse = transformer_of(4)
    refined = transformer_of(fine)
    refined.load_state_dict(tiny.refine_patches(coarse.state_dict(), fine))
    color = torch.randn(1, 1, 16, 1, 1)
    text = torch.zeros(1, 3, 32)
    before = coarse.patch_embed(text, color.expand(-1, -1, -1, 4, 4))
    after = refined.patch_embed(text, color.expand(-1, -1, -1, fine, fine))
    assert_close(after, before)
    token = torch.randn(16)
    mean = coarse.proj_out(token).view(16, -1).mean(dim=1)
    assert_close(refined.proj_out(token).view(16, -1).mean(dim=1), mean)


def test_a_ramp_keeps_its_direction_in_finer_patches():
    refined = tiny.refine_patches(
        {
            "patch_embed.proj.weight": torch.arange(4.0).expand(1, 1, 4, 4),
            "proj_out.weight": torch.zeros(16, 1),
            "proj_out.bias": torch.arange(4.0).repeat(4),
        },
        2,
    )
    assert refined["patch_embed.proj.weight"].tolist() == [[[[2.0, 10.0], [2.0, 10.0]]]]
    assert refined["proj_out.bias"].tolist() == [0.5, 2.5, 0.5, 2.5]


def test_patches_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="Choose a patch_size that divides 2"):
        tiny.refine_patches(transformer_of(2).state_dict(), 3)
