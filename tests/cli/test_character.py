import json

import pytest

from likeness.cli import main
from likeness.media import read_image, read_video, write_image

CONSENT = "Ana agreed by e-mail on 3 May 2026."
pytestmark = pytest.mark.usefixtures("small_frames")


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    data = pytest.importorskip("skimage.data")
    path = tmp_path_factory.mktemp("photograph") / "astronaut.png"
    write_image(path, data.astronaut()[:300, 100:400])
    return path


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def add(photograph, *more, name="ana", consent=CONSENT):
    return main(["character", "add", name, "--face", str(photograph), "--consent", consent, *more])


def test_a_character_is_added_listed_shown_and_removed(photograph, tmp_path, capsys):
    assert add(photograph) == 0
    assert "ana, 1 reference" in capsys.readouterr().out
    assert main(["character", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["references"], row["engine"]) == ("ana", ["astronaut.png"], "dlib")
    picture = tmp_path / "ana.png"
    assert main(["character", "show", "ana", "--picture", str(picture)]) == 0
    assert f"consent: {CONSENT}" in capsys.readouterr().out
    assert read_image(picture).std() > 5
    assert main(["character", "remove", "ana"]) == 0
    assert main(["character", "list"]) == 0
    assert "No character is saved" in capsys.readouterr().out


def test_a_damaged_character_does_not_hide_the_others(photograph, home, capsys):
    assert add(photograph) == 0
    (home / "characters" / "broken.safetensors").write_bytes(b"nothing")
    capsys.readouterr()
    assert main(["character", "list"]) == 0
    printed = capsys.readouterr().out
    assert "ana: 1 reference" in printed
    assert "broken: " in printed
    assert main(["character", "show", "broken"]) == 3


def test_bad_words_are_refused_before_a_picture_is_read(tmp_path, capsys):
    absent = tmp_path / "absent.jpg"
    assert add(absent, consent=" ") == 2
    assert "consent note is empty" in capsys.readouterr().err
    assert add(absent, name="../ana") == 2
    assert add(absent, "-o", str(tmp_path / "ana.pkl")) == 2
    assert main(["character", "add", "ana", "--face", str(absent)]) == 2
    assert main(["character", "remove", "ana"]) == 2
    assert add(absent) == 3


def test_pictures_that_are_far_apart_are_reported(face_of, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("one.png", "two.png"):
        write_image(tmp_path / name, face_of(0).crop)
    faces = iter([face_of(0), face_of(1)])
    monkeypatch.setattr("likeness.generation.inputs.characters.read_face", lambda *_, **__: next(faces))
    assert add("one.png", "--face", "two.png") == 0
    assert "as different people are" in capsys.readouterr().err


def test_a_saved_character_makes_a_picture_and_a_story(photograph, checkpoint, tmp_path, capsys):
    assert add(photograph) == 0
    models = ["--backbone", str(checkpoint), "--character", "ana", "--json"]
    output = tmp_path / "ana.png"
    words = ["--frames", "1", "--steps", "2", "--best-of", "2", "--style", "park", "-o", str(output)]
    capsys.readouterr()
    assert main(["generate", "a woman img nods", *words, *models]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["picture"] == str(output)
    assert record["prompt"] == "a woman img nods, in the style of park"
    assert record["settings"]["character"]["name"] == "ana"
    assert len(record["settings"]["best_of"]["candidates"]) == 2
    assert CONSENT not in json.dumps(record)
    assert read_image(output).shape == (256, 256, 3)
    assert json.loads(output.with_suffix(".json").read_text())["settings"] == record["settings"]

    (tmp_path / "walk.toml").write_text('frames = 9\nsteps = 2\n[[shots]]\nprompt = "a woman img nods"')
    assert main(["story", str(tmp_path / "walk.toml"), "-o", str(tmp_path / "walk"), *models]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["shots"][0]["similarity"]["threshold"] == 0.6
    assert len(read_video(tmp_path / "walk" / printed["video"])[0]) == 9
