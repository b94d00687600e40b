import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from survey import answer_all, message

from likeness.app.study.metric_table import read_metric_table
from likeness.app.study.page import write_page
from likeness.app.study.report import make_report
from likeness.errors import ConfigError


@pytest.fixture
def answered(study, store):
    """Three careful raters, a careless one who would turn the result around, and one who left at once."""
    for number in range(3):
        answer_all(study, store, f"careful-{number}", lambda item: 8 if item.system == "ourmethod" else 4)
    answer_all(study, store, "careless-1", lambda item: 1 if item.system == "ourmethod" else 10, is_careful=False)
    store.register_rater("visitor-1")
    store.add(message(study, "visitor-1", study.items[0].id, 1))
    return store.newest()


def test_only_careful_raters_count(study, answered):
    report = make_report(study, answered)
    raters = report.raters
    assert (raters.total, raters.failed_checks, raters.unchecked) == (5, ("careless-1",), ("visitor-1",))
    means = {system: rating.mean.value for system, rating in report.ratings["visual_quality"].items()}
    assert means == {"ourmethod": 8.0, "baseline": 4.0}
    assert report.ratings["visual_quality"]["ourmethod"].num_ratings == 9
    forgiving = make_report(study, answered, allowed_failures=2)
    assert "careless-1" in forgiving.raters.used
    assert forgiving.ratings["visual_quality"]["ourmethod"].mean.value == pytest.approx((9 * 8 + 3) / 12)


def test_difference_is_paired_and_clear(study, answered):
    (row, *_) = make_report(study, answered).differences
    assert (row.a, row.b, row.difference.value) == ("ourmethod", "baseline", 4.0)
    assert_allclose([row.difference.low, row.difference.high], 4.0)


def test_overall_is_the_mean_of_the_questions(study, store):
    store.register_rater("rater-0001")
    for trial in study.plans[0]:
        check = study.check_by_id.get(trial)
        store.add(message(study, "rater-0001", trial, check.expected if check else (1, 2, 3, 6)))
    report = make_report(study, store.newest())
    assert report.ratings["overall"]["baseline"].mean.value == 3.0
    assert report.ratings["id_similarity"]["baseline"].histogram == (0, 0, 0, 0, 0, 3, 0, 0, 0, 0)


def test_nobody_is_no_result(study):
    with pytest.raises(ConfigError, match="none counts"):
        make_report(study, [])


@pytest.mark.parametrize("kind", ["csv", "json", "evaluation"])
def test_metrics_are_ranked_against_people(study, store, tmp_path, kind):
    quality = {item.id: 2 + number for number, item in enumerate(study.items)}
    for number in range(2):
        answer_all(study, store, f"careful-{number}", lambda item: quality[item.id])
    rows = [(item.system, item.video, quality[item.id]) for item in study.items]
    path = tmp_path / f"figures.{'csv' if kind == 'csv' else 'json'}"
    if kind == "csv":
        lines = [f"{system},{video}.mp4,{good},{-good},x" for system, video, good in rows]
        path.write_text("\n".join(["system,video,good,bad,note", *lines]))
    elif kind == "json":
        path.write_text(json.dumps([{"system": s, "video": v, "good": g, "bad": -g} for s, v, g in rows]))
    else:
        videos = [{"system": s, "name": v, "scores": {"good": g, "bad": -g, "no": None}} for s, v, g in rows]
        path.write_text(json.dumps({"videos": videos}))
    found = make_report(study, store.newest(), metrics=read_metric_table(path)).correlations["visual_quality"]
    assert set(found) == {"good", "bad"}
    assert (found["good"].spearman.value, found["bad"].kendall) == (pytest.approx(1.0), pytest.approx(-1.0))


def test_figures_of_other_videos_are_refused(study, answered, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("system,video,good\nsomebody,nobody_1,3\n")
    with pytest.raises(ConfigError, match="metrics are of other videos"):
        make_report(study, answered, metrics=read_metric_table(path))
    for text in ("", "a,b\n1,2\n", "system,video\na,b\n"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="row for each video"):
            read_metric_table(path)
    path = path.with_suffix(".json")
    for text in ("[" * 100_000, '[{"scores": {}}]', "[[1]]", "[1]"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="row for each video"):
            read_metric_table(path)


def test_names_with_dots_are_whole_and_no_video_has_two_rows(tmp_path):
    path = tmp_path / "figures.csv"
    path.write_text("system,video,good\na,d_v1.1,3\na,d_v1.2.mp4,4\n")
    assert read_metric_table(path) == {"good": {("a", "d_v1.1"): 3, ("a", "d_v1.2"): 4}}
    path.write_text("system,video,frame,good\na,d,0,3\na,d,1,4\n")
    with pytest.raises(ConfigError, match="several rows"):
        read_metric_table(path)


def test_the_page_shows_the_figures_and_needs_nothing_else(study, answered, tmp_path):
    metrics = {"<cosine>": {(item.system, item.video): float(n) for n, item in enumerate(study.items)}}
    report = make_report(study, answered, metrics=metrics)
    write_page(tmp_path / "report.html", study, report)
    page = (tmp_path / "report.html").read_text()
    assert "3 of 5 raters" in page
    assert "8.00 [8.00, 8.00]" in page
    assert "&lt;cosine&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["agreement"]["overall"] == 1.0
    assert np.isnan(make_report(study, [a for a in answered if a.rater == "careful-0"]).agreement["overall"])
