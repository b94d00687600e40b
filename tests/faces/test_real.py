"""On real photographs of several people, where they are at hand (LIKENESS_REAL)."""

from itertools import combinations

import numpy as np
import pytest

from likeness import faces, media
from likeness.errors import ManyFacesError

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def people(real_folder):
    """All faces of each person; reading them fails where none is found."""
    return {
        folder.name: [faces.read_face(path) for path in sorted(folder.glob("*.png"))]
        for folder in sorted((real_folder / "faces").iterdir())
    }


def test_every_photograph_has_one_face(people):
    assert all(len(photographs) == 5 for photographs in people.values())
    assert len(people) == 8


def test_people_are_told_apart_at_the_calibrated_threshold(people):
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
