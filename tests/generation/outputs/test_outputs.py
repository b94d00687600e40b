"""Where results go: what is there stays, and what cannot be written is refused before anything is made."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from likeness.app import demo
from likeness.errors import ConfigError, FileWriteError, LikenessError, MediaError
from likeness.generation.outputs import folders
from likeness.generation.outputs.destinations import (
    check_enlarge_factor,
    check_image_output,
    check_output,
    check_output_file,
)
from likeness.generation.outputs.save import read_clip, save_with_fallback
from likeness.media import read_image, write_image, write_video
from likeness.records import Clip


def make_clip(num_frames=1, **settings):
    frames = np.full((num_frames, 16, 16, 3), 128, dtype=np.uint8)
    return Clip(frames=frames, fps=8.0, prompt="a man img", settings={"seed": 1, **settings})


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_file_that_is_no_record_is_never_replaced(tmp_path):
    (tmp_path / "prompts.json").write_text('{"1": "a man waves"}')
    before = contents(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="holds something else"):
            check_output(tmp_path / "prompts.png", 1, overwrite=overwrite)
    with pytest.raises(ConfigError, match="holds something else"):
        make_clip().save(tmp_path / "prompts.png")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("first", "second"), [("png", "mp4"), ("mp4", "png"), ("jpg", "png")])
def test_two_clips_do_not_share_a_record(tmp_path, first, second):
    make_clip().save(tmp_path / f"smile.{first}")
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=f"is the record of smile.{first}"):
        make_clip(seed=2).save(tmp_path / f"smile.{second}")
    assert contents(tmp_path) == before


def test_a_photograph_beside_a_video_does_not_own_its_record(tmp_path):
    write_image(tmp_path / "me.jpg", np.zeros((16, 16, 3), np.uint8))
    make_clip(num_frames=9).save(tmp_path / "me.mp4")
    assert make_clip(num_frames=9, seed=2).save(tmp_path / "me.mp4").exists()
    with pytest.raises(ConfigError, match=r"is the record of me.mp4"):
        make_clip(seed=3).save(tmp_path / "me.png")
    with pytest.raises(ConfigError, match=r"is the record of me.mp4"):
        make_clip(seed=3).save(tmp_path / "me.jpg")


@pytest.mark.parametrize("name", ["clip.mp4", "clip.png", "clip.jpg"])
def test_results_are_replaced_only_where_it_was_asked_for(tmp_path, name):
    path = make_clip().save(tmp_path / name, overwrite=False)
    for kept in (path, path.with_suffix(".json")):  # Each alone is reason enough.
        other = path.with_suffix(".json") if kept == path else path
        hidden = other.rename(tmp_path / "hidden")
        with pytest.raises(ConfigError, match="`--overwrite`"):
            make_clip(seed=2).save(path, overwrite=False)
        hidden.rename(other)
    make_clip(seed=2).save(path)
    assert json.loads(path.with_suffix(".json").read_text())["settings"]["seed"] == 2


def test_a_link_is_something_that_is_there(tmp_path):
    (tmp_path / "clip.mp4").symlink_to(tmp_path / "nowhere.mp4")
    with pytest.raises(ConfigError, match="is there already"):
        check_output(tmp_path / "clip.mp4", 9)
    (tmp_path / "target.png").write_bytes(b"mine")
    (tmp_path / "link.png").symlink_to(tmp_path / "target.png")
    make_clip().save(tmp_path / "link.png")
    assert (tmp_path / "target.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("afile/x.mp4", FileWriteError),
        ("afile/deeper/x.mp4", FileWriteError),
        ("dangling/x.mp4", FileWriteError),
        (f"{'x' * 300}.mp4", FileWriteError),
        ("folder.mp4", MediaError),
        ("record.mp4", MediaError),
        ("clip.avi", MediaError),
        ("clip", MediaError),
    ],
)
def test_what_cannot_be_written_is_refused_before_it_is_made(tmp_path, name, kind):
    (tmp_path / "afile").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for folder in ("folder.mp4", "record.json"):
        (tmp_path / folder).mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(kind):
        check_output(tmp_path / name, 9, overwrite=True)
    check_output(tmp_path / "new" / "folders" / "clip.mp4", 9)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(FileWriteError, match="Choose a folder"):
        check_output_file(tmp_path / "clip.mp4")


def test_a_system_that_may_not_be_written_to_is_refused():
    if not Path("/proc/self").is_dir():
        pytest.skip("no /proc")
    with pytest.raises(FileWriteError, match="Nothing can be written to /proc/self"):
        check_output(Path("/proc/self/clip.mp4"), 9)


def test_pictures_have_a_pictures_suffix(tmp_path):
    check_image_output(tmp_path / "ana.JPG")
    with pytest.raises(MediaError, match=r"Use \.png or \.jpg"):
        check_image_output(tmp_path / "ana.mp4")


def test_a_jpeg_holds_its_record(tmp_path):
    path = make_clip().save(tmp_path / "clip.jpg")
    assert read_image(path).shape == (256, 256, 3)
    with Image.open(path) as picture:
        assert picture.format == "JPEG"
        assert json.loads(picture.info["comment"]) == json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize(
    ("shape", "factor", "most"), [((17, 64, 64), 128, 69), ((49, 480, 720), 5, 4), ((1, 480, 720), 100, 11)]
)
def test_enlarging_is_refused_with_its_size_and_the_most_that_is_possible(shape, factor, most):
    with pytest.raises(ConfigError, match=f"Use {most} or less") as refused:
        check_enlarge_factor(shape, factor)
    assert "GB" in str(refused.value)
    check_enlarge_factor(shape, most)


LIMITED = """
import resource, sys
import numpy as np
from pathlib import Path
from likeness.media import write_image, write_video
from likeness.errors import FileWriteError
noise = np.random.default_rng(0).integers(0, 256, (9, 256, 256, 3), dtype=np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
path = Path(sys.argv[1])
try:
    write_video(path, noise, 8.0) if path.suffix == ".mp4" else write_image(path, noise[0])
except FileWriteError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["clip.mp4", "clip.png", "clip.jpg"])
def test_a_disk_without_room_leaves_what_was_there(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"before")
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=True)
    assert f"{path} cannot be written: File too large" in done.stdout
    assert contents(tmp_path) == {Path(name): b"before"}


def test_a_clip_that_cannot_be_saved_is_saved_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "spare").mkdir()
    (tmp_path / "afile").touch()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "spare"))
    with pytest.raises(FileWriteError, match="The clip is not lost: it is") as caught:
        save_with_fallback(make_clip(2), tmp_path / "afile" / "clip.mp4")
    (saved,) = (tmp_path / "spare").glob("clip.*.mp4")
    assert str(saved) in str(caught.value)
    assert read_clip(saved).prompt == "a man img"


def test_a_clip_is_not_lost_where_its_name_was_taken_while_it_was_made(tmp_path):
    path = make_clip(2, seed=1).save(tmp_path / "clip.mp4")
    first = path.read_bytes()
    with pytest.raises(ConfigError, match="The clip is not lost"):
        save_with_fallback(make_clip(2, seed=2), path, overwrite=False)
    assert path.read_bytes() == first
    assert len(list(tmp_path.glob("*.mp4"))) == 2


def test_it_is_said_where_a_clip_could_be_saved_nowhere(monkeypatch):
    monkeypatch.setattr(
        "likeness.generation.outputs.save.save_clip",
        lambda *_, **__: (_ for _ in ()).throw(FileWriteError("Full.")),
    )
    with pytest.raises(FileWriteError, match="saved nowhere else"):
        save_with_fallback(make_clip(), Path("clip.png"))


@pytest.mark.parametrize(
    "change",
    [
        {"settings": {"seed": "<script>alert(1)</script>"}},
        {"settings": 7},
        {"prompt": 7},
        {"similarity": {"threshold": "x", "distances": [], "cosines": []}},
        {"settings": {"seed": 1, "best_of": {"candidates": [{}]}}},
    ],
)
def test_a_record_that_likeness_did_not_write_is_refused(tmp_path, change):
    record = make_clip(2).to_dict() | change
    write_video(tmp_path / "clip.mp4", make_clip(2).frames, 8.0, metadata=record)
    with pytest.raises(MediaError, match="a record that likeness did not write"):
        read_clip(tmp_path / "clip.mp4")


def test_pages_escape_what_comes_from_records(tmp_path):
    from likeness.generation.outputs.page import ReportItem, write_report

    evil = "<script>alert(1)</script>"
    clip = replace(make_clip(2, seed=evil, style=evil, method=evil), prompt=evil)
    write_image(tmp_path / "a.png", clip.frames[0])
    item = ReportItem(clip=clip, video=tmp_path / "a.mp4", person=evil, references=(), name=evil)
    write_report(
        tmp_path / "report.html",
        [item],
        title=evil,
        subtitle=evil,
        sheet=tmp_path / "a.png",
        plot=tmp_path / "a.png",
    )
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 8


def test_a_folder_with_other_files_is_no_place_for_a_story(tmp_path):
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(ConfigError, match=r"report\.html is there already"):
        folders.check_story_folder(tmp_path)
    folders.check_story_folder(tmp_path, overwrite=True)
    (tmp_path / "story.json").write_text('{"shots": []}')  # A story may be written in a file of this name.
    for overwrite in (False, True):
        with pytest.raises(ConfigError, match="holds something else"):
            folders.check_story_folder(tmp_path, overwrite=overwrite)
    (tmp_path / "story.json").write_text('{"finished": []}')
    folders.check_story_folder(tmp_path)


def test_the_demo_knows_its_files(tmp_path):
    people = {"A drawn man": demo.PUPPET_ACTIONS, "A photographed woman": demo.ASTRONAUT_PROMPTS}
    assert {name.lower().replace(" ", "_"): len(made) for name, made in people.items()} == folders.DEMO_VIDEOS
    folders.check_demo_folder(tmp_path / "demo")
    (tmp_path / "a_drawn_man_2.json").write_text("{}")
    with pytest.raises(LikenessError, match="holds something else"):
        folders.check_demo_folder(tmp_path, overwrite=True)
