import os

import pytest

from likeness.evaluation.inputs import reference_matching
from likeness.evaluation.inputs.folders import find_skipped_pictures, find_videos, is_hidden
from likeness.evaluation.inputs.manifest import read_request
from likeness.evaluation.inputs.reference_matching import find_prompt, find_references, remove_trigger_words
from likeness.identity.prompt import TRIGGER

MP4 = b"\x00\x00\x00\x18ftypisom" + bytes(20)
AVI = b"RIFF\x00\x00\x00\x00AVI LIST" + bytes(20)
STILL_WEBP = b"RIFF\x00\x00\x00\x00WEBPVP8 " + bytes(20)
ANIMATED_WEBP = b"RIFF\x00\x00\x00\x00WEBPVP8X\x0a\x00\x00\x00\x02" + bytes(20)


@pytest.mark.parametrize("suffix", [".heic", ".HEIF", ".avif", ".gif", ".jfif", ".webp"])
def test_pictures_of_phones_and_pages_are_references(tmp_path, suffix):
    for path in (tmp_path / f"anna{suffix}", tmp_path / "bob" / f"1{suffix}"):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert find_references(tmp_path) == {
        "anna": (tmp_path / f"anna{suffix}",),
        "bob": (tmp_path / "bob" / f"1{suffix}",),
    }
    assert find_skipped_pictures(tmp_path) == []


@pytest.fixture
def folder(tmp_path):
    """A folder as people have them."""
    files = {
        "a.mp4": MP4,
        "b.avi": AVI,
        "c.webp": ANIMATED_WEBP,
        "d.m4v": MP4,
        "no_suffix": MP4,
        "empty.mov": b"",
        "cover.webp": STILL_WEBP,
        "cover.png": b"\x89PNG\r\n\x1a\n" + bytes(24),
        "voice.m4a": MP4,
        "a.json": b"{}",
        "empty": b"",
        "._a.mp4": b"\x00\x05\x16\x07",
        ".DS_Store": b"x",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "more").mkdir()
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    return tmp_path


def test_every_file_of_a_folder_is_taken_or_listed_with_its_reason(folder):
    videos, skipped = find_videos(folder)
    assert {path.name for path in videos} == {"a.mp4", "b.avi", "c.webp", "d.m4v", "no_suffix", "empty.mov"}
    reasons = {file.path.removeprefix(f"{folder}/"): file.reason for file in skipped}
    assert len(videos) + len(skipped) == len(list(folder.iterdir()))
    assert "macOS" in reasons["._a.mp4"]
    assert reasons[".DS_Store"] == "hidden file"
    assert "a picture" in reasons["cover.webp"]
    assert "a picture" in reasons["cover.png"]
    assert reasons["voice.m4a"] == "an audio file"
    assert "not a video (.json)" in reasons["a.json"]
    assert "folder" in reasons["more"]
    assert {file.path: file.is_video for file in skipped if file.is_video} == {f"{folder}/gone.mp4": True}


def test_a_pipe_is_listed_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    videos, (skipped,) = find_videos(tmp_path)
    assert not videos
    assert skipped.reason == "not a regular file"


def test_a_name_that_is_no_utf8_is_listed_as_text(tmp_path):
    (tmp_path / "a\udcff.mp4").write_bytes(MP4)
    _, (skipped,) = find_videos(tmp_path)
    assert skipped.is_video
    assert skipped.path.encode().endswith(b"a\\xff.mp4")


def test_hidden_files_and_folders_are_nobodys_pictures(tmp_path):
    (tmp_path / "ann.png").write_bytes(b"picture")
    (tmp_path / "._ann.png").write_bytes(b"attributes")
    (tmp_path / ".thumbnails").mkdir()
    (tmp_path / ".thumbnails" / "x.png").write_bytes(b"picture")
    assert find_references(tmp_path) == {"ann": (tmp_path / "ann.png",)}
    assert is_hidden(tmp_path / "._ann.png")


def test_a_request_lists_what_it_leaves_out_and_which_links_lead_elsewhere(tmp_path):
    (tmp_path / "elsewhere.mp4").write_bytes(MP4)
    system, pictures = tmp_path / "system", tmp_path / "people"
    system.mkdir()
    pictures.mkdir()
    (system / "ann.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    (system / "notes.txt").write_text("x")
    (pictures / "ann.png").write_bytes(b"picture")
    (pictures / "ann.cr3").write_bytes(b"picture")
    request = read_request([str(system)], pictures)
    assert {file.path.rsplit("/", 1)[1] for file in request.skipped} == {"notes.txt", "ann.cr3"}
    (note,) = request.notes
    assert f"ann.mp4 -> {tmp_path}/elsewhere.mp4" in note


@pytest.mark.parametrize("record", [RecursionError(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), KeyError("x")])
def test_a_record_that_cannot_be_read_is_no_prompt(monkeypatch, tmp_path, record):
    def refuse(_):
        raise record

    monkeypatch.setattr("likeness.media.read_metadata", refuse)
    assert find_prompt([tmp_path / "a.mp4"]) is None


@pytest.mark.parametrize("prompt", [10**4, ["a"], {"a": 1}, "  "])
def test_what_is_no_sentence_is_no_prompt(monkeypatch, tmp_path, prompt):
    monkeypatch.setattr("likeness.media.read_metadata", lambda _: {"prompt": prompt})
    assert find_prompt([tmp_path / "a.mp4"]) is None


def test_half_a_surrogate_pair_becomes_text():
    assert remove_trigger_words("a woman img \ud800 waves") == "a woman ? waves"


def test_the_trigger_word_is_that_of_prompts():
    assert reference_matching.TRIGGER == TRIGGER
