"""Every supported base, in the layout of its hub folder at small size, through the loaders that presets use."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import CogVideoXPipeline, CogVideoXTransformer3DModel
from hub_layouts import LAYOUTS, SIDE, TRANSFORMER, write_layout

from likeness import Likeness
from likeness.adapters.conditioning.regions import restart_rope_per_region
from likeness.backbones.transformer_config import frame_size_px, read_transformer_config, refuse_frames
from likeness.errors import ConfigError, WeightsError
from likeness.generation.sampling.sample import frame_size_arguments
from likeness.methods.magic_mirror import MagicMirror

PROMPT = "a woman img smiles"
pytestmark = pytest.mark.usefixtures("small_frames")
FROM_TEXT = [("open", "cogvideox-2b"), ("research", "cogvideox-5b"), ("research", "cogvideox1.5-5b")]


def add_adapter(folder):
    """A Magic Mirror adapter with random layers beside the base."""
    torch.manual_seed(2)
    sizes = {"encoder_width": 16, "encoder_depth": 2, "identity_width": 32, "face_width": 32, "face_tokens": 4}
    config = SimpleNamespace(**read_transformer_config(folder))
    mirror = MagicMirror(**MagicMirror.tiny_config(config, **sizes))
    for parameter in mirror.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    mirror.save_pretrained(folder / "magic_mirror")


@pytest.fixture(scope="module")
def home(tmp_path_factory, text_encoder, tokenizer_folder):
    """All bases under their names in the registry of weights, each with an adapter."""
    home = tmp_path_factory.mktemp("home")
    for name in LAYOUTS:
        folder = home / "models" / name
        write_layout(name, folder, text_encoder=text_encoder, tokenizer_folder=tokenizer_folder)
        add_adapter(folder)
    return home


@pytest.fixture(scope="module")
def load(home):
    loaded = {}

    def load(preset, name):
        if name not in loaded:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("LIKENESS_HOME", str(home))
                own = {"open": "cogvideox-2b", "research": "cogvideox-5b"}[preset] == name
                backbone = None if own else home / "models" / name
                loaded[name] = Likeness.load(preset, backbone=backbone, device="cpu")
        return loaded[name]

    return load


@pytest.mark.parametrize(("preset", "name"), FROM_TEXT)
def test_a_base_of_the_hub_makes_videos_with_a_method_attached(load, face_of, preset, name):
    likeness = load(preset, name)
    assert type(likeness.pipeline.scheduler).__name__ == LAYOUTS[name].scheduler
    assert likeness.pipeline.scheduler.config.snr_shift_scale == LAYOUTS[name].snr_shift_scale
    choices = {"steps": 2, "frames": 9, "seed": 3}
    clip = likeness.generate(PROMPT, [face_of(0)], **choices)
    assert clip.frames.shape == (9, 8 * SIDE, 8 * SIDE, 3)
    other = likeness.generate(PROMPT, [face_of(1)], **choices)
    assert not np.array_equal(clip.frames, other.frames)


@pytest.mark.parametrize("frames", [1, 9, 17])
def test_temporal_patches_make_every_number_of_frames(load, face_of, frames):
    """CogVideoX1.5 pads 1, 3 or 5 latent frames to an even number; the padding is cut off again."""
    clip = load("research", "cogvideox1.5-5b").generate(PROMPT, [face_of(0)], steps=2, frames=frames)
    assert len(clip.frames) == frames
    assert clip.fps == 16


def test_an_adapter_at_scale_zero_is_the_stock_base_with_temporal_patches(load, face_of):
    likeness = load("research", "cogvideox1.5-5b")
    choices = {"num_frames": 9, "num_inference_steps": 2, "output_type": "latent"}

    def sample():
        return likeness.pipeline(PROMPT, generator=torch.Generator().manual_seed(0), **choices).frames

    adapted = sample()
    with likeness.method.identity([face_of(0)], scale=0.0):
        at_zero = sample()
    with likeness.method.identity([face_of(0)], scale=1.0):
        at_one = sample()
    likeness.method.detach()
    stock = sample()
    likeness.method.attach(likeness.pipeline)
    assert torch.equal(adapted, stock)
    assert torch.equal(at_zero, stock)
    assert not torch.equal(at_one, stock)


def test_two_people_have_regions_in_a_video_of_temporal_patches(load, face_of):
    likeness = load("research", "cogvideox1.5-5b")
    clip = likeness.generate("a man img1 greets a woman img2", [[face_of(0)], [face_of(1)]], steps=2, frames=9)
    swapped = likeness.generate("a man img1 greets a woman img2", [[face_of(1)], [face_of(0)]], steps=2, frames=9)
    assert not np.array_equal(clip.frames, swapped.frames)


@pytest.mark.parametrize(
    ("changes", "grid"),
    [
        ({"sample_height": 60, "sample_width": 90}, (4, 30, 45)),
        ({"sample_height": 300, "sample_width": 300, "patch_size_t": 2}, (2, 48, 85)),
    ],
    ids=["5B", "1.5"],
)
def test_own_positions_of_one_person_are_the_pipelines(changes, grid):
    config = CogVideoXTransformer3DModel.from_config({**TRANSFORMER, **changes, "num_layers": 1}).config
    height_px, width_px = frame_size_px(config, 8)
    stock = CogVideoXPipeline._prepare_rotary_positional_embeddings(
        SimpleNamespace(transformer=SimpleNamespace(config=config), vae_scale_factor_spatial=8),
        height_px, width_px, 4, torch.device("cpu"),
    )  # fmt: skip
    assert all(map(torch.equal, restart_rope_per_region(config, grid, 1, stock), stock))


def test_the_limits_of_positions_are_not_taken_for_the_size_of_a_video():
    """The published `sample_height` of CogVideoX1.5, 300, is 2400 pixels; it was trained on 768 x 1360."""
    published = {**TRANSFORMER, "patch_size_t": 2, "sample_height": 300, "sample_width": 300}
    assert frame_size_px(published, 8) == (768, 1360)
    assert frame_size_px({**TRANSFORMER, "sample_height": 60, "sample_width": 90}, 8) == (480, 720)
    pipeline = SimpleNamespace(transformer=SimpleNamespace(config=published), vae_scale_factor_spatial=8)
    request = SimpleNamespace(people=[()], regions=None)
    assert frame_size_arguments(pipeline, [request]) == {"height": 768, "width": 1360}


@pytest.mark.parametrize("preset", ["open", "research"])
def test_an_image_to_video_base_is_refused_by_its_index(home, preset):
    with pytest.raises(WeightsError, match="serves the released FantasyID alone"):
        Likeness.load(preset, backbone=home / "models" / "cogvideox-5b-i2v", device="cpu")


def test_an_image_to_video_transformer_is_refused_in_a_pipeline_from_text(home, monkeypatch):
    """Its sampling would end in the VAE, which takes half as many channels."""
    folder = home / "models" / "cogvideox-5b-i2v"
    index = json.loads((folder / "model_index.json").read_text())
    monkeypatch.setattr("likeness.backbones.load.refuse_other_pipelines", lambda _: None)
    assert index["_class_name"] == "CogVideoXImageToVideoPipeline"
    with pytest.raises(WeightsError, match="8 channels in and 4 out"):
        Likeness.load("research", backbone=folder, device="cpu")


def test_learned_positions_allow_their_own_number_of_frames_alone(home):
    learned = read_transformer_config(home / "models" / "cogvideox-5b-i2v")
    refuse_frames(learned, 49)
    with pytest.raises(ConfigError, match="--frames 49"):
        refuse_frames(learned, 17)
    refuse_frames(read_transformer_config(home / "models" / "cogvideox-5b"), 17)
