import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from likeness.errors import ConfigError, FaceError
from likeness.faces import EYE_CENTERS, EYE_CORNERS, LAYOUTS, get_layout
from likeness.faces.geometry import align as geometry
from likeness.faces.geometry import layouts
from likeness.records import Pose


def similarity_matrix(angle_deg, scale, shift):
    angle = np.deg2rad(angle_deg)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, shift])


def project(yaw_deg, pitch_deg, roll_deg, *, distance_cm=60.0, layout=EYE_CORNERS):
    """Landmarks of the mean head in a photograph from `distance_cm` away."""
    points = layout.head_points @ geometry.rotation_matrix(yaw_deg, pitch_deg, roll_deg).T
    return 300 + 800 * points[:, :2] / (distance_cm - points[:, 2:])


def test_fit_finds_the_similarity_that_was_applied():
    points = np.random.default_rng(0).normal(size=(5, 2))
    matrix = similarity_matrix(33, 1.7, (4, -9))
    np.testing.assert_allclose(
        geometry.fit_similarity(points, geometry.apply_affine(matrix, points)), matrix, atol=1e-12
    )


def test_fit_matches_least_squares_on_noisy_points():
    random = np.random.default_rng(1)
    source, target = random.normal(size=(2, 5, 2))
    # a x - b y + tx, b x + a y + ty, as one linear system in (a, b, tx, ty).
    x, y = source.T
    one, zero = np.ones(5), np.zeros(5)
    system = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    a, b, tx, ty = np.linalg.lstsq(system, target.T.ravel(), rcond=None)[0]
    np.testing.assert_allclose(geometry.fit_similarity(source, target), [[a, -b, tx], [b, a, ty]], atol=1e-12)


def test_warp_by_the_identity_changes_nothing():
    picture = np.random.default_rng(2).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    assert np.array_equal(geometry.warp(picture, similarity_matrix(0, 1, (0, 0)), 20), picture)


def test_warp_by_whole_pixels_matches_slicing():
    picture = np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    shifted = geometry.warp(picture, similarity_matrix(0, 1, (-7, -5)), 20)
    assert np.array_equal(shifted, picture[5:25, 7:27])


def test_warp_matches_bilinear_interpolation_written_as_loops():
    picture = np.random.default_rng(4).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    matrix = similarity_matrix(20, 1.3, (1.2, -2.1))
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    result = geometry.warp(picture, matrix, 10)
    for row in range(10):
        for column in range(10):
            x, y, _ = inverse @ (column, row, 1)
            x, y = np.clip(x, 0, 11), np.clip(y, 0, 11)
            expected = sum(
                picture[j, i] * (1 - abs(x - i)) * (1 - abs(y - j))
                for i in range(12)
                for j in range(12)
                if abs(x - i) < 1 and abs(y - j) < 1
            )
            assert np.abs(result[row, column] - expected).max() <= 0.51


@pytest.mark.parametrize(("seed", "scale"), list(enumerate(np.geomspace(0.1, 8, 12))))
def test_warp_matches_scipy_on_any_picture(seed, scale):
    """Sides of 1 to 96 px, any angle, partly outside, each channel with a fill of its own."""
    random = np.random.default_rng(seed)
    picture = random.integers(0, 256, (*random.integers(1, 97, 2), 3), dtype=np.uint8)
    size_px = int(random.integers(8, 65))
    matrix = similarity_matrix(random.uniform(-180, 180), scale, (0, 0))
    center = random.uniform(0, 1, 2) * picture.shape[1::-1]
    matrix[:, 2] = random.uniform(0, size_px, 2) - matrix[:, :2] @ center
    # What shrinks to less than half is averaged in blocks, whose rest at the right and the bottom is left out.
    block = min(round(1 / scale) if scale <= 0.5 else 1, *picture.shape[:2])
    height, width = (side // block for side in picture.shape[:2])
    blocks = picture[: height * block, : width * block].reshape(height, block, width, block, 3).mean(axis=(1, 3))
    row, column = np.mgrid[:size_px, :size_px]
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    x, y = (geometry.apply_affine(inverse, np.stack([column, row], axis=-1)) - (block - 1) / 2).reshape(-1, 2).T / block
    expected = [
        map_coordinates(blocks[..., channel], (y, x), order=1, mode="nearest", prefilter=False) for channel in range(3)
    ]
    expected = np.stack(expected, axis=1).reshape(size_px, size_px, 3)
    assert np.abs(geometry.warp(picture, matrix, size_px) - expected).max() <= 0.5 + 1e-3
    is_outside = ((x < 0) | (y < 0) | (x >= width - 1) | (y >= height - 1)).reshape(size_px, size_px)
    expected[is_outside] = (10, 200, 90)
    assert np.abs(geometry.warp(picture, matrix, size_px, fill=(10, 200, 90)) - expected).max() <= 0.5 + 1e-3


def test_a_strong_shrink_averages_instead_of_aliasing():
    stripes = np.zeros((160, 160, 3), np.uint8)
    stripes[:, ::2] = 200
    shrunk = geometry.warp(stripes, similarity_matrix(0, 1 / 8, (0, 0)), 18)
    assert np.abs(shrunk.astype(float) - 100).max() <= 1
    ramp = np.arange(160, dtype=np.uint8)[None, :, None].repeat(160, 0).repeat(3, 2)
    shrunk = geometry.warp(ramp, similarity_matrix(0, 1 / 8, (0, 0)), 18)
    np.testing.assert_allclose(shrunk[5, 1:17, 0], np.arange(1, 17) * 8, atol=1)


def test_outside_is_filled_or_repeats_the_edge():
    picture = np.full((10, 10, 3), 50, np.uint8)
    matrix = similarity_matrix(0, 1, (20, 20))
    assert (geometry.warp(picture, matrix, 10) == 50).all()
    assert (geometry.warp(picture, matrix, 10, fill=(7, 8, 9)) == (7, 8, 9)).all()


def test_head_crop_puts_landmarks_on_the_template():
    landmarks = geometry.apply_affine(similarity_matrix(15, 90, (40, 60)), geometry.HEAD_TEMPLATE)
    matrix = geometry.fit_similarity(landmarks, geometry.HEAD_TEMPLATE * 224)
    np.testing.assert_allclose(geometry.apply_affine(matrix, landmarks), geometry.HEAD_TEMPLATE * 224, atol=1e-3)
    picture = np.full((200, 200, 3), 90, np.uint8)
    assert geometry.crop_head(picture, landmarks).shape == (224, 224, 3)


@pytest.mark.parametrize(
    ("pose", "claim"),
    [
        ((20, 0, 0), lambda p: p.yaw_deg > 15),
        ((-20, 0, 0), lambda p: p.yaw_deg < -15),
        ((0, 15, 0), lambda p: p.pitch_deg > 10),
        ((0, -15, 0), lambda p: p.pitch_deg < -10),
        ((0, 0, 30), lambda p: p.roll_deg > 27),
        ((0, 0, 0), lambda p: max(abs(p.yaw_deg), abs(p.pitch_deg), abs(p.roll_deg)) < 3),
    ],
)
@pytest.mark.parametrize("layout", [EYE_CORNERS, EYE_CENTERS], ids=lambda layout: layout.name)
def test_head_pose_has_the_signs_of_the_record(pose, claim, layout):
    assert claim(geometry.head_pose(project(*pose, layout=layout), layout=layout))


def test_turning_right_moves_the_nose_to_the_right_of_the_picture():
    eyes_and_nose = project(25, 0, 0)
    assert eyes_and_nose[4, 0] > eyes_and_nose[:4, 0].mean()
    assert project(0, 20, 0)[4, 1] < project(0, 0, 0)[4, 1], "looking up lifts the nose"
    assert project(0, 0, 20)[3, 1] > project(0, 0, 20)[0, 1], "a clockwise tilt lowers the eye at the right"


@pytest.mark.parametrize("layout", [EYE_CORNERS, EYE_CENTERS], ids=lambda layout: layout.name)
def test_head_pose_recovers_synthetic_heads(layout):
    random = np.random.default_rng(5)
    truths = random.uniform(-1, 1, (300, 3)) * (45, 25, 30)
    errors = []
    for truth in truths:
        landmarks = project(*truth, layout=layout)
        noise_px = 0.02 * abs(project(0, 0, 0)[1, 0] - project(0, 0, 0)[2, 0]) * random.normal(size=(5, 2))
        pose = geometry.head_pose(landmarks + noise_px, layout=layout)
        errors.append(np.abs(np.array([pose.yaw_deg, pose.pitch_deg, pose.roll_deg]) - truth))
    yaw_deg, pitch_deg, roll_deg = np.mean(errors, axis=0)
    assert yaw_deg < 4
    assert pitch_deg < 4
    assert roll_deg < 2


def test_points_without_extent_have_no_pose():
    assert geometry.head_pose(np.ones((5, 2))) == Pose(yaw_deg=0.0, pitch_deg=0.0, roll_deg=0.0)


def test_the_head_crop_is_the_same_whichever_points_an_engine_finds():
    for pose in ((0, 0, 0), (0, 0, 20)):
        points = {layout.name: project(*pose, distance_cm=1e4, layout=layout) for layout in LAYOUTS.values()}
        corners, centers = (
            geometry.fit_similarity(points[layout.name], layout.template * 224) for layout in LAYOUTS.values()
        )
        here = points["eye corners"]
        assert np.abs(geometry.apply_affine(corners, here) - geometry.apply_affine(centers, here)).max() < 1.5, (
            "of 224 pixels"
        )


def test_the_template_of_eye_centers_is_the_mean_head_on_the_template_of_eye_corners():
    onto = geometry.fit_similarity(EYE_CORNERS.head_points[:, :2], EYE_CORNERS.template)
    np.testing.assert_allclose(
        geometry.apply_affine(onto, EYE_CENTERS.head_points[:, :2]), EYE_CENTERS.template, atol=1e-4
    )


def test_a_heads_own_layout_is_never_refused_and_another_mostly_is():
    random = np.random.default_rng(0)
    for layout in LAYOUTS.values():
        (other,) = (each for each in LAYOUTS.values() if each is not layout)
        missed = 0
        for pose in random.uniform(-1, 1, (200, 3)) * (70, 40, 180):
            landmarks = project(*pose, layout=layout) + random.normal(0, 2.0, (5, 2))
            layouts.refuse_other_layout(landmarks, layout)
            try:
                layouts.refuse_other_layout(landmarks, other)
            except FaceError:
                continue
            missed += 1
        assert missed < 20


def test_an_unknown_layout_is_refused():
    with pytest.raises(ConfigError, match="Use one of eye corners, eye centers"):
        get_layout("mouth")


@pytest.mark.parametrize(("center", "side"), [((450, 330), 300), ((20, 10), 400), ((590, 470), 500)])
def test_a_shrinking_warp_reads_only_the_blocks_that_it_needs_and_gives_the_same_pixels(center, side):
    picture = np.random.default_rng(0).integers(0, 256, (489, 611, 3), dtype=np.uint8)
    matrix = geometry.fit_similarity(
        (np.array([[0, 0], [1, 0], [0, 1]]) - 0.5) @ [[0.9, 0.3], [-0.3, 0.9]] * side + center,
        np.array([[0, 0], [64, 0], [0, 64]]),
    )
    block = round(1 / np.sqrt(np.linalg.det(matrix[:, :2])))
    height, width = 489 // block, 611 // block
    tiles = picture[: height * block, : width * block].reshape(height, block, width, block, 3)
    coarse = tiles.mean(axis=(1, 3)).astype(np.float32)
    shift = np.array([[block, 0, (block - 1) / 2], [0, block, (block - 1) / 2], [0, 0, 1]])
    whole = geometry.warp(coarse, matrix @ shift, 64)  # No longer shrinks, so reads the averaged picture as it is.
    assert block > 1
    assert np.array_equal(geometry.warp(picture, matrix, 64), whole)
