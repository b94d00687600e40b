"""Files with wrong headers, changing sizes or damage: only a `MediaError` may be raised."""

import json
import logging
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from likeness import media
from likeness.errors import LikenessError, MediaError
from likeness.media import decoding, video

VIDEOS = {"mp4": "libx264", "mov": "mjpeg", "mkv": "libx264", "gif": "gif"}
PICTURES = ("png", "jpg", "webp", "avif", "gif")


@pytest.fixture(scope="module")
def picture():
    return media.resize(astronaut(), 48, 32)


def encode(path, sizes, codec="mjpeg", pix_fmt="yuvj420p"):
    """A video whose packets come from encoders of several sizes, under the head of the first."""
    with av.open(str(path), "w") as container:
        stream = None
        for number, (width, height) in enumerate(sizes):
            encoder = av.CodecContext.create(codec, "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, pix_fmt
            encoder.time_base = Fraction(1, 8)
            if stream is None:
                stream = container.add_stream(codec, rate=8)
                stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            pixels = media.resize(astronaut(), width, height)
            for packet in [*encoder.encode(av.VideoFrame.from_ndarray(pixels)), *encoder.encode()]:
                packet.stream, packet.pts, packet.dts = stream, number, number
                packet.time_base = encoder.time_base
                container.mux(packet)
    return path


def small_gif(width, height, count):
    """Frames of one pixel on a screen of any size."""
    frame = b"\x21\xf9\x04\x04\x0a\0\0\0" + b"\x2c\0\0\0\0\x01\0\x01\0\0" + b"\x02\x02\x44\x01\0"
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff" + frame * count + b";"


@pytest.mark.parametrize("suffix", ["mov", "mkv"])
def test_a_video_that_changes_its_size_is_refused(tmp_path, suffix):
    path = encode(tmp_path / f"two.{suffix}", [(64, 48)] * 3 + [(96, 80)] * 3)
    with pytest.raises(MediaError, match=r"changes its size: frame 4 has 96 x 80 pixels, the first 64 x 48"):
        media.read_video(path)
    with pytest.raises(MediaError, match="changes its size"):
        media.sample_video(path, 8)
    with pytest.raises(MediaError, match="changes its size"):
        media.resample_video(path, fps=25, max_frames=100)
    assert media.read_video(path, max_frames=3)[0].shape == (3, 48, 64, 3)


def test_a_frame_larger_than_its_header_says_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "MAX_FRAME_PIXELS", 5000)
    path = encode(tmp_path / "grows.mov", [(64, 48)] * 3 + [(96, 80)] * 3)
    with pytest.raises(MediaError):
        media.read_video(path)
    monkeypatch.setattr(decoding, "check_pixels", lambda *_: None)  # FFmpeg itself refuses, too.
    with pytest.raises(MediaError, match="damaged or truncated"):
        media.read_video(path)


def test_many_frames_are_counted_as_they_come(tmp_path, monkeypatch):
    path = tmp_path / "small.gif"
    path.write_bytes(small_gif(400, 300, 30))
    assert media.read_video(path)[0].shape == (30, 300, 400, 3)
    monkeypatch.setattr(video, "MAX_VIDEO_BYTES", 20 * 400 * 300 * 3)
    with pytest.raises(MediaError, match="too many frames: the first 21"):
        media.read_video(path)
    with pytest.raises(MediaError, match="too many frames"):
        media.sample_video(path, 25)
    with pytest.raises(MediaError, match="too many frames"):
        media.resample_video(path, fps=1000, max_frames=30)
    assert len(media.sample_video(path, 4)[0]) <= 4
    assert len(media.read_video(path, max_frames=20)[0]) == 20


def test_frames_lie_in_memory_once(tmp_path):
    import tracemalloc

    path = tmp_path / "small.gif"
    path.write_bytes(small_gif(800, 600, 32))
    tracemalloc.start()
    frames, _ = media.read_video(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1.2 * frames.nbytes


@pytest.mark.parametrize(
    "comment",
    [
        b'{"prompt": "caf\xe9"}',
        b'{"a": ' * 20_000 + b"1" + b"}" * 20_000,
        b'{"seed": ' + b"9" * 5000 + b"}",
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "cut',
        b'{"prompt": "\xff\xfe"}',
    ],
    ids=["latin-1", "deep", "long number", "lone surrogate", "cut", "no text"],
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_an_odd_record_makes_no_video_unreadable(tmp_path, caplog, picture, comment, suffix):
    mark = b"{" + b"#" * (len(comment) - 1)
    with av.open(str(tmp_path / f"odd.{suffix}"), "w") as container:
        container.metadata["comment"] = mark.decode()
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    path = tmp_path / f"odd.{suffix}"
    whole = path.read_bytes()
    assert whole.count(mark) == 1
    path.write_bytes(whole.replace(mark, comment))
    with caplog.at_level(logging.WARNING):
        assert media.read_metadata(path) == {}
    assert "cannot be read" in caplog.text
    assert len(media.read_video(path)[0]) == 4


def test_a_comment_that_is_no_record_is_absent_without_a_word(tmp_path, caplog):
    media.write_video(tmp_path / "a.mp4", np.zeros((2, 16, 16, 3), np.uint8), 8, {"#": "#"})
    whole = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(whole.replace(json.dumps({"#": "#"}).encode(), b"my holiday"))
    assert media.read_metadata(tmp_path / "a.mp4") == {}
    assert not caplog.text


def test_damaged_exif_makes_no_picture_unreadable(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "odd.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xff" * 64)
    assert np.array_equal(media.read_image(tmp_path / "odd.png"), picture)


def samples(folder, picture):
    """Small whole files of every kind that is read."""
    frames = np.stack([np.roll(picture, 2 * shift, axis=1) for shift in range(4)])
    for suffix in PICTURES:
        Image.fromarray(picture).save(folder / f"picture.{suffix}")
    for suffix, codec in VIDEOS.items():
        if codec == "gif":
            first, *others = (Image.fromarray(frame) for frame in frames)
            first.save(folder / "video.gif", save_all=True, append_images=others, duration=100)
            continue
        pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        with av.open(str(folder / f"video.{suffix}"), "w") as container:
            container.metadata["comment"] = json.dumps({"prompt": "a woman", "seed": 7})
            stream = container.add_stream(codec, rate=8)
            stream.height, stream.width, stream.pix_fmt = 32, 48, pix_fmt
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
            container.mux(stream.encode())
    return sorted(folder.iterdir())


def damage(whole, rng):
    """Cut the file, or turn some of its bytes over."""
    if rng.random() < 0.3:
        return whole[: rng.integers(1, len(whole))]
    spoilt = bytearray(whole)
    # Heads decide what is decoded, so half of the damage is there.
    end = len(whole) if rng.random() < 0.5 else min(len(whole), 200)
    for place in rng.integers(0, end, size=rng.integers(1, 12)):
        spoilt[place] = rng.integers(0, 256)
    return bytes(spoilt)


def open_all_doors(path):
    """Returns how many of the doors refused the file."""
    refused = 0
    for door in (
        media.read_image,
        media.read_video,
        lambda p: media.sample_video(p, 2),
        lambda p: media.resample_video(p, fps=8, max_frames=4),
        media.read_metadata,
    ):
        try:
            door(path)
        except LikenessError:
            refused += 1
    return refused


def fuzz(folder, picture, count):
    """Damage every kind of file `count` times. Returns files tried and doors that refused, by suffix."""
    rng = np.random.default_rng(0)
    tally = {}
    for whole in samples(folder, picture):
        spoilt = folder / f"spoilt{whole.suffix}"
        refused = 0
        for _ in range(count):
            spoilt.write_bytes(damage(whole.read_bytes(), rng))
            refused += open_all_doors(spoilt)
        tally[whole.name] = (count, refused)
    return tally


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", [8, pytest.param(300, marks=pytest.mark.slow)])
def test_damaged_files_raise_nothing_but_errors_of_likeness(tmp_path, picture, count):
    tally = fuzz(tmp_path, picture, count)
    assert len(tally) == len(PICTURES) + len(VIDEOS)
    assert all(refused for _, refused in tally.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_damaged_videos_end_no_evaluation(tmp_path, picture):
    from likeness.evaluation.evaluate import evaluate

    rng = np.random.default_rng(1)
    wholes, spoilt = [], []
    for path in samples(tmp_path, picture):
        if path.stem == "video":
            kind = path.suffix[1:]  # Names must differ without their suffix.
            wholes.append(path.rename(tmp_path / f"whole_{kind}{path.suffix}"))
            for number in range(8):
                spoilt.append(tmp_path / f"spoilt_{kind}_{number}{path.suffix}")
                spoilt[-1].write_bytes(damage(wholes[-1].read_bytes(), rng))
    result = evaluate([*wholes, *spoilt], None, metrics=["face_rate", "motion_score"])
    failed = {video.path for video in result.videos if video.error is not None}
    assert len(result.videos) == len(wholes) + len(spoilt)
    assert not failed & {str(path) for path in wholes}
    assert len(failed) > len(spoilt) / 4
    assert all(video.path in video.error for video in result.videos if video.error is not None)
