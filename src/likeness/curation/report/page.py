"""The page about curated data: one file without scripts; every text from the data is escaped."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from likeness import files
from likeness.curation.report.charts import draw_funnel, draw_histogram
from likeness.curation.report.read import Records, read_face_boxes, read_records
from likeness.curation.report.style import STYLE
from likeness.curation.report.thumbnails import make_thumbnails, spread
from likeness.curation.stage import Candidate
from likeness.text import escape_html
from likeness.training.report.style import table

MAX_SHOWN = 8
"""Thumbnails in a row."""
MAX_PEOPLE = 24
MAX_CAPTIONS = 40
MAX_FIGURES = 24
"""Facts whose distribution is drawn."""
MAX_LISTED = 200
"""Files that are listed because they are no sources."""
_FIRST_FIGURES = ("short_side_px", "duration_s", "yaw_deg", "pitch_deg", "roll_deg")
_NO_FIGURES = ("width_px", "height_px", "track", "shot")
"""Numbers that are shown in another way, or that are no quantities."""


def write_page(output: str | Path, target: Path) -> Records:
    """Write the page of a finished run to `target`; returns what it shows.

    Raises:
        ConfigError: The folder is not of a finished run.
        FileWriteError: The page cannot be written.
    """
    records = read_records(output)
    files.write_text(target, build_page(records))
    return records


def build_page(records: Records) -> str:
    """The page as HTML."""
    people = _people(records.kept)
    captions = spread(records.kept, MAX_CAPTIONS)
    filters = {
        stage.name: tuple(spread(part, MAX_SHOWN) for part in records.at(stage.name))
        for stage in records.stages
        if stage.dropped
    }
    shown = [one for kept, gone in filters.values() for one in (*kept, *gone)]
    shown += [one for group in people.values() for one in group[:MAX_SHOWN]] + captions
    pictures = make_thumbnails(shown, records.sources, read_face_boxes(records, shown))
    counts, name = records.manifest["counts"], escape_html(records.name)
    head = (
        f"{counts['sources']:,} files, {counts['samples']:,} samples of {len(people):,} people, "
        f"{counts['dropped']:,} dropped"
    )
    body = [f'<h1>{name}</h1><p class="soft">{head}</p>', "<h2>What was dropped, and why</h2>"]
    body.append(draw_funnel(records.stages))
    body += [_filter(stage, kept, gone, pictures) for stage, (kept, gone) in filters.items()]
    body += [
        _figures(records.kept),
        _clusters(people, pictures, records.sources),
        _captions(captions, len(records.kept), pictures),
    ]
    body += [_left_out(records.left_out), _recipe(records)]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{name}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def _filter(stage: str, kept: Sequence[Candidate], gone: Sequence[Candidate], pictures: Mapping[str, str]) -> str:
    if not gone:
        return ""
    passed = f"<h3>Kept</h3>{_row(kept, pictures, _describe)}" if kept else ""
    dropped = _row(gone, pictures, _reason, css="row dropped")
    return f"<h2>{escape_html(stage)}</h2><h3>Dropped</h3>{dropped}{passed}"


def _row(candidates: Iterable[Candidate], pictures: Mapping[str, str], describe: Any, css: str = "row") -> str:
    figures = []
    for one in candidates:
        text = escape_html(describe(one))
        address = pictures.get(one.id)
        picture = f'<img src="{address}" alt="">' if address else "<div></div>"
        figures.append(f"<figure>{picture}<figcaption>{text}</figcaption></figure>")
    return f'<div class="{css}">{"".join(figures)}</div>'


def _reason(candidate: Candidate) -> str:
    assert candidate.dropped is not None, "only dropped candidates have a reason"
    value = candidate.dropped.value
    shown = "" if value is None else f": {value:.3g}" if isinstance(value, float) else f": {value}"
    return f"{candidate.dropped.reason}{shown}"[:200]


def _describe(candidate: Candidate) -> str:
    return str(candidate.facts.get("person") or candidate.id[:8])


def _figures(kept: Sequence[Candidate]) -> str:
    """Distributions of sizes, durations, poses and the other numbers that stages found."""
    found: dict[str, list[float]] = {}
    for one in kept:
        for name, value in _numbers(one).items():
            found.setdefault(name, []).append(value)
    first = [name for name in _FIRST_FIGURES if name in found]
    names = [*first, *sorted(set(found) - set(first))][:MAX_FIGURES]
    constant = {name: found[name][0] for name in names if len(set(found[name])) == 1}
    panels = "".join(draw_histogram(found[name], name) for name in names if name not in constant)
    same = ", ".join(f"{escape_html(name)} {value:.4g}" for name, value in constant.items())
    same = f'<p class="soft">The same for all: {same}</p>' if same else ""
    return f'<h2>Samples in figures</h2><div class="grid">{panels}</div>{same}' if found else ""


def _numbers(candidate: Candidate) -> dict[str, float]:
    facts = candidate.facts
    numbers = {
        name: float(value)
        for name, value in facts.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in _NO_FIGURES
    }
    if {"width_px", "height_px"} <= set(facts):
        numbers["short_side_px"] = float(min(facts["width_px"], facts["height_px"]))
    if facts.get("kind") == "video" and facts.get("fps"):
        numbers["duration_s"] = candidate.num_frames / float(facts["fps"])
    return numbers


def _people(kept: Iterable[Candidate]) -> dict[str, list[Candidate]]:
    people: dict[str, list[Candidate]] = {}
    for one in kept:
        if one.facts.get("person"):
            people.setdefault(str(one.facts["person"]), []).append(one)
    return dict(sorted(people.items(), key=lambda entry: (-len(entry[1]), entry[0])))


def _clusters(
    people: Mapping[str, Sequence[Candidate]],
    pictures: Mapping[str, str],
    sources: Mapping[str, Mapping[str, str]],
) -> str:
    if not people:
        return ""

    def describe(one: Candidate) -> str:
        name = sources[one.source]["name"]
        return f"{name}, {_frames(one)}" if one.facts.get("kind") == "video" else name

    parts = [
        f"<h3>{escape_html(person)} ({len(group):,})</h3>{_row(group[:MAX_SHOWN], pictures, describe)}"
        for person, group in list(people.items())[:MAX_PEOPLE]
    ]
    rest = len(people) - MAX_PEOPLE
    more = f'<p class="soft">and {rest:,} more people</p>' if rest > 0 else ""
    return f"<h2>People</h2>{''.join(parts)}{more}"


def _frames(candidate: Candidate) -> str:
    return f"frames {candidate.first_frame} to {candidate.first_frame + candidate.num_frames - 1}"


def _captions(captions: Sequence[Candidate], total: int, pictures: Mapping[str, str]) -> str:
    if not captions:
        return ""
    row = _row(captions, pictures, lambda one: one.facts.get("caption") or "")
    return f"<h2>Captions ({len(captions):,} of {total:,})</h2>{row}"


def _left_out(rows: Sequence[Mapping[str, Any]]) -> str:
    if not rows:
        return ""
    cells = "".join(
        f"<tr><td>{escape_html(row['name'])}</td><td>{escape_html(row['reason'])}</td>"
        f"<td>{escape_html('' if row['value'] is None else row['value'])}</td></tr>"
        for row in rows[:MAX_LISTED]
    )
    rest = len(rows) - MAX_LISTED
    more = f'<p class="soft">{rest:,} more are in dropped.jsonl.</p>' if rest > 0 else ""
    head = "<th>file</th><th>reason</th><th></th>"
    return f"<h2>Files that were not used ({len(rows):,})</h2>{table(head, cells)}{more}"


def _recipe(records: Records) -> str:
    text = json.dumps(records.manifest["recipe"], indent=2, ensure_ascii=False)
    return f"<h2>Recipe</h2><details><summary>settings</summary><pre>{escape_html(text)}</pre></details>"
