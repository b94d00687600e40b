"""Motion of a face on synthetic scenes: a textured background, a textured square as the face, and a camera."""

import math

import cv2
import numpy as np
import pytest
from made_videos import texture

from likeness.evaluation.features.flow import measure_flow
from likeness.evaluation.features.stabilized_flow import camera_motion

SIZE, FACE, LEFT, TOP = 256, 64, 96, 70


def soft_noise(size, seed, sigma=2.0):
    noise = np.random.default_rng(seed).uniform(0, 255, (size, size)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), sigma)
    return (soft - soft.min()) / (soft.max() - soft.min()) * 255


def scene(*, head_px=0.0, mouth_px=0.0, background=None):
    """A background larger than the camera's view, and a face moved by `head_px` with a mouth opened by `mouth_px`."""
    picture = (soft_noise(2 * SIZE, 1) if background is None else background).copy()
    face = soft_noise(FACE, 2)
    rows, columns = np.meshgrid(np.arange(FACE), np.arange(FACE), indexing="ij")
    opened = np.where(rows > FACE // 2, rows - mouth_px, rows).astype(np.float32)
    face = cv2.remap(face, columns.astype(np.float32), opened, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    move = np.array([[1, 0, SIZE // 2 + LEFT + head_px], [0, 1, SIZE // 2 + TOP]], dtype=np.float64)
    size = (2 * SIZE, 2 * SIZE)
    mask = cv2.warpAffine(np.ones_like(face), move, size, flags=cv2.INTER_LINEAR)
    return picture * (1 - mask) + mask * cv2.warpAffine(face, move, size, borderMode=cv2.BORDER_REPLICATE)


def shoot(picture, *, pan_px=0.0, zoom=1.0, roll_deg=0.0):
    """What the camera sees: (height, width, 3) uint8."""
    turn = cv2.getRotationMatrix2D((SIZE, SIZE), roll_deg, zoom)
    turn[:, 2] -= SIZE // 2
    turn[0, 2] -= pan_px
    seen = cv2.warpAffine(picture, turn, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.repeat(seen.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def flow_of(first, second):
    box = np.array([[LEFT, TOP, LEFT + FACE, TOP + FACE]] * 2, dtype=np.float32)
    flow = measure_flow(np.stack([first, second]), 8.0, np.arange(2), box)
    return {name: float(flow[name][0]) for name in ("face_px", "face_crop_px", "face_camera_px")}


def test_a_camera_that_pans_over_a_still_face_moves_nothing():
    flow = flow_of(shoot(scene()), shoot(scene(), pan_px=4))
    assert flow["face_px"] == pytest.approx(4, abs=0.3)
    assert flow["face_crop_px"] < 0.05 * flow["face_px"]
    assert flow["face_camera_px"] < 0.05 * flow["face_px"]


def test_a_camera_that_zooms_and_rolls_moves_nothing():
    flow = flow_of(shoot(scene()), shoot(scene(), zoom=1.04, roll_deg=1.5, pan_px=2))
    assert flow["face_px"] > 1.5
    assert flow["face_camera_px"] < 0.1 * flow["face_px"]


def test_a_head_that_moves_before_a_still_background_counts_unless_the_crop_follows_it():
    flow = flow_of(shoot(scene()), shoot(scene(head_px=3)))
    assert flow["face_camera_px"] == pytest.approx(flow["face_px"], rel=0.02)
    assert flow["face_camera_px"] > 2
    assert flow["face_crop_px"] < 0.25 * flow["face_camera_px"]


@pytest.mark.parametrize("pan_px", [0, 5])
def test_a_mouth_that_opens_counts_whatever_the_camera_does(pan_px):
    still = flow_of(shoot(scene()), shoot(scene(mouth_px=3)))
    flow = flow_of(shoot(scene()), shoot(scene(mouth_px=3), pan_px=pan_px))
    assert still["face_crop_px"] > 0.8
    for name in ("face_crop_px", "face_camera_px"):
        assert flow[name] == pytest.approx(still[name], rel=0.15)


def test_a_plain_background_does_not_show_the_cameras_motion():
    plain = np.full((2 * SIZE, 2 * SIZE), 128, dtype=np.float32)
    flow = flow_of(shoot(scene(background=plain)), shoot(scene(background=plain), pan_px=4))
    assert math.isnan(flow["face_camera_px"])
    assert flow["face_crop_px"] < 0.1 * flow["face_px"]


def test_the_cameras_motion_is_the_similarity_of_the_background():
    gray = texture(size=200)[..., 0]
    flow = np.zeros((200, 200, 2), dtype=np.float32)
    flow[..., 0], flow[..., 1] = 3, -1
    motion = camera_motion(gray, flow, np.zeros((0, 4)))
    np.testing.assert_allclose(motion, [[1, 0, 3], [0, 1, -1]], atol=1e-3)
    everywhere = np.array([[0, 0, 200, 200]])
    assert camera_motion(gray, flow, everywhere) is None
