import json
import struct
import time
import zlib

import numpy as np
import pytest
from skimage.data import astronaut, coffee

from likeness import media
from likeness.cli import main

MOST_REFUSAL_S = 2.0
"""CPU time: unlike the clock, it does not count what else the machine does."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    photograph = astronaut()
    media.write_image(folder / "a.png", photograph)
    media.write_image(folder / "mirrored.jpg", photograph[:, ::-1])
    media.write_image(folder / "two.jpg", np.concatenate([photograph, photograph[:, ::-1]], axis=1))
    media.write_image(folder / "small.png", media.resize(photograph, 150, 150))
    media.write_image(folder / "coffee.jpg", coffee())
    header = struct.pack(">I4sIIBBBBB", 13, b"IHDR", 11_000, 11_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", zlib.crc32(header[4:])) + b"\0\0\0\0IDAT5\xaf\x06\x1e"
    (folder / "large.png").write_bytes(data)
    media.write_video(folder / "video.mp4", np.stack([photograph] * 2), 8)
    (folder / "truncated.jpg").write_bytes((folder / "mirrored.jpg").read_bytes()[:9000])
    (folder / "zero.jpg").touch()
    (folder / "text.jpg").write_text("hello")
    return folder


def test_compare_says_who_is_the_same(folder, capsys):
    assert main(["compare", str(folder / "a.png"), str(folder / "mirrored.jpg")]) == 0
    assert capsys.readouterr().out.startswith("same person: distance 0.")


def test_compare_prints_json_and_picks(folder, capsys):
    assert main(["compare", str(folder / "two.jpg"), str(folder / "a.png"), "--pick", "2", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["same"]
    assert record["distance"] < record["threshold"] == 0.6


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coffee.jpg", "No face found"),
        ("two.jpg", "--pick N"),
        ("small.png", "at least 32 px"),
        ("text.jpg", "not a picture"),
        ("truncated.jpg", "truncated"),
        ("large.png", "110 megapixels"),
        ("zero.jpg", "zero bytes"),
        ("", "is a folder"),
        ("video.mp4", "is a video"),
        ("absent.jpg", "does not exist"),
    ],
)
def test_bad_input_is_refused_with_its_own_message_and_exit_code_3_in_two_seconds(folder, capsys, name, message):
    start_s = time.process_time()
    assert main(["compare", str(folder / name), str(folder / "a.png")]) == 3
    assert time.process_time() - start_s < MOST_REFUSAL_S
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.startswith("likeness: ")
    assert "Traceback" not in printed.err
    assert not printed.out


def test_usage_errors_exit_2(capsys):
    assert main(["compare"]) == 2
    assert main(["no-such-verb"]) == 2
    assert "No such command" in capsys.readouterr().err


def test_debug_shows_the_traceback(folder):
    from likeness.errors import MediaError

    with pytest.raises(MediaError):
        main(["--debug", "compare", str(folder / "zero.jpg"), str(folder / "a.png")])


def test_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("likeness 0.")
