import numpy as np
import pytest
import torch
from small_methods import TINY_RECIPE

from likeness.errors import ConfigError
from likeness.identity.encoders.recognizer import Recognizer
from likeness.puppets import sample_two_person_clip
from likeness.training.data.datasets import ShardedDataset, unpack_mask
from likeness.training.data.pairs import TrainingData
from likeness.training.data.prompts import caption_without_trigger
from likeness.training.data.render_puppets import PuppetSettings, folder, render_missing
from likeness.training.methods.magic_mirror import MagicMirrorTrainingSpec
from likeness.training.methods.settings import MethodStageSettings
from likeness.training.methods.two_person import VALIDATION_PROMPTS, TwoPersonRecipe, TwoPersonStage, write_pair_sheet

ALONE, PROMPT = "a woman img nods in a park", "a woman img1 nods and a man img2 smiles in a park"
SMALL = {"encoder_width": 16, "encoder_depth": 2, "encoder_heads": 2, "face_width": 16, "head_width": 16,
         "identity_width": 16, "face_tokens": 4, "norm_width": 8, "norm_hidden_width": 8}  # fmt: skip


def make_data() -> TrainingData:
    facts = [{"person": row % 4, "prompt": ALONE, "group": "woman"} for row in range(8)]
    pairs = [{"people": [row % 4, (row + 1) % 4], "prompt": PROMPT} for row in range(8)]
    rng = np.random.default_rng(0)
    faces = {
        "crop": torch.from_numpy(rng.integers(0, 255, (8, 64, 64, 3), np.uint8)),
        "embedding": torch.randn(8, 128),
    }
    points = torch.tensor([[22.0, 30], [28, 30], [36, 30], [42, 30], [32, 38]])
    both = torch.stack([points, points + torch.tensor([64.0, 0])]).expand(8, 5, 2, 5, 2)

    def targets(width: int, facts: list, landmarks: torch.Tensor) -> ShardedDataset:
        tensors = {
            "latents": torch.randn(8, 5, 16, 8, width).half(),
            "mask": torch.rand(8, 5, 8, width).half(),
            "landmarks": landmarks,
        }
        return ShardedDataset(tensors, facts)

    one = points.expand(8, 5, 5, 2)
    return TrainingData(
        references={"train": ShardedDataset(faces, facts), "validation": ShardedDataset(faces, facts)},
        targets={"clips": targets(8, facts, one), "two_person": targets(16, pairs, both)},
        validation_targets={"clips": targets(8, facts, one)},
    )


@pytest.fixture(scope="module")
def stage(frozen_pipe):
    pipe = frozen_pipe([ALONE, PROMPT, *VALIDATION_PROMPTS])
    method_spec = MagicMirrorTrainingSpec(TINY_RECIPE)
    method = method_spec.build(pipe.transformer.config, SMALL)
    method.attach(pipe).trainable_parameters()
    settings = MethodStageSettings(name="s", steps=1, batch=4, data="clips", dtype="float32", min_alpha_bar=0.0)
    recognizer = Recognizer(128, (8, 8, 8), 32).requires_grad_(False)
    recipe = TwoPersonRecipe.model_construct(cross_region_weight=0.0, single_every=3)
    return TwoPersonStage(pipe, method, method_spec, recognizer, settings, make_data(), 0, recipe=recipe)


@pytest.mark.parametrize(
    "changes",
    [{"teacher_scale": 1.0}, {"rollout_samples": 1}, {"attention_guidance": 1.0, "perturbed_layers": (0,)}],
    ids=lambda changes: next(iter(changes)),
)
def test_what_steps_on_pairs_do_not_know_is_refused(stage, changes):
    settings = stage.settings.model_copy(update=changes)
    parts = (stage.pipe, stage.method, stage.method_spec, stage.identity_loss.recognizer, settings, stage.data, 0)
    with pytest.raises(ConfigError, match=f"has {next(iter(changes))}, which"):
        TwoPersonStage(*parts, recipe=stage.recipe)


def test_two_people_teach_the_method_and_every_third_step_is_of_one(stage):
    loss, figures = stage.loss(1)
    counts = {f"two_person_identity_{kind}" for kind in ("qualifying", "decoded")}
    assert figures.keys() == {"two_person_denoising", "two_person_identity", *counts}
    assert [figures[name] for name in sorted(counts)] == [2, 2]
    loss.backward()
    reached = {name for name, p in stage.method.named_parameters() if p.grad is not None and p.grad.any()}
    stage.method.zero_grad()
    assert all(any(part in name for name in reached) for part in ("conditioned_norm", "fuse_module"))
    assert "denoising" in stage.loss(3)[1]


def test_references_are_of_the_two_people_from_left_to_right(stage):
    faces = stage._sample_pair_references(torch.arange(8))
    assert (faces % 4 == torch.tensor([fact["people"] for fact in stage.two_person_clips.metadata])).all()


@pytest.mark.slow
def test_a_sheet_of_pairs_is_drawn(stage, tmp_path):
    write_pair_sheet(stage, tmp_path / "sheet.png", count=1)
    assert (tmp_path / "sheet.png").stat().st_size > 1000


def test_renders_of_two_hold_what_the_stage_reads(tmp_path):
    settings = PuppetSettings(kind="two_person", count=2, people=3, num_frames=1, seed=1)
    list(render_missing(settings, tmp_path, processes=0))
    shards = ShardedDataset.read(folder(settings, tmp_path))
    assert shards["frames"].shape == (2, 1, 64, 128, 3)
    assert shards["landmarks"].shape == (2, 1, 2, 5, 2)
    assert unpack_mask(shards["mask"]).shape == (2, 1, 64, 128)
    assert [fact["people"] for fact in shards.metadata] == [[0, 1], [1, 2]]
    assert "img" not in caption_without_trigger(shards.metadata[0])
    assert sample_two_person_clip(1, num_frames=1, size_px=16).caption == caption_without_trigger(
        {"prompt": sample_two_person_clip(1, num_frames=1, size_px=16).prompt}
    )
