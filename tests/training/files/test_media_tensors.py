from fractions import Fraction

import av
import numpy as np
import pytest
from drawn_media import draw

from likeness.errors import MediaError
from likeness.media import read_image, read_video, resample_video, write_image, write_video
from likeness.training.files.buckets import Bucket, make_grid
from likeness.training.files.media_tensors import read_media, resize_and_crop

GRID = make_grid(num_frames=17, resolution_px=64)


def number_video(path, frames, fps, height_px=48, width_px=64):
    """A video whose k-th frame has the gray value 5 (k mod 50): steps that survive the codec."""
    clip = np.stack([np.full((height_px, width_px, 3), 5 * (k % 50), np.uint8) for k in range(frames)])
    write_video(path, clip, fps)
    return path


def numbers(frames):
    return [round(float(frame.mean()) / 5) for frame in frames]


@pytest.mark.parametrize("name", ["a.png", "a.mp4"])
def test_a_file_of_the_bucket_passes_through_unchanged(tmp_path, name):
    grid = make_grid(num_frames=9, size_px=(48, 64))
    if name == "a.png":
        write_image(tmp_path / name, draw())
        expected = read_image(tmp_path / name)[None]
    else:
        write_video(tmp_path / name, np.stack([draw(number=k) for k in range(9)]), 8)
        expected = read_video(tmp_path / name)[0]
    found = read_media(tmp_path / name, grid, fps=8)
    assert np.array_equal(found.frames, expected)
    assert found.bucket == Bucket(len(expected), 48, 64)
    points = np.array([[3.5, 40.0]])
    assert np.array_equal(found.transform.apply(points), points)


@pytest.mark.parametrize(
    ("source_fps", "frames", "expected"),
    [
        (8, 17, list(range(17))),
        (16, 34, list(range(0, 34, 2))),
        (24, 51, list(range(0, 51, 3))),
        (4, 9, [k // 2 for k in range(17)]),
        (12, 26, [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 16, 18, 19, 21, 22, 24]),
    ],
)
def test_each_moment_gets_the_frame_nearest_in_time(tmp_path, source_fps, frames, expected):
    path = number_video(tmp_path / "a.mp4", frames, source_fps)
    found, _ = resample_video(path, fps=8, max_frames=17)
    nearest = [min(range(frames), key=lambda k: (abs(Fraction(k, source_fps) - Fraction(i, 8)), k)) for i in range(17)]
    assert nearest == expected
    assert numbers(found) == [k % 50 for k in expected]


@pytest.mark.parametrize("source_fps", [7.99, 10, 15, 23.976, 25, 29.97, 30, 50, 60])
def test_the_number_of_frames_follows_the_duration(tmp_path, source_fps):
    frames = round(1.5 * source_fps)
    path = number_video(tmp_path / "a.mp4", frames, source_fps)
    found, duration_s = resample_video(path, fps=8, max_frames=1000)
    assert duration_s == pytest.approx(frames / source_fps, rel=0.01)
    assert len(found) == pytest.approx(frames / source_fps * 8, abs=1.01)


def test_a_rate_that_is_measured_a_little_low_adds_no_frame(tmp_path):
    path = number_video(tmp_path / "a.mp4", 17, 7.99)
    assert numbers(resample_video(path, fps=8, max_frames=99)[0]) == list(range(17))


def test_a_video_of_variable_rate_is_read_by_its_times(tmp_path):
    times_ms = [0, 40, 80, 500, 520, 1000, 1960]
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time_ms in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 5 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    found, _ = resample_video(tmp_path / "a.mkv", fps=8, max_frames=16)
    nearest = [min(range(7), key=lambda k: (abs(times_ms[k] - 125 * i), k)) for i in range(16)]
    assert numbers(found) == nearest


def test_only_the_beginning_of_a_long_video_is_used(tmp_path):
    path = number_video(tmp_path / "a.mp4", 100, 8)
    assert numbers(read_media(path, GRID, fps=8).frames) == list(range(17))


def test_a_short_video_is_refused_by_name(tmp_path):
    path = number_video(tmp_path / "short.mp4", 7, 8)
    with pytest.raises(MediaError, match=r"short\.mp4.*7 frames"):
        read_media(path, GRID, fps=8)


@pytest.mark.parametrize(("height_px", "width_px"), [(100, 60), (60, 100), (33, 31), (480, 90), (64, 64), (1, 5)])
def test_any_size_fills_its_bucket(tmp_path, height_px, width_px):
    write_image(
        tmp_path / "a.png",
        draw(height_px, width_px) if min(height_px, width_px) > 12 else np.zeros((height_px, width_px, 3), np.uint8),
    )
    found = read_media(tmp_path / "a.png", GRID, fps=8)
    assert found.frames.shape == (1, found.bucket.height_px, found.bucket.width_px, 3)
    assert (found.bucket.height_px, found.bucket.width_px) in GRID.sizes
    assert (found.bucket.height_px >= found.bucket.width_px) == (height_px >= width_px)


@pytest.mark.parametrize(("height_px", "width_px"), [(150, 100), (100, 150), (300, 301)])
def test_landmarks_follow_the_crop(height_px, width_px):
    x, y = 0.55 * width_px, 0.45 * height_px
    picture = np.zeros((height_px, width_px, 3), np.uint8)
    picture[round(y) - 6 : round(y) + 6, round(x) - 6 : round(x) + 6] = 255
    frames, transform = resize_and_crop(picture[None], Bucket(1, 80, 48))
    rows, columns = np.nonzero(frames[0, ..., 0] > 127)
    center = np.array([columns.mean() + 0.5, rows.mean() + 0.5])
    mapped = transform.apply(np.array([round(x), round(y)]))
    assert np.abs(center - mapped).max() < 0.75
    assert np.allclose(transform.invert(mapped), [round(x), round(y)])


def test_pixels_are_what_a_model_takes(tmp_path):
    write_image(tmp_path / "a.png", draw())
    found = read_media(tmp_path / "a.png", make_grid(num_frames=1, size_px=(48, 64)), fps=8)
    pixels = found.pixels()
    assert pixels.shape == (1, 3, 48, 64)
    assert np.array_equal(((pixels.movedim(1, -1) + 1) * 127.5).round().numpy(), found.frames)


def test_a_truncated_video_is_refused(tmp_path):
    path = number_video(tmp_path / "a.mp4", 30, 8)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError):
        read_media(path, make_grid(num_frames=49, resolution_px=64), fps=8)
