"""Small ONNX models with the inputs and outputs of the real ones. They detect colored squares and average pixel blocks.

Every output can be computed by hand: a convolution with one weight per channel covers a whole cell, and boxes and
landmarks are the same in every cell.
"""

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

STRIDES = (8, 16, 32)
# As shares of the stride: distances to the edges, then the five points of an upright face (eyes, nose, mouth).
EDGES = {8: (2.0, 2.5, 3.0, 3.5), 16: (1.0, 1.5, 2.0, 2.5), 32: (3.0, 3.0, 3.0, 3.0)}
POINTS = np.array([[-1.0, -1.0], [1.0, -1.0], [0.0, 0.1], [-0.8, 1.2], [0.8, 1.2]], np.float32)
SCRFD_OUTPUTS = {"score": ("448", "471", "494"), "bbox": ("451", "474", "497"), "kps": ("454", "477", "500")}
"""Names in `det_10g.onnx` and `scrfd_10g_bnkps.onnx`: numbers, so that only their order says what they are."""
SCRFD_WIDTHS = {"score": 1, "bbox": 4, "kps": 10}
SECOND_ANCHOR = 0.5
"""Boxes and points of SCRFD's second anchor are this many times those of the first."""


class Graph:
    def __init__(self, shape, name):
        self.nodes, self.constants, self.outputs = [], [], []
        self.input = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    def constant(self, value):
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind, *inputs, **attributes):
        name = f"{kind}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def per_cell(self, weights, bias, stride):
        """(1, channels, rows, columns): one weight for each output and input channel, averaged over a cell."""
        weights = np.asarray(weights, np.float32)[:, :, None, None] / stride**2
        kernel = np.broadcast_to(weights, (*weights.shape[:2], stride, stride))
        names = self.constant(np.ascontiguousarray(kernel)), self.constant(np.asarray(bias, np.float32))
        return self.add("Conv", self.input.name, *names, strides=[stride, stride])

    def give(self, value, name, shape):
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def save(self, path):
        graph = helper.make_graph(self.nodes, "test", [self.input], self.outputs, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        checker.check_model(model)
        save(model, path)
        return path


def save_scrfd(path, *, side=640):
    """Red squares at stride 8 (anchor 1), green ones at 16 (anchor 2), blue ones at 32 (anchor 1).

    Names and shapes are the published ones: without `side` the input is (1, 3, "?", "?"), and the outputs have the
    rows of 640 pixels.
    """
    graph = Graph([1, 3, *([side] * 2 if side else ["?", "?"])], "input.1")
    rows = [2 * ((side or 640) // stride) ** 2 for stride in STRIDES]
    scores = {
        8: [[0.5, -0.25, 0], [0, 0, 0]],
        16: [[0, 0, 0], [-0.25, 0.5, 0]],
        32: [[0, -0.25, 0.5], [0, 0, 0]],
    }
    for level, stride in enumerate(STRIDES):
        give_rows(graph, graph.per_cell(scores[stride], [0, 0], stride), "score", level, rows)
    for kind in ("bbox", "kps"):
        for level, stride in enumerate(STRIDES):
            width = SCRFD_WIDTHS[kind]
            values = np.asarray(EDGES[stride] if kind == "bbox" else POINTS.ravel(), np.float32)
            bias = np.concatenate([values, values * SECOND_ANCHOR])
            cells = graph.per_cell(np.zeros((2 * width, 3)), bias, stride)
            give_rows(graph, cells, kind, level, rows)
    return graph.save(path)


def give_rows(graph, cells, kind, level, rows):
    """(1, anchors * width, rows, columns) to (rows * columns * anchors, width), as SCRFD's export does it."""
    width = SCRFD_WIDTHS[kind]
    moved = graph.add("Transpose", cells, perm=[0, 2, 3, 1])
    flat = graph.add("Reshape", moved, graph.constant(np.array([-1, width], np.int64)))
    graph.give(flat, SCRFD_OUTPUTS[kind][level], [rows[level], width])


def save_yunet(path, *, side=640):
    """Blue squares at stride 8, green ones at 16, red ones at 32; the input is BGR, 0 to 255."""
    graph = Graph([1, 3, side, side], "input")
    channel = {8: [1, -1, -1], 16: [-1, 1, -1], 32: [-1, -1, 1]}
    for kind, width in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10)):
        for stride in STRIDES:
            # The box is as wide as e cells and as high as e * e, half a cell to the right of its own cell.
            bias = {"cls": [0.0], "obj": [0.81], "bbox": [0.5, 0.0, 1.0, 2.0], "kps": POINTS.ravel()}[kind]
            weights = np.array([channel[stride]]) / 255 if kind == "cls" else np.zeros((width, 3))
            moved = graph.add("Transpose", graph.per_cell(weights, bias, stride), perm=[0, 2, 3, 1])
            rows = graph.add("Reshape", moved, graph.constant(np.array([1, -1, width], np.int64)))
            graph.give(rows, f"{kind}_{stride}", [1, (side // stride) ** 2, width])
    return graph.save(path)


def save_landmark_model(path, *, side, width, name="data"):
    """A model of a pack that no engine reads: dense landmarks, or age and gender."""
    graph = Graph(["None", 3, side, side], name)
    means = graph.add("Flatten", graph.add("GlobalAveragePool", graph.input.name))
    graph.give(graph.add("MatMul", means, graph.constant(np.zeros((3, width), np.float32))), "fc1", [1, width])
    return graph.save(path)


def save_recognizer(path, *, width, name="input.1", output="fc1"):
    """Averages of red and of blue over the blocks of a grid: `width` is twice the number of blocks."""
    count = round((width / 2) ** 0.5)
    graph = Graph(["None" if width == 512 else 1, 3, 112, 112], name)
    blocks = graph.per_cell([[1, 0, 0], [0, 0, 1]], [0, 0], 112 // count)
    rows = graph.add("Reshape", blocks, graph.constant(np.array([-1, width], np.int64)))
    graph.give(rows, output, [1, width])
    return graph.save(path)


def block_means(chip, count):
    """What `save_recognizer` computes, of an RGB chip, before its normalization."""
    side = 112 // count
    means = chip.astype(np.float64).reshape(count, side, count, side, 3).mean(axis=(1, 3))
    return np.concatenate([means[..., 0].ravel(), means[..., 2].ravel()])
