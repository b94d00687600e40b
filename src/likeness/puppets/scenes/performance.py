"""Animation tracks of a puppet: head pose, expression, gaze and hand over time, one function per action.

Heads turn at most about seven degrees a frame: four frames share one latent frame, and the VAE blurs faster motion.
Left and right are those of the picture. Angles: yaw > 0 turns the nose to the picture's right, pitch > 0 looks up,
roll > 0 tilts the head clockwise.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Track = NDArray[np.float64]

TRACKS = ("yaw_deg", "pitch_deg", "roll_deg", "zoom", "smile", "jaw", "brows", "closed_left", "closed_right",
          "gaze_x", "gaze_y", "teeth", "hand", "wave")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Performance:
    """The tracks of one action.

    Shapes:
        tracks: each (frames,), by the names in `TRACKS`; `hand` is 0 (out of the picture) to 1 (raised)
    """

    action: str
    tracks: dict[str, Track]

    @property
    def pose_deg(self) -> NDArray[np.float32]:
        """(frames, 3): yaw, pitch, roll."""
        return np.stack([self.tracks[name] for name in ("yaw_deg", "pitch_deg", "roll_deg")], axis=1).astype(np.float32)

    def at(self, frame: int) -> dict[str, float]:
        """All tracks in one frame."""
        return {name: float(track[frame]) for name, track in self.tracks.items()}


def _ease(time: Track, start: float = 0.1, end: float = 0.75) -> Track:
    place = np.clip((time - start) / (end - start), 0, 1)
    return place * place * (3 - 2 * place)


def _swing(time: Track, cycles: float) -> Track:
    return np.sin(2 * np.pi * cycles * time) * _ease(time, 0.0, 0.15)


def _pulse(time: Track, center: float, width: float) -> Track:
    return np.exp(-(((time - center) / width) ** 4))


def _act(action: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def register(function: Callable[..., None]) -> Callable[..., None]:
        _ACTS[action] = function
        return function

    return register


_ACTS: dict[str, Callable[..., None]] = {}


@_act("turn_left")
def _turn_left(t: dict[str, Track], time: Track, rng: np.random.Generator) -> None:
    _turn(t, time, rng, -1.0)


@_act("turn_right")
def _turn_right(t: dict[str, Track], time: Track, rng: np.random.Generator) -> None:
    _turn(t, time, rng, 1.0)


def _turn(t: dict[str, Track], time: Track, rng: np.random.Generator, side: float) -> None:
    t["yaw_deg"] *= 0.3
    t["yaw_deg"] += side * (rng.uniform(27, 38) * _ease(time) - 4)
    t["gaze_x"] += side * 0.6 * _pulse(time, 0.4, 0.3)


@_act("nod")
def _nod(t: dict[str, Track], time: Track, rng: np.random.Generator) -> None:
    t["pitch_deg"] += -rng.uniform(13, 18) * (0.5 - 0.5 * np.cos(2 * np.pi * 1.25 * time)) + 3


@_act("shake")
def _shake(t: dict[str, Track], time: Track, rng: np.random.Generator) -> None:
    t["yaw_deg"] *= 0.3
    t["yaw_deg"] += rng.uniform(17, 22) * _swing(time, 0.85) * rng.choice([-1, 1])


@_act("smile")
def _smile(t: dict[str, Track], time: Track, rng: np.random.Generator) -> None:
    t["smile"] += rng.uniform(0.9, 1.1) * _ease(time)
    t["teeth"] += (0.9 if rng.random() < 0.6 else 0.25) * _ease(time, 0.2, 0.8)


@_act("laugh")
def _laugh(t: dict[str, Track], time: Track, _rng: np.random.Generator) -> None:
    t["smile"] += 1.0 * _ease(time, 0, 0.3)
    t["teeth"] += 0.8 * _ease(time, 0, 0.3)
    t["jaw"] += _ease(time, 0.05, 0.3) * (0.6 + 0.3 * _swing(time, 1.5))
    t["pitch_deg"] += 7 * _ease(time, 0.1, 0.4) + 2 * _swing(time, 1.5)
    for eye in ("closed_left", "closed_right"):
        t[eye] += 0.45 * _ease(time, 0.1, 0.4)


@_act("talk")
def _talk(t: dict[str, Track], time: Track, rng: np.random.Generator) -> None:
    rate = rng.uniform(1.4, 2.0)
    t["jaw"] += np.clip(0.40 + 0.45 * np.sin(2 * np.pi * rate * time + rng.uniform(0, 6)), 0, 1)
    t["yaw_deg"] += 4 * _swing(time, 0.8)
    t["brows"] += 0.4 * _pulse(time, 0.5, 0.2)


@_act("wink")
def _wink(t: dict[str, Track], time: Track, rng: np.random.Generator) -> None:
    t[rng.choice(["closed_left", "closed_right"])] += _pulse(time, rng.uniform(0.45, 0.6), 0.22)
    t["smile"] += 0.45 * _ease(time, 0.2, 0.5)


@_act("raise_brows")
def _raise_brows(t: dict[str, Track], time: Track, rng: np.random.Generator) -> None:
    t["brows"] += rng.uniform(1.0, 1.2) * _pulse(time, 0.55, 0.33)


@_act("tilt")
def _tilt(t: dict[str, Track], time: Track, rng: np.random.Generator) -> None:
    t["roll_deg"] += rng.choice([-1, 1]) * rng.uniform(14, 20) * _ease(time)


@_act("look_around")
def _look_around(t: dict[str, Track], time: Track, rng: np.random.Generator) -> None:
    side = rng.choice([-1, 1])
    t["yaw_deg"] *= 0.3
    t["yaw_deg"] += side * rng.uniform(18, 24) * np.sin(2 * np.pi * 0.85 * time)
    t["gaze_x"] += side * 0.8 * np.sin(2 * np.pi * np.clip(0.85 * time + 0.06, 0, 1))
    t["pitch_deg"] += 4 * np.sin(2 * np.pi * time + 1)


@_act("come_closer")
def _come_closer(t: dict[str, Track], time: Track, rng: np.random.Generator) -> None:
    t["zoom"] *= 0.82 + rng.uniform(0.36, 0.46) * _ease(time, 0.05, 0.9)


@_act("look_up")
def _look_up(t: dict[str, Track], time: Track, rng: np.random.Generator) -> None:
    t["pitch_deg"] += rng.uniform(15, 21) * _ease(time)
    t["gaze_y"] += 0.8 * _ease(time)


@_act("look_down")
def _look_down(t: dict[str, Track], time: Track, rng: np.random.Generator) -> None:
    t["pitch_deg"] += -rng.uniform(15, 20) * _ease(time)
    t["gaze_y"] += -0.8 * _ease(time)


@_act("wave")
def _wave(t: dict[str, Track], time: Track, _rng: np.random.Generator) -> None:
    t["hand"] += _ease(time, 0.0, 0.35)
    t["wave"] += 20 * _swing(time, 1.5)
    t["smile"] += 0.5 * _ease(time)


@_act("look")
def _look(t: dict[str, Track], time: Track, _rng: np.random.Generator) -> None:
    t["smile"] += 0.25 * _ease(time)


ACTIONS = tuple(_ACTS)


def perform(action: str, num_frames: int, rng: np.random.Generator) -> Performance:
    """Sample the tracks of `action` over `num_frames` frames, with small random head motion, gaze and a blink."""
    time = np.linspace(0, 1, num_frames) if num_frames > 1 else np.array([rng.uniform(0.3, 1.0)])
    tracks = {name: np.zeros(num_frames) for name in TRACKS}
    tracks["zoom"] += 1.0
    for name, spread, sway in (("yaw_deg", 9, 2.0), ("pitch_deg", 4, 1.2), ("roll_deg", 3, 1.0)):
        tracks[name] += np.clip(rng.normal(), -1.7, 1.7) * spread + sway * np.sin(
            2 * np.pi * (0.5 * time + rng.random())
        )
    tracks["smile"] += max(0.0, rng.normal(0.05, 0.22))
    tracks["gaze_x"] += -0.02 * tracks["yaw_deg"] + rng.normal(0, 0.12)
    blink = rng.uniform(0, 3)
    for eye in ("closed_left", "closed_right"):
        tracks[eye] += _pulse(time, blink, 0.08) if num_frames > 1 else 0.0
    _ACTS[action](tracks, time, rng)
    for name in ("smile", "jaw", "brows", "closed_left", "closed_right", "teeth", "hand"):
        tracks[name] = np.clip(tracks[name], 0.0, 1.2)
    return Performance(action, tracks)
