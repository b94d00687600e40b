import math

import cv2
import numpy as np
import pytest
from made_inputs import SQUARE, SQUARE_SIZE, make_inputs, make_references
from made_videos import texture

from likeness.evaluation.features.farneback import FARNEBACK
from likeness.evaluation.features.flow import (
    dynamic_threshold_px,
    is_dynamic,
    mean_in_box,
    measure_flow,
    sample_interval,
    signed_mean,
    top_mean,
)
from likeness.evaluation.metrics.landmark_motion import (
    frame_motion_between_frames,
    frame_motion_from_reference,
    motion_between_frames,
    motion_from_reference,
    normalize,
    sizes,
)
from likeness.evaluation.metrics.registry import METRICS


def turned(points, degrees):
    angle = math.radians(degrees)
    return points @ np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def test_size_of_a_face_is_the_rms_distance_from_its_middle():
    assert sizes(SQUARE) == pytest.approx(math.sqrt((4 * 2 + 0) / 5))
    assert sizes(3 * SQUARE + 7) == pytest.approx(3 * SQUARE_SIZE)


def test_fm_ref_ignores_place_and_size_and_sees_a_tilt():
    references = np.stack([SQUARE])
    assert motion_from_reference(np.stack([5 * SQUARE + 40]), references) == pytest.approx([0])
    # A turn by angle a moves each point by 2 sin(a / 2) of its radius: together sqrt(5) sizes.
    expected = 2 * math.sin(math.radians(10)) * math.sqrt(5)
    assert motion_from_reference(np.stack([turned(SQUARE, 20)]), references) == pytest.approx([expected])


def test_fm_ref_is_the_mean_over_references():
    references = np.stack([SQUARE, turned(SQUARE, 20)])
    expected = 2 * math.sin(math.radians(10)) * math.sqrt(5) / 2
    inputs = make_inputs(references=make_references([[1, 0], [1, 0]], references))
    assert METRICS["fm_ref"].compute_for_video(inputs) == pytest.approx(expected)


def test_fm_inter_keeps_translation_and_takes_the_largest_step():
    landmarks = np.stack([SQUARE, SQUARE + np.array([0.3, 0.4]), SQUARE + np.array([0.3, 2.4])])
    steps = np.array([0.5, 2.0]) * math.sqrt(5) / SQUARE_SIZE
    assert motion_between_frames(landmarks) == pytest.approx(steps)
    inputs = make_inputs(landmarks=landmarks)
    assert METRICS["fm_inter"].compute_for_video(inputs) == pytest.approx(steps[1])
    assert METRICS["fm_inter_mean"].compute_for_video(inputs) == pytest.approx(steps.mean())


def test_fm_inter_needs_a_face_in_both_frames_and_one_frame_has_none():
    inputs = make_inputs([[1, 0], [math.nan] * 2, [1, 0]])
    assert math.isnan(METRICS["fm_inter"].compute_for_video(inputs))
    assert math.isnan(METRICS["fm_inter"].compute_for_video(make_inputs([[1, 0]])))
    assert METRICS["fm_ref"].compute_for_video(make_inputs([[1, 0]], make_references([[1, 0]]))) == 0


def test_landmarks_in_one_point_have_no_motion():
    assert np.isnan(normalize(np.zeros((5, 2)))).all()
    assert np.isnan(motion_between_frames(np.zeros((2, 5, 2)))).all()


def test_landmark_motion_matches_naive_loops():
    random = np.random.default_rng(0)
    landmarks, reference = random.normal(size=(4, 5, 2)), random.normal(size=(5, 2))

    def unit(points):
        middle = [sum(point[axis] for point in points) / 5 for axis in (0, 1)]
        size = math.sqrt(sum(math.dist(point, middle) ** 2 for point in points) / 5)
        return [[(point[axis] - middle[axis]) / size for axis in (0, 1)] for point in points], size

    expected = [
        math.sqrt(sum(math.dist(a, b) ** 2 for a, b in zip(unit(frame)[0], unit(reference)[0], strict=True)))
        for frame in landmarks
    ]
    assert motion_from_reference(landmarks, reference[None]) == pytest.approx(expected)
    steps = [
        math.sqrt(sum(math.dist(a, b) ** 2 for a, b in zip(landmarks[i], landmarks[i + 1], strict=True)))
        / ((unit(landmarks[i])[1] + unit(landmarks[i + 1])[1]) / 2)
        for i in range(3)
    ]
    assert motion_between_frames(landmarks) == pytest.approx(steps)


def test_a_known_shift_is_measured_in_pixels():
    frames = np.stack([texture(0), texture(2), texture(4)])
    boxes = np.array([[20, 20, 70, 70]] * 3, dtype=np.float32)
    flow = measure_flow(frames, 8.0, np.arange(3), boxes)
    assert flow["face_px"][:2] == pytest.approx([2, 2], abs=0.1)
    assert math.isnan(flow["face_px"][2])
    assert flow["magnitude_px"] == pytest.approx([2, 2], abs=0.3)
    # Only one of two components moves, and the signed mean is over both.
    assert flow["signed_px"] == pytest.approx([1, 1], abs=0.15)


def test_motion_score_cancels_there_and_back_and_face_flow_does_not():
    frames = np.stack([texture(0), texture(2), texture(0)])
    boxes = np.array([[20, 20, 70, 70]] * 3, dtype=np.float32)
    features = {"flow": measure_flow(frames, 8.0, np.arange(3), boxes), "faces": {"box": boxes}}
    inputs = make_inputs(features=features)
    assert METRICS["motion_score"].compute_for_video(inputs) < 0.1
    assert METRICS["face_flow"].compute_for_video(inputs) == pytest.approx(2, abs=0.1)
    assert METRICS["face_flow_relative"].compute_for_video(inputs) == pytest.approx(100 * 2 / 50, abs=0.2)


def test_flow_matches_a_naive_script():
    frames = np.stack([texture(0), texture(3), texture(4)])
    boxes = np.array([[-5, 10, 60, 200.5]] * 3, dtype=np.float32)
    flow = measure_flow(frames, 8.0, np.arange(3), boxes)
    for index in range(2):
        before, after = (cv2.cvtColor(frames[i], cv2.COLOR_BGR2GRAY) for i in (index, index + 1))
        field = cv2.calcOpticalFlowFarneback(before, after, None, 0.5, 3, 15, 3, 5, 1.2, 0)
        lengths = np.sqrt(field[..., 0] ** 2 + field[..., 1] ** 2)
        fastest = np.mean(abs(np.sort(-lengths.flatten()))[: int(lengths.size * 0.05)])
        small = cv2.resize(field, (16, int(96 * (16 / 96))), interpolation=cv2.INTER_AREA)
        assert flow["magnitude_px"][index] == pytest.approx(lengths.mean(), rel=1e-5)
        assert flow["fast_px"][index] == pytest.approx(fastest, rel=1e-5)
        assert flow["signed_px"][index] == pytest.approx(small.mean(), abs=1e-6)
        assert flow["face_px"][index] == pytest.approx(lengths[10:96, 0:60].mean(), rel=1e-5)
    assert FARNEBACK["winsize"] == 15


def test_fast_videos_are_looked_at_eight_times_a_second():
    assert [sample_interval(fps) for fps in (1, 8, 11.9, 12.1, 24, 30)] == [1, 1, 1, 2, 3, 4]
    frames = np.stack([texture(shift) for shift in (0, 1, 2, 3, 4, 5, 6)])
    flow = measure_flow(frames, 24.0, np.zeros(0, dtype=int), np.zeros((0, 4)))
    assert len(flow["magnitude_px"]) == 6
    assert np.median(flow["fast_px"]) == pytest.approx(3, abs=0.6)
    assert len(flow["fast_px"]) == 2


def test_dynamic_needs_a_quarter_of_the_frames_above_the_threshold():
    assert dynamic_threshold_px(480, 720, 8.0) == 11.25
    assert dynamic_threshold_px(480, 720, 4.0) == 22.5
    fast = np.array([12.0] * 11 + [0.0] * 37)
    assert not is_dynamic(fast, 11.25, 49)  # round(12.25) = 12 are needed.
    fast[11] = 12
    assert is_dynamic(fast, 11.25, 49)
    assert not is_dynamic(np.zeros(1), 1.0, 2)


def test_one_frame_has_no_motion_at_all():
    flow = measure_flow(texture()[None], 8.0, np.array([0]), np.array([[0, 0, 9, 9]], dtype=np.float32))
    inputs = make_inputs([[1, 0]], features={"flow": flow, "faces": {"box": np.array([[0, 0, 9, 9]])}})
    for name in ("motion_score", "dynamic_degree_farneback", "fast_flow_farneback", "face_flow"):
        assert math.isnan(METRICS[name].compute_for_video(inputs)), name


def test_top_mean_and_boxes_by_hand():
    assert top_mean(np.arange(40.0)) == 38.5
    assert top_mean(np.array([3.0])) == 3
    assert mean_in_box(np.arange(9.0).reshape(3, 3), np.array([1, 1, 9, 9])) == 6
    assert math.isnan(mean_in_box(np.ones((3, 3)), np.array([5, 5, 9, 9])))
    assert signed_mean(np.dstack([np.full((20, 32), 4.0), np.full((20, 32), -2.0)]).astype(np.float32)) == 1


def test_fm_ref_of_the_frame_is_in_shares_of_width_and_height():
    """The same head in frames of two shapes, at another place: nothing; a tilt: its distance in shares."""
    references = (SQUARE * 10 + 50)[None]
    sizes = np.array([[100.0, 200.0]])
    stretched = (SQUARE * 10 + 90) * np.array([2.0, 1.0])
    own = np.array([200, 200])
    assert frame_motion_from_reference(stretched[None], own, references, sizes) == pytest.approx([0])
    moved = stretched.copy()
    moved[0, 0] += 20  # A tenth of the width; a fifth of it belongs to the mean.
    expected = 0.1 * math.sqrt((1 - 1 / 5) ** 2 + 4 / 25)
    assert frame_motion_from_reference(moved[None], own, references, sizes) == pytest.approx([expected])


def test_fm_inter_of_the_frame_keeps_translation_in_longer_sides():
    landmarks = np.stack([SQUARE, SQUARE + np.array([3.0, 4.0])])
    moved = frame_motion_between_frames(landmarks, np.array([100, 50]))
    assert moved == pytest.approx([5 * math.sqrt(5) / 100])


def test_a_reference_of_unknown_size_has_no_fm_ref_of_the_frame():
    inputs = make_inputs(references=make_references([[1, 0]]))
    assert math.isnan(METRICS["fm_ref_frame"].compute_for_video(inputs))
