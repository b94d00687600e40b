import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVE_OTHERS = ("acting", "claims", "face_quality", "trials", "verb_trials", "verbs")
FILES = sorted([*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "benchmarks" / "robustness").glob("*.py")])
SCRIPTS = [path for path in FILES if path.stem not in SERVE_OTHERS]


@pytest.fixture
def claims(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import claims

    yield claims
    sys.modules.pop("claims")


def test_a_claim_is_one_line_of_four_fields(claims):
    assert claims.Claim("x.rate", 0.97, 0.95, ">=").line() == "x.rate\t0.97\t>= 0.95\tok"
    assert claims.Claim("x.rate", 0.9, 0.95, ">=").line().endswith("\tshort")
    assert claims.Claim("x.distance", 0.9, 0.95, "<=").is_met
    assert not claims.Claim("x.rank1", 0.08, 0.08, "<").is_met


def test_a_missing_figure_falls_short(claims):
    assert not claims.Claim("x.rate", float("nan"), 0, ">=").is_met


def test_claims_come_last_and_land_in_the_file(claims, tmp_path, capsys):
    benchmark = claims.Benchmark("x", seed=3)
    benchmark.arguments(["--json", str(tmp_path / "x.json"), "--seed", "5"])
    benchmark.claim("x.rate", 1.0, ">=", 0.5)
    benchmark.note("x.detail", 0.25)
    assert benchmark.finish() == 0
    printed = capsys.readouterr().out.splitlines()
    assert "seed 5" in printed[0]
    assert printed[-1] == "x.rate\t1\t>= 0.5\tok"
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["seed"] == 5
    assert record["claims"][0]["ok"] is True
    assert record["notes"] == {"x.detail": 0.25}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_benchmark_states_its_seed_and_claims(script):
    text = script.read_text()
    if script.parent.name == "robustness":  # Its scripts share the rest.
        text += script.with_name("verb_trials.py").read_text() if "try_all(" in text else ""
        assert "benchmark_of(" in text
        assert "tally.finish()" in text
        text = script.with_name("trials.py").read_text()
    assert "seed=" in text
    assert "benchmark.finish()" in text


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_make_bench_runs_every_benchmark_but_those_that_train_or_want_a_card_another_base_or_root():
    command = ["make", "--dry-run", "--no-print-directory", "bench"]
    plan = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = [word for word in plan.split() if word.startswith("benchmarks/")]
    asked_for = ("ablations", "bit_identity", "disks", "gpu", "guidance", "mean_head", "paper_figures")
    quick = [path for path in SCRIPTS if path.stem not in asked_for]
    assert [word.rstrip(";") for word in named] == [path.relative_to(ROOT).as_posix() for path in quick]
