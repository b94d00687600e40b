"""Videos of every kind: figures, or an error that says what is wrong; never a wrong number."""

import av
import numpy as np
import pytest
from made_videos import frames_of, write, write_sound

from likeness.errors import MediaError
from likeness.evaluation.evaluate import EvaluationSettings, evaluate
from likeness.media import read_video, write_video
from likeness.puppets import sample_clip, sample_person

KINDS = {
    "h264.mp4": {},
    "mpeg4.mp4": {"codec": "mpeg4"},
    "mjpeg.mov": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "h264.mkv": {},
    "ffv1.mkv": {"codec": "ffv1", "pixels": "bgr0"},
    "vp8.webm": {"codec": "libvpx"},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "deep.mp4": {"pixels": "yuv420p10le"},
    "full.mp4": {"pixels": "yuv444p"},
    "streamed.mp4": {"movflags": "frag_keyframe+empty_moov"},
}


@pytest.mark.parametrize(("name", "how"), KINDS.items(), ids=KINDS)
def test_codecs_and_containers_are_read(tmp_path, name, how):
    if how.get("codec", "libx264") not in av.codecs_available:
        pytest.skip(f"this PyAV has no {how['codec']}")
    frames, fps = read_video(write(tmp_path / name, frames_of(), **how))
    assert frames.shape == (4, 48, 64, 3)
    assert fps == 8


def test_a_gif_is_read(tmp_path):
    frames, fps = read_video(write(tmp_path / "a.gif", frames_of(), codec="gif", pixels="rgb8"))
    assert frames.shape == (4, 48, 64, 3)
    assert fps == pytest.approx(8, rel=0.05)  # GIF counts hundredths of a second.


@pytest.mark.parametrize(("count", "height", "width"), [(1, 48, 64), (3, 37, 53), (3, 16, 400), (2, 2, 2)])
def test_any_length_and_size_is_read(tmp_path, count, height, width):
    path = write(tmp_path / "a.mkv", frames_of(count, height, width), codec="ffv1", pixels="bgr0", fps=30)
    frames, fps = read_video(path)
    assert np.array_equal(frames, frames_of(count, height, width))
    assert fps == 30


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_rate_is_what_the_times_of_the_frames_say(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", frames_of(5), times=[0, 40, 500, 540, 2000])
    frames, fps = read_video(path)
    assert len(frames) == 5
    assert fps == pytest.approx(2)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
@pytest.mark.parametrize("name", ["h264.mp4", "front.mp4", "streamed.mp4", "h264.mkv", "vp8.webm"])
def test_a_file_that_was_cut_is_an_error_and_no_short_video(tmp_path, name, share):
    how = KINDS.get(name, {"movflags": "faststart"})
    whole = write(tmp_path / name, frames_of(30), **how).read_bytes()
    cut = tmp_path / f"cut_{name}"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(MediaError, match=r"damaged or truncated|holds no video frames"):
        read_video(cut)


def test_a_gif_is_whole_up_to_its_trailer(tmp_path):
    path = write(tmp_path / "a.gif", frames_of(10), codec="gif", pixels="rgb8")
    whole = path.read_bytes()
    for behind in (b"\n", b"\x00" * 5000, b"somebody's comment"):
        path.write_bytes(whole + behind)
        assert len(read_video(path)[0]) == 10
    places = [
        len(whole) * 3 // 10,
        len(whole) - 1,
        *(n + 1 for n, byte in enumerate(whole[:-1]) if byte == 0x3B),
    ]
    for place in places[:20]:
        path.write_bytes(whole[:place])
        with pytest.raises(MediaError, match=r"damaged or truncated|holds no video"):
            read_video(path)


def test_a_video_that_was_cut_between_two_frames_is_noticed(tmp_path):
    path = write(tmp_path / "a.mp4", frames_of(30), movflags="faststart", codec="mjpeg", pixels="yuvj420p")
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.pos is not None]
    path.write_bytes(path.read_bytes()[: places[20]])
    with pytest.raises(MediaError, match=r"after 2\.5 of 3\.8 s"):
        read_video(path)


def test_a_video_that_was_trimmed_by_its_edit_list_is_whole(tmp_path):
    """As phones trim: hidden frames stay in the file."""
    times = [125 * (number - 10) for number in range(30)]
    path = write(tmp_path / "a.mp4", frames_of(30), times=times)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 30
    frames, fps = read_video(path)
    assert 19 <= len(frames) <= 21
    assert fps == pytest.approx(8)


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv"])
def test_altered_bytes_in_the_middle_are_noticed(tmp_path, name):
    path = write(tmp_path / name, frames_of(30), **KINDS[name])
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 2, len(data) // 2 + 1500):
        data[place] ^= 0x5A
    path.write_bytes(bytes(data))
    with pytest.raises(MediaError, match="damaged or truncated"):
        read_video(path)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Good and bad videos, and what each should give."""
    folder = tmp_path_factory.mktemp("mixed")
    frames = sample_clip(0, person=sample_person(0), action="tilt", num_frames=2, size_px=96).frames
    large = frames[:1].repeat(4, axis=1).repeat(4, axis=2)
    write_video(folder / "good.mp4", frames, 8)
    write_video(folder / "one.mp4", frames[:1], 8)
    write_video(folder / "two_faces.mp4", np.concatenate([large, large[:, :, ::-1]], axis=2), 8)
    write_video(folder / "nobody.mp4", np.full((2, 64, 64, 3), 90, np.uint8), 8)
    write_sound(folder / "sound.mp4")
    (folder / "zero.mp4").touch()
    (folder / "text.mp4").write_text("This is no video.")
    (folder / "cut.mp4").write_bytes((folder / "good.mp4").read_bytes()[:-900])
    names = (
        "average_id_similarity", "average_id_similarity_all", "match_rate", "face_rate", "several_faces_rate",
        "similarity_decay", "fm_inter", "fm_ref", "copy_gap",
    )  # fmt: skip
    settings = EvaluationSettings(cache=folder / "features")
    result = evaluate(sorted(folder.glob("*.mp4")), None, metrics=names, settings=settings)
    return {video.name: video for video in result.videos}, result.systems[0]


def test_one_bad_video_loses_no_others(mixed):
    videos, system = mixed
    assert {name for name, video in videos.items() if video.error} == {"sound", "zero", "text", "cut"}
    assert (system.num_videos, system.num_failed) == (8, 4)
    for name in ("sound", "zero", "text", "cut"):
        assert f"{name}.mp4" in videos[name].error
        assert videos[name].scores == {}
    assert system.scores["face_rate"].num_videos == 4


def test_what_a_video_does_not_have_is_none(mixed):
    videos, _ = mixed
    assert videos["good"].scores["face_rate"] == 1
    assert videos["good"].scores["fm_inter"] > 0
    # One frame is itself the reference: it is like itself, and nothing is said of motion.
    assert videos["one"].scores["average_id_similarity"] == pytest.approx(1)
    assert videos["one"].scores["fm_inter"] is None
    assert videos["one"].scores["similarity_decay"] is None
    assert videos["nobody"].scores["face_rate"] == 0
    assert videos["nobody"].scores["average_id_similarity"] is None
    # Over all frames nobody counts as nothing, or those who lose faces would look better for it.
    assert videos["nobody"].scores["average_id_similarity_all"] == videos["nobody"].scores["match_rate"] == 0


def test_a_codec_that_nobody_knows_loses_no_other_video(tmp_path):
    frames = np.full((2, 64, 64, 3), 90, np.uint8)
    for name in ("good", "odd"):
        write_video(tmp_path / f"{name}.mp4", frames, 8)
    data = (tmp_path / "odd.mp4").read_bytes()
    (tmp_path / "odd.mp4").write_bytes(data.replace(b"avc1", b"zzz1"))
    good, odd = evaluate(sorted(tmp_path.glob("*.mp4")), None, metrics=["face_rate"]).videos
    assert good.scores["face_rate"] == 0
    assert "its codec is not known" in odd.error


def test_two_faces_are_counted(mixed):
    videos, _ = mixed
    assert videos["two_faces"].scores["several_faces_rate"] > 0
    assert videos["good"].scores["several_faces_rate"] == 0
