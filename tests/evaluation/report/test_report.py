"""What an evaluation leaves behind: the page, Parquet, JSON."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_results import make_result, record
from made_videos import frames_of

from likeness.app.study.metric_table import read_metric_table
from likeness.evaluation.report.charts import curves, distribution
from likeness.evaluation.report.export import publish
from likeness.evaluation.report.strips import rank_videos
from likeness.evaluation.results.records import load
from likeness.media import write_image, write_video

METRICS = [record("match_rate"), record("id_distance", "lower"), record("inception_score", level="system")]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two systems of seven videos; one has no figure, one is damaged, one was taken away since."""
    folder = tmp_path_factory.mktemp("report")
    names = [f"{letter}<b>_park" for letter in "abcdefg"]
    scores = {
        system: {name: {"match_rate": number / 10 + shift, "id_distance": 0.5} for number, name in enumerate(names)}
        for system, shift in (("ours", 0.3), ("theirs & co", 0.0))
    }
    scores["ours"][names[2]]["match_rate"] = None
    result = make_result(scores, METRICS, failed=[("theirs & co", names[6])])
    for video in result.videos:
        path = folder / video.path
        object.__setattr__(video, "path", str(path))
        if video.error is None:
            object.__setattr__(video, "frames", {"cosine": [0.9, None], "num_faces": [1.0, 0.0]})
        if video.name != names[0]:
            write_video(path, frames_of(2, 32, 32), 8)
    write_image(folder / "a.png", frames_of(1)[0])
    references = dict.fromkeys("abcdefg", (folder / "a.png",))
    publish(folder / "out", result, references, title="Ours & <theirs>")
    return result, folder / "out"


class Page(HTMLParser):
    """Counts tags, and keeps every address."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: dict[str, int] = {}
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "line", "circle", "rect", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("line", "circle", "rect", "polyline"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def page(made):
    parser = Page()
    parser.feed((made[1] / "report.html").read_text())
    return parser


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(page):
    assert page.open == []
    assert page.tags["title"] == 1
    assert "script" not in page.tags
    assert page.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)


def test_the_page_shows_every_part(page):
    for part in (
        "Ours & <theirs>",
        "Failed videos",
        "It is damaged.",
        "Systems compared",
        "Benjamini and Hochberg",
        "Distributions",
        "Similarity by frame",
        "Worst and best clips",
        "Not measured",
        "likeness models pull raft",
        "How it was measured",
        "(6 of 7)",
    ):
        assert part in page.text
    # One of the worst was taken away since; its line stays, with the reason.
    assert "does not exist" in page.text
    assert page.tags["img"] == 2 * 6 - 2


def test_names_cannot_break_the_page(made, page):
    assert "a<b>_park" in page.text
    assert "<b>_park" not in (made[1] / "report.html").read_text()


def test_worst_and_best_are_in_order_and_a_video_without_figure_is_worst(made):
    metric, ranked = rank_videos(made[0], "ours")
    assert metric.name == "match_rate"
    assert [video.name[0] for video in ranked] == ["c", "a", "b", "d", "e", "f", "g"]


def test_figures_come_back_from_every_file(made):
    result, folder = made
    assert load(folder / "evaluation.json").to_dict() == result.to_dict()
    compared = json.loads((folder / "comparison.json").read_text())
    assert compared["differences"][0]["better"] in ("ours", None)
    rows = pq.read_table(folder / "videos.parquet").to_pylist()
    assert [row["match_rate"] for row in rows] == [video.scores.get("match_rate") for video in result.videos]
    assert [row["error"] for row in rows if row["error"]] == ["It is damaged."]
    assert "inception_score" not in rows[0]
    kinds = pq.read_schema(folder / "videos.parquet")
    assert kinds.field("id_distance").metadata[b"direction"] == b"lower"
    frames = pq.read_table(folder / "frames.parquet").to_pylist()
    assert len(frames) == 2 * 13
    assert [row["cosine"] for row in frames[:2]] == [0.9, None]
    # A study holds these figures against people's ratings.
    assert len(read_metric_table(folder / "videos.parquet")["match_rate"]) == 12


def test_a_curve_has_gaps_where_there_is_no_face():
    drawn = curves({"a": (0, [0.5, 0.6, None, 0.7, None, 0.8, 0.9])}, "a", (0.0, 1.0))
    assert drawn.count("<polyline") == 2
    assert drawn.count("<circle") == 1


def test_a_higher_value_is_drawn_further_right_and_further_up():
    drawn = distribution({"a": [0.1, 0.5, 0.9]}, "a")
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', drawn)]
    assert places == sorted(places)
    assert np.isclose(places[1] - places[0], places[2] - places[1], atol=0.2)
    line = re.findall(r'points="([^"]+)"', curves({"a": (0, [0.1, 0.9])}, "a", (0.0, 1.0)))[0]
    (_, low), (_, high) = [point.split(",") for point in line.split()]
    assert float(high) < float(low)
    assert "No video" in distribution({"a": []}, "a")
