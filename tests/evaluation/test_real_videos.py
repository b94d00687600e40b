"""Evaluation on real photographs and videos, where they are at hand (LIKENESS_REAL). What they show stays there.

`pytest -m real --log-cli-level=INFO tests/evaluation/test_real_videos.py` prints the values in docs/evidence.md.
"""

import logging
import os
from itertools import combinations

import numpy as np
import pytest

from likeness.evaluation import evaluate as module
from likeness.evaluation.evaluate import evaluate
from likeness.faces import read_face
from likeness.media import read_video

logger = logging.getLogger(__name__)
pytestmark = [pytest.mark.real, pytest.mark.slow]

FRAMES_A_VIDEO = int(os.environ.get("LIKENESS_REAL_FRAMES", "16"))
"""Evenly spaced frames that are measured of each video; 0 takes all."""


MOTION_FRAMES = 17
"""The first frames of each video, at its own frame rate, for metrics of motion."""


def read_evenly(path):
    frames, fps = read_video(path)
    count = min(FRAMES_A_VIDEO or len(frames), len(frames))
    chosen = np.linspace(0, len(frames) - 1, count).round().astype(int)
    return frames[chosen], fps * count / len(frames)


@pytest.fixture(scope="module")
def videos(real_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "read_video", read_evenly)
        names = ("average_id_similarity", "id_distance", "match_rate", "face_rate", "several_faces_rate")
        return evaluate(sorted((real_folder / "videos").glob("*.mp4")), None, metrics=names)


@pytest.fixture(scope="module")
def photographs(real_folder):
    """(people, photographs, 128): embeddings."""
    people = sorted(path for path in (real_folder / "faces").iterdir() if path.is_dir())
    return np.stack([[read_face(path).embedding for path in sorted(one.glob("*.png"))] for one in people]).astype(
        np.float64
    )


def test_people_in_real_videos_stay_themselves(videos):
    for video in videos.videos:
        logger.info("%s, %d frames: %s", video.name, video.num_frames, dict(video.scores))
    means = {name: summary.mean for name, summary in videos.systems[0].scores.items()}
    logger.info("means: %s", means)
    assert videos.systems[0].num_failed == 0
    # The first frame is among the measured ones, at distance 0; the calibration left it out.
    shares = [1 - 1 / video.num_frames for video in videos.videos]
    later = np.mean([v.scores["id_distance"] / share for v, share in zip(videos.videos, shares, strict=True)])
    logger.info("distance of later frames to the first: %.3f", later)
    assert abs(later - 0.29) < 0.06
    assert means["face_rate"] >= 0.97
    assert means["match_rate"] >= 0.97


def test_verification_errs_in_at_most_three_percent_at_the_threshold(photographs):
    labelled = [(person, row) for person, rows in enumerate(photographs) for row in rows]
    pairs = [(a == b, np.linalg.norm(x - y)) for (a, x), (b, y) in combinations(labelled, 2)]
    rejected = np.mean([distance >= 0.6 for is_same, distance in pairs if is_same])
    accepted = np.mean([distance < 0.6 for is_same, distance in pairs if not is_same])
    logger.info("%d pairs, %.3f false rejections, %.3f false acceptances", len(pairs), rejected, accepted)
    assert rejected <= 0.03
    assert accepted <= 0.03


def test_five_photographs_of_a_person_score_above_other_peoples(photographs):
    """Each photograph against the mean of the person's other four, and against the means of everybody else's five."""
    means = photographs.mean(axis=1)
    exceptions = []
    for person, rows in enumerate(photographs):
        for number, row in enumerate(rows):
            own = np.linalg.norm(row - np.delete(rows, number, axis=0).mean(axis=0))
            others = np.linalg.norm(np.delete(means, person, axis=0) - row, axis=1)
            if own >= others.min():
                exceptions.append((person, number, float(own), float(others.min())))
    logger.info("exceptions among %d photographs: %s", photographs.shape[0] * photographs.shape[1], exceptions)
    assert not exceptions


MOTION = ("fm_ref_frame", "fm_inter_frame", "face_flow_relative", "face_flow_crop", "face_flow_camera")


def read_start(path):
    return read_video(path, max_frames=MOTION_FRAMES)


def read_frozen(path):
    frames, fps = read_start(path)
    return np.repeat(frames[:1], len(frames), axis=0), fps


def measure_motion(videos, read):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "read_video", read)
        return evaluate(videos, None, metrics=MOTION)


def test_faces_in_real_videos_move_and_those_of_a_still_copy_do_not(real_folder):
    """`face_flow_camera` is undefined where the background has too few corners."""
    videos = sorted((real_folder / "videos").glob("*.mp4"))
    moving, still = measure_motion(videos, read_start), measure_motion(videos[1:2], read_frozen)
    for video in moving.videos:
        logger.info("%s: %s", video.name, dict(video.scores))
    logger.info("means: %s", {name: summary.mean for name, summary in moving.systems[0].scores.items()})
    assert moving.systems[0].num_failed == still.systems[0].num_failed == 0
    assert all(video.scores[name] > 0 for video in moving.videos for name in MOTION if name != "face_flow_camera")
    assert sum(video.scores["face_flow_camera"] is not None for video in moving.videos) >= 3
    (frozen,) = still.videos
    assert all((frozen.scores[name] or 0) < 1e-3 for name in MOTION if name != "fm_ref_frame")
