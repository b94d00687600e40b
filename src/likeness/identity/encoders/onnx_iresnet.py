"""Reads the weights of an IResNet from an ONNX file by its graph.

Exports of arcface_torch differ: the batch norm after a convolution is a node of its own or is folded into the
convolution, whose initializers then have numbers for names; initializers may be shared through Identity nodes. So the
graph is followed from the input, and every constant has to find its place. A folded norm becomes a norm that only adds
the convolution's bias.
"""

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from likeness.errors import ResourceError, WeightsError
from likeness.identity.encoders.arcface import NORM_EPS, IResNetConfig
from likeness.weights.strict import shorten_list
from likeness.weights.tensors import refuse_not_finite

_PASS_THROUGH_OPS = ("Identity", "Dropout", "Cast")
"""Nodes that pass their first input on."""
_IGNORED_OPS = ("Shape", "Constant")
"""Consumers that compute no value: the shape for a Reshape."""


def read_iresnet(path: Path) -> tuple[IResNetConfig, dict[str, Tensor]]:
    """The size of the network in an ONNX file, and its state dict in arcface_torch's names.

    Raises:
        ResourceError: onnx is not installed.
        WeightsError: The file is missing, damaged, or no IResNet.
    """
    try:
        import onnx
    except ImportError as error:
        raise ResourceError(
            "onnx is not installed, and ArcFace's weights for the identity loss are read with it. Run `pip install "
            "likeness[open]`."
        ) from error
    if not path.is_file():
        raise WeightsError(f"{path} is missing. Pull its weights again.")
    try:
        graph = onnx.load(str(path), load_external_data=False).graph
        constants = _constants(graph, onnx)
    except Exception as error:  # protobuf's and onnx's errors have no common base class.
        raise WeightsError(f"{path} is no ONNX model ({error}). Pull its weights again.") from error
    reader = _GraphReader(graph, constants, path)
    config = reader.read()
    refuse_not_finite(reader.state, what=str(path))
    return config, reader.state


def _constants(graph: Any, onnx: Any) -> dict[str, np.ndarray]:
    values = {initializer.name: onnx.numpy_helper.to_array(initializer) for initializer in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            values[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        elif (
            node.op_type in (*_PASS_THROUGH_OPS, "Unsqueeze") and node.input[0] in values
        ):  # Slopes of a PRelu get two axes.
            values[node.output[0]] = values[node.input[0]]
    return values


class _GraphReader:
    """Follows the graph from its input and collects the state dict."""

    def __init__(self, graph: Any, constants: dict[str, np.ndarray], path: Path) -> None:
        self.path, self.constants = path, constants
        self.state: dict[str, Tensor] = {}
        self.used: set[str] = set()
        initializers = {each.name for each in graph.initializer}
        self.input = next((each.name for each in graph.input if each.name not in initializers), "")
        self.output = graph.output[0].name if graph.output else ""
        self.consumers: defaultdict[str, list[Any]] = defaultdict(list)
        alias: dict[Any, Any] = {}
        for node in graph.node:  # Nodes are in topological order.
            if node.op_type in _PASS_THROUGH_OPS and node.input[0] not in constants:
                alias[node.output[0]] = alias.get(node.input[0], node.input[0])
            elif node.op_type not in _IGNORED_OPS:
                for name in node.input:
                    self.consumers[alias.get(name, name)].append(node)
        self.output = alias.get(self.output, self.output)
        self.alias = alias

    def read(self) -> IResNetConfig:
        hidden = self.read_prelu(self.read_conv_norm(self.only_consumer(self.input, "Conv"), "conv1", "bn1"), "prelu")
        width = self.state["conv1.weight"].shape[0]
        blocks: list[int] = []
        widths: list[int] = []
        while True:
            norm = self.select_node(self.consumers[hidden], "BatchNormalization", hidden)
            (conv, *_) = self.consumers[norm.output[0]] or [None]
            if conv is None or conv.op_type != "Conv":
                break
            hidden, stride, width = self.read_block(hidden, norm, conv, blocks)
            if stride == 2:
                widths.append(width)
        self.read_head(norm)
        config = IResNetConfig(
            blocks=tuple(blocks), widths=tuple(widths), embedding_width=self.state["fc.weight"].shape[0]
        )
        unused = [n for n, v in self.constants.items() if n not in self.used and v.dtype.kind == "f" and v.size > 1]
        shared = {id(self.constants[name]) for name in self.used}
        if unused := [name for name in unused if id(self.constants[name]) not in shared]:
            raise self.layout_error(f"{shorten_list(sorted(unused))} have no place in it")
        return config

    def read_block(self, hidden: str, norm: Any, conv: Any, blocks: list[int]) -> tuple[str, int, int]:
        """One residual block: its output, its stride and its width; `blocks` counts it."""
        stride = 2 if self.is_strided(conv) else 1
        if stride == 2:
            blocks.append(0)
        if not blocks:
            raise self.layout_error("its first block does not halve the resolution")
        name = f"layer{len(blocks)}.{blocks[-1]}"
        blocks[-1] += 1
        self.read_norm(norm, f"{name}.bn1")
        inner = self.read_prelu(self.read_conv_norm(conv, f"{name}.conv1", f"{name}.bn2"), f"{name}.prelu")
        residual = self.read_conv_norm(self.only_consumer(inner, "Conv"), f"{name}.conv2", f"{name}.bn3", stride=stride)
        addition = self.only_consumer(residual, "Add")
        other_consumers = [each for each in self.consumers[hidden] if each is not norm and each is not addition]
        if other_consumers:
            projection = self.select_node(other_consumers, "Conv", hidden)
            shortcut = self.read_conv_norm(
                projection, f"{name}.downsample.0", f"{name}.downsample.1", stride=stride, kernel=1
            )
            if addition not in self.consumers[shortcut]:
                raise self.layout_error(f"the shortcut of {name} does not end in its sum")
        return addition.output[0], stride, self.state[f"{name}.conv2.weight"].shape[0]

    def is_strided(self, conv: Any) -> bool:
        """Whether the block of a first convolution halves the resolution: its second one does, behind the PReLU."""
        (next_node, *_) = self.consumers[conv.output[0]] or [None]
        if next_node is not None and next_node.op_type == "BatchNormalization":
            (next_node, *_) = self.consumers[next_node.output[0]] or [None]
        if next_node is None or next_node.op_type != "PRelu":
            raise self.layout_error(f"node `{conv.name}` is not followed by a PRelu")
        return self.attribute(self.only_consumer(next_node.output[0], "Conv"), "strides", (1, 1)) == (2, 2)

    def read_head(self, norm: Any) -> None:
        """The norm, the flattening, the matrix and the last norm."""
        flatten = self.select_node(self.consumers[self.read_norm(norm, "bn2")], ("Flatten", "Reshape"), norm.output[0])
        linear = self.select_node(self.consumers[flatten.output[0]], ("Gemm", "MatMul"), flatten.output[0])
        weight = self.constant(linear.input[1], 2)
        output = linear.output[0]
        is_transposed = linear.op_type == "Gemm" and self.attribute(linear, "transB", 0) == 1
        scales = [self.attribute(linear, each, 1.0) for each in ("alpha", "beta")]
        if scales != [1.0, 1.0] or self.attribute(linear, "transA", 0):
            raise self.layout_error("its matrix is scaled or transposed")
        self.state["fc.weight"] = weight if is_transposed else weight.T.contiguous()
        bias = linear.input[2] if len(linear.input) > 2 else None
        if linear.op_type == "MatMul" and output != self.output:
            (addition, *_) = self.consumers[output]
            if addition.op_type == "Add":
                bias = next(name for name in addition.input if name in self.constants)
                output = addition.output[0]
        width = len(self.state["fc.weight"])
        self.state["fc.bias"] = self.constant(bias, 1) if bias else torch.zeros(width)
        if output != self.output:
            output = self.read_norm(self.only_consumer(output, "BatchNormalization"), "features")
        else:
            self.store_norm("features", torch.zeros(width))
        if output != self.output:
            raise self.layout_error("it goes on behind its last norm")

    def read_conv_norm(self, conv: Any, name: str, norm: str, *, stride: int = 1, kernel: int = 3) -> str:
        """A convolution and the norm behind it, which may be folded into it; returns the output."""
        expected = {"strides": (stride,) * 2, "pads": (kernel // 2,) * 4, "dilations": (1, 1), "group": 1}
        actual = {key: self.attribute(conv, key, (1, 1) if "s" in key[-1] else 1) for key in expected}
        if kernel == 1:
            actual["pads"] = self.attribute(conv, "pads", (0,) * 4)
        if conv.op_type != "Conv" or actual != expected or conv.input[1] not in self.constants:
            raise self.layout_error(f"node `{conv.name}` is {conv.op_type} {actual} in the place of {name}")
        weight = self.constant(conv.input[1], 4)
        if tuple(weight.shape[2:]) != (kernel, kernel):
            raise self.layout_error(f"{name} has a kernel of {tuple(weight.shape[2:])}")
        self.state[f"{name}.weight"] = weight
        bias = self.constant(conv.input[2], 1) if len(conv.input) > 2 and conv.input[2] else None
        (next_node, *_) = self.consumers[conv.output[0]] or [None]
        if next_node is not None and next_node.op_type == "BatchNormalization":
            return self.read_norm(next_node, norm, bias=bias)
        if bias is None:
            raise self.layout_error(f"{name} has neither a norm nor a bias")
        self.store_norm(norm, bias)
        return conv.output[0]

    def read_norm(self, node: Any, name: str, *, bias: Tensor | None = None) -> str:
        """A batch norm. Its epsilon is moved into the variance, a bias before it into the mean."""
        weight, shift, mean, variance = (self.constant(each, 1) for each in node.input[1:5])
        variance = variance.double() + self.attribute(node, "epsilon", 1e-5) - NORM_EPS
        mean = mean if bias is None else mean - bias
        self.store_norm(name, shift, weight=weight, mean=mean, variance=variance.float())
        return node.output[0]

    def store_norm(
        self,
        name: str,
        bias: Tensor,
        *,
        weight: Tensor | None = None,
        mean: Tensor | None = None,
        variance: Tensor | None = None,
    ) -> None:
        """Without the others, a norm that only adds its bias."""
        one = torch.ones_like(bias)
        self.state |= {
            f"{name}.weight": one if weight is None else weight,
            f"{name}.bias": bias,
            f"{name}.running_mean": torch.zeros_like(bias) if mean is None else mean,
            f"{name}.running_var": one - NORM_EPS if variance is None else variance,
            f"{name}.num_batches_tracked": torch.tensor(0),
        }

    def read_prelu(self, hidden: str, name: str) -> str:
        node = self.only_consumer(hidden, "PRelu")
        slope = self.constant(node.input[1]).flatten()
        self.state[f"{name}.weight"] = slope
        return node.output[0]

    def only_consumer(self, tensor: str, op_type: str) -> Any:
        """The one node that reads a tensor."""
        nodes = self.consumers[tensor]
        if len(nodes) != 1:
            raise self.layout_error(f"{len(nodes)} nodes read `{tensor}`, one {op_type} should")
        return self.select_node(nodes, op_type, tensor)

    def select_node(self, nodes: list[Any], op_types: str | tuple[str, ...], tensor: str) -> Any:
        op_types = (op_types,) if isinstance(op_types, str) else op_types
        matches = [node for node in nodes if node.op_type in op_types]
        if len(matches) != 1:
            types = ", ".join(sorted({node.op_type for node in nodes})) or "nothing"
            raise self.layout_error(f"`{tensor}` is read by {types}, and one {' or '.join(op_types)} should read it")
        return matches[0]

    def constant(self, name: str, rank: int | None = None) -> Tensor:
        """A constant as float32, which has now found its place."""
        if name not in self.constants:
            raise self.layout_error(f"`{name}` is no constant")
        value = self.constants[name]
        if rank is not None and value.ndim != rank:
            raise self.layout_error(f"`{name}` has the shape {value.shape}, {rank} axes are expected")
        self.used.add(name)
        return torch.from_numpy(np.array(value, dtype=np.float32))

    def attribute(self, node: Any, name: str, default: Any) -> Any:
        for each in node.attribute:
            if each.name == name:
                if each.type == each.INTS:
                    return tuple(each.ints)
                return each.i if each.type == each.INT else each.f
        return default

    def layout_error(self, reason: str) -> WeightsError:
        return WeightsError(
            f"{self.path} is no IResNet of ArcFace: {reason}. Use the recognizer of buffalo_l, antelopev2 or AuraFace, "
            "or pull its weights again."
        )
