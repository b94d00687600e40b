"""FantasyID's paper profile: on a stock pipeline by the same code as Magic Mirror."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from diffusers import CogVideoXTransformer3DModel, FirstBlockCacheConfig
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from miniature import (
    CLEAN,
    PROMPT,
    TEXT_TOKENS,
    make_face,
    make_inputs,
    make_mirror,
    make_transformer,
    sample,
)
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from likeness.adapters.blocks.fantasy_id import InjectionLayer
from likeness.errors import ConfigError, PromptError
from likeness.identity.mesh.spirals import MeshTopology
from likeness.identity.reference import stack_head_crops
from likeness.methods.fantasy_id import FantasyID, FantasyIdentity

SMALL = {
    "encoder_width": 16, "encoder_depth": 1, "encoder_heads": 2, "image_size_px": 32, "patch_size_px": 4,
    "downsampling": 4, "abstractor_hidden_width": 8, "face_width": 16, "num_vertices": (66, 17, 5),
    "vertex_widths": (8, 16), "spiral_length": 5, "fusion_depth": 1, "fusion_heads": 2, "context_width": 16,
    "injection_width": 16, "head_width": 8,
}  # fmt: skip


@pytest.fixture(scope="session")
def topology():
    points, faces = octahedron()
    return MeshTopology.build(points, faces, spiral_length=5)


def octahedron():
    """66 vertices on a sphere."""
    corners = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
    points = [np.array(corner, float) for corner in corners]
    faces = [(0, 2, 4), (2, 1, 4), (1, 3, 4), (3, 0, 4), (2, 0, 5), (1, 2, 5), (3, 1, 5), (0, 3, 5)]
    for _ in range(2):
        finer = []
        for a, b, c in faces:
            middles = []
            for first, second in ((a, b), (b, c), (c, a)):
                point = points[first] + points[second]
                point = point / np.linalg.norm(point)
                known = [number for number, other in enumerate(points) if np.allclose(other, point)]
                middles.append(known[0] if known else len(points))
                points += [] if known else [point]
            ab, bc, ca = middles
            finer += [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        faces = finer
    return np.array(points), np.array(faces)


def make_fantasy(transformer, topology, *, is_trained=True, **changes) -> FantasyID:
    torch.manual_seed(1)
    fantasy = FantasyID(**FantasyID.tiny_config(transformer.config, **{**SMALL, **changes})).eval()
    fantasy.set_topology(topology)
    if is_trained:
        for name, parameter in fantasy.named_parameters():
            if name.startswith("layers."):
                torch.nn.init.normal_(parameter, std=0.3)
    return fantasy


def make_shape(topology, seed=0):
    return topology.vertices[0] + np.random.default_rng(seed).normal(scale=0.1, size=(66, 3)).astype(np.float32)


def random_identity(fantasy, topology, batch=2, references=1):
    torch.manual_seed(6)
    pixels = torch.rand(batch, references, 3, 32, 32) * 2 - 1
    vertices = torch.from_numpy(topology.vertices[0]) + 0.1 * torch.randn(batch, 66, 3)
    return fantasy.encode_tensors(pixels, vertices)


@pytest.fixture
def fantasy(pipe, topology):
    return make_fantasy(pipe.transformer, topology).attach(pipe)


@pytest.mark.parametrize("guidance_scale", [1.0, 6.0], ids=["unguided", "guided"])
def test_scale_zero_and_detached_are_the_stock_pipeline_bit_for_bit(pipe, topology, guidance_scale):
    stock = sample(pipe, prompt=CLEAN, guidance_scale=guidance_scale)
    fantasy = make_fantasy(pipe.transformer, topology).attach(pipe)
    assert torch.equal(sample(pipe, prompt=CLEAN, guidance_scale=guidance_scale), stock)  # no identity is on
    person = fantasy.encode([make_face()], vertices=make_shape(topology))
    with fantasy.identity(person, scale=0.0):
        assert torch.equal(sample(pipe, **fantasy.prompt(PROMPT), guidance_scale=guidance_scale), stock)
    with fantasy.identity(person):
        adapted = sample(pipe, **fantasy.prompt(PROMPT), guidance_scale=guidance_scale)
        assert torch.equal(sample(pipe, **fantasy.prompt(CLEAN), guidance_scale=guidance_scale), adapted)
    assert not torch.equal(adapted, stock)
    assert adapted.isfinite().all()
    fantasy.detach()
    assert torch.equal(sample(pipe, prompt=CLEAN, guidance_scale=guidance_scale), stock)


@pytest.mark.parametrize("is_layer_aware", [True, False])
def test_untrained_adapter_is_the_base_bit_for_bit(transformer, topology, is_layer_aware):
    inputs = make_inputs()
    stock = transformer(**inputs).sample
    fantasy = make_fantasy(transformer, topology, is_trained=False, is_layer_aware=is_layer_aware)
    fantasy.attach(transformer)
    with fantasy.conditioned(random_identity(fantasy, topology)):
        assert torch.equal(transformer(**inputs).sample, stock)


def test_layer_matches_equation_2_written_as_loops():
    torch.manual_seed(0)
    layer = InjectionLayer(8, context_width=6, inner_width=4, head_width=2).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    video, context, grid = torch.randn(2, 12, 8).double(), torch.randn(2, 3, 6).double(), (2, 2, 3)

    def norm(x, layer_norm):
        centered = x - x.mean(-1, keepdim=True)
        scale = (centered.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return centered / scale * layer_norm.weight + layer_norm.bias

    query = norm(video, layer.norm2) @ layer.to_q_video.weight.T
    key, value = (norm(context, layer.norm1) @ layer.to_kv_context.weight.T).split(4, dim=-1)
    mixed = torch.zeros(2, 12, 4).double()
    for row in range(2):
        for token in range(12):
            for head in (slice(0, 2), slice(2, 4)):
                weights = torch.softmax(key[row, :, head] @ query[row, token, head] / math.sqrt(2), dim=0)
                mixed[row, token, head] = weights @ value[row, :, head]
    f_l = layer.layer_model
    place = lambda f, y, x: (f * 2 + y) * 3 + x  # noqa: E731
    conv = torch.zeros_like(mixed)
    for f, y, x in np.ndindex(grid):
        for dy, dx in np.ndindex(3, 3):
            other = y + dy - 1, x + dx - 1
            if 0 <= other[0] < 2 and 0 <= other[1] < 3:
                conv[:, place(f, y, x)] += f_l.depthwise.weight[:, 0, dy, dx] * mixed[:, place(f, *other)]
    conv = conv + f_l.depthwise.bias
    normed = norm(conv, f_l.norm)
    beside = mixed + normed / (1 + (-normed).exp())
    expected = beside @ f_l.output.weight.T + f_l.output.bias
    keys = layer.keys_and_values(context)
    assert_close(layer(video, *keys, grid), expected)


def test_whole_transformer_adds_equation_2_behind_every_block(transformer, topology):
    fantasy, inputs = make_fantasy(transformer, topology), make_inputs()
    identity = random_identity(fantasy, topology)
    added = {}
    handles = [
        block.register_forward_hook(
            lambda _block, _args, output, number=number: (
                output[0]
                + fantasy.layers[str(number)](
                    output[0], *fantasy.layers[str(number)].keys_and_values(identity.face_tokens), (3, 2, 2)
                ),
                added.setdefault(number, output[1]),
            )
        )
        for number, block in enumerate(transformer.transformer_blocks)
    ]
    expected = transformer(**inputs).sample
    for handle in handles:
        handle.remove()
    assert set(added) == set(range(4))
    fantasy.attach(transformer)
    assert list(fantasy.layers) == ["0", "1", "2", "3"]
    with fantasy.conditioned(identity):
        assert_close(transformer(**inputs).sample, expected)
        with torch.no_grad():  # keys and values are cached
            assert_close(transformer(**inputs).sample, expected)
            assert_close(transformer(**inputs).sample, expected)


def test_identity_is_read_and_projected_once_for_a_whole_video(pipe, fantasy, topology, monkeypatch):
    calls = []
    plain = InjectionLayer.keys_and_values
    monkeypatch.setattr(InjectionLayer, "keys_and_values", lambda layer, x: (calls.append(layer), plain(layer, x))[1])
    with fantasy.identity(fantasy.encode([make_face()], vertices=make_shape(topology))):
        sample(pipe, num_inference_steps=3, **fantasy.prompt(CLEAN))
    assert len(calls) == len(set(map(id, calls))) == 4
    again = fantasy.encode([make_face()], vertices=make_shape(topology))
    assert again is fantasy.encode([make_face()], vertices=make_shape(topology))


@pytest.mark.parametrize(
    "controls", [{"blocks": [2]}, {"start": 0.5}, {"branch": "both", "scale": 1.5, "end": 0.5}], ids=str
)
def test_controls_act_here_as_in_magic_mirror(pipe, fantasy, topology, controls):
    person = fantasy.encode([make_face()], vertices=make_shape(topology))
    with fantasy.identity(person):
        whole = sample(pipe, **fantasy.prompt(CLEAN))
    with fantasy.identity(person, **controls):
        part = sample(pipe, **fantasy.prompt(CLEAN))
    assert part.isfinite().all()
    assert not torch.equal(part, whole)
    assert not torch.equal(part, sample(pipe, prompt=CLEAN))


def test_guidance_in_one_pass_equals_two_passes(pipe, fantasy, topology):
    inputs = make_inputs(batch=2)
    halves = [
        {name: value[row : row + 1] if torch.is_tensor(value) else value for name, value in inputs.items()}
        for row in range(2)
    ]
    with torch.no_grad():
        stock = pipe.transformer(**halves[0]).sample
        with fantasy.identity(fantasy.encode([make_face()], vertices=make_shape(topology))):
            conditional = pipe.transformer(**halves[1]).sample
            together = pipe.transformer(**inputs).sample
    assert_close(together, torch.cat([stock, conditional]), rtol=1e-4, atol=1e-5)


def test_each_row_has_its_own_identity_and_inactive_rows_are_stock(transformer, topology):
    stock = transformer(**make_inputs()).sample
    fantasy = make_fantasy(transformer, topology).attach(transformer)
    identity, inputs = random_identity(fantasy, topology), make_inputs()
    with fantasy.conditioned(identity):
        together = transformer(**inputs).sample
    with fantasy.conditioned(identity, active=torch.tensor([False, True])):
        mixed = transformer(**inputs).sample
    assert_close(mixed[:1], stock[:1])
    assert_close(mixed[1:], together[1:])
    swapped = FantasyIdentity(face_tokens=identity.face_tokens.flip(0))
    with fantasy.conditioned(swapped):
        assert not torch.allclose(transformer(**inputs).sample, together, atol=1e-3)


def test_round_trip_holds_no_weight_of_the_base_but_the_mesh(transformer, topology, tmp_path):
    fantasy = make_fantasy(transformer, topology, fusion_depth=2).attach(transformer)
    fantasy.save_pretrained(tmp_path)
    assert not any("base" in name or "transformer" in name for name in fantasy.state_dict())
    own = {value.data_ptr() for value in fantasy.parameters()}
    base = {parameter.data_ptr() for parameter in transformer.parameters()} - own
    assert not any(value.data_ptr() in base for value in fantasy.state_dict().values())
    again = FantasyID.from_pretrained(tmp_path)
    assert again.config.fusion_depth == 2
    assert again.state_dict().keys() == fantasy.state_dict().keys()
    assert all(torch.equal(value, fantasy.state_dict()[name]) for name, value in again.state_dict().items())
    assert again.descriptor.vertex_encoder.has_topology
    narrow = FantasyID.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert narrow.descriptor.vertex_encoder.template.dtype == torch.float32
    assert next(narrow.layers.parameters()).dtype == torch.bfloat16


def test_copy_leaves_the_transformer_behind(fantasy):
    copied, other = copy.deepcopy(fantasy), make_transformer()
    copied.attach(other)
    assert other.transformer_blocks[0].__class__ is not CogVideoXBlock
    copied.detach()
    assert all(block.__class__ is CogVideoXBlock for block in other.transformer_blocks)


def test_transformer_saves_stock_while_attached(transformer, topology, tmp_path):
    stock = {name: value.clone() for name, value in transformer.state_dict().items()}
    make_fantasy(transformer, topology).attach(transformer)
    transformer.save_pretrained(tmp_path)
    again = CogVideoXTransformer3DModel.from_pretrained(tmp_path).state_dict()
    assert again.keys() == stock.keys()
    assert all(torch.equal(value, stock[name]) for name, value in again.items())


def gradients(transformer, fantasy, topology):
    fantasy.zero_grad()
    with fantasy.conditioned(random_identity(fantasy, topology), active=torch.tensor([True, False])):
        prediction = transformer(**make_inputs()).sample
    prediction.square().mean().backward()
    named = fantasy.named_parameters()
    return {name: parameter.grad.clone() for name, parameter in named if parameter.grad is not None}


def test_a_step_reaches_every_trainable_part_with_and_without_checkpointing(transformer, topology):
    fantasy = make_fantasy(transformer, topology).attach(transformer)
    trainable = fantasy.trainable_parameters()
    transformer.train()
    plain = gradients(transformer, fantasy, topology)
    assert len(plain) == len(trainable) == len(list(fantasy.parameters()))
    # A softmax does not change when the same is added to every key.
    idle = [name for name, value in plain.items() if not value.any()]
    assert not idle
    transformer.enable_gradient_checkpointing()
    for name, value in gradients(transformer, fantasy, topology).items():
        assert_close(value, plain[name], msg=name)


def test_training_leaves_the_base_in_its_first_step(transformer, topology):
    fantasy = make_fantasy(transformer, topology, is_trained=False).attach(transformer)
    optimizer = torch.optim.SGD(fantasy.trainable_parameters(), lr=0.1)
    first = gradients(transformer, fantasy, topology)
    assert {name.split(".", 2)[2] for name, value in first.items() if value.any()} == {
        "layer_model.output.weight",
        "layer_model.output.bias",
    }
    optimizer.step()
    second = gradients(transformer, fantasy, topology)
    assert {name for name, value in second.items() if not value.any()} == {
        name for name in second if "depthwise" in name
    }
    optimizer.step()
    third = gradients(transformer, fantasy, topology)
    assert all(value.any() for value in third.values())


def test_an_untrained_layer_model_stands_where_a_plain_output_layer_does():
    aware, plain = (
        InjectionLayer(8, context_width=6, inner_width=4, head_width=2, is_layer_aware=is_layer_aware)
        for is_layer_aware in (True, False)
    )
    outer = torch.randn(8, 4)
    aware.layer_model.output.weight.data.copy_(outer)
    plain.layer_model.linear.weight.data.copy_(outer)
    mixed = torch.randn(2, 12, 4)
    assert torch.equal(aware.layer_model(mixed, (2, 2, 3)), plain.layer_model(mixed, (2, 2, 3)))


@pytest.mark.parametrize(
    "changes", [{"abstractor": "queries"}, {"has_vertices": False}, {"is_layer_aware": False}], ids=str
)
def test_ablations_are_one_switch_each(pipe, topology, changes):
    fantasy = make_fantasy(pipe.transformer, topology, **changes).attach(pipe)
    with fantasy.identity(fantasy.encode([make_face()], vertices=make_shape(topology))) as person:
        assert person.face_tokens.shape[1] == (4 if "has_vertices" in changes else 5)
        assert sample(pipe, **fantasy.prompt(CLEAN)).isfinite().all()


def test_shape_and_every_reference_reach_the_descriptor(fantasy, topology):
    faces, shape = [make_face(0), make_face(1)], make_shape(topology)
    plain = fantasy.encode(faces, vertices=shape).face_tokens
    assert plain.shape == (1, 5, 16)
    assert not torch.allclose(fantasy.encode(faces, vertices=make_shape(topology, 1)).face_tokens, plain)
    assert not torch.allclose(fantasy.encode([make_face(0), make_face(2)], vertices=shape).face_tokens, plain)
    fantasy.shape_source = lambda records: make_shape(topology, len(records))
    by_source = fantasy.encode(faces).face_tokens
    assert torch.equal(by_source, fantasy.encode(faces, vertices=make_shape(topology, 2)).face_tokens)


def test_caches_offload_and_backends_work_as_for_magic_mirror(pipe, fantasy, topology):
    with fantasy.identity(fantasy.encode([make_face()], vertices=make_shape(topology))):
        encoded = fantasy.prompt(CLEAN)
        plain = sample(pipe, **encoded)
        pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.0))
        assert torch.equal(sample(pipe, **encoded), plain)
        pipe.transformer.disable_cache()
        pipe.transformer.set_attention_backend("native")
        assert torch.equal(sample(pipe, **encoded), plain)
        pipe.transformer.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")
        assert torch.equal(sample(pipe, **encoded), plain)
    assert fantasy.layers["0"].processor._attention_backend == "native"
    with pytest.raises(ValueError, match="not supported"):
        pipe.transformer.fuse_qkv_projections()


def test_misuse_says_what_to_do(pipe, fantasy, topology):
    with pytest.raises(ConfigError, match="Another method is attached"):
        make_mirror(pipe.transformer).attach(pipe)
    with pytest.raises(ConfigError, match="`num_layers` is 4, the transformer's is 6"):
        make_fantasy(pipe.transformer, topology).attach(make_transformer(num_layers=6))
    with pytest.raises(ConfigError, match="Pass `vertices`"):
        fantasy.encode([make_face()])
    with pytest.raises(ConfigError, match="trained on"):
        fantasy.encode([make_face()], vertices=np.zeros((5, 3)))
    with pytest.raises(ConfigError, match="No reference face"):
        fantasy.encode([], vertices=make_shape(topology))
    with pytest.raises(ConfigError, match="set_topology"):
        FantasyID(**FantasyID.tiny_config(pipe.transformer.config, **SMALL)).encode([make_face()])
    with pytest.raises(ConfigError, match="divide each other"):
        make_fantasy(pipe.transformer, topology, downsampling=3)
    with pytest.raises(ConfigError, match="'paper' goes with 'vit'"):
        FantasyID(width=32, num_layers=4, profile="other")
    with (
        fantasy.identity(fantasy.encode([make_face()], vertices=make_shape(topology))),
        pytest.raises(PromptError, match=f"at most {TEXT_TOKENS} fit"),
    ):
        fantasy.prompt("a woman waves " * 9)


def test_paper_configuration_has_the_sizes_of_the_paper():
    with torch.device("meta"):
        fantasy = FantasyID(**FantasyID.cogvideox_5b_config())
    parts = dict(fantasy.descriptor.named_children())
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    assert count["face_encoder"] > 303e6  # CLIP ViT-L/14 at 336 px
    assert parts["abstractor"].side ** 2 == 24 * 24
    assert parts["abstractor"](torch.empty(1, 576, 1024, device="meta")).shape == (1, 6 * 6, 2048)
    assert len(parts["fusion"].layers) == 6
    assert count["fusion"] == 792_576
    assert count["reducer"] / 1e6 == pytest.approx(34.106, abs=5e-4)
    assert len(parts["reducer"].blocks) == 4
    assert parts["vertex_encoder"].sizes == (5023, 1256, 314)
    x_v, x_f = torch.empty(1, 314, 128, device="meta"), torch.empty(1, 36, 128, device="meta")
    assert parts["reducer"](parts["fusion"](x_v, x_f)).shape == (1, 314, 2048)
    assert list(fantasy.layers) == [str(number) for number in range(42)]
    layer = fantasy.layers["0"]
    attention = sum(p.numel() for name, p in layer.named_parameters() if not name.startswith("layer_model"))
    assert attention + 2048 * 3072 == 20_981_760  # with the released output layer in the place of F_l
    assert [tuple(p.shape) for p in (layer.to_q_video.weight, layer.to_kv_context.weight)] == [
        (2048, 3072),
        (4096, 2048),
    ]


def test_all_layers_cost_six_percent_of_the_base_at_full_size():
    """Against 332.2 TFLOP of CogVideoX-5B for 49 frames of 480x720; the attention stores no softmax."""
    with torch.device("meta"):
        layer = InjectionLayer(3072, context_width=2048, inner_width=2048, head_width=128)
        video, context = torch.empty(1, 13 * 30 * 45, 3072), torch.empty(1, 314, 2048)
        keys, values = layer.keys_and_values(context)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer(video, keys, values, (13, 30, 45))
    products = 2 * 17_550 * (2 * 3072 * 2048)
    attention = 4 * 17_550 * 314 * 2048
    convolution = 2 * 17_550 * 9 * 2048
    assert counter.get_total_flops() == products + attention + convolution
    assert 1 + 42 * counter.get_total_flops() / 332.2e12 == pytest.approx(1.0617, abs=5e-4)
    assert not any("softmax" in str(operation) for operation in counter.get_flop_counts()["Global"])


def test_an_encoder_of_more_pixels_than_the_crop_reads_the_large_crop():
    large = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    plain = make_face(0)
    detailed = dataclasses.replace(make_face(1), detail=large)
    side = plain.crop.shape[0]
    assert np.array_equal(stack_head_crops([plain, detailed], side)[1], detailed.crop)
    both = stack_head_crops([plain, detailed], side + 1)
    assert both.shape == (2, 512, 512, 3)
    assert np.array_equal(both[1], large)
    assert abs(both[0].mean() - plain.crop.mean()) < 2  # The other is its small crop, enlarged.
    assert stack_head_crops([plain], side + 1).shape == (1, side, side, 3)


def test_the_large_crop_reaches_the_encoder(pipe, topology):
    fantasy = make_fantasy(pipe.transformer, topology, image_size_px=256, patch_size_px=32, downsampling=2)
    fantasy.attach(pipe)
    face, shape = make_face(0), make_shape(topology)
    large = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    plain = fantasy.encode([face], vertices=shape).face_tokens
    detailed = fantasy.encode([dataclasses.replace(face, detail=large)], vertices=shape).face_tokens
    assert not torch.equal(plain, detailed)
