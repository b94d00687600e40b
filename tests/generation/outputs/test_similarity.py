from dataclasses import replace

import numpy as np
import pytest

from likeness.errors import FaceError
from likeness.faces import read_face
from likeness.generation import measure_similarity
from likeness.media import resize
from likeness.puppets import sample_clip, sample_image, sample_person


@pytest.fixture(scope="module")
def references():
    return {seed: read_face(sample_image(seed, person=sample_person(seed), size_px=256).frames[0]) for seed in (0, 3)}


def test_own_clip_is_nearer_than_anothers(references):
    for own, other in ((0, 3), (3, 0)):
        frames = sample_clip(own, person=sample_person(own), action="smile", num_frames=1, size_px=64).frames
        right = measure_similarity(frames, [references[own]])
        wrong = measure_similarity(frames, [references[other]])
        assert right.face_rate == wrong.face_rate == 1
        assert right.mean_distance < wrong.mean_distance


def test_frames_without_a_face_count_against_the_face_rate_alone(references):
    face = sample_image(0, person=sample_person(0), size_px=256).frames[0]
    frames = np.stack([resize(face, 64, 64), np.zeros((64, 64, 3), dtype=np.uint8)])
    similarity = measure_similarity(frames, [references[0]])
    assert similarity.face_rate == 0.5
    assert np.isnan(similarity.distances[1])
    assert np.isfinite(similarity.mean)


def test_a_picture_matches_itself(references):
    picture = sample_image(0, person=sample_person(0), size_px=256).frames
    similarity = measure_similarity(picture, [references[0]])
    assert similarity.mean_distance < 0.2
    assert similarity.match_rate == 1


def test_references_of_another_engine_are_refused(face_of):
    other = replace(face_of(0), engine="arcface", embedding=np.zeros(512, dtype=np.float32))
    with pytest.raises(FaceError, match="read by `arcface`, but frames are read by `dlib`"):
        measure_similarity(np.zeros((1, 64, 64, 3), dtype=np.uint8), [other])
