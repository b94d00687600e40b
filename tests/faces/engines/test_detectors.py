import numpy as np
import pytest
from onnx_models import EDGES, POINTS, SECOND_ANCHOR, Graph, save_recognizer, save_scrfd, save_yunet

from likeness.errors import WeightsError
from likeness.faces.engines.detectors import Scrfd, YuNet, letterbox, non_maximum_suppression

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def scrfd_file(folder):
    return save_scrfd(folder / "det_10g.onnx")


@pytest.fixture(scope="module")
def scrfd(scrfd_file):
    return Scrfd(scrfd_file)


@pytest.fixture(scope="module")
def yunet_file(folder):
    return save_yunet(folder / "yunet.onnx")


@pytest.fixture(scope="module")
def yunet(yunet_file):
    return YuNet(yunet_file)


def black(height=640, width=640):
    return np.zeros((height, width, 3), np.uint8)


def paint(picture, column, row, side, color):
    """Fill one cell of a grid of `side` pixels."""
    picture[row * side : (row + 1) * side, column * side : (column + 1) * side] = color
    return picture


def around(column, row, stride, share=1.0):
    """Box and landmarks of SCRFD's test model for one cell, by hand."""
    x, y, (left, top, right, bottom) = column * stride, row * stride, EDGES[stride]
    left, top, right, bottom = (edge * stride * share for edge in (left, top, right, bottom))
    return (x - left, y - top, x + right, y + bottom), POINTS * stride * share + (x, y)


@pytest.mark.parametrize(("stride", "color", "share"), [(8, RED, 1.0), (16, GREEN, SECOND_ANCHOR), (32, BLUE, 1.0)])
def test_scrfd_decodes_each_stride_and_anchor(scrfd, stride, color, share):
    (found,) = scrfd.detect(paint(black(), 9, 5, stride, color))
    box, landmarks = around(9, 5, stride, share)
    assert found.box == pytest.approx(box, abs=1e-3)
    assert found.landmarks == pytest.approx(landmarks, abs=1e-3)
    assert found.layout == "eye centers"


def test_scrfd_sees_rgb_less_its_mean_over_128(scrfd):
    (found,) = scrfd.detect(paint(black(), 9, 5, 8, RED))
    assert found.score == pytest.approx(0.75 * 127.5 / 128, abs=1e-5)
    assert not scrfd.detect(paint(black(), 9, 5, 8, BLUE)), "only red counts at this stride"


def test_scrfd_comes_back_to_the_pixels_of_a_larger_picture(scrfd):
    picture = black(960, 1280)  # Shrunk by a half; the middle of three by three cells stays pure.
    picture[5 * 16 - 16 : 5 * 16 + 32, 9 * 16 - 16 : 9 * 16 + 32] = RED
    best = max(scrfd.detect(picture), key=lambda detection: detection.score)
    box, landmarks = around(9, 5, 8)
    assert best.box == pytest.approx(np.array(box) * 2, abs=1e-3)
    assert best.landmarks == pytest.approx(landmarks * 2, abs=1e-3)


def test_scrfd_does_not_enlarge_what_is_small(scrfd):
    (found,) = scrfd.detect(paint(black(64, 96), 6, 4, 8, RED))
    assert found.box == pytest.approx(around(6, 4, 8)[0], abs=1e-3)


def test_scrfd_with_a_free_size_looks_at_640(folder):
    free = Scrfd(save_scrfd(folder / "free.onnx", side=None))
    (found,) = free.detect(paint(black(), 70, 60, 8, RED))
    assert found.box == pytest.approx(around(70, 60, 8)[0], abs=1e-3)


def test_of_overlapping_faces_the_surer_one_stays(scrfd):
    picture = paint(paint(black(), 9, 5, 8, (235, 0, 0)), 10, 5, 8, RED)
    (found,) = scrfd.detect(picture)
    assert found.box == pytest.approx(around(10, 5, 8)[0], abs=1e-3)
    assert len(scrfd.detect(paint(picture, 30, 5, 8, RED))) == 2, "faces apart stay both"


def test_guesses_are_listed_below_the_score_that_counts(scrfd):
    (guess,) = scrfd.detect(paint(black(), 9, 5, 8, (160, 0, 0)))
    assert 0.2 < guess.score < scrfd.min_score


@pytest.mark.parametrize(("stride", "color"), [(8, BLUE), (16, GREEN), (32, RED)])
def test_yunet_decodes_each_stride_of_bgr(yunet, stride, color):
    (found,) = yunet.detect(paint(black(), 9, 5, stride, color))
    center, half = np.array([9.5, 5.0]) * stride, np.exp([1.0, 2.0]) * stride / 2
    assert found.box == pytest.approx([*(center - half), *(center + half)], abs=1e-3)
    assert found.landmarks == pytest.approx((POINTS + np.array([9, 5])) * stride, abs=1e-3)
    assert found.score == pytest.approx(0.9, abs=1e-5)


def test_yunets_score_is_a_geometric_mean(yunet):
    (found,) = yunet.detect(paint(black(), 9, 5, 8, (0, 0, 102)))
    assert found.score == pytest.approx((0.4 * 0.81) ** 0.5, abs=1e-5)


def test_yunet_matches_opencv(yunet, yunet_file):
    cv2 = pytest.importorskip("cv2")
    picture = paint(paint(paint(black(), 9, 5, 8, BLUE), 20, 25, 16, GREEN), 10, 8, 32, RED)
    ours = sorted(yunet.detect(picture), key=lambda detection: detection.box[0])
    detector = cv2.FaceDetectorYN.create(str(yunet_file), "", (640, 640), 0.6, 0.3, 5000)
    _, rows = detector.detect(np.ascontiguousarray(picture[..., ::-1]))
    assert len(ours) == len(rows) == 3
    for found, row in zip(ours, sorted(rows, key=lambda row: row[0]), strict=True):
        assert found.box == pytest.approx([row[0], row[1], row[0] + row[2], row[1] + row[3]], abs=1e-2)
        assert found.landmarks.ravel() == pytest.approx(row[4:14], abs=1e-2)
        assert found.score == pytest.approx(row[14], abs=1e-4)


def test_scrfd_matches_insightface(scrfd, scrfd_file):
    retinaface = pytest.importorskip("insightface.model_zoo.retinaface")
    import onnxruntime

    reference = retinaface.RetinaFace(str(scrfd_file), onnxruntime.InferenceSession(str(scrfd_file)))
    picture = paint(paint(black(480), 9, 5, 8, (235, 0, 0)), 10, 5, 8, RED)
    paint(paint(picture, 20, 25, 16, GREEN), 15, 3, 32, BLUE)
    boxes, points = reference.detect(np.ascontiguousarray(picture[..., ::-1]), input_size=(640, 640))
    ours = [found for found in scrfd.detect(picture) if found.score >= scrfd.min_score]
    order, ours = np.argsort(boxes[:, 0]), sorted(ours, key=lambda found: found.box[0])
    assert len(ours) == len(boxes) == 3
    for found, box, landmarks in zip(ours, boxes[order], points[order], strict=True):
        assert [*found.box, found.score] == pytest.approx(box, abs=1e-3)
        assert found.landmarks == pytest.approx(landmarks, abs=1e-3)


def test_suppression_matches_loops():
    random = np.random.default_rng(0)
    corners = random.uniform(0, 60, (40, 2))
    boxes = np.concatenate([corners, corners + random.uniform(10, 40, (40, 2))], axis=1)
    scores = random.uniform(size=40)

    def overlap(a, b, edge):
        shared = [max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i]) + edge) for i in (0, 1)]
        areas = [(box[2] - box[0] + edge) * (box[3] - box[1] + edge) for box in (a, b)]
        return shared[0] * shared[1] / (sum(areas) - shared[0] * shared[1])

    for edge in (0, 1):
        expected = []
        for index in sorted(range(40), key=lambda index: -scores[index]):
            if all(overlap(boxes[index], boxes[other], edge) <= 0.4 for other in expected):
                expected.append(index)
        assert non_maximum_suppression(boxes, scores, max_iou=0.4, edge_px=edge) == expected
        assert 5 < len(expected) < 40


def test_a_letterbox_lies_in_the_upper_left():
    canvas, scale = letterbox(np.full((300, 1200, 3), 200, np.uint8), 640)
    assert scale == pytest.approx(640 / 1200)
    assert (canvas[:160] == 200).all()
    assert not canvas[160:].any()


def test_a_model_of_another_kind_is_refused(folder):
    recognizer = save_recognizer(folder / "recognizer.onnx", width=512)
    with pytest.raises(WeightsError, match="1 outputs; SCRFD with landmarks has nine"):
        Scrfd(recognizer)
    with pytest.raises(WeightsError, match="lacks the outputs bbox_16"):
        YuNet(recognizer)


def test_a_damaged_file_is_refused(folder):
    (folder / "damaged.onnx").write_bytes(b"no model")
    with pytest.raises(WeightsError, match="Pull its weights again"):
        Scrfd(folder / "damaged.onnx")


def test_an_oblong_input_is_refused(folder):
    graph = Graph([1, 3, 320, 640], "input.1")
    for index in range(9):
        graph.give(graph.per_cell([[0, 0, 0]], [0], 8), f"out{index}", [1, 1, 40, 80])
    with pytest.raises(WeightsError, match="side, side"):
        Scrfd(graph.save(folder / "oblong.onnx"))
