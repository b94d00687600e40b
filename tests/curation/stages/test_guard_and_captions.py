import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import av
import numpy as np
import pytest

from likeness.curation import jobs
from likeness.curation.recipe import build_recipe
from likeness.curation.run import curate
from likeness.curation.stages.captions import Captions, CaptionSettings, add_caption
from likeness.curation.stages.guard import Guard, GuardSettings
from likeness.curation.stages.networks.captioners import EndpointCaptioner, LocalCaptioner
from likeness.curation.stages.networks.wheel_files import wheel_file
from likeness.curation.verify import read_dropped
from likeness.errors import ConfigError, ResourceError, WeightsError
from likeness.media import write_image, write_video

LIMITS = GuardSettings(min_side_px=16, min_duration_s=0.5)


@pytest.fixture
def clip(tmp_path, view):
    frames = np.zeros((8, 32, 48, 3), np.uint8)
    write_video(tmp_path / "clip.mp4", frames, 8.0)
    return view(frames, path=tmp_path / "clip.mp4")


def judge(source, settings):
    (judged,) = Guard(settings)([source.whole()], source)
    return judged.dropped.reason if judged.dropped else None


def test_a_usual_video_passes_with_its_streams(clip):
    (kept,) = Guard(LIMITS)([clip.whole()], clip)
    assert kept.dropped is None
    assert kept.facts["num_streams"] == 1


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"max_bytes": 10}, "file too large"),
        ({"min_side_px": 64}, "resolution too low"),
        ({"max_megapixels": 0.001}, "resolution too high"),
        ({"min_fps": 12.0}, "frame rate too low"),
        ({"max_fps": 6.0}, "frame rate too high"),
        ({"min_duration_s": 2.0}, "too short"),
        ({"max_duration_s": 0.6}, "too long"),
    ],
)
def test_each_limit_of_a_file_has_its_reason(clip, limit, reason):
    assert judge(clip, LIMITS.model_copy(update=limit)) == reason


def test_files_of_another_kind_and_broken_headers_are_dropped(tmp_path, view):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"#EXTM3U\nhttp://example.org/a.ts\n")
    frames = np.zeros((8, 32, 48, 3), np.uint8)
    assert judge(view(frames, path=path), LIMITS) == "unknown format"
    path.write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    assert judge(view(frames, path=path), LIMITS) == "unreadable header"


def test_videos_with_many_streams_are_dropped(tmp_path, view):
    path = tmp_path / "many.mkv"
    frames = np.zeros((8, 32, 48, 3), np.uint8)
    with av.open(str(path), "w", format="matroska") as container:
        streams = [container.add_stream("ffv1", rate=8, width=48, height=32, pix_fmt="yuv420p") for _ in range(9)]
        for stream in streams:
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    assert judge(view(frames, path=path), LIMITS) == "too many streams"
    assert judge(view(frames, path=path), LIMITS.model_copy(update={"max_streams": 9})) is None


def test_pictures_have_no_length(tmp_path, view):
    picture = np.zeros((1, 32, 48, 3), np.uint8)
    write_image(tmp_path / "a.png", picture[0])
    assert judge(view(picture, fps=1.0, kind="image", path=tmp_path / "a.png"), LIMITS) is None


@pytest.mark.parametrize(
    ("file", "limit", "reason"),
    [
        ("long.mp4", {"max_duration_s": 0.6}, "too long"),
        ("long.mp4", {"max_megapixels": 0.001}, "resolution too high"),
        ("long.mp4", {"max_bytes": 10}, "file too large"),
        ("large.png", {"max_megapixels": 0.001}, "resolution too high"),
    ],
)
def test_what_is_outside_of_the_limits_is_never_opened(tmp_path, monkeypatch, file, limit, reason):
    write_video(tmp_path / "raw" / "long.mp4", np.zeros((8, 32, 48, 3), np.uint8), 8.0)
    write_image(tmp_path / "raw" / "large.png", np.zeros((32, 48, 3), np.uint8))
    other = next(path for path in (tmp_path / "raw").iterdir() if path.name != file)
    other.unlink()
    usual = {"name": "guard", "min_side_px": 16}

    def run(settings):
        entry = build_recipe({"kind": "data", "executor": {"workers": 0}, "read": {"folders": [str(tmp_path / "raw")]},
                              "stages": [settings]})  # fmt: skip
        return read_dropped(curate(entry, tmp_path / "out").folder)

    def refuse(*_, **__):
        raise AssertionError("the source was opened")

    assert [row["stage"] for row in run(usual)] == ["write"]  # Opened once, so that its first candidate is known.
    monkeypatch.setattr(jobs, "open_source", refuse)
    (known,) = run({**usual, **limit})
    shutil.rmtree(tmp_path / "out")
    (new,) = run({**usual, **limit})
    assert (new["stage"], new["reason"]) == ("guard", reason)
    assert known == new


def test_a_given_caption_gets_its_class_word(clip):
    whole = clip.whole(caption="A woman in a  red dress smiles.")
    (found,) = Captions(CaptionSettings())([whole], clip)
    assert found.dropped is None
    assert (found.facts["caption"], found.facts["class_word"]) == ("A woman in a red dress smiles.", "woman")
    assert found.facts["caption_from"] == "given"


def test_the_class_word_counts_its_occurrence(clip):
    found = add_caption(clip.whole(), 'Beside a sign "man at work" a man smiles.', "given", "")
    assert found.facts["class_word"] == "man:2"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, "no caption"),
        ({"caption": "A city at night."}, "caption does not name exactly one person"),
        ({"caption": "A man and a woman dance."}, "caption does not name exactly one person"),
        ({"caption": "A woman smiles.", "class_word": "man"}, "class word not in the caption"),
    ],
)
def test_undecided_captions_drop_the_candidate(clip, facts, reason):
    (found,) = Captions(CaptionSettings())([clip.whole(**facts)], clip)
    assert found.dropped is not None
    assert found.dropped.reason == reason
    assert "class_word" not in found.facts or facts.get("class_word")


def test_captioners_see_what_borders_keeps(clip):
    seen = []

    def caption(frames):
        seen.extend(frame.shape for frame in frames)
        return "A boy waves."

    whole = clip.whole(crop=[8, 0, 40, 32])
    (found,) = Captions(CaptionSettings(num_frames=2), caption)([whole], clip)
    assert seen == [(32, 32, 3)] * 2
    assert found.facts["class_word"] == "boy"


@pytest.fixture
def server():
    """An endpoint that answers with what `answers` holds, and keeps the requests."""
    answers, requests = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append((self.path, self.headers.get("Authorization"), body))
            status, reply = answers.pop(0)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, *args):
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/v1", answers, requests
    running.shutdown()
    thread.join()
    running.server_close()


REPLY = {"choices": [{"message": {"content": " A woman smiles. "}}]}


def test_an_endpoint_gets_frames_and_key(server, monkeypatch):
    url, answers, requests = server
    answers.append((200, REPLY))
    monkeypatch.setenv("LIKENESS_CAPTION_KEY", "abc")
    assert EndpointCaptioner(url, "vlm")([np.zeros((8, 8, 3), np.uint8)] * 2) == "A woman smiles."
    ((path, key, body),) = requests
    assert (path, key, body["model"], body["temperature"]) == ("/v1/chat/completions", "Bearer abc", "vlm", 0)
    kinds = [part["type"] for part in body["messages"][0]["content"]]
    assert kinds == ["text", "image_url", "image_url"]


def test_a_busy_endpoint_is_asked_again_and_a_refusal_is_not(server, monkeypatch):
    url, answers, requests = server
    monkeypatch.setattr("time.sleep", lambda _: None)
    answers.extend([(503, {}), (200, REPLY)])
    assert EndpointCaptioner(url, "vlm")([]) == "A woman smiles."
    answers.append((401, {}))
    with pytest.raises(ResourceError, match="HTTP 401"):
        EndpointCaptioner(url, "vlm")([])
    answers.append((200, {"error": "x"}))
    with pytest.raises(ResourceError, match="without a caption"):
        EndpointCaptioner(url, "vlm")([])
    assert len(requests) == 4


def test_captioners_that_lack_an_address_or_a_folder_say_so(tmp_path):
    with pytest.raises(ConfigError, match="base_url"):
        Captions(CaptionSettings(captioner="endpoint", base_url="file:///etc/passwd", model="x"))
    with pytest.raises(ConfigError, match=r"config\.json"):
        LocalCaptioner(tmp_path)


def test_weights_in_wheels_are_compared_with_their_checksum():
    with pytest.raises(WeightsError, match="SHA-256"):
        wheel_file("likeness", "py.typed", sha256="0" * 64, project="likeness")
    with pytest.raises(WeightsError, match="missing"):
        wheel_file("likeness", "absent.onnx", sha256="0" * 64, project="likeness")
    with pytest.raises(ResourceError, match="not installed"):
        wheel_file("no_such_package", "a", sha256="0" * 64, project="no-such-package")
