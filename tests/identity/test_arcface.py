import builtins
import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx_iresnet_files import SMALL, random_arcface, save_arcface

from likeness.errors import ConfigError, ResourceError, WeightsError
from likeness.faces.engines.onnx_engine import ENGINE_SPECS, OnnxEngine
from likeness.faces.engines.onnx_session import OnnxModel
from likeness.identity.encoders import arcface
from likeness.identity.encoders.arcface import DEPTHS, ArcFace


def compare(path, model=None):
    torch.manual_seed(1)
    faces = torch.rand(2, 3, 112, 112) * 2 - 1
    session = OnnxModel(path)
    expected = np.concatenate([session.run(face[None].numpy())[0] for face in faces])
    found = (model or ArcFace.read(path))(faces).numpy()
    return np.abs(found - expected).max(), np.abs(expected).std()


@pytest.mark.parametrize(
    "changes",
    [
        {"is_folded": True},
        {"is_folded": False},
        {"is_folded": False, "epsilon": 2e-5},
        {"is_folded": True, "shares": True},
        {"is_folded": True, "flattens": "Reshape"},
    ],
    ids=str,
)
def test_a_file_read_by_its_graph_matches_onnxruntime(tmp_path, changes):
    torch.manual_seed(0)
    error, spread = compare(save_arcface(tmp_path / "a.onnx", random_arcface(), **changes))
    assert error < 1e-4
    assert spread > 0.3


@pytest.mark.parametrize(
    "changes",
    [{"opset_version": 11}, {"opset_version": 17, "do_constant_folding": False}, {"opset_version": 13, "keeps": True}],
    ids=["folded norms", "slopes through Unsqueeze", "norms of their own"],
)
def test_torchs_own_exports_match_onnxruntime(tmp_path, changes):
    # As arcface_torch's torch2onnx.py exports; the published files were made with several versions of torch.
    torch.manual_seed(0)
    changes = dict(changes)
    if changes.pop("keeps", False):
        changes["training"] = torch.onnx.TrainingMode.PRESERVE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The exporter through TorchScript is deprecated.
        torch.onnx.export(
            random_arcface(), torch.zeros(1, 3, 112, 112), tmp_path / "a.onnx", input_names=["data"], dynamo=False,
            keep_initializers_as_inputs=False, **changes,
        )  # fmt: skip
    error, spread = compare(tmp_path / "a.onnx")
    assert error < 1e-4
    assert spread > 0.3


@pytest.mark.slow
@pytest.mark.parametrize("depth", DEPTHS)
def test_arcface_at_its_true_sizes_matches_onnxruntime(tmp_path, depth):
    torch.manual_seed(0)
    error, spread = compare(save_arcface(tmp_path / "a.onnx", random_arcface(DEPTHS[depth])))
    assert error < 1e-4
    assert spread > 0.3
    assert ArcFace.read(tmp_path / "a.onnx").config == DEPTHS[depth]


def test_sizes_are_those_of_the_published_files():
    # w600k_r50.onnx holds 174,383,860 bytes and glintr100.onnx 260,665,334, in float32 with folded norms.
    with torch.device("meta"):
        sizes = {depth: sum(p.numel() for p in ArcFace(config).parameters()) for depth, config in DEPTHS.items()}
    assert 4 * sizes[50] == pytest.approx(174_383_860, rel=2e-3)
    assert 4 * sizes[100] == pytest.approx(260_665_334, rel=2e-3)


def test_the_engine_and_the_loss_embed_a_picture_alike(tmp_path, monkeypatch):
    torch.manual_seed(0)
    path = save_arcface(tmp_path / "glintr100.onnx", random_arcface())
    monkeypatch.setattr(arcface, "locate", lambda name: {"auraface": path}[name])
    model = ArcFace.of_engine("open")
    engine = OnnxEngine("open/auraface")
    engine._files = (None, path)
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 255, (20, 25, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    points = np.array([[150, 120], [220, 125], [185, 160], [155, 200], [215, 205]], np.float32)
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
    found, expected = model.embed(pixels, torch.from_numpy(points)[None])[0].numpy(), engine.embed(picture, points)
    # The engine rounds its crop to whole gray levels.
    assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) > 0.9999
    assert model.standardize(torch.ones(3)).tolist() == [1, 1, 1]


def test_gradients_reach_the_picture_and_no_weight(tmp_path):
    model = ArcFace.read(save_arcface(tmp_path / "a.onnx", random_arcface()))
    pixels = torch.rand(1, 3, 140, 140, requires_grad=True)
    points = torch.tensor([[[50.0, 60], [90, 60], [70, 80], [55, 100], [85, 100]]])
    model.train()
    model.embed(pixels, points).sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def altered(path, change):
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path)
    return path


def drop_prelu(graph):
    next(node for node in graph.node if node.op_type == "PRelu").op_type = "Relu"


def add_constant(graph):
    graph.initializer.append(onnx.numpy_helper.from_array(np.ones(7, np.float32), "extra"))


def move_stride(graph):
    conv = [node for node in graph.node if node.op_type == "Conv"][1]
    next(each for each in conv.attribute if each.name == "strides").ints[:] = [2, 2]


def add_sub(graph):
    graph.node.insert(0, onnx.helper.make_node("Sub", ["input.1", "mean"], ["centered"]))
    graph.initializer.append(onnx.numpy_helper.from_array(np.full(1, 127.5, np.float32), "mean"))
    graph.node[1].input[0] = "centered"


def spoil(graph):
    weight = next(each for each in graph.initializer if each.name == "fc.bias")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full(512, np.nan, np.float32), "fc.bias"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (drop_prelu, "PRelu"),
        (add_constant, "extra have no place"),
        (move_stride, "strides"),
        (add_sub, "Sub"),
        (spoil, "not finite"),
    ],
)
def test_a_graph_that_is_another_network_is_refused(tmp_path, change, complaint):
    path = altered(save_arcface(tmp_path / "a.onnx", random_arcface()), change)
    with pytest.raises(WeightsError, match=complaint):
        ArcFace.read(path)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="missing"):
        ArcFace.read(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("this is no model at all")
    with pytest.raises(WeightsError, match=r"no ONNX model|no IResNet"):
        ArcFace.read(tmp_path / "text.onnx")


def test_an_engine_without_arcface_is_refused():
    with pytest.raises(ConfigError, match="open/sface"):
        ArcFace.of_engine("open/sface")
    assert set(arcface.ARCFACE_ENGINES) == {name for name in ENGINE_SPECS if "sface" not in name}


def test_without_onnx_the_error_says_what_to_install(tmp_path, monkeypatch):
    path = save_arcface(tmp_path / "a.onnx", random_arcface(SMALL))
    plain = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "onnx":
            raise ImportError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ResourceError, match=r"likeness\[open\]"):
        ArcFace.read(path)
