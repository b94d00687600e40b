"""The full-size recipes shrunk by overrides alone: a random base in the true layout, rendered people on disk."""

import json
from pathlib import Path

import numpy as np
import small_released
import torch
from small_photomaker import LORA, SMALL
from transformers import CLIPVisionConfig, CLIPVisionModel

from likeness.backbones import tiny
from likeness.identity.encoders.photomaker import PhotoMakerEncoder
from likeness.identity.encoders.recognizer import Recognizer
from likeness.media import write_image, write_video
from likeness.puppets import sample_clip, sample_image, sample_person

RECIPES = Path(__file__).parents[2] / "recipes"
FULL_SIZE = sorted(path for size in ("2b", "5b") for path in (RECIPES / f"cogvideox_{size}").glob("*.toml"))
PEOPLE = ("ann", "bea", "cleo")
CAPTION = "a woman in a red sweater nods in a park"
SIZE_PX = 96
SIZES = {
    "5b/magic_mirror": {
        "encoder_width": 16, "encoder_depth": 3, "encoder_heads": 2, "image_size_px": 28, "embedding_width": 128,
        "identity_width": 32, "identity_depth": 2, "face_tokens": 4, "face_width": 32, "face_depth": 2,
        "head_width": 16, "norm_width": 8, "norm_hidden_width": 8,
    },
    "5b/fantasy_id": {
        "encoder_width": 16, "encoder_depth": 3, "encoder_heads": 2, "image_size_px": 56, "downsampling": 2,
        "abstractor_hidden_width": 16, "face_width": 16, "num_vertices": [258, 65, 17], "vertex_widths": [8, 16],
        "fusion_depth": 1, "context_width": 16, "injection_width": 16, "head_width": 16,
    },
}  # fmt: skip
SIZES["2b/magic_mirror"] = SIZES["5b/magic_mirror"]
SIZES["2b/fantasy_id"] = SIZES["5b/fantasy_id"] | {"num_vertices": [2562, 641, 161]}


def write_base(folder: Path, *, has_rope: bool) -> Path:
    """A pipeline of a few thousand random weights as `from_pretrained` reads it, for frames of 64 x 96 px."""
    torch.manual_seed(0)
    tokenizer = tiny.build_tokenizer([CAPTION, "img"])
    text = tiny.TextSettings(width=16, num_layers=1, num_heads=2, hidden_width=32)
    sizes = tiny.TransformerSettings(num_heads=2, head_width=16, num_layers=2, time_width=8, text_length=32)
    transformer = tiny.build_transformer(sizes, text)
    config = dict(transformer.config) | {
        "use_rotary_positional_embeddings": has_rope, "sample_height": 8, "sample_width": 12, "sample_frames": 9,
    }  # fmt: skip
    transformer = type(transformer).from_config(config)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    vae = tiny.build_vae(tiny.VaeSettings(widths=(8, 8, 8, 8), norm_num_groups=2))
    tiny.save_pipeline(
        tiny.build_pipeline(vae, tiny.build_text_encoder(text, tokenizer), tokenizer, transformer), folder
    )
    return folder


def write_data(folder: Path, *, num_vertices: int = 258) -> Path:
    """Two pictures and one clip of each of three rendered people, vertices beside each, and a manifest."""
    rows = []
    for number, person in enumerate(PEOPLE):
        puppet = sample_person(number)
        for picture in range(2):
            name = f"{person}/{picture}.png"
            write_image(folder / name, sample_image(10 * number + picture, person=puppet, size_px=SIZE_PX).frames[0])
            rows.append({"media": name, "caption": CAPTION, "person": person})
        clip = sample_clip(number, person=puppet, num_frames=9, size_px=SIZE_PX)
        write_video(folder / person / "clip.mp4", clip.frames, 8)
        rows.append({"media": f"{person}/clip.mp4", "caption": CAPTION, "person": person})
    for row in rows:
        head = np.random.default_rng(0).normal(size=(num_vertices, 3)).astype(np.float32)
        np.save((folder / row["media"]).with_suffix(".npy"), head)
    manifest = folder / "people.jsonl"
    manifest.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return manifest


def write_weights(folder: Path) -> dict[str, Path]:
    """Small random stand-ins for PhotoMaker-V2, CLIP, the mesh and the recognizer, each in its published layout."""
    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    encoder = PhotoMakerEncoder(SMALL.model_copy(update={"embedding_width": 128})).eval()
    torch.save({"id_encoder": encoder.published_state(), "lora_weights": LORA}, folder / "photomaker-v2.bin")
    clip = CLIPVisionConfig(
        hidden_size=16, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=56, patch_size=14
    )
    CLIPVisionModel(clip).save_pretrained(folder / "clip")
    small_released.write_mesh(folder / "transform.pkl")
    Recognizer(128, (8, 8), 32).save(folder / "recognizer")
    return {
        "photomaker": folder / "photomaker-v2.bin",
        "clip": folder / "clip",
        "mesh": folder / "transform.pkl",
        "recognizer": folder / "recognizer",
    }


def name_of(recipe: Path) -> str:
    """`5b/magic_mirror` for recipes/cogvideox_5b/magic_mirror.toml."""
    return f"{recipe.parent.name.removeprefix('cogvideox_')}/{recipe.stem}"


def overrides_for(recipe: Path, base: Path, manifest: Path, weights: dict[str, Path]) -> list[str]:
    """Overrides that shrink a recipe to a few seconds; its structure stays."""
    text = recipe.read_text()
    found = [f'base="{base}"', f'data.path="{manifest}"', f'recognizer="{weights["recognizer"]}"', 'device="cpu"']
    for name in ("photomaker", "clip", "mesh"):
        if f"\n{name} = " in text:
            found.append(f'{name}="{weights[name]}"')
    if name_of(recipe) == "2b/fantasy_id":
        found.append(f'shape="{RECIPES.parent / "src/likeness/checkpoints/tiny/shape"}"')
    found += ["data.height_px=64", "data.width_px=96", "data.num_frames=9", "data.validation_people=1"]
    found += [f"method.{key}={value}" for key, value in SIZES[name_of(recipe)].items()]
    for number in range(text.count("[[stages]]")):
        found += [f"stages.{number}.{key}=2" for key in ("steps", "batch", "accumulation")]
        # In two steps at the recipe's rate nothing would show.
        found += [f"stages.{number}.optimizer.{change}" for change in ("learning_rate=0.01", "warmup_steps=0", "ema=0")]
    return found
