"""`likeness train report`: one page with what a run has left, whatever state it is in."""

import json
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from likeness.cli import app
from likeness.errors import ConfigError
from likeness.media import write_image
from likeness.training.precompute import run as precompute
from likeness.training.report.charts import MAX_POINTS, draw_curves, format_value, thin_out
from likeness.training.report.page import MAX_SHEETS, build_page
from likeness.training.report.read import SKIPPED, read_run

HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m\"'"


def write_stage(folder, lines, *, sheets=(), checkpoints=(), tail=""):
    (folder / "sheets").mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines) + tail)
    for step in sheets:
        write_image(folder / "sheets" / f"step_{step:08d}.png", np.full((8, 8, 3), step % 256, np.uint8))
    for step in checkpoints:
        (folder / "checkpoints" / f"step_{step:08d}").mkdir(parents=True)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "mine"
    levels = {f"denoising_t{level}": 0.1 * (level + 1) for level in range(4)}
    lines = [
        {"step": step, "elapsed_s": 2.0 * step, "samples_per_s": 8.0, "loss": 1 / step, "denoising": 0.5 / step,
         "grad_norm": 0.1, "learning_rate": 1e-5, "data_wait_share": 0.03, **levels}
        for step in range(1, 30)
    ]  # fmt: skip
    lines.append({"step": 30, "validation_face_loss": 0.25})
    write_stage(folder / "clips", lines[:10], checkpoints=(5, 10))
    write_stage(folder / "images", lines, sheets=(30, 10, 20), checkpoints=(30,))
    (folder / "images" / "finished.safetensors").write_bytes(b"")
    settings = {"kind": "magic_mirror", "data": {"path": HOSTILE}, "stages": [{"name": "images"}, {"name": "clips"}]}
    record = {"likeness_version": "1.2", "settings": settings, "complete": False}
    (folder / "recipe.json").write_text(json.dumps(record))
    return folder


def test_the_page_has_stages_in_the_recipes_order_with_curves_sheets_and_checkpoints(run):
    page = build_page(read_run(run))
    assert re.findall(r"<h2>(\w+)</h2>", page) == ["images", "clips", "Settings"]
    titles = re.findall(r"<h3>([^<]+)</h3>", page)
    assert titles[:4] == ["loss", "denoising", "denoising by timestep", "validation_face_loss"]
    assert titles[4:8] == [
        "learning rate", "gradient norm", "samples per second", "share of time that waited for data",
    ]  # fmt: skip
    assert re.findall(r"<figcaption>step (\d+)</figcaption>", page) == ["10", "20", "30"]  # In time order.
    assert page.count("data:image/png;base64,") == 3
    assert "step_00000005, step_00000010" in page
    assert "t 750 to 999" in page
    assert "3.0 %" in page
    assert "not complete" in page


def test_the_page_needs_nothing_but_itself_and_escapes_everything(run):
    write_stage(run / "odd", [{"step": 1, HOSTILE: 1.0}], tail='{"step": 2, "lo')
    (run / "skipped.jsonl").write_text(
        json.dumps({"file": HOSTILE, "reason": "no face"}) + "\n" + json.dumps({"caption": HOSTILE}) + "\nnot json\n"
    )
    page = build_page(read_run(run))
    assert "<script" not in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert page.count("&lt;script&gt;") >= 4  # The metric, the settings, the file and the caption.
    assert not re.search(r'(src|href)="(?!data:image/png)', page)
    assert "@import" not in page
    assert "url(" not in page
    assert "Left out of the data (2)" in page
    assert "1 lines of the log cannot be read" in page


def test_skipped_files_are_read_from_where_precompute_lists_them():
    assert precompute.SKIPPED == SKIPPED


def test_a_run_that_has_just_begun_has_a_page_and_another_folder_is_refused(tmp_path):
    write_stage(tmp_path / "run" / "images", [])
    assert "no metrics yet" in build_page(read_run(tmp_path / "run"))
    assert "no recipe.json" in build_page(read_run(tmp_path / "run"))
    with pytest.raises(ConfigError, match="no stage with a log"):
        read_run(tmp_path)


def test_values_that_are_not_finite_or_no_numbers_are_left_out(tmp_path):
    lines = [{"step": 1, "loss": None, "name": "x", "flag": True}, {"step": 2, "loss": 0.5}]
    write_stage(tmp_path / "a", lines, tail="[1]\n\n")
    (stage,) = read_run(tmp_path).stages
    assert stage.curves == {"loss": [(2, 0.5)]}
    assert stage.unreadable_lines == 2


def test_of_many_sheets_some_are_shown_with_the_first_and_the_last(tmp_path):
    write_stage(tmp_path / "a", [{"step": 1, "loss": 1.0}], sheets=range(1, 101))
    page = build_page(read_run(tmp_path))
    shown = [int(step) for step in re.findall(r"<figcaption>step (\d+)</figcaption>", page)]
    assert len(shown) == MAX_SHEETS
    assert shown == sorted(shown)
    assert (shown[0], shown[-1]) == (1, 100)


def test_a_long_curve_is_drawn_by_means_that_end_at_its_last_step():
    curve = [(step, float(step % 2)) for step in range(8_000)]
    thin = thin_out(curve)
    assert len(thin) == MAX_POINTS
    assert thin[-1][0] == 7_999
    assert {value for _, value in thin} == {0.5}
    assert thin_out(curve[:MAX_POINTS]) == curve[:MAX_POINTS]


@pytest.mark.parametrize("values", [[0.0], [1.0, 1.0], [-1.0, 2.0], [1e-9, 1e9], [0.0, 0.0], [5.0], [1e-5, 9e-6]])
@pytest.mark.parametrize("is_log", [False, True])
def test_every_curve_stays_inside_of_its_panel(values, is_log):
    svg = draw_curves({"a": list(enumerate(values))}, "a", last_step=len(values), is_log=is_log)
    numbers = [float(x) for text in re.findall(r'points="([^"]+)"', svg) for x in re.split("[ ,]", text)]
    numbers += [float(x) for x in re.findall(r'c[xy]="([^"]+)"', svg)]
    assert numbers
    assert all(0 <= number <= 480 for number in numbers)


def test_ticks_of_a_narrow_range_look_different():
    svg = draw_curves({"a": [(0, 0.5921), (1, 0.5924)]}, "a", last_step=1)
    ticks = re.findall(r'text-anchor="end">([\d.]+)</text>', svg)[:-1]
    assert len(ticks) >= 3
    assert len(set(ticks)) == len(ticks)


def test_values_on_axes_are_short():
    values = (0, 0.25, 1e-5, 2.5e-6, 123456, 1.5e9)
    assert [format_value(value) for value in values] == ["0", "0.25", "1e-5", "2.5e-6", "123,456", "1.5e9"]


def test_the_verb_writes_the_page_into_the_run_or_where_it_is_told(run, tmp_path):
    written = CliRunner().invoke(app, ["train", "report", str(run)])
    assert written.exit_code == 0
    assert (run / "report.html").read_text().startswith("<!doctype html>")
    CliRunner().invoke(app, ["train", "report", str(run), "-o", str(tmp_path / "page.html")])
    assert (tmp_path / "page.html").is_file()
