"""Samples a clip of two puppets side by side: frames twice as wide as high, a caption that names both, ground truth.

Each head has the size that it has in a clip of one person. Light and backdrop are shared.
"""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from likeness.errors import ConfigError
from likeness.puppets.people.anatomy import PuppetPerson, sample_person
from likeness.puppets.scenes.actor import Actor, actor_colors, build_body, enlarge, face_mask, sample_zoom, to_frame
from likeness.puppets.scenes.captions import PAIR_TRIGGERS, describe_pair
from likeness.puppets.scenes.performance import ACTIONS, Performance, perform
from likeness.puppets.scenes.setting import CLOTHING_COLORS, GARMENTS, SETTINGS, draw_setting, sample_light


@dataclass(frozen=True, eq=False, kw_only=True)
class TwoPersonClip:
    """A clip of two people with its ground truth. Values per person are in order from left to right.

    Shapes:
        frames: (frames, height, 2 height, 3) uint8
        landmarks: (frames, 2, 5, 2) px, in the order of `PuppetClip`
        pose_deg: (frames, 2, 3): yaw, pitch, roll
        face_masks: (frames, 2, height, 2 height), True where that person's head is visible
    """

    frames: NDArray[np.uint8]
    prompt: str
    people: tuple[PuppetPerson, PuppetPerson]
    actions: tuple[str, str]
    clothing: tuple[str, str]
    setting: str
    landmarks: NDArray[np.float32]
    pose_deg: NDArray[np.float32]
    face_masks: NDArray[np.bool_]
    seed: int

    @property
    def caption(self) -> str:
        """The prompt without the trigger words."""
        return re.sub(rf" ({'|'.join(PAIR_TRIGGERS)})\b", "", self.prompt)


def sample_two_person_clip(
    seed: int,
    *,
    people: tuple[PuppetPerson, PuppetPerson] | None = None,
    actions: tuple[str, str] | None = None,
    num_frames: int = 17,
    size_px: int = 64,
) -> TwoPersonClip:
    """Sample a clip of two people: persons, actions, setting, clothes and light.

    Args:
        seed: The same seed and arguments give the same clip, bit for bit.
        people: The left and the right person; sampled if None.
        actions: The action of each, of `ACTIONS`; sampled if None.
        num_frames: Frames, at 8 per second.
        size_px: Height; the width is twice that.

    Raises:
        ConfigError: An action is unknown, or a size is not positive.
    """
    for action in actions or ():
        if action not in ACTIONS:
            raise ConfigError(f"Action `{action}` is unknown. Known actions: {', '.join(ACTIONS)}.")
    if num_frames < 1 or size_px < 16:
        raise ConfigError(
            f"A clip of {num_frames} frames, {size_px} px high, cannot be drawn; ask for at least 1 frame of 16 px."
        )
    rng = np.random.default_rng([seed, 7004])
    drawn = tuple(sample_person(int(number)) for number in rng.integers(2**31, size=2))
    people = (drawn[0], drawn[1]) if people is None else people
    acts = [ACTIONS[number] for number in rng.integers(len(ACTIONS), size=2)]
    left, right = (acts[0], acts[1]) if actions is None else actions
    return _render_clip(seed, people, (perform(left, num_frames, rng), perform(right, num_frames, rng)), size_px, rng)


def _render_clip(
    seed: int,
    people: tuple[PuppetPerson, PuppetPerson],
    performances: tuple[Performance, Performance],
    size_px: int,
    rng: np.random.Generator,
) -> TwoPersonClip:
    first, second = rng.choice(list(CLOTHING_COLORS), size=2, replace=False)
    clothing = (str(first), str(second))
    garments = tuple(f"{cloth} {GARMENTS[rng.integers(len(GARMENTS))]}" for cloth in clothing)
    setting, light = SETTINGS[rng.integers(len(SETTINGS))], sample_light(rng)
    backdrop = draw_setting(setting, size_px, rng, width_px=2 * size_px)
    actors = [
        Actor(
            body=build_body(person),
            light=light,
            colors=actor_colors(person, cloth, rng),
            zoom=sample_zoom(person, rng),
            shift=(column + rng.normal(0, 0.018), rng.normal(0, 0.012)),
            side=float(rng.choice([-1, 1])),
        )
        for column, (person, cloth) in enumerate(zip(people, clothing, strict=True))
    ]
    actions = (performances[0].action, performances[1].action)
    prompt = describe_pair(people, actions, (garments[0], garments[1]), setting, rng)
    front = int(rng.integers(2))  # Index of the person who is drawn in front.
    frames, masks, landmarks = [], [], []
    for index in range(len(performances[0].tracks["zoom"])):
        picture, points = enlarge(backdrop), np.zeros((2, 5, 2), np.float32)
        parts = {}
        for number in (1 - front, front):
            drawn = actors[number].draw(performances[number].at(index), picture)
            parts[number], points[number] = drawn.part, drawn.landmarks
        faces = np.stack([face_mask(parts[number]) for number in (0, 1)])
        faces[1 - front] &= ~face_mask(parts[front])
        frames.append(to_frame(picture))
        masks.append(faces)
        landmarks.append(points)
    return TwoPersonClip(
        frames=np.stack(frames), prompt=prompt, people=people, actions=actions, clothing=clothing, setting=setting,
        landmarks=np.stack(landmarks), pose_deg=np.stack([p.pose_deg for p in performances], axis=1),
        face_masks=np.stack(masks), seed=seed,
    )  # fmt: skip
