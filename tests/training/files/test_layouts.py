"""The files are in the layouts of the other trainers' own documentation, with sizes and paths of this test."""

import io
import json
import logging
import tarfile

import pytest

from likeness.errors import ConfigError
from likeness.training.files.samples import read_samples

MUSUBI = """\
# general configurations
[general]
resolution = [960, 544]
caption_extension = ".txt"
batch_size = 1
enable_bucket = true
bucket_no_upscale = false

[[datasets]]
image_directory = "images"
cache_directory = "cache/images"
num_repeats = 2 # optional, default is 1

[[datasets]]
video_directory = "videos"
caption_extension = ".caption"
cache_directory = "cache/videos"
target_frames = [1, 25, 45]
frame_extraction = "{extraction}"
source_fps = 30.0

[[datasets]]
video_jsonl_file = "videos.jsonl"
target_frames = [1]
cache_directory = "cache/jsonl"
"""
DIFFUSION_PIPE = """\
resolutions = [512]
enable_ar_bucket = true
min_ar = 0.5
max_ar = 2.0
num_ar_buckets = 7
frame_buckets = [1, 33]
caption_prefix = "Studio. "

[[directory]]
path = 'grayscale'
num_repeats = 1

[[directory]]
path = 'other'
num_repeats = 5
ar_buckets = [[448, 576]]
"""
FINETRAINERS = {
    "datasets": [
        {
            "data_root": "pixelart-images",
            "dataset_type": "image",
            "id_token": "PXL4RT",
            "image_resolution_buckets": [[1024, 1024], [480, 720]],
            "reshape_mode": "bicubic",
            "remove_common_llm_caption_prefixes": True,
        },
        {
            "data_root": "pixelart-videos",
            "dataset_type": "video",
            "id_token": "PXL4RT",
            "video_resolution_buckets": [[49, 480, 720]],
            "reshape_mode": "bicubic",
        },
        {
            "data_root": "pixelart-videos",
            "dataset_type": "video",
            "id_token": "PXL4RT",
            "video_resolution_buckets": [[81, 480, 720]],
            "reshape_mode": "bicubic",
        },
    ]
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))


def facts(samples, folder):
    return [
        (sample.media.relative_to(folder.path).as_posix(), sample.caption, sample.person, sample.repeats)
        for sample in samples
    ]


def refuse(path):
    with pytest.raises(ConfigError) as caught:
        read_samples(path)
    return str(caught.value)


def test_subfolders_are_people_and_loose_files_people_of_their_own(folder, caplog):
    folder.image("ann/1.png", caption="a woman waves")
    folder.video("ann/2.mp4", caption="a woman nods")
    folder.image("bob/1.JPG", caption="a man\nsmiles\n")
    folder.image("x.png", caption="a boy runs")
    folder.image("y.png", caption="a girl runs")
    folder.text("notes.pdf", "no")
    folder.text(".hidden.png", "no")
    with caplog.at_level(logging.WARNING):
        samples = read_samples(folder.path)
    assert facts(samples, folder) == [
        ("x.png", "a boy runs", "x.png", 1),
        ("y.png", "a girl runs", "y.png", 1),
        ("ann/1.png", "a woman waves", "ann", 1),
        ("ann/2.mp4", "a woman nods", "ann", 1),
        ("bob/1.JPG", "a man smiles", "bob", 1),
    ]
    assert [sample.is_video for sample in samples] == [False, False, False, True, False]
    assert "2 files are in no person's subfolder" in caplog.text
    assert "not read: .pdf" in caplog.text


def test_all_problems_of_a_folder_are_listed(folder):
    folder.image("ann/1.png")
    folder.image("ann/2.png", caption=" ")
    folder.image("ann/3.png", caption="a woman waves")
    folder.image("ann/3.jpg")
    message = refuse(folder.path)
    assert "3 problems" in message
    for text in ("ann/1.png: there is no caption 1.txt", "ann/2.png: the caption is empty", "the same caption file"):
        assert text in message


def test_an_empty_folder_is_refused(folder):
    assert "there are no pictures or videos" in refuse(folder.path)


@pytest.mark.parametrize("extraction", ["head", "uniform"])
def test_musubi_tuner_is_read_and_settings_without_effect_are_named(folder, caplog, extraction):
    folder.image("images/image1.jpg", caption="A caption for image1")
    folder.video("videos/video1.mp4")
    folder.text("videos/video1.caption", "A caption for video1")
    other = folder.video("elsewhere/video2.mp4")
    rows = [
        {"video_path": str(other), "caption": "A caption for video2", "control_path": "c.mp4"},
        {"video_path": "videos/video1.mp4", "caption": "A caption for video1"},
    ]
    folder.text("videos.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    with caplog.at_level(logging.WARNING):
        samples = read_samples(folder.text("dataset.toml", MUSUBI.format(extraction=extraction)))
    assert facts(samples, folder) == [
        ("images/image1.jpg", "A caption for image1", "images/image1.jpg", 2),
        ("videos/video1.mp4", "A caption for video1", "videos/video1.mp4", 1),
        ("elsewhere/video2.mp4", "A caption for video2", "elsewhere/video2.mp4", 1),
    ]
    ignored = ["resolution", "batch_size", "enable_bucket", "bucket_no_upscale", "cache_directory", "target_frames"]
    assert [name for name in (*ignored, "source_fps", "control_path") if f"`{name}`" not in caplog.text] == []
    assert ("`frame_extraction`" in caplog.text) == (extraction == "uniform")
    assert "`resolution` (set resolution_px)" in caplog.text
    assert "`num_repeats`" not in caplog.text
    assert "already lists are read once" in caplog.text


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('video_directory = "nowhere"', "`nowhere` does not exist"),
        ('image_directory = "a"\nvideo_directory = "a"', "names 2 sources"),
        ("num_repeats = 2", "names 0 sources"),
        ('image_directory = "a"\nnum_repeats = 0', "`num_repeats` is 0"),
        ('video_jsonl_file = "m.jsonl"', "`a` is a folder of frames"),
    ],
)
def test_what_is_wrong_in_a_file_of_musubi_tuner_is_named(folder, entry, message):
    folder.image("a/1.png", caption="a woman waves")
    folder.text("m.jsonl", '{"video_path": "a", "caption": "a man nods"}\n')
    assert message in refuse(folder.text("dataset.toml", f"[[datasets]]\n{entry}\n"))


def test_diffusion_pipe_is_read_and_media_without_captions_are_left_out_as_there(folder, caplog):
    folder.image("grayscale/1.png", caption="a man nods")
    folder.image("grayscale/2.png")
    folder.image("grayscale/deeper/3.png", caption="not read there either")
    folder.image("other/1.png")
    folder.video("other/clip.mp4")
    folder.image("packed.png")
    with tarfile.open(folder.path / "other" / "more.tar", "w") as archive:
        archive.add(folder.path / "packed.png", "packed.png")
    captions = {"1.png": ["a woman waves", "a lady waves"], "packed.png": ["a girl jumps"]}
    folder.text("other/captions.json", json.dumps(captions))
    with caplog.at_level(logging.WARNING):
        samples = read_samples(folder.text("dataset.toml", DIFFUSION_PIPE))
    assert [fact[:2] + fact[3:] for fact in facts(samples, folder)] == [
        ("grayscale/1.png", "Studio. a man nods", 1),
        ("other/1.png", "Studio. a woman waves", 5),
        ("other/more.tar/packed.png", "Studio. a girl jumps", 5),
    ]
    ignored = ["resolutions", "enable_ar_bucket", "min_ar", "max_ar", "num_ar_buckets", "frame_buckets", "ar_buckets"]
    assert [name for name in ignored if f"`{name}`" not in caplog.text] == []
    assert "media without a caption are left out, such as 2.png" in caplog.text
    assert "media without an entry are left out, such as clip.mp4" in caplog.text
    assert "of several captions the first is used" in caplog.text


def test_diffusion_pipe_with_empty_captions_is_refused(folder):
    folder.image("d/2.png")
    text = "skip_empty_caption = false\n[[directory]]\npath = 'd'\n"
    assert "there is no caption 2.txt" in refuse(folder.text("dataset.toml", text))


def test_finetrainers_metadata_is_read(folder, caplog):
    folder.image("pixelart-images/0.png")
    folder.image("pixelart-images/1.png")
    folder.text(
        "pixelart-images/metadata.csv",
        'file_name,caption\n0.png,"The image shows a woman in a hat, smiling"\n1.png,"A cat ruling the world - 1"\n',
    )
    folder.video("pixelart-videos/a.mp4", caption="a man nods")
    folder.image("pixelart-videos/a2.png", caption="no video")
    with caplog.at_level(logging.WARNING):
        samples = read_samples(folder.text("training.json", json.dumps(FINETRAINERS)))
    assert [fact[:2] for fact in facts(samples, folder)] == [
        ("pixelart-images/0.png", "a woman in a hat, smiling"),
        ("pixelart-images/1.png", "A cat ruling the world - 1"),
        ("pixelart-videos/a.mp4", "a man nods"),
    ]
    for name in ("id_token", "image_resolution_buckets", "video_resolution_buckets"):
        assert f"`{name}`" in caplog.text
    assert "reshape_mode" not in caplog.text
    assert "already lists are read once" in caplog.text


@pytest.mark.parametrize("captions", ["prompt.txt", "prompts.txt", "caption.txt", "captions.txt"])
def test_finetrainers_lists_are_read_line_by_line(folder, captions):
    for number in range(2):
        folder.video(f"videos/0000{number}.mp4")
    folder.text(captions, "a man nods\na woman waves\n")
    folder.text("videos.txt", "videos/00000.mp4\nvideos/00001.mp4\n")
    assert [fact[:2] for fact in facts(read_samples(folder.path), folder)] == [
        ("videos/00000.mp4", "a man nods"),
        ("videos/00001.mp4", "a woman waves"),
    ]


def test_lists_of_different_lengths_are_refused_with_the_line(folder):
    folder.text("prompt.txt", "a man nods\na woman waves\n")
    folder.text("videos.txt", "a.mp4\n")
    assert "prompt.txt:2: there are 2 captions, but 1 paths" in refuse(folder.path)


def test_two_metadata_files_are_refused(folder):
    folder.text("metadata.csv", "file_name,caption\n")
    folder.text("metadata.jsonl", "")
    assert "there are metadata.csv and metadata.jsonl" in refuse(folder.path)


def test_a_data_set_of_a_hub_must_be_downloaded(folder):
    message = refuse(folder.text("training.json", json.dumps(FINETRAINERS)))
    assert "`pixelart-images` does not exist" in message
    assert "must be downloaded first" in message


def test_paths_start_from_the_working_folder_as_in_the_trainers(folder, monkeypatch, caplog):
    folder.image("work/d/1.png", caption="a man nods")
    folder.image("config/d/1.png", caption="a woman waves")
    path = folder.text("config/dataset.toml", "[[directory]]\npath = 'd'\n")
    assert read_samples(path)[0].caption == "a woman waves"
    monkeypatch.chdir(folder.path / "work")
    with caplog.at_level(logging.WARNING):
        assert read_samples(path)[0].caption == "a man nods"
    assert "is in the working folder and beside the file" in caplog.text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "dataset = 'dataset.toml'\n", "of no known trainer"),
        ("a.toml", "[[directory\n", "cannot be read as TOML"),
        ("a.json", "[1]", "holds a list"),
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", '{"datasets": {}}', "of no known trainer"),
    ],
)
def test_other_files_are_refused(folder, name, text, message):
    assert message in refuse(folder.text(name, text))


def test_the_first_manifest_of_a_folder_is_used(folder):
    folder.image("a.png")
    folder.text("manifest.csv", "media,caption,person\na.png,a woman waves,ann\n")
    assert read_samples(folder.path)[0].person == "ann"


def test_shards_of_other_programs_are_read_by_key(folder):
    media = folder.image("x.png")
    with tarfile.open(folder.path / "00000.tar", "w") as archive:
        for name, data in [
            ("0001.png", media.read_bytes()),
            ("0001.txt", b"a woman waves"),
            ("0002.png", media.read_bytes()),
            ("0002.json", b'{"caption": "a man nods", "person": "bob", "class_word": "man"}'),
            ("0003.txt", b"no media"),
        ]:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    media.unlink()
    assert facts(read_samples(folder.path), folder) == [
        ("00000.tar/0001.png", "a woman waves", "00000.tar/0001.png", 1),
        ("00000.tar/0002.png", "a man nods", "bob", 1),
    ]
