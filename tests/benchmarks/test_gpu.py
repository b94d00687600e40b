import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.sh"
NAMES = ["machine", "stock", "attention native", "adapted", "training step", "VAE decode", "TAECVX-shaped decode",
         "compiled", "compiled, adapted", "compiled, fp8", "compiled, fp8, adapted, cached"]  # fmt: skip


@pytest.fixture(autouse=True)
def on_gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    yield
    for name in [name for name in sys.modules if name.split(".")[0] in ("on_gpu", "gpu", "claims")]:
        sys.modules.pop(name)


def run(tmp_path, *words, **environment):
    settings = os.environ | {"PYTHON": sys.executable, "OUT": str(tmp_path), "WHEELS": str(tmp_path / "none")}
    return subprocess.run([SCRIPT, *words], env=settings | environment, capture_output=True, text=True, check=False)


needs_timeout = pytest.mark.skipif(shutil.which("timeout") is None, reason="coreutils are not installed")


def test_dry_run_measures_every_part_and_writes_it(tmp_path, capsys, monkeypatch):
    import gpu

    monkeypatch.setattr(sys, "argv", ["gpu.py", "--dry-run", "--table", str(tmp_path / "gpu_table.json")])
    assert gpu.main() == 0
    assert "11 of 11 parts ran; no figure here is a result" in capsys.readouterr().out
    check_table(tmp_path / "gpu_table.json")


@needs_timeout
@pytest.mark.slow
def test_the_script_runs_dry_in_a_process_of_its_own(tmp_path):
    done = run(tmp_path, "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    check_table(tmp_path / "gpu_table.json")


@needs_timeout
def test_the_script_passes_its_arguments_and_its_folder_on(tmp_path):
    stub = tmp_path / "python"
    stub.write_text(
        '#!/bin/sh\ntest "$1" = - || { echo "$@" >"$OUT/words"; echo "$PYTHONPATH" >"$OUT/path"; exit 3; }\n'
    )
    stub.chmod(0o755)
    assert run(tmp_path, "--dry-run", "--seed", "4", PYTHON=str(stub)).returncode == 3
    files = f"--table {tmp_path}/gpu_table.json --json {tmp_path}/gpu.json"
    assert (tmp_path / "words").read_text() == f"benchmarks/gpu.py {files} --dry-run --seed 4\n"
    assert (tmp_path / "path").read_text().startswith(f"{ROOT}/src")


def check_table(path):
    parts = json.loads(path.read_text())["parts"]
    assert list(parts) == NAMES
    # The first tenth, then one in four: steps 1 to 5, 9, 13, ..., 49.
    assert parts["compiled, fp8, adapted, cached"]["computed"] == 16
    assert 0 < parts["compiled, fp8"]["error"] < 0.1
    assert parts["adapted"]["effect"] > 0


def test_without_a_gpu_every_figure_is_not_measured(capsys, monkeypatch):
    import gpu

    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main() == 0
    goals = [line for line in capsys.readouterr().out.splitlines() if line.startswith("gpu.")]
    assert len(goals) == 5
    assert all("\tnot measured\t" in line for line in goals)


def test_a_missing_package_is_named_with_a_remedy(tmp_path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -I "$@"\n')
    bare.chmod(0o755)
    done = run(tmp_path, "--dry-run", PYTHON=str(bare))
    assert done.returncode == 2
    assert "diffusers" in done.stderr
    assert "--fetch-wheels" in done.stderr


def test_goals_are_claimed_from_the_table(capsys):
    from claims import Benchmark
    from gpu import state_goals

    table = {
        "stock": {"seconds": 2.0},
        "compiled, adapted": {"seconds": 1.0, "ratio": 1.004, "control": 1.0001},
        "compiled, fp8": {"seconds": 0.8},
        "compiled, fp8, adapted, cached": {"seconds": 0.5},
    }
    benchmark = Benchmark("gpu")
    state_goals(benchmark, table)
    assert {claim.name: (claim.value, claim.is_met) for claim in benchmark.claims} == {
        "gpu.adapted_over_base": (1.004, True),
        "gpu.adapted_over_stock": (0.5, True),
        "gpu.fp8_speedup": (2.5, True),
        "gpu.cached_speedup": (4.0, False),
        "gpu.adapted_50_steps_s": (50.0, True),
    }

    table["compiled, adapted"]["control"] = 1.01
    benchmark = Benchmark("gpu")
    state_goals(benchmark, table)
    assert "gpu.adapted_over_base" not in {claim.name for claim in benchmark.claims}
    assert "gpu.adapted_over_base\tinconclusive" in capsys.readouterr().out


def test_a_part_that_fails_or_takes_too_long_does_not_stop_the_others(tmp_path):
    from on_gpu.clock import Table

    def fail():
        raise RuntimeError("no such kernel")

    def hang():
        while True:
            pass

    table = Table(path=tmp_path / "table.json", budget_s=100)
    table.run("broken", fail, deadline_s=1)
    table.run("slow", hang, deadline_s=0.2)
    table.run("good", lambda: {"seconds": 1.0}, deadline_s=1)
    table.run("too long", lambda: {"seconds": 1.0}, deadline_s=1000)
    states = {name: part["state"] for name, part in json.loads((tmp_path / "table.json").read_text())["parts"].items()}
    assert states == {"broken": "failed", "slow": "failed", "good": "measured", "too long": "not measured"}
    assert table.parts["broken"]["why"] == "RuntimeError: no such kernel"
    assert "longer than" in table.parts["slow"]["why"]


def test_small_decoder_has_the_parameters_of_taecvx_and_makes_all_frames():
    from on_gpu.small_decoder import SmallDecoder

    with torch.device("meta"):
        decoder = SmallDecoder()
        frames = decoder(torch.empty(1, 13, 16, 60, 90))
    assert frames.shape == (1, 49, 3, 480, 720)
    assert sum(p.numel() for p in decoder.parameters()) == pytest.approx(9.8e6, rel=0.01)


def test_float8_layer_is_close_to_the_one_that_it_replaces():
    from on_gpu.fp8 import Float8Linear

    torch.manual_seed(0)
    linear, x = torch.nn.Linear(64, 48), torch.randn(2, 5, 64)
    expected = linear(x)
    assert (Float8Linear(linear)(x) - expected).norm() < 0.05 * expected.norm()
