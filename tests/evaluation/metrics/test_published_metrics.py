"""What is made of the large networks' outputs, against plain loops: the networks themselves are in test_networks.py."""

import itertools
import math

import numpy as np
import pytest
from made_inputs import make_inputs, make_references

from likeness.evaluation.metrics.registry import METRICS

WIDTH = 6


def naive_cosine(a, b) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


@pytest.fixture
def all_inputs():
    """Two videos of one person and one of another; a frame of each shows nobody, and one has a second face."""
    random = np.random.default_rng(0)
    people = [
        make_references(
            np.ones((count, 2)),
            arcface=random.normal(size=(count, WIDTH)),
            face_inception=random.normal(size=(count, WIDTH)),
        )
        for count in (3, 2)
    ]
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
        made.append(make_inputs(faces, people[person], features=features, text=random.normal(size=WIDTH)))
    return made


def compute_for_video(name, inputs) -> float:
    compute = METRICS[name].compute_for_video
    assert compute is not None
    return compute(inputs)


def test_rs_is_the_mean_over_faces_and_references(all_inputs):
    for inputs in all_inputs:
        rows = [row for row in inputs.features["arcface"]["embedding"] if not math.isnan(row[0])]
        cosines = [naive_cosine(row, one) for row in rows for one in inputs.references.arrays["arcface"]]
        assert compute_for_video("reference_similarity", inputs) == pytest.approx(sum(cosines) / len(cosines))


def test_ifs_is_the_mean_over_neighbors_that_both_have_a_face(all_inputs):
    for inputs in all_inputs:
        rows = inputs.features["arcface"]["embedding"]
        pairs = [(a, b) for a, b in itertools.pairwise(rows) if not math.isnan(a[0] + b[0])]
        cosines = [naive_cosine(a, b) for a, b in pairs]
        assert len(pairs) == len(rows) - 3
        assert compute_for_video("interframe_similarity", inputs) == pytest.approx(sum(cosines) / len(cosines))


def test_facesim_arc_clips_each_frame_at_nothing(all_inputs):
    for inputs in all_inputs:
        rows, first = inputs.features["arcface"]["embedding"], inputs.references.arrays["arcface"][0]
        places = [int(place * (len(rows) - 1) / 31) for place in range(32)]  # The frames that OpenS2V looks at.
        scores = [max(0.0, naive_cosine(rows[n], first)) for n in places if not math.isnan(rows[n][0])]
        assert compute_for_video("facesim_arc", inputs) == pytest.approx(sum(scores) / len(scores))


def test_face_fid_holds_all_faces_against_each_persons_references_once(all_inputs):
    compute = METRICS["face_fid"].compute_for_system
    assert compute is not None
    faces = []
    for inputs in all_inputs:
        faces += [inputs.features["face_inception"]["features"][row] for row in inputs.rows if row >= 0]
    assert len(faces) == 6 + 8 + 7
    references = np.concatenate([inputs.references.arrays["face_inception"] for inputs in all_inputs[1:]])
    assert len(references) == 5
    a, b = np.cov(np.array(faces).T), np.cov(references.T)
    values, vectors = np.linalg.eig(a @ b)
    root = vectors @ np.diag(np.sqrt(values.astype(complex))) @ np.linalg.inv(vectors)
    gap = np.mean(faces, axis=0) - references.mean(axis=0)
    expected = gap @ gap + np.trace(a + b - 2 * root.real)
    assert compute(all_inputs) == pytest.approx(expected, rel=1e-4)


def test_one_reference_is_held_against_the_faces_of_sixteen_frames(all_inputs):
    for inputs in all_inputs:
        features, first = (
            inputs.features["face_inception"]["features"],
            inputs.references.arrays["face_inception"][0],
        )
        places = [int(place * (inputs.num_frames - 1) / 15) for place in range(16)]
        squares = [
            sum((x - y) ** 2 for x, y in zip(features[inputs.rows[n]], first, strict=True))
            for n in places
            if inputs.rows[n] >= 0
        ]
        assert compute_for_video("face_distance_inception", inputs) == pytest.approx(sum(squares) / len(squares))


def test_text_is_the_product_of_both_vectors(all_inputs):
    for inputs in all_inputs:
        expected = sum(a * b for a, b in zip(inputs.features["viclip"]["embedding"], inputs.text, strict=True))
        assert compute_for_video("text_video_consistency", inputs) == pytest.approx(expected)


def test_the_inception_score_is_of_all_frames_of_a_system(all_inputs):
    compute = METRICS["inception_score"].compute_for_system
    assert compute is not None
    rows = [row for inputs in all_inputs for row in inputs.features["inception"]["probabilities"]]
    sizes = [3] * 4 + [2] * 6  # Twenty-four frames in ten parts.
    scores, start = [], 0
    for size in sizes:
        part = rows[start : start + size]
        mean = [sum(column) / size for column in zip(*part, strict=True)]
        terms = [sum(p * math.log(p / q) for p, q in zip(row, mean, strict=True)) for row in part]
        scores.append(math.exp(sum(terms) / size))
        start += size
    assert compute(all_inputs) == pytest.approx(sum(scores) / 10)
