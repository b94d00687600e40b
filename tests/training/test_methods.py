from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from likeness.errors import ConfigError, WeightsError
from likeness.identity.recognizer import Recognizer
from likeness.methods.fantasy_id import FantasyID
from likeness.training.data import Shards
from likeness.training.fantasy_id import FantasyLesson, FantasyRecipe, load_face_encoder
from likeness.training.methods import MethodStage, MethodStageSettings
from likeness.training.mirror import MirrorLesson
from likeness.training.unseen import SHEET_PROMPTS

PROMPT = "a woman img in a red sweater nods in a park"


VIT = {"encoder_width": 16, "encoder_depth": 2, "encoder_heads": 2, "face_width": 16, "head_width": 16}
MIRROR = VIT | {"identity_width": 16, "face_tokens": 4, "norm_width": 8, "norm_hidden_width": 8}
FANTASY = VIT | {
    "abstractor_hidden_width": 16, "num_vertices": (30, 8), "vertex_widths": (16,), "fusion_depth": 1,
    "context_width": 16, "injection_width": 16,
}  # fmt: skip


def fantasy_lesson(views: int = 6) -> FantasyLesson:
    return FantasyLesson(FantasyRecipe.model_construct(views=views))


LESSONS = {"mirror": (MirrorLesson(), MIRROR), "fantasy_id": (fantasy_lesson(), FANTASY)}


@pytest.fixture(scope="module", params=LESSONS)
def parts(request, topology_of, frozen_pipe):
    pipe = frozen_pipe([PROMPT, *SHEET_PROMPTS])
    lesson, sizes = LESSONS[request.param]
    method = lesson.build(pipe.transformer.config, sizes)
    if isinstance(method, FantasyID):
        method.set_topology(topology_of(30, 8))
    method.attach(pipe).trainable_parameters()
    return pipe, method, lesson, Recognizer(128, (8, 8, 8), 32).requires_grad_(False)


def make_data() -> dict:
    facts = [{"person": row % 4, "prompt": PROMPT, "group": "woman"} for row in range(8)]
    rng = np.random.default_rng(0)
    faces = {
        "crop": torch.from_numpy(rng.integers(0, 255, (8, 64, 64, 3), np.uint8)),
        "embedding": torch.randn(8, 128),
        "landmarks": torch.randn(8, 1, 5, 2),
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
        "heads": {name: torch.randn(4, 30, 3) for name in ("faces", "unseen")},
    }  # fmt: skip


def make_stage(parts, lesson=None, **changes) -> MethodStage:
    values = {"name": "s", "steps": 1, "batch": 4, "data": "pictures", **changes}
    pipe, method, own, recognizer = parts
    settings = MethodStageSettings(**values)
    return MethodStage(pipe, method, lesson or own, recognizer, settings, make_data(), 0)


@pytest.mark.parametrize(("data", "dtype"), [("pictures", "bfloat16"), ("clips", "float32")])
def test_the_loss_reaches_the_method_and_nothing_of_the_base(parts, data, dtype):
    torch.manual_seed(0)
    stage = make_stage(
        parts, data=data, dtype=dtype, min_alpha_bar=0.0, text_drop=0.0, identity_drop=0.0, both_drop=0.0
    )
    loss, figures = stage.loss(3)
    loss.backward()
    pipe, method, lesson, _ = parts
    reached = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    method.zero_grad()
    stage.set_base_dtype(torch.float32)
    assert figures["identity"] > 0
    # Last layers of zero let nothing behind them learn in the first step.
    first = {"mirror": ("conditioned_norm", "fuse_module"), "fantasy_id": ("layer_model.pointwise",)}[
        lesson.name
    ]
    assert all(any(part in name for name in reached) for part in first)
    assert all(p.grad is None for p in pipe.transformer.transformer_blocks[0].base.parameters())
    assert all(p.grad is None for p in pipe.vae.parameters())


def test_learned_guidance_is_added_to_what_is_learned_for_sentences_without_anybody(parts):
    stage = make_stage(parts, text_drop=0.5, identity_drop=0.0, both_drop=0.0, dtype="float32")
    read = []

    def ten(text, noisy, _timesteps):
        read.append(text)
        return torch.full_like(noisy, 10.0)

    stage.identity_distance = lambda *_: torch.zeros(())  # A v that is far off has no picture.
    stage.learned_guidance = ten
    torch.manual_seed(1)
    _, figures = stage.loss(0)
    assert 90 < figures["noise"] < 120
    sentences = [stage.sentences.plain[0], stage.sentences.empty]
    known = [stage.pipe.text_encoder(ids[None])[0][0] for ids in sentences]
    kinds = [[torch.allclose(row, text, atol=1e-6) for text in known] for row in read[0]]
    assert all(any(kind) for kind in kinds)
    assert {kind.index(True) for kind in kinds} == {0, 1}


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
    if stage.lesson.name == "mirror":
        assert (mask.sum(dim=1) == 4).all()
        assert not torch.equal(ids, stage.sentences.plain[rows])
    else:
        assert not mask.any()


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


def test_what_is_read_beside_pictures_belongs_to_the_person(parts):
    stage = make_stage(parts, dtype="float32")
    faces = torch.tensor([[5, 1], [2, 6]])
    traits = stage.lesson.traits(stage.data, "faces", faces)
    whole = (
        stage.data["faces"]["embedding"] if stage.lesson.name == "mirror" else stage.data["heads"]["faces"]
    )
    expected = whole[faces] if stage.lesson.name == "mirror" else whole[[1, 2]]
    assert torch.equal(traits, expected)


@pytest.mark.parametrize("parts", ["fantasy_id"], indirect=True)
def test_without_the_collection_a_picture_is_its_own_reference(parts):
    stage = make_stage(parts, lesson=fantasy_lesson(views=1), self_reference=0.0, dtype="float32")
    rows = torch.arange(8)
    assert torch.equal(stage.references(rows, 2), rows[:, None].expand(8, 2))
    stage = make_stage(parts, lesson=fantasy_lesson(views=1), data="clips", dtype="float32")
    chosen = stage.references(rows, 2)
    assert torch.equal(chosen[:4], chosen[4:])
    assert (chosen % 4 == (rows % 4)[:, None]).all()


@pytest.mark.parametrize("parts", ["fantasy_id"], indirect=True)
def test_the_vertex_branch_learns_in_float32_while_the_rest_is_in_bfloat16(parts):
    stage = make_stage(parts, dtype="bfloat16", identity_weight=0.0)
    _, method, _, _ = parts
    last = [p for name, p in method.named_parameters() if "layer_model.pointwise.weight" in name]
    for weight in last:
        torch.nn.init.ones_(weight)
    seen = []
    encoder = method.descriptor.vertex_encoder
    handle = encoder.convolutions[0].layer.register_forward_hook(lambda *now: seen.append(now[2].dtype))
    stage.loss(0)[0].backward()
    handle.remove()
    learned = encoder.convolutions[0].layer.weight.grad
    method.zero_grad()
    for weight in last:
        torch.nn.init.zeros_(weight)
    stage.set_base_dtype(torch.float32)
    assert seen == [torch.float32]
    assert learned.any()


@pytest.mark.parametrize("parts", ["fantasy_id"], indirect=True)
def test_what_is_frozen_takes_part_in_bfloat16_and_stays(parts):
    _, method, _, _ = parts
    last = [p for name, p in method.named_parameters() if "layer_model.pointwise.weight" in name]
    for weight in last:
        torch.nn.init.ones_(weight)
    method.frozen = ("descriptor",)
    method.trainable_parameters()
    try:
        stage = make_stage(parts, dtype="bfloat16", identity_weight=0.0)
        stage.loss(0)[0].backward()
        reached = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    finally:
        method.zero_grad()
        method.frozen = ()
        for parameter in method.requires_grad_(True).parameters():
            parameter.grad = None
        for weight in last:
            torch.nn.init.zeros_(weight)
    stage.set_base_dtype(torch.float32)
    assert any("to_kv_context" in name for name in reached)
    assert not [name for name in reached if name.startswith("descriptor.")]


def test_a_face_encoder_is_taken_from_another_adapter_or_refused(tmp_path):
    encoder = torch.nn.Linear(2, 2)
    with pytest.raises(WeightsError, match="No adapter at"):
        load_face_encoder(encoder, tmp_path)
    wanted = {
        f"face_encoder.{name}": value.half() for name, value in torch.nn.Linear(2, 2).state_dict().items()
    }
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file(wanted | {"other.weight": torch.zeros(1)}, file)
    load_face_encoder(encoder, tmp_path)
    assert torch.equal(encoder.weight.half(), wanted["face_encoder.weight"])
    save_file({"face_encoder.weight": torch.zeros(3, 2)}, file)
    with pytest.raises(ConfigError, match="does not fit"):
        load_face_encoder(encoder, tmp_path)


def test_a_setting_that_the_method_does_not_know_is_told(parts):
    pipe, _, lesson, _ = parts
    with pytest.raises(ConfigError, match="does not know"):
        lesson.build(pipe.transformer.config, {"no_such_setting": 1})


def test_the_shipped_recipe_is_read_and_its_ablations_are_switches():
    from likeness.training import recipes

    path = Path(__file__).parents[2] / "recipes" / "tiny" / "fantasy_id.toml"
    switches = [
        'method.abstractor="queries"', "views=1", "method.has_vertices=false", "method.is_layer_aware=false",
    ]  # fmt: skip
    recipe = recipes.read(path, switches)
    assert recipe.views == 1
    method = FantasyID(width=32, num_layers=2, **recipe.method)
    assert method.descriptor.vertex_encoder is None
    assert type(method.descriptor.abstractor).__name__ == "FacePerceiver"
