"""A puppet in front of the camera: frames, a sentence, and the exact truth about both."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from likeness.errors import ConfigError
from likeness.puppets import paint, raster
from likeness.puppets.anatomy import Person, sample_person
from likeness.puppets.captions import TRIGGER, describe
from likeness.puppets.dress import Part, dress, hair_line
from likeness.puppets.performance import ACTIONS, Performance, perform
from likeness.puppets.scene import CLOTHING_COLORS, GARMENTS, SETTINGS, Light, draw_setting, sample_light
from likeness.puppets.shade import shade
from likeness.puppets.shape import EXPRESSIONS, HeadShape, build_head

FPS = 8
_PIVOT = np.array([0.0, -0.75, -0.25], dtype=np.float32)
_SUPER_SAMPLES = 2
_HEAD_SIZE = 0.37  # Picture heights to one head unit.


@dataclass(frozen=True, eq=False, kw_only=True)
class PuppetClip:
    """A clip and its truth.

    Shapes:
        frames: (frames, height, width, 3) uint8
        landmarks: (frames, 5, 2) px: outer and inner corner of the picture-left eye, inner and outer corner of the
            picture-right eye, base of the nose
        pose_deg: (frames, 3): yaw, pitch, roll
        face_mask: (frames, height, width), True on head, ears, hair and glasses
        vertices: (vertices, 3), neutral identity in head units, fixed topology
    """

    frames: NDArray[np.uint8]
    prompt: str
    person: Person
    action: str
    clothing: str
    setting: str
    landmarks: NDArray[np.float32]
    pose_deg: NDArray[np.float32]
    face_mask: NDArray[np.bool_]
    vertices: NDArray[np.float32]
    seed: int

    @property
    def caption(self) -> str:
        """The sentence without the trigger word."""
        return self.prompt.replace(f" {TRIGGER}", "")


@dataclass(frozen=True, eq=False)
class _Body:
    """A person as meshes, ready for any frame."""

    head: HeadShape
    parts: list[Part]
    face: NDArray[np.float32]
    hair: NDArray[np.float32]
    rest: NDArray[np.float32]
    triangles: NDArray[np.int32]
    kinds: NDArray[np.int8]


@lru_cache(maxsize=64)
def _build(person: Person) -> _Body:
    head = build_head(person)
    parts = dress(person, head)
    rests, triangles, kinds, offset = (
        [head.rest],
        [head.triangles],
        [np.full(len(head.triangles), raster.HEAD)],
        len(head.rest),
    )
    for part in parts:
        rests.append(part.rest)
        triangles.append(part.triangles + offset)
        kinds.append(np.full(len(part.triangles), part.kind))
        offset += len(part.rest)
    return _Body(
        head, parts, paint.face_settings(person, head.features), hair_line(person),
        np.concatenate(rests), np.concatenate(triangles).astype(np.int32), np.concatenate(kinds).astype(np.int8),
    )  # fmt: skip


def _rotation(yaw_deg: float, pitch_deg: float, roll_deg: float) -> NDArray[np.float32]:
    yaw, pitch, roll = np.radians([yaw_deg, -pitch_deg, -roll_deg])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    nod = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return (tilt @ turn @ nod).astype(np.float32)


def _pose(
    body: _Body, tracks: dict[str, float], side: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """All vertices of one frame, (vertices, 3), and the five landmarks, (5, 3)."""
    strengths = np.array([tracks[name] for name in EXPRESSIONS], dtype=np.float32)
    face = body.head.vertices + np.tensordot(strengths, body.head.expressions, axes=1)
    turn = _rotation(tracks["yaw_deg"], tracks["pitch_deg"], tracks["roll_deg"])
    lean = _rotation(0.22 * tracks["yaw_deg"], 0.0, 0.1 * tracks["roll_deg"])
    wave = _rotation(0.0, 0.0, tracks["wave"])
    shift = np.array([side * 1.02, -2.2 + 1.75 * tracks["hand"], 0.55], dtype=np.float32)
    mirror = np.array([side, 1, 1], dtype=np.float32)
    elbow = np.array([0.05, -1.0, 0], dtype=np.float32)
    posed: list[NDArray[Any]] = [(face - _PIVOT) @ turn.T + _PIVOT]
    for part in body.parts:
        if part.moves_with == "head":
            posed.append((part.vertices - _PIVOT) @ turn.T + _PIVOT)
        elif part.moves_with == "body":
            posed.append(part.vertices @ lean.T)
        else:
            posed.append((((part.vertices - elbow) @ wave.T + elbow) * mirror + shift).astype(np.float32))
    points = np.einsum("lk,lkc->lc", body.head.landmark_weights, face[body.head.landmark_indices])
    return np.concatenate(posed).astype(np.float32), ((points - _PIVOT) @ turn.T + _PIVOT).astype(np.float32)


def _project(
    points: NDArray[np.float32], zoom: float, shift_px: tuple[float, float], size_px: int
) -> NDArray[np.float32]:
    distance = 7.5
    scale = _HEAD_SIZE * size_px * zoom * distance / (distance - points[:, 2:3])
    center = np.array([0.5 * size_px + shift_px[0], 0.40 * size_px + shift_px[1]], dtype=np.float32)
    offset = np.array([0.0, 0.12], dtype=np.float32)
    return (center + (points[:, :2] - offset) * np.array([1, -1], dtype=np.float32) * scale).astype(
        np.float32
    )


def _mood(tracks: dict[str, float]) -> NDArray[np.float32]:
    names = ("smile", "jaw", "brows", "closed_left", "closed_right", "gaze_x", "gaze_y", "teeth")
    return np.array([tracks[name] for name in names], dtype=np.float32)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Shot:
    """What stays the same over a clip."""

    body: _Body
    light: Light
    backdrop: NDArray[np.float32]
    colors: NDArray[np.float32]
    zoom: float
    shift: tuple[float, float]
    side: float
    size_px: int

    def render(
        self, tracks: dict[str, float]
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float32]]:
        """One frame (height, width, 3), its face mask (height, width), its landmarks (5, 2)."""
        fine = self.size_px * _SUPER_SAMPLES
        vertices, points = _pose(self.body, tracks, self.side)
        zoom, shift = self.zoom * tracks["zoom"], (self.shift[0] * fine, self.shift[1] * fine)
        screen = _project(vertices, zoom, shift, fine)
        normals = raster.vertex_normals(vertices, self.body.triangles)
        part = np.full((fine, fine), raster.EMPTY, dtype=np.int8)
        place, normal = (
            np.zeros((fine, fine, 3), dtype=np.float32),
            np.zeros((fine, fine, 3), dtype=np.float32),
        )
        raster.rasterize(
            screen,
            vertices[:, 2].copy(),
            normals,
            self.body.rest,
            self.body.triangles,
            self.body.kinds,
            self.body.hair,
            part,
            place,
            normal,
        )
        picture = np.repeat(np.repeat(self.backdrop, _SUPER_SAMPLES, axis=0), _SUPER_SAMPLES, axis=1)
        soft = np.float32(0.5 / (_HEAD_SIZE * fine * zoom))
        shade(
            part,
            place,
            normal,
            self.body.face,
            _mood(tracks),
            self.colors,
            self.light.direction,
            self.light.key,
            self.light.ambient,
            soft,
            picture,
        )
        frame = (raster.average_down(picture, _SUPER_SAMPLES) * 255 + 0.5).astype(np.uint8)
        is_face = np.isin(part, (raster.HEAD, raster.EAR, raster.HAIR, raster.HAIR_SHEET, raster.GLASSES))
        return (
            frame,
            is_face[::_SUPER_SAMPLES, ::_SUPER_SAMPLES],
            _project(points, zoom, shift, fine) / np.float32(_SUPER_SAMPLES),
        )


def sample_clip(
    seed: int,
    *,
    person: Person | None = None,
    action: str | None = None,
    num_frames: int = 17,
    size_px: int = 64,
) -> PuppetClip:
    """Draw a clip: who, what, where, in which light.

    Args:
        seed: The same seed and arguments give the same clip, bit for bit.
        person: Who is seen; drawn too if None.
        action: One of `ACTIONS`; drawn too if None.
        num_frames: Frames at 8 per second.
        size_px: Height and width.

    Returns:
        The clip with its sentence and truth.

    Raises:
        ConfigError: The action is unknown, or a size is not positive.
    """
    if action is not None and action not in ACTIONS:
        raise ConfigError(f"Action `{action}` is unknown. Known actions: {', '.join(ACTIONS)}.")
    if num_frames < 1 or size_px < 16:
        raise ConfigError(
            f"A clip of {num_frames} frames of {size_px} px cannot be drawn; ask for at least 1 frame of 16 px."
        )
    rng = np.random.default_rng([seed, 7002])
    drawn_person, drawn_action = int(rng.integers(2**31)), ACTIONS[rng.integers(len(ACTIONS))]
    person = sample_person(drawn_person) if person is None else person
    performance = perform(drawn_action if action is None else action, num_frames, rng)
    return _film(seed, person, performance, size_px, rng)


def sample_picture(
    seed: int,
    *,
    person: Person | None = None,
    size_px: int = 128,
    max_yaw_deg: float = 25.0,
    zoom: float = 0.78,
) -> PuppetClip:
    """Draw one picture of somebody in some pose, with |yaw| at most `max_yaw_deg`; see `sample_clip`.

    A `zoom` of 1 frames the head as clips do; by default there is more room around it, without which detectors
    made for photographs overlook more faces.
    """
    rng = np.random.default_rng([seed, 7003])
    drawn_person = int(rng.integers(2**31))
    person = sample_person(drawn_person) if person is None else person
    action = ("smile", "laugh", "talk", "raise_brows", "look", "look")[rng.integers(6)]
    performance = perform(action, 1, rng)
    performance.tracks["yaw_deg"][:] = rng.uniform(-1, 1) * max_yaw_deg
    performance.tracks["pitch_deg"][:] = rng.uniform(-9, 9)
    performance.tracks["roll_deg"][:] = rng.normal(0, 4)
    performance.tracks["zoom"] *= zoom
    return _film(seed, person, performance, size_px, rng)


def _film(
    seed: int, person: Person, performance: Performance, size_px: int, rng: np.random.Generator
) -> PuppetClip:
    clothing, garment = (
        list(CLOTHING_COLORS)[rng.integers(len(CLOTHING_COLORS))],
        GARMENTS[rng.integers(len(GARMENTS))],
    )
    setting, body = SETTINGS[rng.integers(len(SETTINGS))], _build(person)
    cloth = np.array(CLOTHING_COLORS[clothing]) * rng.uniform(0.9, 1.08)
    frame_tone = (
        np.array([0.06, 0.06, 0.07]) if person["glasses_tone"] < 0.6 else np.array([0.42, 0.24, 0.12])
    )
    shot = _Shot(
        body=body, light=sample_light(rng), backdrop=draw_setting(setting, size_px, rng),
        colors=np.stack([person.hair_color, cloth, frame_tone, person.skin]).astype(np.float32),
        zoom=rng.uniform(0.95, 1.06) * (0.90 if person.hair_style == "afro" else 1.0),
        shift=(rng.normal(0, 0.018), rng.normal(0, 0.012)), side=float(rng.choice([-1, 1])), size_px=size_px,
    )  # fmt: skip
    prompt = describe(person, performance.action, clothing, garment, setting, rng)
    frames, masks, landmarks = [], [], []
    for index in range(len(performance.tracks["zoom"])):
        frame, mask, points = shot.render(
            {name: float(track[index]) for name, track in performance.tracks.items()}
        )
        frames.append(frame)
        masks.append(mask)
        landmarks.append(points)
    return PuppetClip(
        frames=np.stack(frames), prompt=prompt, person=person, action=performance.action, clothing=clothing, setting=setting,
        landmarks=np.stack(landmarks), pose_deg=performance.pose_deg, face_mask=np.stack(masks), vertices=body.head.vertices, seed=seed,
    )  # fmt: skip
