"""`likeness train plan`: its formulas against what autograd saves and torch counts, and what it claims at full size."""

import json
import re
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import CogVideoXPipeline, CogVideoXTransformer3DModel
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from typer.testing import CliRunner

from likeness.backbones import tiny
from likeness.cli import app
from likeness.errors import ConfigError
from likeness.identity.tokens import PersonTokens
from likeness.methods.fantasy_id import FantasyID
from likeness.methods.magic_mirror import MagicMirror, MagicMirrorIdentity
from likeness.training import recipes
from likeness.training.objectives import diffusion
from likeness.training.plan.activations import saved_per_sample
from likeness.training.plan.flops import context_tokens, count_forward_flops, count_tokens
from likeness.training.plan.plan import make_plan
from likeness.training.plan.sizes import MetaModels, count_parameters

RECIPES = Path(__file__).parents[2] / "recipes"
FULL_SIZE = sorted(path for size in ("2b", "5b") for path in (RECIPES / f"cogvideox_{size}").glob("*.toml"))
DATA = SimpleNamespace(height_px=96, width_px=144, num_frames=9, resolution_px=None)


def build(method, *, layers=4, heads=4, text=10):
    """A small base with a method whose layers all have gradients."""
    torch.manual_seed(0)
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=heads, attention_head_dim=32, num_layers=layers, time_embed_dim=32, text_embed_dim=64,
        max_text_seq_length=text, sample_width=18, sample_height=12, sample_frames=9,
        use_rotary_positional_embeddings=True,
    )  # fmt: skip
    transformer.requires_grad_(False)
    vae = tiny.build_vae(tiny.VaeSettings(widths=(8, 8, 8, 8), norm_num_groups=2))
    pipe = CogVideoXPipeline(None, None, vae, transformer, tiny.build_scheduler())
    if method == "magic_mirror":
        sizes = {"face_tokens": 8, "norm_width": 32, "norm_hidden_width": 32}
        adapter = MagicMirror(**MagicMirror.tiny_config(transformer.config, **sizes))
    else:
        sizes = {"injection_width": 96, "context_width": 64, "num_vertices": (30, 8), "vertex_widths": (16,)}
        adapter = FantasyID(**FantasyID.tiny_config(transformer.config, **sizes))
    for module in (transformer, adapter):
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    adapter.attach(pipe, dtype=torch.float32)
    return MetaModels(source="test", transformer=transformer, vae=vae, method=adapter)


def run(models, *, is_checkpointed):
    """Numbers that one forward pass saves, each storage once without parameters; and FLOPs forward and in all."""
    transformer, method = models.transformer, models.method
    if is_checkpointed:
        transformer.enable_gradient_checkpointing()
    noisy, text = torch.randn(1, 3, 16, 12, 18), torch.randn(1, 10, 64)
    if isinstance(method, MagicMirror):
        text.requires_grad_()  # The fuse module has changed it.
        tokens = torch.randn(1, 8, models.width, requires_grad=True)
        identity = MagicMirrorIdentity(id_tokens=torch.randn(1, 2, 128, requires_grad=True), face_tokens=tokens)
    else:
        tokens = torch.randn(1, context_tokens(method), 64, requires_grad=True)
        identity = PersonTokens(face_tokens=tokens)
    parameters = {p.untyped_storage().data_ptr() for m in (transformer, method) for p in m.parameters()}
    storages, alive = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes() / 4
            alive.append(tensor)
        return tensor

    def forward_flops(query, key, value, *_, **__):
        return sdpa_flop_count(query, key, value)

    def backward_flops(gradient, query, key, value, *_, **__):
        return sdpa_backward_flop_count(gradient, query, key, value)

    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    custom = {attention: forward_flops, backward: backward_flops}
    with FlopCounterMode(display=False, custom_mapping=custom) as counter:
        active = torch.ones(1, dtype=torch.bool)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x), method.conditioned(identity, active=active):
            loss = diffusion.predict_velocity(transformer, noisy, text, torch.tensor([500])).square().mean()
        forward = counter.get_total_flops()
        with method.conditioned(identity, active=active):
            loss.backward()
    return sum(storages.values()), forward, counter.get_total_flops()


@cache
def plan_of(size, method):
    """The plan of a recipe as it is."""
    return make_plan(recipes.read(RECIPES / f"cogvideox_{size}b" / f"{method}.toml"))


@pytest.mark.parametrize("method", ["magic_mirror", "fantasy_id"])
def test_the_formula_of_activations_is_within_a_tenth_of_what_autograd_saves(method):
    models = build(method)
    tokens = count_tokens(models, DATA, is_image=False)
    assert tokens.video == 3 * 6 * 9
    found, _, _ = run(models, is_checkpointed=False)
    assert saved_per_sample(models, tokens, is_checkpointed=False).elements == pytest.approx(found, rel=0.1)


@pytest.mark.parametrize("method", ["magic_mirror", "fantasy_id"])
def test_a_checkpointed_block_keeps_its_input_alone(method):
    """Beside the ends, of which a small model has relatively many: the difference of 4 and 2 blocks."""
    sizes, found = [], []
    for layers in (2, 4):
        models = build(method, layers=layers)
        tokens = count_tokens(models, DATA, is_image=False)
        sizes.append(saved_per_sample(models, tokens, is_checkpointed=True).elements)
        found.append(run(models, is_checkpointed=True)[0])
    assert sizes[1] - sizes[0] == pytest.approx(found[1] - found[0], rel=0.1)


@pytest.mark.parametrize("method", ["magic_mirror", "fantasy_id"])
@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_the_formula_of_flops_is_within_a_twentieth_of_what_torch_counts(method, is_checkpointed):
    models = build(method)
    work = count_forward_flops(models, count_tokens(models, DATA, is_image=False))
    _, forward, total = run(models, is_checkpointed=is_checkpointed)
    assert work.forward == pytest.approx(forward, rel=0.05)
    assert work.step(is_checkpointed=is_checkpointed) == pytest.approx(total, rel=0.05)


@pytest.mark.parametrize("name", ["magic_mirror", "fantasy_id"])
def test_5b_with_checkpoints_and_caches_fits_one_card_of_80_gb(name):
    recipe = recipes.read(RECIPES / "cogvideox_5b" / f"{name}.toml")
    clips = plan_of("5", name).stages[-1]
    _, one, eight = clips.fits
    assert one.fits
    assert one.switches.micro_batch == 1
    assert one.switches.overrides(recipe.stages[-1], 0) == []  # As the recipe has it.
    assert eight.fits
    number = len(recipe.stages) - 1
    switch = f"stages.{number}.gradient_checkpointing"
    without = recipes.read(RECIPES / "cogvideox_5b" / f"{name}.toml", [f"{switch}=false"])
    changed = make_plan(without).stages[number].fits[1]  # Without checkpoints 5B needs more than 80 GB.
    assert changed.switches.overrides(without.stages[number], number) == [f"{switch}=true"]


def test_the_floors_of_a_clip_are_those_counted_before():
    """The frozen base of 5B at 49x480x720: 909 TFLOP, 1,241 with checkpoints (without a method)."""
    plan = make_plan(recipes.read(RECIPES / "cogvideox_5b" / "magic_mirror.toml", ["method.has_face=false"]))
    work = plan.stages[-1].work
    assert work.step(is_checkpointed=False) / 1e12 == pytest.approx(909, rel=0.005)
    assert work.step(is_checkpointed=True) / 1e12 == pytest.approx(1241, rel=0.005)
    assert plan.stages[-1].tokens.video == 17_550
    hours = plan.stages[-1].hours(400, 1)
    assert hours == pytest.approx(5_000 * plan.stages[-1].step_flops / 400e12 / 3600)
    assert plan.stages[-1].hours(400, 8) == hours / 8


def test_parameters_are_those_of_the_built_models():
    plan = plan_of("5", "magic_mirror")
    parts = {part.name: part for part in plan.parts}
    assert parts["base transformer"].frozen == pytest.approx(5.57e9, rel=0.002)
    with torch.device("meta"):
        method = MagicMirror(**MagicMirror.cogvideox_5b_config())
    assert parts["layers"].trainable == count_parameters(method.layers)
    assert (parts["identity_perceiver"].trainable, parts["face_encoder"].trainable) == (0, 0)
    assert plan.trainable + parts["face_encoder"].frozen + parts["identity_perceiver"].frozen == count_parameters(
        method
    )


def test_a_base_on_disk_is_read_from_its_config_files_and_data_are_counted(tmp_path):
    base = tmp_path / "any name"
    for part in (
        tiny.build_vae(tiny.VaeSettings()),
        tiny.build_transformer(tiny.TransformerSettings(), tiny.TextSettings()),
    ):
        part.save_config(base / ("vae" if hasattr(part, "decoder") else "transformer"))
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.mp4").write_bytes(b"")
    rows = [{"media": name, "caption": "a woman"} for name in ("a.png", "b.mp4")]
    (tmp_path / "people.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    recipe = RECIPES / "cogvideox_5b" / "magic_mirror.toml"
    given = [f'base="{base}"', f'data.path="{tmp_path / "people.jsonl"}"', "data.num_frames=9"]
    plan = make_plan(recipes.read(recipe, given))
    assert plan.source.endswith("config.json")
    assert (plan.caches.images, plan.caches.clips) == (1, 1)
    assert plan.caches.latents == 2 * 16 * (1 + 3) * 60 * 90
    with pytest.raises(ConfigError, match="CogVideoX-2B and CogVideoX-5B alone"):
        make_plan(recipes.read(recipe, [f'base="{tmp_path / "gone"}"']))


def test_the_verb_prints_a_table_or_json_and_refuses_other_recipes():
    recipe = str(RECIPES / "cogvideox_5b" / "fantasy_id.toml")
    text = CliRunner().invoke(app, ["train", "plan", recipe, "--tflops", "200"])
    assert text.exit_code == 0
    assert "no GPU has measured them" in text.output
    assert "assumed 200 TFLOP/s" in text.output
    plain = CliRunner().invoke(app, ["train", "plan", recipe, "--json", "--samples", "50000"])
    values = json.loads(plain.output)
    assert values["kind"] == "counted"
    assert values["caches"]["clips"] == 50_000
    assert [each["fits"] for each in values["stages"][0]["fits"]] == [False, True, True]
    for rate in ("0", "nan", "inf"):
        refused = CliRunner().invoke(app, ["train", "plan", recipe, "--tflops", rate])
        assert isinstance(refused.exception, ConfigError), rate
    other = CliRunner().invoke(app, ["train", "plan", str(RECIPES / "tiny" / "vae.toml")])
    assert isinstance(other.exception, ConfigError)


def test_the_table_in_the_documentation_is_what_is_counted():
    text = (RECIPES.parent / "docs" / "training.md").read_text()
    rows = re.findall(
        r"^\| (\d)B ([\w ]+) \| ([\d.]+) ([BM]) \| ([\d.]+) B \| ([\d,]+) \| (\d+) GB", text, re.MULTILINE
    )
    assert len(rows) == 4
    for size, method, trained, unit, frozen, flops, memory in rows:
        name = {"Magic Mirror": "magic_mirror", "FantasyID": "fantasy_id"}[method]
        plan = plan_of(size, name)
        clips = plan.stages[-1]
        assert plan.trainable / {"B": 1e9, "M": 1e6}[unit] == pytest.approx(float(trained), rel=0.005)
        assert plan.frozen / 1e9 == pytest.approx(float(frozen), rel=0.005)
        assert clips.step_flops / clips.batch / 1e12 == pytest.approx(float(flops.replace(",", "")), abs=0.6)
        assert clips.fits[1].memory.total / 1e9 == pytest.approx(float(memory), abs=0.6)
