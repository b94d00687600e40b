"""An evaluation by processes on the command line, killed outright in the middle, started again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from likeness.media import write_image, write_video
from likeness.puppets import sample_clip, sample_person

pytestmark = pytest.mark.slow
NUM_VIDEOS = 8
PATIENCE_S = 240


def command(folder: Path, output: Path, *words: str) -> list[str]:
    paths = [str(folder / "system"), "--references", str(folder / "people"), "-o", str(output)]
    metrics = ["--metrics", "id_distance,face_rate,face_flow"]
    return [sys.executable, "-m", "likeness", "eval", *paths, *metrics, "--json", *words]


def scores_of(printed: str) -> dict[str, dict[str, float]]:
    return {video["name"]: video["scores"] for video in json.loads(printed)["videos"]}


def entries(output: Path) -> set[Path]:
    return {path for path in (output / "features").rglob("*") if path.is_file() and "draft" not in path.name}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    frames = sample_clip(0, person=sample_person(0), num_frames=9, size_px=96).frames
    write_image(folder / "people" / "ann.png", np.repeat(np.repeat(frames[0], 4, 0), 4, 1))
    for number in range(NUM_VIDEOS):
        clip = sample_clip(number, person=sample_person(0), num_frames=9, size_px=96)
        write_video(folder / "system" / f"ann_{number}.mp4", clip.frames, 8)
    return folder


def test_kill_9_loses_no_measured_video(folder, tmp_path):
    running = subprocess.Popen(
        command(folder, tmp_path, "--workers", "2"), stdout=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + PATIENCE_S
    while len(entries(tmp_path)) < 4:
        assert running.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline, "nothing was measured"
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    before = {path: path.stat().st_mtime_ns for path in entries(tmp_path)}
    assert not (tmp_path / "evaluation.json").exists()

    again = subprocess.run(command(folder, tmp_path, "--workers", "2"), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    alone = subprocess.run(command(folder, tmp_path / "alone"), capture_output=True, text=True, check=False)
    found, expected = scores_of(again.stdout), scores_of(alone.stdout)
    assert found.keys() == expected.keys()
    assert len(found) == NUM_VIDEOS
    for name, scores in found.items():
        assert scores == pytest.approx(expected[name], abs=1e-6, nan_ok=True)
