"""How much wider a mouth smiles at the end of a clip than at its start.

dlib's five landmarks include no mouth, and predictors that do are not free to use. A linear model therefore reads the
change of the mouth's pixels between two aligned heads. It is fitted on puppets (rendered synthetic people) with known
smiles in half a minute. It compares a face with itself, so appearance, beard and light cancel out.
"""

from functools import lru_cache

import numpy as np

from likeness.evaluation.puppet_checks.face_track import HEAD_PX
from likeness.faces import HEAD_TEMPLATE, fit_similarity, warp
from likeness.media import resize
from likeness.puppets import sample_clip

SMILING = ("smile", "laugh")
PLAIN = ("look", "talk", "raise_brows", "nod", "tilt", "come_closer", "shake")
MOUTH = (slice(58, 86), slice(28, 68))
"""Rows and columns of the mouth in an aligned head of `HEAD_PX`."""
PATCH_PX = (10, 14)
DETECTION_NOISE = 0.025
"""Spread by which true landmarks are moved, as a detector's would be, in distances between the outer eye corners."""
FIT_SEED = 61_000_000
PENALTY = 30.0


def smile_change(start: np.ndarray, end: np.ndarray) -> float:
    """How much more the mouth smiles in `end` than in `start`: about 0 for no change, about 1 for a full smile.

    Shapes:
        start, end: (HEAD_PX, HEAD_PX, 3) uint8, eyes level
    """
    weights = _fit_reader()
    return float(_features(start, end) @ weights[:-1] + weights[-1])


@lru_cache(maxsize=1)
def _fit_reader(num_clips: int = 500) -> np.ndarray:
    """Fit a ridge regression on pairs of frames of puppets."""
    random = np.random.default_rng(FIT_SEED)
    rows, targets = [], []
    for number in range(num_clips):
        actions = SMILING if number % 2 else PLAIN
        action = actions[number // 2 % len(actions)]
        clip = sample_clip(FIT_SEED + number, action=action, num_frames=2, size_px=64)
        heads = [_align(frame, points, random) for frame, points in zip(clip.frames, clip.landmarks, strict=True)]
        for pair in (heads, [head[:, ::-1] for head in heads]):  # A mirrored smile is a smile.
            features = _features(*pair)
            rows += [features, -features]
            targets += [float(number % 2), -float(number % 2)]
    inputs = np.column_stack([np.stack(rows), np.ones(len(rows))])
    penalty = np.diag([PENALTY] * (inputs.shape[1] - 1) + [1e-6])
    return np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ np.array(targets))


def _align(frame: np.ndarray, landmarks: np.ndarray, random: np.random.Generator) -> np.ndarray:
    large = resize(frame, 4 * frame.shape[1], 4 * frame.shape[0])
    across = np.linalg.norm(landmarks[3] - landmarks[0])
    noisy = landmarks + random.normal(0, DETECTION_NOISE * across, landmarks.shape)
    return warp(large, fit_similarity(4 * noisy, HEAD_TEMPLATE * HEAD_PX), HEAD_PX)


def _features(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    return (_mouth(end) - _mouth(start)).ravel()


def _mouth(head: np.ndarray) -> np.ndarray:
    """Brightness, and redness, of the mouth against the mouth's own mean."""
    patch = resize(np.ascontiguousarray(head[MOUTH]), PATCH_PX[1], PATCH_PX[0]).astype(np.float64)
    level = patch.mean() + 1.0
    bright = patch.mean(axis=2) / level
    red = (patch[..., 0] - patch[..., 1]) / level
    return np.stack([bright - bright.mean(), red - red.mean()])
