"""Pairs of a person, from a recipe to the loader of training."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from pydantic import ValidationError
from toy_stages import make_recipe

from likeness.curation.people.pairs import Pairs, PairSettings
from likeness.curation.people.tracks import Tracks
from likeness.curation.run import curate
from likeness.curation.stage import register
from likeness.curation.verify import verify
from likeness.media import read_image, write_image
from likeness.training.files.settings import FileDataSettings
from likeness.training.files.tar import opened
from likeness.training.precompute.plan import EncodingSettings, plan_data

ENCODING = EncodingSettings(vae="v", text_encoder="t", engine="dlib", frame_step=8, side_step_px=16)
VIEWS = {"name": "views", "origin": "cross", "min_views": 0}


@pytest.fixture
def generated(engine, squares):
    """Registers stages that find squares, and generate three pictures of a red one and one of a green."""
    places = [[(0, 8, 60)], [(0, 60, 8)], [(1, 8, 8)], [(0, 40, 40)]]
    pictures = list(squares(places))

    class Generator:
        name = "squares"

        def __call__(self, references, prompts, *, seed, facts):  # noqa: ARG002
            return [pictures[number % len(pictures)] for number in range(len(prompts))]

    @register("square_tracks")
    class SquareTracks(Tracks):
        name = "square_tracks"

        def __init__(self, settings):
            super().__init__(settings, engine)

    @register("square_pairs")
    class SquarePairs(Pairs):
        name = "square_pairs"

        def __init__(self, settings):
            super().__init__(settings, Generator(), engine)

    return pictures


def plan(folder):
    settings = FileDataSettings(path=folder, resolution_px=64, num_frames=1)
    return plan_data(settings, ENCODING, seed=0, needs_class_word=True).samples["train"]


def read(path):
    with opened(path) as file:
        return read_image(file)


def curate_squares(tmp_path, squares, stages):
    for number, left in enumerate((20, 50)):
        path = tmp_path / "raw" / "ann" / f"{number}.png"
        write_image(path, squares([[(0, left, 30)]])[0])
        path.with_suffix(".txt").write_text(f"a woman stands {('left', 'right')[number]}")
    recipe = make_recipe(tmp_path / "raw", stages)
    return curate(recipe, tmp_path / "out")


def test_training_gets_views_of_other_sources_and_generated_pictures(tmp_path, squares, generated):
    pairs = {"name": "square_pairs", "num_pictures": 4, "max_kept": 2, "min_variety": 0.01}
    result = curate_squares(tmp_path, squares, [{"name": "square_tracks"}, VIEWS, pairs])
    planned = plan(result.folder)
    assert len(planned) == 2
    assert verify(tmp_path / "out").problems == ()
    for one in planned:
        assert len(one.reference_media) == 3
        cross, *made = (read(path) for path in one.reference_media)
        assert cross.shape == (48, 48, 3)  # The head: twice the face of 24 px, of the other file.
        assert all(any(np.array_equal(picture, other) for other in generated[:2]) for picture in made)
        with opened(one.sample.media.with_suffix(".json")) as path:
            record = json.loads(path.read_text())
        assert record["references"][0]["candidate"] != record["id"]
        assert all(entry["prompt"] for entry in record["references"][1:])
        assert "generated" not in record["figures"]


def test_a_recipe_selects_photomaker_which_is_loaded_for_the_first_picture(tmp_path, monkeypatch, engine):
    with pytest.raises(ValidationError, match="needs sdxl, a diffusers folder, and photomaker, a file"):
        PairSettings(generator="photomaker")
    loaded = []
    fake = SimpleNamespace(
        PhotoMakerPairs=SimpleNamespace(load=lambda *paths, device: loaded.append((paths, device)) or "pairs")
    )
    monkeypatch.setitem(sys.modules, "likeness.curation.people.photomaker_pairs", fake)
    paths = tmp_path / "sdxl", tmp_path / "photomaker.bin"
    stage = Pairs(PairSettings(generator="photomaker", sdxl=paths[0], photomaker=paths[1]), engine=engine)
    assert (stage.needs.gpus, loaded) == (1.0, [])
    assert stage._generator == stage._generator == "pairs"
    assert loaded == [(paths, "cuda")]


def test_generated_pictures_follow_their_settings(tmp_path, squares, generated):
    stages = [{"name": "square_tracks"}, {"name": "square_pairs", "num_pictures": 1, "min_variety": 0.01}]
    first = plan(curate_squares(tmp_path, squares, stages).folder)
    assert [np.array_equal(read(one.reference_media[0]), generated[0]) for one in first] == [True, True]
    stages[1]["num_pictures"] = 2
    second = plan(curate_squares(tmp_path, squares, stages).folder)
    assert [len(one.reference_media) for one in second] == [2, 2]
