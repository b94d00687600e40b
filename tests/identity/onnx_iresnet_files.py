"""Writes an `ArcFace` as an ONNX file, node by node as arcface_torch's `torch2onnx.py` exports it."""

import torch
from onnx import TensorProto, checker, helper, numpy_helper, save

from likeness.identity.encoders.arcface import ArcFace, IResNetConfig

SMALL = IResNetConfig(blocks=(1, 2, 1, 2), widths=(8, 8, 16, 24), embedding_width=512)


def random_arcface(config: IResNetConfig = SMALL, **kwargs) -> ArcFace:
    """Random weights and running statistics, with activations of ordinary size."""
    model = ArcFace(config, **kwargs).requires_grad_(False)
    for module in model.modules():
        if isinstance(module, (torch.nn.BatchNorm2d, torch.nn.BatchNorm1d)):
            module.weight.uniform_(0.7, 1.3)
            module.bias.normal_(std=0.2)
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 1.5)
        elif isinstance(module, torch.nn.PReLU):
            module.weight.uniform_(0.1, 0.4)
        elif isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_out")
    # As trained ones: the embedding's components have mean zero and spread one, about.
    hidden = []
    hook = model.fc.register_forward_hook(lambda _m, _i, output: hidden.append(output))
    model(torch.randn(8, 3, 112, 112))
    hook.remove()
    model.features.running_mean.copy_(hidden[0].mean(dim=0))
    model.features.running_var.copy_(hidden[0].var(dim=0))
    return model


class Writer:
    def __init__(self, *, is_folded, epsilon, shares):
        self.nodes, self.constants, self.is_folded, self.epsilon, self.shares = [], [], is_folded, epsilon, shares

    def constant(self, value, name=None):
        # Initializers of folded layers have numbers for names.
        name = name or str(685 + len(self.constants))
        self.constants.append(numpy_helper.from_array(value.detach().contiguous().numpy(), name))
        if not self.shares:
            return name
        return self.add("Identity", name)

    def add(self, kind, *inputs, **attributes):
        name = f"{400 + len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"{kind}_{len(self.nodes)}", **attributes))
        return name

    def norm(self, value, norm, name):
        parts = {key: getattr(norm, key) for key in ("weight", "bias", "running_mean", "running_var")}
        parts["running_var"] = parts["running_var"] + norm.eps - self.epsilon
        constants = [self.constant(part, f"{name}.{key}") for key, part in parts.items()]
        return self.add("BatchNormalization", value, *constants, epsilon=self.epsilon, momentum=0.9)

    def conv_norm(self, value, conv, norm, name):
        (kernel, _), (stride, _), (pad, _) = conv.kernel_size, conv.stride, conv.padding
        sizes = {"dilations": [1, 1], "group": 1, "kernel_shape": [kernel] * 2, "pads": [pad] * 4,
                 "strides": [stride] * 2}  # fmt: skip
        if not self.is_folded:
            weight = self.constant(conv.weight, f"{name}.weight")
            return self.norm(self.add("Conv", value, weight, **sizes), norm, f"{name}.norm")
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight = self.constant(conv.weight * factor[:, None, None, None])
        return self.add("Conv", value, weight, self.constant(norm.bias - norm.running_mean * factor), **sizes)

    def prelu(self, value, prelu):
        return self.add("PRelu", value, self.constant(prelu.weight[:, None, None]))


def save_arcface(path, model, *, is_folded=True, epsilon=1e-5, shares=False, flattens="Flatten"):
    """`shares`: constants come through Identity nodes, as exports that merge equal initializers have it."""
    writer = Writer(is_folded=is_folded, epsilon=epsilon, shares=shares)
    hidden = writer.prelu(writer.conv_norm("input.1", model.conv1, model.bn1, "conv1"), model.prelu)
    for stage in range(1, len(model.config.blocks) + 1):
        for index, block in enumerate(model.get_submodule(f"layer{stage}")):
            name = f"layer{stage}.{index}"
            inner = writer.norm(hidden, block.bn1, f"{name}.bn1")
            inner = writer.prelu(writer.conv_norm(inner, block.conv1, block.bn2, f"{name}.conv1"), block.prelu)
            inner = writer.conv_norm(inner, block.conv2, block.bn3, f"{name}.conv2")
            beside = hidden
            if not isinstance(block.downsample, torch.nn.Identity):
                beside = writer.conv_norm(hidden, *block.downsample, f"{name}.downsample")
            hidden = writer.add("Add", inner, beside)
    hidden = writer.norm(hidden, model.bn2, "bn2")
    if flattens == "Flatten":
        hidden = writer.add("Flatten", hidden, axis=1)
    else:
        hidden = writer.add("Reshape", hidden, writer.constant(torch.tensor([-1, model.fc.in_features])))
    weight, bias = writer.constant(model.fc.weight, "fc.weight"), writer.constant(model.fc.bias, "fc.bias")
    hidden = writer.add("Gemm", hidden, weight, bias, alpha=1.0, beta=1.0, transB=1)
    writer.norm(hidden, model.features, "features")
    writer.nodes[-1].output[0] = "683"
    graph = helper.make_graph(
        writer.nodes,
        "torch-jit-export",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, ["None", 3, 112, 112])],
        [helper.make_tensor_value_info("683", TensorProto.FLOAT, [1, model.embedding_width])],
        writer.constants,
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    checker.check_model(file)
    save(file, path)
    return path
