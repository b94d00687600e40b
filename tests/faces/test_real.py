"""On real photographs of several people, where they are at hand (LIKENESS_REAL)."""

from contextlib import suppress
from itertools import combinations

import numpy as np
import pytest

from likeness import faces, media
from likeness.errors import ManyFacesError, NoFaceError

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def people(real_folder):
    """The faces that are found of each person, five photographs each."""
    found = {}
    for path in sorted((real_folder / "faces").glob("*/*.png")):
        with suppress(NoFaceError):
            found.setdefault(path.parent.name, []).append(faces.read_face(path))
    return found


def test_nearly_every_photograph_has_one_face(people):
    """HOG gives one of the 40 a score of 0.00, as it does patches of background; that one is refused."""
    assert len(people) == 8
    assert sum(map(len, people.values())) >= 39


def test_people_are_distinguished_at_the_calibrated_threshold(people):
    labelled = [(name, face) for name, photographs in people.items() for face in photographs]
    pairs = [(a == b, faces.compare(x, y)) for (a, x), (b, y) in combinations(labelled, 2)]
    same = np.array([pair.distance for is_same, pair in pairs if is_same])
    other = np.array([pair.distance for is_same, pair in pairs if not is_same])
    assert (same >= 0.6).mean() <= 0.05, f"mean distance {same.mean():.3f}"
    assert (other < 0.6).mean() <= 0.005, f"mean distance {other.mean():.3f}"


def test_a_group_is_listed(real_folder):
    with pytest.raises(ManyFacesError):
        faces.read_face(real_folder / "group.jpg")


def test_a_talking_head_stays_the_same_person(real_folder):
    frames, _ = media.read_video(real_folder / "videos" / "consisid_sample.mp4", max_frames=40)
    first, *later = (faces.read_face(frame) for frame in frames[::13])
    assert all(faces.compare(first, face).is_same for face in later)
