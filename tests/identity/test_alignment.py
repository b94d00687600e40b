import numpy as np
import pytest
import torch

from likeness.faces.engines.onnx_engine import CHIP_POINTS, CHIP_PX
from likeness.faces.geometry.align import apply_affine, fit_similarity, rotation_matrix, warp
from likeness.faces.geometry.layouts import EYE_CENTERS, EYE_CORNERS
from likeness.identity.encoders.alignment import align_faces, arcface_template, crop_corners
from likeness.identity.encoders.recognizer import TEMPLATE

HALF_A_LEVEL = 0.51
"""Gray levels: the engine rounds its crop to uint8, and the rest is float32 against float64."""


def face(*, scale=1.0, turn_deg=0.0, center=(180.0, 150.0), layout=EYE_CENTERS):
    turn = scale * np.exp(1j * np.deg2rad(turn_deg))
    points = (layout.template - layout.template.mean(0)) * 150
    moved = turn * (points[:, 0] + 1j * points[:, 1]) + complex(*center)
    return np.stack([moved.real, moved.imag], axis=1)


def picture(height=300, width=360):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 12, width // 12, 3)).astype(np.uint8)
    return np.kron(coarse, np.ones((12, 12, 1), np.uint8))


@pytest.mark.parametrize(
    "points",
    [
        face(),
        face(scale=0.4, turn_deg=30),
        face(scale=2.5, turn_deg=-15),  # shrinks by more than two: blocks are averaged
        face(scale=3.6),
        face(center=(20.0, 30.0)),  # over the edge of the picture
    ],
    ids=["upright", "small", "large", "larger", "edge"],
)
def test_matches_the_crop_of_the_engine(points):
    image = picture()
    expected = warp(image, fit_similarity(points, CHIP_POINTS), CHIP_PX, fill=0).astype(np.float64)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
    crops = align_faces(
        pixels.float(), torch.tensor(points, dtype=torch.float32)[None], arcface_template(EYE_CENTERS), CHIP_PX,
        fill=-1.0, antialias=True,
    )  # fmt: skip
    found = (crops[0].permute(1, 2, 0).double().numpy() + 1) * 127.5
    assert np.abs(found - expected).max() < HALF_A_LEVEL


def test_faces_of_one_batch_may_need_different_blocks():
    pixels = torch.from_numpy(picture()).permute(2, 0, 1)[None].float().expand(2, -1, -1, -1)
    points = torch.tensor(np.stack([face(), face(scale=3.0)]), dtype=torch.float32)
    template = arcface_template(EYE_CENTERS)
    both = align_faces(pixels, points, template, 112, antialias=True)
    for row in range(2):
        alone = align_faces(pixels[:1], points[row : row + 1], template, 112, antialias=True)
        torch.testing.assert_close(both[row], alone[0])


@pytest.mark.parametrize("fill", [None, -1.0])
def test_gradients_are_right_in_the_picture_and_in_the_landmarks(fill):
    torch.manual_seed(0)
    pixels = torch.rand(2, 2, 16, 20, dtype=torch.float64, requires_grad=True)
    points = torch.tensor(np.stack([face(scale=0.07, center=(9.1, 8.2)), face(scale=0.05, turn_deg=20, center=(8, 7))]))
    points.requires_grad_()
    template = arcface_template(EYE_CENTERS).double()
    assert torch.autograd.gradcheck(lambda x, p: align_faces(x, p, template, 6, fill=fill), (pixels, points))


def test_gradients_are_right_through_averaged_blocks():
    pixels = torch.rand(1, 1, 24, 24, dtype=torch.float64, requires_grad=True)
    points = torch.tensor(face(scale=0.12, center=(12, 12)))[None]
    template = arcface_template(EYE_CENTERS).double()
    crop = lambda x: align_faces(x, points, template, 5, fill=-1.0, antialias=True)  # noqa: E731
    assert torch.autograd.gradcheck(crop, (pixels,))


def test_landmarks_are_mapped_to_the_template_in_frames_that_are_no_squares():
    # Fitted in coordinates from -1 to 1, a similarity would be stretched by the frame's aspect.
    ramp = torch.stack(torch.meshgrid(torch.arange(60.0), torch.arange(90.0), indexing="ij")).flip(0)[None]
    points = torch.tensor(face(scale=0.2, turn_deg=25, center=(50, 30)), dtype=torch.float32)[None]
    template = torch.tensor(EYE_CENTERS.template)
    crop = align_faces(ramp, points, template, 224)[0]
    for (x, y), wanted in zip((template * 224 - 0.5).round().long().tolist(), points[0], strict=True):
        torch.testing.assert_close(crop[:, y, x], wanted, atol=0.2, rtol=0)


def test_corners_are_those_of_the_crop():
    points = torch.tensor(face(turn_deg=10), dtype=torch.float32)[None]
    corners = crop_corners(points, arcface_template(EYE_CENTERS))[0].double().numpy()
    chip = apply_affine(fit_similarity(points[0].numpy(), CHIP_POINTS), corners)
    edges = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * CHIP_PX - 0.5
    np.testing.assert_allclose(chip, edges, atol=1e-3)


def displacement(yaw_deg, pitch_deg):
    """How far the crop by dlib's points lies from the one by ArcFace's, of the mean head: px of 112, largest corner."""
    corners = []
    for layout in (EYE_CENTERS, EYE_CORNERS):
        head = (layout.head_points @ rotation_matrix(yaw_deg, pitch_deg, 0).T)[:, :2] * 15 + 150
        corners.append(crop_corners(torch.tensor(head)[None], arcface_template(layout).double())[0])
    side = (corners[0][1] - corners[0][0]).norm()
    return float((corners[0] - corners[1]).norm(dim=-1).max() / side) * CHIP_PX


def test_dlibs_points_give_arcfaces_crop_of_a_frontal_mean_head_and_nearly_that_of_a_turned_one():
    assert displacement(0, 0) < 0.1
    assert max(displacement(yaw, pitch) for yaw in (-30, 0, 30) for pitch in (-15, 0, 15)) < 8
    assert displacement(30, 0) > 3  # It is no exact crop.


def test_arcfaces_template_is_its_own_where_the_points_are():
    torch.testing.assert_close(
        arcface_template(EYE_CENTERS), torch.tensor((CHIP_POINTS + 0.5) / 112, dtype=torch.float32)
    )
    corners = arcface_template(EYE_CORNERS)
    eyes = torch.stack([corners[:2].mean(0), corners[2:4].mean(0)])
    torch.testing.assert_close(eyes, arcface_template(EYE_CENTERS)[:2], atol=0.02, rtol=0)
    assert TEMPLATE.shape == corners.shape
