import numpy as np
import pytest
import torch

from likeness.backbones import tiny
from likeness.identity.recognizer import Recognizer
from likeness.methods.magic_mirror import MagicMirror
from likeness.training.data import Shards
from likeness.training.mirror import MirrorStage, MirrorStageSettings
from likeness.training.unseen import SHEET_PROMPTS

PROMPT = "a woman img in a red sweater nods in a park"


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    tokenizer = tiny.build_tokenizer([PROMPT, *SHEET_PROMPTS])
    text = tiny.TextSettings(width=32, num_heads=2, hidden_width=32, num_layers=1)
    transformer = tiny.TransformerSettings(num_heads=2, head_width=16, num_layers=2, time_width=16)
    pipe = tiny.assemble(
        tiny.build_vae(tiny.VaeSettings(widths=(8, 8, 8, 8), norm_num_groups=4)),
        tiny.build_text_encoder(text, tokenizer),
        tokenizer,
        tiny.build_transformer(transformer, text),
    )
    for part in (pipe.vae, pipe.text_encoder, pipe.transformer):
        part.requires_grad_(False)
    # What ships has learned; a base that starts at zero would hide the method.
    for parameter in pipe.transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    config = MagicMirror.tiny_config(
        pipe.transformer.config, encoder_width=16, encoder_depth=2, encoder_heads=2, identity_width=16, face_width=16,
        head_width=16, face_tokens=4, norm_width=8, norm_hidden_width=8,
    )  # fmt: skip
    mirror = MagicMirror(**config).attach(pipe)
    mirror.trainable_parameters()
    return pipe, mirror, Recognizer(128, (8, 8, 8), 32).requires_grad_(False)


def make_data() -> dict:
    facts = [{"person": row % 4, "prompt": PROMPT, "group": "woman"} for row in range(8)]
    rng = np.random.default_rng(0)
    faces = {
        "crop": torch.from_numpy(rng.integers(0, 255, (8, 64, 64, 3), np.uint8)),
        "embedding": torch.randn(8, 128),
    }
    points = torch.tensor([[22.0, 30], [28, 30], [36, 30], [42, 30], [32, 38]]).expand(8, 5, 2)

    def targets(frames: int) -> Shards:
        tensors = {
            "latents": torch.randn(8, frames, 16, 8, 8).half(),
            "mask": torch.rand(8, frames, 8, 8).half(),
        }
        return Shards(tensors, facts)

    return {
        "faces": Shards(faces, facts), "unseen": Shards(faces, facts), "pictures": targets(1), "clips": targets(5),
        "unseen_pictures": targets(1), "unseen_clips": targets(5),
        "landmarks": {"pictures": points, "clips": points},
    }  # fmt: skip


def make_stage(parts, **changes) -> MirrorStage:
    values = {"name": "s", "steps": 1, "batch": 4, "data": "pictures", **changes}
    return MirrorStage(*parts, MirrorStageSettings(**values), make_data(), 0)


@pytest.mark.parametrize(("data", "dtype"), [("pictures", "bfloat16"), ("clips", "float32")])
def test_the_loss_reaches_the_method_and_nothing_of_the_base(parts, data, dtype):
    torch.manual_seed(0)
    stage = make_stage(
        parts, data=data, dtype=dtype, min_alpha_bar=0.0, text_drop=0.0, identity_drop=0.0, both_drop=0.0
    )
    loss, figures = stage.loss(3)
    loss.backward()
    pipe, mirror, _ = parts
    reached = {name for name, p in mirror.named_parameters() if p.grad is not None and p.grad.any()}
    mirror.zero_grad()
    stage.set_base_dtype(torch.float32)
    assert figures["identity"] > 0
    assert any("conditioned_norm" in name for name in reached)
    assert any("fuse_module" in name for name in reached)
    assert all(p.grad is None for p in pipe.transformer.transformer_blocks[0].base.parameters())
    assert all(p.grad is None for p in pipe.vae.parameters())


def test_dropping_leaves_plain_or_empty_sentences(parts):
    stage = make_stage(parts, text_drop=0.0, identity_drop=1.0, both_drop=0.0, dtype="float32")
    rows = torch.arange(4)
    ids, mask, active = stage.words(rows, 1)
    assert torch.equal(ids, stage.sentences.plain[rows])
    assert not mask.any()
    assert not active.any()
    stage = make_stage(parts, text_drop=0.0, identity_drop=0.0, both_drop=0.0, dtype="float32")
    ids, mask, active = stage.words(rows, 2)
    assert active.all()
    assert (mask.sum(dim=1) == 4).all()
    assert not torch.equal(ids, stage.sentences.plain[rows])


def test_references_show_the_same_person(parts):
    stage = make_stage(parts, self_reference=0.5, dtype="float32")
    rows = torch.arange(8)
    chosen = stage.references(rows, 2)
    assert (chosen % 4 == (rows % 4)[:, None]).all()
    assert (chosen[:, 1] != rows).all()


def test_a_sheet_of_unseen_people_is_drawn(parts, tmp_path):
    stage = make_stage(parts, dtype="bfloat16")
    figures = stage.sheet(tmp_path / "sheet.png")
    assert figures == stage.sheet(tmp_path / "again.png")  # Another loss would say that something is random.
    assert figures["unseen_face_loss"] > 0
    stage.set_base_dtype(torch.float32)
    torch.backends.cuda.enable_flash_sdp(True)
    assert (tmp_path / "sheet.png").stat().st_size > 1000
