"""What is made of the large networks' outputs, against plain loops: the networks themselves are in test_networks.py."""

import itertools
import math

import numpy as np
import pytest
from made_views import make_references, make_view

from likeness.evaluation.metrics.registry import METRICS

WIDTH = 6


def naive_cosine(a, b) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


@pytest.fixture
def views():
    """Two videos of one person and one of another; a frame of each shows nobody, and one has a second face."""
    random = np.random.default_rng(0)
    people = [
        make_references(np.ones((count, 2)), arcface=random.normal(size=(count, WIDTH)), face_inception=random.normal(size=(count, WIDTH)))
        for count in (3, 2)
    ]  # fmt: skip
    made = []
    for person, num_frames in ((0, 7), (0, 9), (1, 8)):
        faces = np.ones((num_frames, 2))
        faces[2] = np.nan
        arcface = random.normal(size=(num_frames, WIDTH))
        arcface[2] = np.nan
        probabilities = random.uniform(size=(num_frames, 5))
        features = {
            "arcface": {"embedding": arcface},
            "face_inception": {"features": random.normal(size=(num_frames, WIDTH))},
            "inception": {"probabilities": probabilities / probabilities.sum(axis=1, keepdims=True)},
            "viclip": {"embedding": random.normal(size=WIDTH)},
        }
        made.append(make_view(faces, people[person], features=features, text=random.normal(size=WIDTH)))
    return made


def of_video(name, view) -> float:
    compute = METRICS[name].of_video
    assert compute is not None
    return compute(view)


def test_rs_is_the_mean_over_faces_and_references(views):
    for view in views:
        rows = [row for row in view.features["arcface"]["embedding"] if not math.isnan(row[0])]
        cosines = [naive_cosine(row, one) for row in rows for one in view.references.arrays["arcface"]]
        assert of_video("reference_similarity", view) == pytest.approx(sum(cosines) / len(cosines))


def test_ifs_is_the_mean_over_neighbors_that_both_have_a_face(views):
    for view in views:
        rows = view.features["arcface"]["embedding"]
        pairs = [(a, b) for a, b in itertools.pairwise(rows) if not math.isnan(a[0] + b[0])]
        cosines = [naive_cosine(a, b) for a, b in pairs]
        assert len(pairs) == len(rows) - 3
        assert of_video("interframe_similarity", view) == pytest.approx(sum(cosines) / len(cosines))


def test_facesim_arc_clips_each_frame_at_nothing(views):
    for view in views:
        rows, first = view.features["arcface"]["embedding"], view.references.arrays["arcface"][0]
        places = [int(place * (len(rows) - 1) / 31) for place in range(32)]  # The frames that OpenS2V looks at.
        scores = [max(0.0, naive_cosine(rows[n], first)) for n in places if not math.isnan(rows[n][0])]
        assert of_video("facesim_arc", view) == pytest.approx(sum(scores) / len(scores))


def test_face_fid_holds_all_faces_against_each_persons_references_once(views):
    compute = METRICS["face_fid"].of_system
    assert compute is not None
    faces = [view.features["face_inception"]["features"][view.rows[n]] for view in views for n in range(view.num_frames) if view.rows[n] >= 0]  # fmt: skip
    assert len(faces) == 6 + 8 + 7
    references = np.concatenate([view.references.arrays["face_inception"] for view in views[1:]])
    assert len(references) == 5
    a, b = np.cov(np.array(faces).T), np.cov(references.T)
    values, vectors = np.linalg.eig(a @ b)
    root = vectors @ np.diag(np.sqrt(values.astype(complex))) @ np.linalg.inv(vectors)
    gap = np.mean(faces, axis=0) - references.mean(axis=0)
    expected = gap @ gap + np.trace(a + b - 2 * root.real)
    assert compute(views) == pytest.approx(expected, rel=1e-4)


def test_one_reference_is_held_against_the_faces_of_sixteen_frames(views):
    for view in views:
        features, first = (
            view.features["face_inception"]["features"],
            view.references.arrays["face_inception"][0],
        )
        places = [int(place * (view.num_frames - 1) / 15) for place in range(16)]
        squares = [
            sum((x - y) ** 2 for x, y in zip(features[view.rows[n]], first, strict=True))
            for n in places
            if view.rows[n] >= 0
        ]
        assert of_video("face_distance_inception", view) == pytest.approx(sum(squares) / len(squares))


def test_text_is_the_product_of_both_vectors(views):
    for view in views:
        told = sum(a * b for a, b in zip(view.features["viclip"]["embedding"], view.text, strict=True))
        assert of_video("text_video_consistency", view) == pytest.approx(told)


def test_the_inception_score_is_of_all_frames_of_a_system(views):
    compute = METRICS["inception_score"].of_system
    assert compute is not None
    rows = [row for view in views for row in view.features["inception"]["probabilities"]]
    sizes = [3] * 4 + [2] * 6  # Twenty-four frames in ten parts.
    scores, start = [], 0
    for size in sizes:
        part = rows[start : start + size]
        mean = [sum(column) / size for column in zip(*part, strict=True)]
        terms = [sum(p * math.log(p / q) for p, q in zip(row, mean, strict=True)) for row in part]
        scores.append(math.exp(sum(terms) / size))
        start += size
    assert compute(views) == pytest.approx(sum(scores) / 10)
