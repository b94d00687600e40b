import ast
import importlib
import json
from pathlib import Path

import pytest
from toy_stages import write_pictures

from likeness import cli
from likeness.curation import advice, recipe
from likeness.curation.stage import registered


def run_guard(folder, output, capsys, *more):
    path = output.parent / "recipe.toml"
    path.write_text(
        f'kind = "data"\nexecutor = {{ workers = 0 }}\n[read]\nfolders = ["{folder}"]\n'
        '[[stages]]\nname = "guard"\n[[stages]]\nname = "captions"\n'
    )
    code = cli.main(["data", "run", str(path), "-o", str(output), *more])
    return code, capsys.readouterr()


def test_a_run_that_keeps_nothing_names_the_setting_and_following_it_helps(tmp_path, capsys):
    folder = write_pictures(tmp_path / "raw", 2)
    for path in folder.rglob("*.txt"):
        path.write_text("a woman smiles")
    code, printed = run_guard(folder, tmp_path / "out", capsys)
    assert code == 3
    assert "guard rejected 2 of 2 (resolution too low)" in printed.err
    assert "`min_side_px` is 256, and the median of the rejected is 32" in printed.err
    override = printed.err[printed.err.index("--set ") :].split()[:2]
    assert override == ["--set", "stages.0.min_side_px=32"]
    code, printed = run_guard(folder, tmp_path / "out", capsys, *override)
    assert code == 0
    assert "rejected" not in printed.err


def test_missing_captions_are_said_at_the_start_and_at_the_end(tmp_path, capsys, caplog):
    folder = write_pictures(tmp_path / "raw", 2)
    for path in folder.rglob("*.txt"):
        path.unlink()
    code, printed = run_guard(folder, tmp_path / "out", capsys, "--set", "stages.0.min_side_px=32")
    assert code == 3
    assert "No file has a caption: all 2 will be rejected." in caplog.text
    for way in ("NAME.txt", "a column `caption` of a list", "--set stages.1.captioner=endpoint"):
        assert way in printed.err
    code, printed = run_guard(folder, tmp_path / "out", capsys, "--set", "stages.0.min_side_px=32", "--json")
    assert code == 3
    (line,) = json.loads(printed.out)["advice"]
    assert line.startswith("captions rejected 2 of 2 (no caption). Every file needs a caption")


def test_a_folder_without_files_is_named(tmp_path, capsys):
    (tmp_path / "raw").mkdir()
    code, printed = run_guard(tmp_path / "raw", tmp_path / "out", capsys)
    assert code == 3
    assert "No file was found." in printed.err


@pytest.mark.parametrize(("dropped", "has_advice"), [(9, False), (10, True)])
def test_advice_begins_above_nine_tenths(dropped, has_advice):
    counts = {"sources": dropped + 1, "samples": 1, "dropped": dropped}
    manifest = {"counts": counts, "recipe": {"stages": [{"name": "toy_limit"}]}}
    rows = [{"stage": "toy_limit", "reason": "too many", "value": None}] * dropped
    found = advice.advise(manifest, rows)
    assert found == ([f"toy_limit rejected {dropped} of {dropped + 1} (too many)."] if has_advice else [])


def test_suggestions_round_to_the_side_that_keeps_the_median():
    assert advice._round(41.7, up=False, is_whole=False) == "41"
    assert advice._round(0.01234, up=True, is_whole=False) == "0.013"
    assert advice._round(2.5, up=True, is_whole=True) == "3"
    assert advice._round(0.0, up=False, is_whole=True) == "0"


def reasons_of(path: Path) -> set[str]:
    """Reasons that are written in calls of `drop`, `_problem`, `_below` and `_above`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("drop", "_problem", "_below", "_above"):
                place = 1 if name == "drop" else 0
                texts = [one.value for one in node.args[place : place + 1] if isinstance(one, ast.Constant)]
                found |= {text for text in texts if isinstance(text, str)}
    return found


@pytest.mark.parametrize("name", sorted(recipe._MODULES))
def test_every_reason_of_a_stage_has_its_advice(name):
    module = importlib.import_module(f"likeness.curation.{recipe._MODULES[name]}")
    kind = registered()[name]
    reasons = reasons_of(Path(str(module.__file__)))
    known = {reason for stage, reason in advice._REMEDIES if stage == name}
    assert set(kind.limits.values()) <= set(kind.settings.model_fields)
    assert reasons == {*kind.limits, *known} | (reasons & {"unknown format", "unreadable header"})
