from types import SimpleNamespace

import numpy as np
import pytest
import skimage.data
import torch
from small_methods import HEADS, SPECS, build, fantasy_spec, make_data, make_stage

from likeness.errors import ConfigError
from likeness.faces import find_faces
from likeness.identity.encoders.recognizer import Recognizer, contrastive_loss
from likeness.training.engine import distributed
from likeness.training.engine.settings import run_validation_parts
from likeness.training.methods import stage as method_stage
from likeness.training.methods import validation
from likeness.training.methods.magic_mirror import MagicMirrorTrainingSpec
from likeness.training.objectives.on_policy import sample_on_policy


@pytest.fixture(scope="module", params=SPECS)
def parts(request, topology_of, frozen_pipe):
    pipe, method, method_spec = build(request.param, frozen_pipe, topology_of)
    method.attach(pipe).trainable_parameters()
    return pipe, method, method_spec, Recognizer(128, (8, 8, 8), 32).requires_grad_(False)


@pytest.mark.parametrize(("data", "dtype"), [("images", "bfloat16"), ("clips", "float32")])
def test_the_loss_reaches_the_method_and_nothing_of_the_base(parts, data, dtype):
    torch.manual_seed(0)
    stage = make_stage(
        parts, data=data, dtype=dtype, min_alpha_bar=0.0, text_drop=0.0, identity_drop=0.0, both_drop=0.0
    )
    loss, figures = stage.loss(3)
    loss.backward()
    pipe, method, method_spec, _ = parts
    reached = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    method.zero_grad()
    stage.set_base_dtype(torch.float32)
    assert figures["identity"] > 0
    # Last layers of zero let nothing behind them learn in the first step.
    first = {"magic_mirror": ("conditioned_norm", "fuse_module"), "fantasy_id": ("layer_model.output",)}[
        method_spec.name
    ]
    assert all(any(part in name for name in reached) for part in first)
    assert all(p.grad is None for p in pipe.transformer.transformer_blocks[0].base.parameters())
    assert all(p.grad is None for p in pipe.vae.parameters())


def test_on_policy_latents_train_the_method_too(parts, monkeypatch):
    torch.manual_seed(0)
    stage = make_stage(
        parts, data="clips", dtype="float32", text_drop=0.0, identity_drop=0.0, both_drop=0.0,
        identity_samples=0, rollout_samples=3, rollout_steps=2, guidance=1.5,
    )  # fmt: skip
    asked = []
    stage.denoiser.register_forward_pre_hook(
        lambda _, args: asked.append((args[0].timesteps.tolist(), bool(args[0].active.all()), torch.is_grad_enabled()))
    )
    # The denoising loss would train the method too.
    monkeypatch.setattr(method_stage, "masked_error", lambda mask, *_: torch.zeros(len(mask)))
    loss, figures = stage.loss(0)
    loss.backward()
    _, method, _, _ = parts
    reached = [p.grad for p in method.parameters() if p.grad is not None and p.grad.any()]
    method.zero_grad()
    assert reached
    assert figures["on_policy_identity"] > 0
    # One call with the data's latents, then both branches in two steps and once more where they end.
    (_, *steps) = asked
    assert len(steps) == 6
    assert [is_someone for _, is_someone, _ in steps] == [False, True] * 3
    assert [learns for _, _, learns in steps] == [False] * 5 + [True]
    (first, *_), (last, *_) = steps[0], steps[-1]
    assert len(set(first)) == 1  # All begin with as little signal,
    assert len(set(last)) == 3  # and end anywhere.
    assert all(end < begin for begin, end in zip(first, last, strict=True))


def test_rollouts_are_of_the_very_people_whose_clips_they_are(parts):
    stage = make_stage(
        parts,
        data="clips",
        dtype="float32",
        text_drop=0.0,
        identity_samples=0,
        rollout_samples=2,
        rollout_steps=1,
    )
    active = torch.tensor([False, True, False, True])
    sample_conditions = stage.sample_conditions
    stage.sample_conditions = lambda rows, references: (*sample_conditions(rows, references)[:2], active)
    given = []
    stage.denoiser.register_forward_pre_hook(lambda _, args: given.append(args[0].identity))
    stage.loss(0)
    everybody, _, few, *_ = given
    assert torch.equal(few.face_tokens, everybody.face_tokens[[1, 3]])


def test_contrast_is_the_chance_of_the_right_person_written_as_loops():
    torch.manual_seed(0)
    found, target = torch.randn(3, 5).double(), torch.randn(3, 5).double()
    expected = 0.0
    for row in range(3):
        weights = [float(torch.cosine_similarity(found[row], one, dim=0) / 0.1) for one in target]
        expected -= (weights[row] - float(np.log(np.sum(np.exp(weights))))) / 3
    assert float(contrastive_loss(found, target)) == pytest.approx(expected)
    assert float(contrastive_loss(10 * target, target)) < 0.05 < np.log(3) < float(contrastive_loss(-target, target))


def test_the_others_of_a_step_count_in_the_identity_loss_where_that_is_asked_for(parts):
    target = torch.nn.functional.normalize(torch.randn(4, 128))
    points = make_data().targets["clips"]["landmarks"][:4]
    losses, figures = [], {}
    for weight in (0.0, 0.5):
        stage = make_stage(parts, data="clips", dtype="float32", identity_contrast=weight)
        torch.manual_seed(0)
        losses.append(stage.identity_loss("identity", torch.randn(4, 5, 16, 8, 8), points, target, figures))
    assert figures["identity"] == pytest.approx(float(losses[0]))
    assert figures["identity_contrast"] > 0.2
    assert float(losses[1]) == pytest.approx(figures["identity"] + 0.5 * figures["identity_contrast"])


def test_guidance_is_added_where_the_prompt_is_not_empty(parts, monkeypatch):
    stage = make_stage(
        parts,
        text_drop=0.5,
        identity_drop=0.0,
        both_drop=0.0,
        dtype="float32",
        attention_guidance=0.5,
        perturbed_layers=(1,),
    )
    stage.identity_loss.terms = lambda *_: torch.zeros(2)  # A v that is far off has no image.
    extremes = 4 * torch.tensor([1.0, 0.0, 0.0, 1.0])  # A stage averages over its four rows.
    monkeypatch.setattr(
        method_stage, "masked_error", lambda _, error, __: extremes * error.flatten(1).mean(dim=1).sort().values
    )
    torch.manual_seed(1)
    _, before = stage.loss(0)
    stage.guidance = lambda inputs: torch.full_like(inputs.noisy, 20.0)
    torch.manual_seed(1)
    _, figures = stage.loss(0)
    assert 90 < figures["denoising"] - before["denoising"] < 110  # One row moved by ten, one stayed.


def test_the_v_of_a_teacher_takes_the_place_of_the_datas(parts):
    stage = make_stage(
        parts,
        data="clips",
        dtype="float32",
        text_drop=0.5,
        identity_drop=0.0,
        both_drop=0.0,
        identity_weight=0.0,
    )
    calls = []

    def say(rows, faces, pixels, **others):
        calls.append((rows, faces, pixels, others))
        return torch.full_like(others["noisy"], 20.0)

    stage.teacher = say
    torch.manual_seed(1)
    _, figures = stage.loss(0)
    assert 300 < figures["denoising"] < 500
    ((rows, faces, pixels, others),) = calls
    assert (faces[:, 0] % 4 == rows % 4).all()
    assert 0 < others["is_unconditional"].sum() < len(rows)
    assert pixels.shape == (4, 1, 3, *pixels.shape[3:])


def test_a_teacher_is_evaluated_on_on_policy_latents(parts, monkeypatch):
    stage = make_stage(
        parts, data="clips", dtype="float32", text_drop=0.5, identity_weight=0.0, identity_samples=0, rollout_samples=2,
        rollout_steps=1, teacher_scale=1.0, on_policy_distillation_weight=0.5, guidance=3.0,
    )  # fmt: skip
    calls, drawn, meant = [], [], []

    def say(rows, faces, pixels, **others):
        calls.append((rows, faces, pixels, others))
        return torch.full_like(others["noisy"], 20.0)

    stage.teacher = say
    monkeypatch.setattr(
        method_stage, "sample_on_policy", lambda *asked: drawn.append(sample_on_policy(*asked)) or drawn[-1]
    )
    stage.denoiser.register_forward_hook(lambda _module, _inputs, v: meant.append(v))
    weights = iter((0.0, 1.0))  # Nothing is learned from the data's latents.
    monkeypatch.setattr(method_stage, "masked_error", lambda _, error, __: next(weights) * error.flatten(1).mean(dim=1))
    torch.manual_seed(2)
    sample_conditions = stage.sample_conditions
    stage.sample_conditions = lambda rows, references: (
        *sample_conditions(rows, references)[:2],
        torch.tensor([False, True, True, False]),
    )
    loss, figures = stage.loss(0)
    (everybody, faces, pixels, others), (few, few_faces, few_pixels, own) = calls
    for part, whole in ((few, everybody), (few_faces, faces), (few_pixels, pixels)):
        assert torch.equal(part, whole[1:3])
    assert torch.equal(own["is_unconditional"], others["is_unconditional"][1:3])
    assert own["active"].all()
    ((noisy, ends),) = drawn
    assert torch.equal(own["noisy"], noisy)
    assert torch.equal(own["timesteps"], ends)
    assert (noisy - others["noisy"][1:3]).abs().mean() > 0.1  # Not the data's.
    error = float((meant[-1].detach() - 20).square().mean())
    assert figures["on_policy_distillation"] == pytest.approx(error, rel=1e-5)
    assert float(loss.detach()) == pytest.approx(0.5 * figures["on_policy_distillation"], rel=1e-5)
    loss.backward()
    assert any(p.grad is not None and p.grad.any() for p in parts[1].parameters())
    parts[1].zero_grad()


@pytest.mark.parametrize(("average", "share"), [("qualifying", 1.0), ("all", 2 / 4)])
def test_lambda_weights_the_mean_over_what_qualifies(parts, average, share):
    stage = make_stage(
        parts, data="clips", dtype="float32", identity_weight=0.25, identity_samples=2, identity_average=average,
        min_alpha_bar=0.0, text_drop=0.0, identity_drop=0.0, both_drop=0.0,
    )  # fmt: skip
    landmarks = stage.targets["landmarks"].clone()
    stage.targets = stage.targets.with_tensor("landmarks", landmarks)
    landmarks[stage.rows[stage.sampler.local_rows(0, 4)][0]] = torch.nan  # One of four has no face.
    stage.identity_loss.terms = lambda latents, *_: (latents.mean() * 0 + 3.0, torch.zeros(()))
    loss, figures = stage.loss(0)
    assert (figures["identity_qualifying"], figures["identity_decoded"]) == (3, 2)
    assert float(loss.detach()) == pytest.approx(figures["denoising"] + 0.25 * share * 3.0, rel=1e-5)


def test_dropping_leaves_plain_or_empty_sentences(parts):
    stage = make_stage(parts, text_drop=0.0, identity_drop=1.0, both_drop=0.0, dtype="float32")
    rows = torch.arange(4)
    ids, mask, active = stage.sample_conditions(rows, 1)
    assert torch.equal(ids, stage.prompts.caption_ids[rows])
    assert not mask.any()
    assert not active.any()
    stage = make_stage(parts, text_drop=0.0, identity_drop=0.0, both_drop=0.0, dtype="float32")
    ids, mask, active = stage.sample_conditions(rows, 2)
    assert active.all()
    if stage.method_spec.name == "magic_mirror":
        assert (mask.sum(dim=1) == 4).all()
        assert not torch.equal(ids, stage.prompts.caption_ids[rows])
    else:
        assert not mask.any()


def test_references_show_the_same_person(parts):
    stage = make_stage(parts, self_reference=0.5, dtype="float32")
    rows = torch.arange(8)
    chosen = stage.sample_references(rows, 2)
    assert (chosen % 4 == (rows % 4)[:, None]).all()
    assert (chosen[:, 1] != rows).all()


NUM_STEPS = 3


@pytest.fixture
def few_steps(monkeypatch):
    """Sample validation people in few steps, and search their frames, which show nobody, at their own size."""
    monkeypatch.setattr(validation, "SAMPLING_STEPS", NUM_STEPS)
    monkeypatch.setattr(validation, "FRAME_DETECTION_PX", 32)


@pytest.mark.usefixtures("few_steps")
def test_a_sheet_of_validation_people_is_drawn(parts, tmp_path):
    stage = make_stage(parts, dtype="bfloat16")
    figures = stage.validate(tmp_path / "sheet.png")
    assert figures == stage.validate(tmp_path / "again.png")  # Another loss would say that something is random.
    assert figures["validation_face_loss"] > 0
    stage.set_base_dtype(torch.float32)
    torch.backends.cuda.enable_flash_sdp(True)
    assert (tmp_path / "sheet.png").stat().st_size > 1000


@pytest.mark.usefixtures("few_steps")
def test_validation_is_done_in_parts_of_at_most_a_step(parts, tmp_path, monkeypatch):
    stage = make_stage(parts, batch=2, data="clips", dtype="float32")
    rows, in_part = [], []
    forward = stage.denoiser.module.forward
    monkeypatch.setattr(
        stage.denoiser.module, "forward", lambda inputs: rows.append(len(inputs.noisy)) or forward(inputs)
    )
    running = stage.validation_parts(tmp_path / "sheet.png")
    while True:
        rows.clear()
        try:
            next(running)
        except StopIteration as end:
            metrics = end.value
            break
        in_part.append(sum(rows))
    assert max(in_part) <= 3  # A step runs two rows forward, and backward costs twice as much.
    # The error of eight samples; the steps of four, each with and without.
    assert sum(in_part) == 8 + 4 * NUM_STEPS * 2
    assert set(metrics) >= {"validation_face_loss", "validation_face_rate", "validation_rank1"}


def test_generated_people_are_scored_by_the_engine(parts):
    astronaut = skimage.data.astronaut()
    stage = make_stage(parts, data="images", dtype="float32")
    faces = stage.data.references["validation"]
    faces.tensors["embedding"][1] = torch.from_numpy(find_faces(astronaut)[0].embedding)
    clips = [astronaut[None], np.zeros((1, 64, 64, 3), np.uint8)]
    metrics = run_validation_parts(validation.score_faces(stage, clips, torch.tensor([1, 2])))
    assert metrics == {
        "validation_face_rate": 0.5,
        "validation_rank1": 0.5,
        "validation_distance": pytest.approx(0, abs=1e-3),
    }


def test_qualifying_samples_are_counted_over_the_micro_batches_of_a_step(parts):
    stage = make_stage(parts, batch=8, accumulation=2, identity_drop=0.4, min_alpha_bar=0.1, dtype="float32")
    shares, counts = [], []
    for step in (0, 1):
        distributed.seed_micro_step(0, step)
        batch = stage.sample_batch(step)
        before = torch.get_rng_state()
        chosen, _ = stage.choose_samples(step, batch, stage.qualifies_for_identity, "identity", 4)
        shares.append(chosen.loss_factor)
        counts.append(int(stage.qualifies_for_identity(batch.spec).sum()))
        assert len(chosen.rows) == counts[-1]
        assert torch.equal(torch.get_rng_state(), before)
    assert sum(counts) > 0
    assert shares == [2 * count / sum(counts) for count in counts]


def test_extra_conditioning_belongs_to_the_person(parts):
    stage = make_stage(parts, dtype="float32")
    faces = torch.tensor([[5, 1], [2, 6]])
    extra_conditioning = stage.method_spec.extra_conditioning(stage.data, "train", faces)
    is_mirror = stage.method_spec.name == "magic_mirror"
    embedding = stage.data.references["train"]["embedding"]
    assert torch.equal(extra_conditioning, embedding[faces] if is_mirror else HEADS[[1, 2]])


@pytest.mark.parametrize("parts", ["fantasy_id"], indirect=True)
def test_without_the_collection_an_image_is_its_own_reference(parts):
    stage = make_stage(parts, method_spec=fantasy_spec(views=1), self_reference=0.0, dtype="float32")
    rows = torch.arange(8)
    assert torch.equal(stage.sample_references(rows, 2), rows[:, None].expand(8, 2))
    stage = make_stage(parts, method_spec=fantasy_spec(views=1), data="clips", dtype="float32")
    chosen = stage.sample_references(rows, 2)
    assert torch.equal(chosen[:4], chosen[4:])
    assert (chosen % 4 == (rows % 4)[:, None]).all()


@pytest.mark.parametrize("parts", ["fantasy_id"], indirect=True)
def test_the_vertex_branch_learns_in_float32_while_the_rest_is_in_bfloat16(parts):
    stage = make_stage(parts, dtype="bfloat16", identity_weight=0.0)
    _, method, _, _ = parts
    last = [p for name, p in method.named_parameters() if "layer_model.output.weight" in name]
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
    last = [p for name, p in method.named_parameters() if "layer_model.output.weight" in name]
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


def test_references_are_encoded_once_a_step(parts, monkeypatch):
    _, method, _, _ = parts
    stage = make_stage(
        parts,
        data="clips",
        dtype="float32",
        identity_drop=0.0,
        both_drop=0.0,
        identity_samples=0,
        rollout_samples=3,
    )
    read, encode = [], method.encode_tensors
    monkeypatch.setattr(method, "encode_tensors", lambda *inputs: read.append(len(inputs[0])) or encode(*inputs))
    stage.loss(0)
    assert read == [4]


def test_a_setting_that_the_method_does_not_have_is_refused(parts):
    pipe, _, method_spec, _ = parts
    with pytest.raises(ConfigError, match="does not know"):
        method_spec.build(pipe.transformer.config, {"no_such_setting": 1})


def test_a_method_that_reads_whole_images_is_not_trained_on_head_crops():
    method = SimpleNamespace(config={"encoder_input": "whole_image"})
    recipe = SimpleNamespace(photomaker=None, profile="tiny", data=None)
    with pytest.raises(ConfigError, match="rendered as head crops alone"):
        MagicMirrorTrainingSpec(recipe).prepare(method, None, from_scratch=False)
