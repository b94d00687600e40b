import logging

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from likeness.errors import ConfigError
from likeness.generation import GenerationRequest
from likeness.generation.inputs.search import MAX_SEED
from likeness.generation.sampling.best_of import preview_step
from likeness.generation.sampling.sample import Judge, Rejected, denoise
from likeness.records import Similarity

PROMPT = "a woman img in a red sweater nods"
FAST = {"steps": 4, "frames": 1, "guidance": 1}


def similarity(score, num_frames=1):
    distances = np.full(num_frames, 1.2 * (1 - score), np.float32)
    return Similarity(distances=distances, cosines=distances, threshold=0.6)


@pytest.fixture
def scripted(monkeypatch):
    """Previews and finished clips score what the test says, in the order in which they are judged."""

    def script(previews, finished):
        for module, scores in (("sampling.best_of", iter(previews)), ("likeness", iter(finished))):
            name = f"likeness.generation.{module}.measure_clip"

            def measure(frames, *_, scores=scores):
                return similarity(next(scores), len(frames)), ()

            monkeypatch.setattr(name, measure)

    return script


def outcomes(clip):
    return [candidate["outcome"] for candidate in clip.settings["best_of"]["candidates"]]


def test_the_best_candidate_is_given_and_its_seed_makes_it_again(either, face, scripted):
    scripted([0.5, 0.6, 0.7], [0.4, 0.8, 0.6])
    clip = either.generate(PROMPT, face, seed=10, best_of=3, **FAST)
    assert clip.settings["seed"] == 11
    assert clip.similarity.score == pytest.approx(0.8)
    scripted([], [0.8])
    assert_array_equal(clip.frames, either.generate(PROMPT, face, seed=11, **FAST).frames)
    record = clip.settings["best_of"]
    assert [candidate["seed"] for candidate in record["candidates"]] == [10, 11, 12]
    assert [candidate["similarity"] for candidate in record["candidates"]] == pytest.approx([0.4, 0.8, 0.6])
    assert (record["steps"], record["steps_of_all_in_full"]) == (12, 12)


def test_a_candidate_that_looks_worse_half_way_saves_its_other_steps(likeness, face, scripted):
    scripted([0.5, 0.3, 0.6, 0.55], [0.5, 0.7])
    clip = likeness.generate(PROMPT, face, best_of=4, **FAST)
    assert outcomes(clip) == ["finished", "rejected", "finished", "rejected"]
    assert [candidate["steps"] for candidate in clip.settings["best_of"]["candidates"]] == [4, 2, 4, 2]
    assert clip.settings["best_of"]["steps"] == 12
    assert clip.settings["seed"] == 2


def test_the_first_clip_that_passes_ends_the_search(likeness, face, scripted):
    scripted([0.5, 0.6], [0.4, 0.7])
    clip = likeness.generate(PROMPT, face, best_of=4, min_similarity=0.65, **FAST)
    assert clip.settings["best_of"]["passed"] is True
    assert len(outcomes(clip)) == 2
    assert clip.settings["best_of"]["steps"] == 8


def test_where_none_passes_the_best_is_given_with_a_warning(likeness, face, scripted, caplog):
    scripted([0.5, 0.5], [0.3, 0.4])
    with caplog.at_level(logging.WARNING):
        clip = likeness.generate(PROMPT, face, best_of=2, min_similarity=0.9, **FAST)
    assert "No candidate of 2 reached similarity 0.90: the best, seed 1, has 0.40" in caplog.text
    assert clip.settings["best_of"]["passed"] is False
    assert clip.similarity.score == pytest.approx(0.4)


def test_of_equals_the_first_is_given_and_none_is_rejected(likeness, face, scripted):
    scripted([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    clip = likeness.generate(PROMPT, face, seed=3, best_of=3, **FAST)
    assert clip.settings["seed"] == 3
    assert outcomes(clip) == ["finished"] * 3


def test_a_threshold_alone_judges_one_clip(likeness, face, scripted):
    scripted([], [0.7])
    clip = likeness.generate(PROMPT, face, min_similarity=0.6, **FAST)
    assert clip.settings["best_of"]["passed"] is True


def test_progress_never_runs_backwards_and_ends_complete(likeness, face, scripted):
    scripted([0.5, 0.3, 0.6], [0.5, 0.5])
    seen = []
    likeness.generate(PROMPT, face, best_of=3, on_step=lambda *now: seen.append(now), **FAST)
    assert seen == sorted(seen)
    assert seen[-1] == (12, 12)
    assert seen.count((12, 12)) == 1


def test_the_frame_expected_after_the_last_step_is_the_clips_first(likeness, face):
    seen = []
    settings = likeness.settings(steps=3, frames=9)
    request = GenerationRequest(prompt=PROMPT, people=((face,),), seed=2)
    judge = Judge(step=3, keeps=lambda frame: not seen.append(frame))
    frames = denoise(likeness.pipeline, likeness.method, [request], settings, judge=judge)[0]
    # The decoder's norms see all latent frames together, so a frame decoded alone differs a little.
    near, far = (np.abs(seen[0].astype(int) - frames[index]).mean() for index in (0, -1))
    assert near < 2
    assert far > 2 * near


def test_after_a_rejection_the_pipeline_is_as_before(likeness, face):
    request = GenerationRequest(prompt=PROMPT, people=((face,),), seed=2)
    settings = likeness.settings(steps=3, frames=1)
    before = likeness.generate_many([request], settings, is_measured=False)[0].frames
    with pytest.raises(Rejected):
        denoise(
            likeness.pipeline,
            likeness.method,
            [request],
            settings,
            judge=Judge(step=2, keeps=lambda _: False),
        )
    assert "_callback_tensor_inputs" not in vars(likeness.pipeline)
    assert_array_equal(likeness.generate_many([request], settings, is_measured=False)[0].frames, before)


@pytest.mark.parametrize(("steps", "step"), [(1, None), (2, None), (3, 2), (25, 12), (50, 25)])
def test_a_candidate_is_looked_at_half_way(steps, step):
    assert preview_step(steps) == step


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ({"best_of": 0}, "`best_of` is 0"),
        ({"best_of": -2}, "`best_of` is -2"),
        ({"best_of": 101}, "`best_of` is 101"),
        ({"min_similarity": -0.1}, "`min_similarity` is -0.1"),
        ({"min_similarity": 60}, "`min_similarity` is 60"),
        ({"best_of": 2, "seed": MAX_SEED}, "Use a smaller seed"),
    ],
)
def test_searches_out_of_range_are_refused(likeness, face, chosen, words):
    with pytest.raises(ConfigError, match=words):
        likeness.generate(PROMPT, face, **chosen, **FAST)
