"""What `likeness eval` and `likeness bench` print of an evaluation."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from likeness.cli.console.terminal import echo, escape_control_characters, print_json

if TYPE_CHECKING:
    from likeness.evaluation.inputs.manifest import EvaluationRequest
    from likeness.evaluation.results.compare_systems import Comparison
    from likeness.evaluation.results.records import EvaluationResult, VideoResult

_EXIT_REJECTED = 3


def print_scores(result: "EvaluationResult", comparison: "Comparison") -> None:
    from likeness.evaluation.results.statistics import format_estimate

    names = [system.name for system in result.systems]
    rows = [["", *(escape_control_characters(name, lines=False) for name in names)]]
    for metric in result.metrics.values():
        sign = {"higher": "+", "lower": "-", "neither": " "}[metric.direction]
        cells = [format_estimate(comparison.means[name][metric.name]) for name in names]
        rows.append([f"{sign} {metric.name}", *cells])
    counts = [f"{one.num_videos - one.num_failed} of {one.num_videos}" for one in result.systems]
    rows.append(["  videos measured", *counts])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"Means [95 % interval over {comparison.resampled}]; + higher is better, - lower is better.")
    for row in comparison.differences:
        if row.better:
            echo(
                f"{row.metric}: {row.better} is better "
                f"({row.a} less {row.b}: {format_estimate(row.difference, sign='+')}, "
                f"p {row.p_corrected:.3g} corrected (Benjamini-Hochberg), {row.num_pairs} pairs)"
            )
    for name, why in result.left_out.items():
        echo(f"not measured: {name}: {why}")
    engine, points = result.settings.get("engine"), result.settings.get("landmark_engine")
    if points != engine:
        echo(f"Similarity by {engine}, landmarks by {points}.")


def print_result(result: "EvaluationResult", comparison: "Comparison", output: Path) -> None:
    record = result.to_dict()
    for video in record["videos"]:
        del video["frames"]  # Thousands of numbers, which the file contains.
    printed = {"output": str(output), **record, "comparison": comparison.to_dict()}
    print_json(printed)


def report_skipped(request: "EvaluationRequest") -> None:
    """Print the skipped files, a line for each reason."""
    from likeness.evaluation.inputs.reference_matching import list_names

    for note in request.notes:
        echo(f"likeness: {note}", stream=sys.stderr)
    reasons: dict[str, list[str]] = {}
    for file in request.skipped:
        reasons.setdefault(file.reason, []).append(file.path)
    for reason, paths in reasons.items():
        echo(f"likeness: {len(paths)} left out ({reason}): {list_names(paths)}", lines=False, stream=sys.stderr)


def report_failed(videos: "Sequence[VideoResult]", *, is_quiet: bool, exits: bool = True) -> None:
    """Print the videos without figures, and exit with code 3 if there are any."""
    failed = [video for video in videos if video.error is not None]
    if failed and not is_quiet:
        echo(f"likeness: {len(failed)} of {len(videos)} videos have no figures:", stream=sys.stderr)
        for video in failed:
            echo(f"  {video.system} / {video.name}: {video.error}", lines=False, stream=sys.stderr)
    if failed and exits:
        raise typer.Exit(_EXIT_REJECTED)
