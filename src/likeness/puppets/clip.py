"""Samples a clip or an image of one puppet: frames, caption and ground truth."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from likeness.errors import ConfigError
from likeness.puppets.people.anatomy import PuppetPerson, sample_person
from likeness.puppets.scenes.actor import Actor, actor_colors, build_body, enlarge, face_mask, sample_zoom, to_frame
from likeness.puppets.scenes.captions import TRIGGER, describe
from likeness.puppets.scenes.performance import ACTIONS, Performance, perform
from likeness.puppets.scenes.setting import CLOTHING_COLORS, GARMENTS, SETTINGS, draw_setting, sample_light

FPS = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class PuppetClip:
    """A clip with its ground truth.

    Shapes:
        frames: (frames, height, width, 3) uint8
        landmarks: (frames, 5, 2) px: outer and inner corner of the picture-left eye, inner and outer corner of the
            picture-right eye, base of the nose
        pose_deg: (frames, 3): yaw, pitch, roll
        face_mask: (frames, height, width), True on head, ears, hair and glasses
        vertices: (vertices, 3), neutral identity in head units, fixed topology
        maps: (frames, channels, height / 4, width / 4) uint8, dense ground truth; channels as `rendering.maps.CHANNELS`
    """

    frames: NDArray[np.uint8]
    prompt: str
    person: PuppetPerson
    action: str
    clothing: str
    setting: str
    landmarks: NDArray[np.float32]
    pose_deg: NDArray[np.float32]
    face_mask: NDArray[np.bool_]
    vertices: NDArray[np.float32]
    maps: NDArray[np.uint8]
    seed: int

    @property
    def caption(self) -> str:
        """The prompt without the trigger word."""
        return self.prompt.replace(f" {TRIGGER}", "")


def sample_clip(
    seed: int,
    *,
    person: PuppetPerson | None = None,
    action: str | None = None,
    num_frames: int = 17,
    size_px: int = 64,
) -> PuppetClip:
    """Sample a clip: person, action, setting, clothes and light.

    Args:
        seed: The same seed and arguments give the same clip, bit for bit.
        person: The person; sampled if None.
        action: One of `ACTIONS`; sampled if None.
        num_frames: Frames, at 8 per second.
        size_px: Height and width.

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
    return _render_clip(seed, person, performance, size_px, rng)


def sample_image(
    seed: int,
    *,
    person: PuppetPerson | None = None,
    size_px: int = 128,
    max_yaw_deg: float = 25.0,
    zoom: float = 0.78,
) -> PuppetClip:
    """Sample one image of a person in a random pose, with |yaw| at most `max_yaw_deg`; see `sample_clip`.

    A `zoom` of 1 frames the head as in clips. The default leaves more room around it, because detectors made for
    photographs miss more of the tightly framed faces.
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
    return _render_clip(seed, person, performance, size_px, rng)


def _render_clip(
    seed: int, person: PuppetPerson, performance: Performance, size_px: int, rng: np.random.Generator
) -> PuppetClip:
    clothing, garment = (
        list(CLOTHING_COLORS)[rng.integers(len(CLOTHING_COLORS))],
        GARMENTS[rng.integers(len(GARMENTS))],
    )
    setting, body = SETTINGS[rng.integers(len(SETTINGS))], build_body(person)
    colors, light, backdrop = (
        actor_colors(person, clothing, rng),
        sample_light(rng),
        draw_setting(setting, size_px, rng),
    )
    actor = Actor(
        body=body,
        light=light,
        colors=colors,
        zoom=sample_zoom(person, rng),
        shift=(rng.normal(0, 0.018), rng.normal(0, 0.012)),
        side=float(rng.choice([-1, 1])),
    )
    prompt = describe(person, performance.action, clothing, garment, setting, rng)
    frames, masks, landmarks, maps = [], [], [], []
    for index in range(len(performance.tracks["zoom"])):
        picture = enlarge(backdrop)
        drawn = actor.draw(performance.at(index), picture)
        frames.append(to_frame(picture))
        masks.append(face_mask(drawn.part))
        landmarks.append(drawn.landmarks)
        maps.append(drawn.maps)
    return PuppetClip(
        frames=np.stack(frames), prompt=prompt, person=person, action=performance.action, clothing=clothing,
        setting=setting, landmarks=np.stack(landmarks), pose_deg=performance.pose_deg, face_mask=np.stack(masks),
        vertices=body.head.vertices, maps=np.stack(maps), seed=seed,
    )  # fmt: skip
