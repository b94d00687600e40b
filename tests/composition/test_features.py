"""Each feature of diffusers alone and in pairs: the adapted video stays what it is without it."""

from contextlib import nullcontext

import miniature
import pytest
import torch
from composing.features import (
    BY_NAME,
    FEATURES,
    PAIRS,
    Feature,
    compile_blocks,
    deviation,
    group_offload,
    layerwise_casting,
    load_lora,
    quantize,
    run,
    sequential_offload,
)
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    attention_backend,
)

from likeness.errors import ConfigError

QUICK = [feature for feature in FEATURES if feature.name not in ("regional_compile", "int8")]
OPTIONAL = ("regional_compile", "int8")
NOISE = "ignore:(?s).*(meshgrid|indexing argument)"


@pytest.mark.filterwarnings(NOISE)
@pytest.mark.parametrize("feature", QUICK, ids=lambda feature: feature.name)
def test_the_adapted_video_is_the_same_with(subject, feature):
    assert deviation(subject, feature) <= feature.goal


@pytest.mark.filterwarnings(NOISE)
@pytest.mark.parametrize(
    "pair",
    [
        pytest.param(pair, id="+".join(pair), marks=() if number < 3 else pytest.mark.slow)
        for number, pair in enumerate(PAIRS)
        if not set(pair) & set(OPTIONAL)
    ],
)
def test_the_adapted_video_is_the_same_with_the_pair(subject, pair):
    features = [BY_NAME[name] for name in pair]
    assert deviation(subject, *features) <= max(feature.goal for feature in features)


@pytest.mark.parametrize(
    "pair", [("int8",), *[pytest.param(pair, marks=pytest.mark.slow) for pair in PAIRS if "int8" in pair]]
)
def test_eight_bits_in_the_base_are_all_that_quantization_changes(subject, pair):
    pytest.importorskip("optimum.quanto")
    features = [BY_NAME[name] for name in pair]
    assert deviation(subject, *features) <= 1e-5


def test_quantization_leaves_the_adapter_as_it_is(subject):
    pytest.importorskip("optimum.quanto")
    pipe = subject.pipe()
    quantize(pipe)
    method = subject.method(pipe).attach(pipe)
    kinds = {type(module).__name__ for module in method.modules()}
    assert "QLinear" not in kinds
    assert any(type(module).__name__ == "QLinear" for module in pipe.transformer.modules())


def test_features_that_change_the_base_do_change_the_video(subject):
    plain = run(subject, [])
    for switch in (load_lora, layerwise_casting):
        changed = run(subject, [Feature(name="changed", turn_on=switch)])
        assert (changed - plain).abs().max() > 1e-3


def test_casting_stores_the_base_alone_in_eight_bits(subject):
    pipe = subject.pipe()
    method = subject.method(pipe).attach(pipe)
    layerwise_casting(pipe)
    assert {parameter.dtype for parameter in method.parameters()} == {torch.float32}
    assert pipe.transformer.transformer_blocks[0].base.attn1.to_q.weight.dtype == torch.float8_e4m3fn


@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_group_offload_may_come_before_attach_and_stays_after_detach(subject, kind):
    before = Feature(name="before", turn_on=group_offload(kind).turn_on, is_before=True)
    assert deviation(subject, before) <= 1e-5
    pipe = subject.pipe()
    stock = subject.sample(pipe)
    group_offload(kind).turn_on(pipe)
    method = subject.method(pipe).attach(pipe)
    method.detach()
    assert torch.equal(subject.sample(pipe), stock)
    assert not any(
        "group_offloading" in getattr(getattr(module, "_diffusers_hook", None), "hooks", {})
        for module in method.modules()
    )


def test_sequential_offload_after_attach_is_refused(subject):
    pipe = subject.pipe()
    method = subject.method(pipe).attach(pipe)
    sequential_offload(pipe)
    with pytest.raises(ConfigError, match="Load the pipeline anew"):
        subject.sample(pipe, method)


def test_sequential_offload_lets_go_of_the_adapter(subject):
    pipe = subject.pipe()
    sequential_offload(pipe)
    method = subject.method(pipe)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.attach(pipe)
    assert method.layers["0"].attention.to_k_face.weight.is_meta
    method.detach()
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_detach_leaves_nothing_on_the_transformer(subject):
    pipe = subject.pipe()
    before = dict(vars(pipe.transformer))
    processors = {name: type(one) for name, one in pipe.transformer.attn_processors.items()}
    subject.method(pipe).attach(pipe).detach()
    assert vars(pipe.transformer).keys() == before.keys()
    assert {name: type(one) for name, one in pipe.transformer.attn_processors.items()} == processors


def count_attention(monkeypatch, backend):
    """Count calls of one attention backend."""
    calls = []
    name = AttentionBackendName(backend)
    original = _AttentionBackendRegistry._backends[name]

    def counted(**options):
        calls.append(options["query"].shape)
        return original(**options)

    monkeypatch.setitem(_AttentionBackendRegistry._backends, name, counted)
    return calls


@pytest.mark.parametrize("with_identity", [True, False], ids=["adapted", "stock"])
def test_a_chosen_backend_runs_all_attention(subject, monkeypatch, with_identity):
    transformer = subject.pipe().transformer
    method = miniature.make_mirror(transformer).attach(transformer)
    calls = count_attention(monkeypatch, "_native_math")
    others = count_attention(monkeypatch, "native")
    direct = torch.nn.functional.scaled_dot_product_attention
    seen = []
    monkeypatch.setattr(
        torch.nn.functional,
        "scaled_dot_product_attention",
        lambda *args, **options: (seen.append(1), direct(*args, **options))[1],
    )
    context = method.conditioned(subject.identity(method)) if with_identity else nullcontext()
    seen.clear()  # the identity's own attention
    with attention_backend("native"), torch.no_grad(), context:
        transformer.set_attention_backend("_native_math")
        transformer(**miniature.make_inputs())
    assert len(calls) == (4 + 2 * 2 if with_identity else 4)  # adapted blocks: both rows' own, and to the face
    assert not others
    assert len(seen) == len(calls)  # none went past the dispatch


def test_a_backend_that_cannot_act_is_refused(subject):
    pipe = subject.pipe()
    subject.method(pipe).attach(pipe)
    with pytest.raises((RuntimeError, ImportError), match="flash"):
        pipe.transformer.set_attention_backend("flash")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it compiles
@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_blocks_compile_one_by_one_without_a_graph_break(subject, backend):
    feature = Feature(name="compile", turn_on=lambda pipe: compile_blocks(pipe, backend))
    assert deviation(subject, feature) <= 1e-5
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.slow
def test_compiled_blocks_take_lora(subject):
    names = next(pair for pair in PAIRS if "regional_compile" in pair)
    assert deviation(subject, *(BY_NAME[name] for name in names)) <= 1e-5


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["model", "sequential", "group"])
def test_offload_on_a_gpu_changes_nothing(subject, kind):
    def plain(pipe):
        pipe.to("cuda")

    def offload(pipe):
        if kind == "model":
            pipe.enable_model_cpu_offload()
        elif kind == "sequential":
            pipe.enable_sequential_cpu_offload()
        else:
            pipe.text_encoder.to("cuda")
            pipe.transformer.enable_group_offload(
                onload_device=torch.device("cuda"), offload_type="leaf_level", use_stream=True
            )

    feature = Feature(name=kind, turn_on=offload, reference=plain, is_before=kind == "sequential", goal=1e-4)
    assert deviation(subject, feature) <= feature.goal
