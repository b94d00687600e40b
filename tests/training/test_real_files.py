"""Real photographs and videos from files to a video: precompute, 20 steps of both methods on tiny, generate."""

import json
import os
from pathlib import Path

import pytest

from likeness import Likeness, weights
from likeness.training import run
from likeness.training.precompute.prepare import find_cache

TINY = weights.CHECKPOINTS / "tiny"
WOMEN = ("amy", "bernadette", "penny")
METHODS = {
    "magic_mirror": "",
    "fantasy_id": f'shape = "{TINY / "shape"}"\n',
}

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif("LIKENESS_REAL" not in os.environ, reason="LIKENESS_REAL names no folder"),
]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = Path(os.environ["LIKENESS_REAL"])
    rows = []
    for person in sorted((folder / "faces").iterdir()):
        word = "woman" if person.name in WOMEN else "man"
        for picture in sorted(person.iterdir()):
            media = picture.relative_to(folder).as_posix()
            rows.append({"media": media, "caption": f"a portrait of a {word} in a room", "person": person.name})
    for video in sorted((folder / "videos").glob("*.mp4")):
        media = video.relative_to(folder).as_posix()
        rows.append({"media": media, "caption": "a person talks to the camera", "person": video.stem})
    path = tmp_path_factory.mktemp("data") / "people.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path, folder


@pytest.mark.parametrize("method", METHODS)
def test_photographs_and_videos_are_trained_on_and_a_video_is_made(manifest, tmp_path_factory, method):
    path, folder = manifest
    runs = tmp_path_factory.getbasetemp() / "runs"
    recipe = runs / f"{method}.toml"
    recipe.parent.mkdir(exist_ok=True)
    recipe.write_text(
        f'kind = "{method}"\nbase = "{TINY}"\nrecognizer = "{TINY / "recognizer"}"\n{METHODS[method]}'
        f'[data]\nkind = "files"\npath = "{path}"\nmedia_root = "{folder}"\nresolution_px = 64\nnum_frames = 17\n'
        "validation_people = 2\n"
        '[[stages]]\nname = "images"\ndata = "images"\nsteps = 10\nbatch = 4\n'
        '[[stages]]\nname = "mixed"\ndata = "mixed"\nsteps = 10\nbatch = 4\n'
    )
    cache = run.precompute(recipe, output=runs / method, processes=1)
    assert cache == find_cache(runs / "cache").folder
    model = run.train(recipe, output=runs / method, processes=1)
    logs = [json.loads(line) for line in (runs / method / "mixed" / "log.jsonl").read_text().splitlines()]
    assert any("validation_face_loss" in line for line in logs)
    face = next((folder / "faces" / "penny").iterdir())
    clip = Likeness.load(method=method, adapter=model).generate("a woman img smiles", faces=[face], seed=1, steps=4)
    assert clip.frames.shape[0] == 17
    assert clip.similarity is not None
