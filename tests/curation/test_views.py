import numpy as np
import pytest

from likeness.curation.ledger import hash_file
from likeness.curation.stage import Source
from likeness.curation.stages.read import VideoView, open_source
from likeness.errors import MediaError
from likeness.media.video import read_video, write_video
from likeness.media.video_frames import VideoFrames


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    ramp = np.linspace(0, 200, 64, dtype=np.uint8)[None, None, :, None]
    frames = np.broadcast_to(ramp, (40, 32, 64, 3)).copy()
    frames += np.arange(40, dtype=np.uint8)[:, None, None, None]
    write_video(path, frames, 10.0)
    return path


def test_frames_by_number_are_those_of_the_whole_video(clip):
    whole, fps = read_video(clip)
    with VideoFrames(clip) as video:
        assert (video.num_frames, video.fps, video.width_px, video.height_px) == (40, fps, 64, 32)
        for first, count, step in ((0, 40, 1), (30, 10, 3), (5, 6, 2), (39, 1, 1), (0, 1, 1)):
            found = np.stack(list(video.read(first, count, step)))
            np.testing.assert_array_equal(found, whole[first : first + count : step])


def test_a_seek_finds_the_same_frames(clip, tmp_path):
    import av

    # Key frames at every tenth frame, with frames between them that refer to later ones.
    path = tmp_path / "keys.mp4"
    whole, _ = read_video(clip)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.options = {"g": "10", "bf": "2", "x264-params": "scenecut=0"}
        for picture in whole:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    whole, _ = read_video(path)
    with VideoFrames(path) as video:
        for number in (35, 3, 20, 19, 10, 39):
            np.testing.assert_array_equal(next(video.read(number, 1)), whole[number])


def test_views_scale_and_keep_frames_within_their_memory(clip):
    source = Source(path=clip, sha256=hash_file(clip), kind="video")
    with open_source(source) as roomy, open_source(source, memory_bytes=3 * 64 * 32 * 3) as narrow:
        for view in (roomy, narrow):
            small = view.frames(4, 10, step=4, max_side_px=16)
            assert small.shape == (3, 8, 16, 3)
            assert not small.flags.writeable
        np.testing.assert_array_equal(roomy.frames(0, 40), narrow.frames(0, 40))
        np.testing.assert_array_equal(roomy.frames(7, 3, max_side_px=20), narrow.frames(7, 3, max_side_px=20))
        assert isinstance(narrow, VideoView)
        assert narrow._kept_bytes <= 3 * 64 * 32 * 3
        with pytest.raises(ValueError, match=r"do not lie in the 40 frames of clip\.mp4"):
            roomy.frames(39, 2)


def test_truncated_videos_are_refused_at_once(clip, tmp_path):
    short = tmp_path / "short.mp4"
    short.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    with pytest.raises(MediaError):
        VideoFrames(short)
