"""From raw clips of puppets to training samples, by the stages of the project."""

import json

import numpy as np
import pytest

from likeness.curation.recipe import build_recipe
from likeness.curation.run import curate
from likeness.curation.verify import read_dropped
from likeness.media import write_video
from likeness.puppets import FPS, sample_clip, sample_person
from likeness.training.files.samples import read_samples

pytestmark = pytest.mark.slow
STAGES = [
    {"name": "guard", "min_side_px": 64},
    {"name": "shots", "detector": "adaptive"},
    {"name": "motion"},
    {"name": "borders"},
    {"name": "tracks", "engine": "dlib"},
    {"name": "quality", "min_face_px": 24},
    {"name": "hashes"},
    {"name": "duplicates"},
    {"name": "identities", "max_distance": 0.6},
    {"name": "views", "origin": "both"},
    {"name": "captions"},
]


def test_puppets_become_samples_with_references_of_the_same_person(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, person, seed in (("a1", 1, 11), ("a2", 1, 12), ("b1", 5, 13)):
        clip = sample_clip(seed, person=sample_person(person), num_frames=16, size_px=128)
        write_video(raw / f"{name}.mp4", np.pad(clip.frames, ((0, 0), (16, 16), (0, 0), (0, 0))), FPS)
        (raw / f"{name}.txt").write_text(clip.caption)
    write_video(raw / "copy.mp4", np.pad(clip.frames, ((0, 0), (16, 16), (0, 0), (0, 0)))[:, ::2, ::2], FPS)
    write_video(raw / "empty.mp4", np.full((16, 128, 128, 3), 90, np.uint8), FPS)
    recipe = build_recipe(
        {
            "kind": "data",
            "executor": {"workers": 0},
            "read": {"folders": [str(raw)]},
            "stages": STAGES,
        }
    )
    result = curate(recipe, tmp_path / "out")
    samples = read_samples(result.folder)
    dropped = json.dumps(list(read_dropped(result.folder)), default=str)
    assert len(samples) == 3, dropped
    assert len({sample.person for sample in samples}) == 2
    assert all(sample.references and sample.class_word for sample in samples)
    assert "copy of another" in dropped
    assert "still" in dropped
