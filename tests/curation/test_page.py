import base64
import json
import re

import cv2
import numpy as np
from toy_stages import MODULES, STAGES, make_recipe, write_pictures

from likeness import cli
from likeness.curation.report.page import write_page
from likeness.curation.report.thumbnails import make_thumbnails
from likeness.curation.run import curate
from likeness.curation.stage import Candidate
from likeness.media import write_image

EVIL = '<script>alert("1")</script>'


def test_the_page_shows_the_funnel_and_escapes_what_files_say(tmp_path):
    folder = write_pictures(tmp_path / "raw", 4)
    for number, text in enumerate((f'{{"person": {json.dumps(EVIL)}}}', '{"caption": "a <b>bold</b> woman"}')):
        path = folder / f"person{number}" / f"{number:03d}"
        path.with_suffix(".json").write_text(text)
        path.with_suffix(".txt").unlink()
    (folder / "person0" / "000.txt").write_text(f"a woman {EVIL}")
    (folder / "<i>notes.doc").write_text("notes")
    stages = [{"name": "toy_brightness", "min_brightness": 90}, STAGES[1]]
    curate(make_recipe(folder, stages, max_frames=7), tmp_path / "out", modules=MODULES)
    page = tmp_path / "page.html"
    records = write_page(tmp_path / "out", page)
    text = page.read_text()
    assert "<script" not in text
    assert "<i>notes" not in text
    assert "&lt;i&gt;notes.doc" in text
    assert not re.search(r"(src|href)=\"(?!data:image/jpeg;base64,)", text)
    assert [(one.name, one.reached, one.dropped) for one in records.stages] == [
        ("read", 5, 1),
        ("toy_brightness", 4, 3),
        ("toy_limit", 1, 0),
        ("worker", 1, 0),
        ("write", 1, 0),
    ]
    assert "3 too dark" in text
    assert text.count("<img") >= 5


def test_kept_samples_show_people_and_captions_escaped(tmp_path):
    folder = write_pictures(tmp_path / "raw", 2)
    (folder / "person0" / "000.json").write_text(json.dumps({"person": EVIL}))
    (folder / "person0" / "000.txt").write_text(f"a woman {EVIL}")
    curate(make_recipe(folder, STAGES[:1]), tmp_path / "out", modules=MODULES)
    write_page(tmp_path / "out", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;") >= 2
    assert "The same for all: short_side_px 32, fps 1" in text
    assert "person1/001.png" in text
    assert "brightness" in text


def test_of_several_faces_in_a_picture_the_one_that_is_meant_has_a_box(tmp_path):
    write_image(tmp_path / "two.png", np.full((100, 200, 3), 128, np.uint8))
    facts = {"kind": "image", "width_px": 200, "height_px": 100}
    candidate = Candidate(id="a", source="s", facts=facts)
    sources = {"s": {"path": str(tmp_path / "two.png"), "kind": "image"}}

    def pixels(faces):
        address = make_thumbnails([candidate], sources, faces)["a"]
        data = np.frombuffer(base64.b64decode(address.partition(",")[2]), np.uint8)
        return cv2.imdecode(data, cv2.IMREAD_COLOR_RGB).astype(int)

    plain, marked = pixels({}), pixels({"a": (0, [120.0, 20.0, 170.0, 80.0])})
    redder = marked[..., 0] - marked[..., 2] > 50
    assert not (plain[..., 0] - plain[..., 2] > 50).any()
    columns = np.flatnonzero(redder.any(axis=0)) * 200 / marked.shape[1]
    assert 115 < columns.min() < 125
    assert 165 < columns.max() < 175


def test_the_commands_run_verify_inspect_and_forget(tmp_path, capsys):
    folder, output = write_pictures(tmp_path / "raw", 2), str(tmp_path / "out")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        f'kind = "data"\nexecutor = {{ workers = 0 }}\n[read]\nfolders = ["{folder}"]\nare_folders_people = true\n'
    )
    assert cli.main(["data", "run", str(recipe), "-o", output, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["counts"]["samples"] == 2
    assert cli.main(["data", "run", str(recipe), "-o", output]) == 0
    assert "2 samples of 2 people in 1 shards" in capsys.readouterr().out
    assert cli.main(["data", "verify", output]) == 0
    assert "every byte is as it was written" in capsys.readouterr().out
    assert cli.main(["data", "inspect", output, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stages"][0] == {
        "name": "read",
        "reached": 2,
        "dropped": 0,
        "reasons": {},
    }
    assert cli.main(["data", "forget", output, "--person", "person1"]) == 0
    assert "1 sources are forgotten; 1 samples" in capsys.readouterr().out
    assert not (tmp_path / "out" / "report.html").exists()
    (tmp_path / "out" / "data" / "00000.tar").write_bytes(b"")
    assert cli.main(["data", "verify", output, "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["problems"]
    assert cli.main(["data", "run", str(recipe), "-o", output, "--set", "write.shard=3"]) == 2
    assert "unknown setting `write.shard`" in capsys.readouterr().err
