import re

import numpy as np
import pytest

from likeness.app.demo import choose_best_candidates, choose_puppet, write_demo
from likeness.generation.inputs.settings import resolve_settings
from likeness.generation.loading.presets import find_preset
from likeness.records import Clip, Similarity


def make_clip(face, prompt="a woman img smiles & waves"):
    random = np.random.default_rng(0)
    distances = np.array([0.4, np.nan, 0.5], dtype=np.float32)
    return Clip(
        frames=random.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8),
        fps=8.0,
        prompt=prompt,
        settings={"seed": 7, "preset": "tiny", "steps": 25},
        similarity=Similarity(distances=distances, cosines=1 - distances, threshold=0.6),
        references=(face,),
    )


@pytest.fixture
def demo(face_of, tmp_path):
    clips = [make_clip(face_of(0)), make_clip(face_of(0)), make_clip(face_of(1))]
    return tmp_path, write_demo(tmp_path, clips, ["One person", "One person", "Another"])


def test_demo_leaves_everything_in_its_folder(demo):
    folder, made = demo
    names = {path.name for path in folder.iterdir()}
    assert names >= {"one_person_1.mp4", "one_person_2.mp4", "another_1.mp4", "another_1.json"}
    assert names >= {"contact_sheet.png", "similarity.png", "report.html", "one_person_reference.png"}
    assert [video.name for video, _ in made] == ["one_person_1.mp4", "one_person_2.mp4", "another_1.mp4"]


def test_report_needs_nothing_from_elsewhere(demo):
    folder, _ = demo
    page = (folder / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(sources) == 3 + 2 + 2  # videos, references, sheet and plot
    for source in sources:
        assert source.startswith("data:image/png;base64,") or (folder / source).is_file()
    assert "http" not in page.replace("data:image", "")
    assert "smiles &amp; waves" in page


def test_report_gives_the_figures_of_each_clip(demo):
    page = (demo[0] / "report.html").read_text()
    assert page.count("distance <b>0.45</b>") == 3
    assert page.count("face found <b>67%</b>") == 3


def test_the_clip_most_like_its_reference_is_kept_and_all_seeds_are_recorded(face_of):
    clips = [make_clip(face_of(0)) for _ in range(4)]
    for seed, (clip, distance) in enumerate(zip(clips, (0.5, 0.3, np.nan, 0.4), strict=True)):
        clip.settings["seed"] = seed
        clip.similarity.distances[:] = distance
    chosen = choose_best_candidates(clips, 2, resolve_settings(find_preset("tiny"), {}))
    assert [clip.settings["seed"] for clip in chosen] == [1, 3]
    candidates = chosen[1].settings["best_of"]["candidates"]
    assert [candidate["seed"] for candidate in candidates] == [2, 3]
    assert candidates[0]["similarity"] == 0 < candidates[1]["similarity"]
    assert chosen[1].settings["best_of"]["steps"] == 2 * find_preset("tiny").steps


def test_report_lists_every_seed_that_was_tried(face_of, tmp_path):
    settings = resolve_settings(find_preset("tiny"), {})
    write_demo(tmp_path, choose_best_candidates([make_clip(face_of(0)), make_clip(face_of(0))], 2, settings), ["One"])
    assert "of seeds 7: 0." in (tmp_path / "report.html").read_text()


def test_chosen_puppet_has_one_face_and_does_different_things():
    person = choose_puppet(seed=7)
    assert person.face.crop.shape == (224, 224, 3)
    assert len(person.prompts) >= 2
    assert all(" img " in prompt for prompt in person.prompts)
