"""FLAME's mean head in the pose of the face: a shape source for the released FantasyID without the user's own vertices.

The released weights read the depth of 314 of DECA's posed vertices. Most of that depth is head pose, so a mean head
in the right pose is a good approximation: V = R (T + c) + j, with T the finest mesh of `transform.pkl`. With the best
rotation R for each, this c and j fit the five heads published by the authors to 1.1 mm; docs/shape_sources.md has the
errors.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from likeness.errors import ConfigError
from likeness.faces.geometry.align import rotation_matrix
from likeness.identity.face_shape.source import require_faces
from likeness.records import Face

PITCH_DEG = -21.0
"""Mean pitch of the published heads of upright portraits, in the sign of `Pose` (negative looks down). DECA squeezes
the whole picture into a square and gives this pitch for faces that look straight ahead."""
MAX_PITCH_DEG = 90.0
CENTER_M = np.array([-0.003, -1.351, 0.064])
"""c: moves the mesh of `transform.pkl` so that FLAME's head joint is the origin."""
JOINT_M = np.array([0.003, -0.151, -0.084])
"""j: position of that joint in DECA's coordinates."""


class MeanHeadShape:
    """Poses the mean head with yaw and roll of the first reference and a constant pitch.

    Example:
        fantasy.shape_source = MeanHeadShape(read_template(Path("transform.pkl")), pitch_deg=-15)
    """

    topology = "flame"

    def __init__(self, template: NDArray[np.floating], *, pitch_deg: float = PITCH_DEG) -> None:
        """Set mean head and pitch.

        Args:
            template: (vertices, 3), the finest mesh of `transform.pkl`, in meters; x to the picture's right, y up.
            pitch_deg: Pitch of the head, positive looks up.

        Raises:
            ConfigError: The pitch is out of range.
        """
        if not abs(pitch_deg) <= MAX_PITCH_DEG:
            raise ConfigError(
                f"The pitch of the mean head is {pitch_deg:g} degrees; from {-MAX_PITCH_DEG:g} to {MAX_PITCH_DEG:g} "
                f"were expected. Leave it out for {PITCH_DEG:g}."
            )
        self.template = np.asarray(template, np.float64)
        self.pitch_deg = pitch_deg

    @property
    def num_vertices(self) -> int:
        return len(self.template)

    def __call__(self, faces: Sequence[Face], /) -> NDArray[np.float32]:
        """(vertices, 3) in meters, as DECA writes them."""
        require_faces(faces)
        pose = faces[0].pose  # The first reference is the first frame of the video.
        flip = np.array([1.0, -1.0, 1.0])  # y points down in camera coordinates, up in FLAME's.
        rotation = flip[:, None] * rotation_matrix(pose.yaw_deg, self.pitch_deg, pose.roll_deg) * flip
        return ((self.template + CENTER_M) @ rotation.T + JOINT_M).astype(np.float32)


def parse_pitch(text: str) -> float:
    """The pitch in `mean_head:PITCH_DEG`; `PITCH_DEG` if the text is empty.

    Raises:
        ConfigError: The text is not a number.
    """
    try:
        return float(text) if text else PITCH_DEG
    except ValueError as error:
        raise ConfigError(
            f"`mean_head:{text}` names no pitch. Write degrees behind the colon, positive looks up: `mean_head:-15`."
        ) from error
