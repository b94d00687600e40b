import numpy as np
import pytest

from likeness.evaluation.features import registry as features
from likeness.evaluation.features.base import DecodedVideo
from likeness.puppets import sample_clip, sample_person


@pytest.fixture
def frames():
    """Two frames of a puppet, whose first comes twice more."""
    clip = sample_clip(0, person=sample_person(0), action="tilt", num_frames=2, size_px=96).frames
    return clip[[0, 0, 1, 0]]


def test_a_frame_that_comes_again_is_looked_at_once(frames, monkeypatch):
    looks, find_faces = [], features.find_faces

    def look(frame, **options):
        looks.append(frame)
        return find_faces(frame, **options)

    monkeypatch.setattr(features, "find_faces", look)
    found = features.measure_faces(DecodedVideo(frames=frames, fps=8), {})
    assert len(looks) == 2
    first, second = (features.measure_faces(DecodedVideo(frames=frames[[row]], fps=8), {}) for row in (0, 2))
    for index, mine in enumerate((first, first, second, first)):
        rows = found["frame"] == index
        assert rows.sum() == len(mine["frame"]) >= 1
        for name in ("box", "landmarks", "prominence", "embedding"):
            np.testing.assert_array_equal(found[name][rows], mine[name])
