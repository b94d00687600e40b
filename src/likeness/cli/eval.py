"""`likeness eval`: measure identity, face motion and text alignment of the videos of any system."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from likeness.cli.console.terminal import printable, say

if TYPE_CHECKING:
    from likeness.evaluation.evaluate import EvaluationSettings
    from likeness.evaluation.inputs.manifest import EvaluationRequest
    from likeness.evaluation.results.compare_systems import Comparison
    from likeness.evaluation.results.records import EvaluationResult, VideoResult

_REJECTED, _MISSING = 3, 4


def register(app: typer.Typer) -> None:
    app.command(name="eval")(evaluate)


def evaluate(
    videos: Annotated[
        list[str] | None,
        typer.Argument(
            help="A folder of videos for each system (or NAME=FOLDER), files, or manifests (.csv, .json, .toml)."
        ),
    ] = None,
    references: Annotated[
        Path | None, typer.Option(help="Folder of pictures, NAME.jpg or NAME/*.jpg; or cases in JSON.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="Sentences by video name: JSON, TOML or CSV.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")] = Path("runs/evaluation"),
    first_face: Annotated[
        bool, typer.Option("--first-face", help="Compare each video with its own first face.")
    ] = False,
    metrics: Annotated[
        str | None, typer.Option(help="Names, separated by commas; all that can be measured by default.")
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Face engine for similarity: dlib (default), open, open/sface, research or research/antelopev2.",
        ),
    ] = None,
    landmark_engine: Annotated[
        str | None,
        typer.Option(
            "--landmark-engine",
            metavar="NAME",
            help="Another engine for the landmarks of face motion; open/sface and research have the papers' five "
            "points.",
        ),
    ] = None,
    pick: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Where a reference shows several faces, take the Nth from the left."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that measure videos.")] = 1,
    face: Annotated[
        str, typer.Option(help="Which face of several counts: prominent, or nearest (flatters).")
    ] = "prominent",
    title: Annotated[str, typer.Option(help="Headline of the page.")] = "Evaluation",
    vbench: Annotated[bool, typer.Option("--vbench", help="Run the real VBench as well (GPU).")] = False,
    vbench_dimensions: Annotated[str | None, typer.Option(help="VBench's dimensions, separated by commas.")] = None,
    vbench_setup: Annotated[
        bool, typer.Option("--vbench-setup", help="Make VBench's environment, and nothing else.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> None:
    """Measure videos; print a table, write JSON, Parquet and a page. A second run goes on where the first stopped."""
    from likeness.errors import ConfigError

    if vbench_setup:
        _set_up_vbench(as_json=as_json)
        return
    if (references is None) == (not first_face):
        raise ConfigError(
            "No reference was given, or two kinds. Give `--references FOLDER`, or `--first-face` to compare each video "
            "with its own first face; one of the two."
        )
    from likeness.app.folders import check_folder
    from likeness.evaluation.workers import MAX_WORKERS

    if workers > MAX_WORKERS:
        raise ConfigError(f"`--workers` is {workers}; use 1 to {MAX_WORKERS}, about one for each processor.")
    from likeness.evaluation.inputs.manifest import read_request
    from likeness.evaluation.results.records import RESULTS

    if pick is not None and first_face:
        raise ConfigError("`--pick` chooses a face of references, and `--first-face` has none. Leave one of them out.")
    request = read_request(videos or [], references, prompts, against_first_face=first_face)
    settings = _settings(
        workers=workers,
        cache=output / "features",
        which_face=face,
        engine=engine,
        landmark_engine=landmark_engine,
        pick=pick,
    )
    names = _metrics(metrics)
    dimensions = _dimensions(vbench_dimensions) if vbench or vbench_dimensions else None
    check_folder(output, files=RESULTS, folders=["features", "vbench"])
    if not as_json:
        _report_skipped(request)
    result = _measure(request, names, settings, is_quiet=as_json)
    if dimensions is not None:
        result = _run_vbench(result, output, dimensions, is_quiet=as_json)
    _publish(result, request, output, title, as_json=as_json)
    _leave(result, is_quiet=as_json)


def _settings(**values: object) -> "EvaluationSettings":
    """Check the settings of the evaluation before a video is opened."""
    from pydantic import ValidationError

    from likeness.errors import ConfigError
    from likeness.evaluation.evaluate import EvaluationSettings
    from likeness.evaluation.features.engines import check_weights, choose_engines

    try:
        settings = EvaluationSettings.model_validate(values)
    except ValidationError as error:
        messages = {"which_face": f"`--face` is {values['which_face']}; use prominent or nearest."}
        field = str(error.errors()[0]["loc"][0])
        raise ConfigError(messages.get(field, str(error))) from error
    check_weights(choose_engines(settings.engine, settings.landmark_engine))
    return settings


def _metrics(words: str | None) -> list[str] | None:
    from likeness.evaluation.metrics.registry import select

    names = None if words is None else _words(words, "--metrics")
    select(names)
    return names


def _measure(
    request: "EvaluationRequest", metrics: list[str] | None, settings: "EvaluationSettings", *, is_quiet: bool
) -> "EvaluationResult":
    from dataclasses import replace

    from likeness.cli.console.progress import progress
    from likeness.evaluation.evaluate import evaluate as run

    with progress("Measuring videos", last="Scoring", is_quiet=is_quiet) as on_progress:
        result = run(request.items, request.references, metrics=metrics, settings=settings, on_progress=on_progress)
    return replace(result, skipped=request.skipped, notes=request.notes)


def _publish(
    result: "EvaluationResult", request: "EvaluationRequest", output: Path, title: str, *, as_json: bool
) -> None:
    """Write the files and print the figures. If files cannot be written, the figures are printed all the same."""
    from likeness.errors import FileWriteError, LockedError
    from likeness.evaluation.report.export import publish
    from likeness.evaluation.results.compare_systems import compare_systems

    refusal = None
    try:
        comparison = publish(output, result, request.references, title=title)
    except (FileWriteError, LockedError) as error:
        refusal, comparison = error, compare_systems(result)
    if as_json:
        _print_json(result, comparison, output)
    else:
        _print_table(result, comparison)
    if refusal is not None:
        report_failed(result.videos, is_quiet=as_json, leaves=False)
        raise refusal
    if not as_json:
        say(output / "report.html", lines=False)


def _report_skipped(request: "EvaluationRequest") -> None:
    """Print the skipped files, a line for each reason."""
    from likeness.evaluation.inputs.reference_matching import list_names

    for note in request.notes:
        say(f"likeness: {note}", stream=sys.stderr)
    reasons: dict[str, list[str]] = {}
    for file in request.skipped:
        reasons.setdefault(file.reason, []).append(file.path)
    for reason, paths in reasons.items():
        say(f"likeness: {len(paths)} left out ({reason}): {list_names(paths)}", lines=False, stream=sys.stderr)


def _dimensions(words: str | None) -> list[str]:
    """The dimensions of VBench. A missing environment is an error before anything is measured."""
    from likeness.evaluation.vbench.environment import environment, executable
    from likeness.evaluation.vbench.run import DEFAULT, check_dimensions

    dimensions = list(DEFAULT) if words is None else _words(words, "--vbench-dimensions")
    check_dimensions(dimensions)
    executable(environment())
    return dimensions


def _words(text: str, option: str) -> list[str]:
    from likeness.errors import ConfigError

    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ConfigError(f"`{option}` is `{text}`, which names nothing. Name one or more, separated by commas.")
    return words


def _run_vbench(
    result: "EvaluationResult", output: Path, dimensions: list[str], *, is_quiet: bool
) -> "EvaluationResult":
    from likeness.cli.console.progress import progress
    from likeness.evaluation.vbench.environment import environment, executable
    from likeness.evaluation.vbench.run import add_vbench, run_vbench

    with progress("VBench", last="VBench", is_quiet=is_quiet) as on_dimension:
        found = run_vbench(
            executable(environment()),
            result.videos,
            output / "vbench",
            dimensions,
            on_dimension=on_dimension,
        )
    return add_vbench(result, found)


def _set_up_vbench(*, as_json: bool) -> None:
    import json

    from likeness.evaluation.vbench.environment import environment, set_up

    command = set_up(environment(), (lambda _: None) if as_json else print)
    if as_json:
        print(json.dumps({"vbench": str(command)}))
        return
    say(f"{command}: ready. Use it with `likeness eval ... --vbench`.")


def _print_table(result: "EvaluationResult", comparison: "Comparison") -> None:
    from likeness.evaluation.report.page import show

    names = [system.name for system in result.systems]
    rows = [["", *(printable(name, lines=False) for name in names)]]
    for metric in result.metrics.values():
        sign = {"higher": "+", "lower": "-", "neither": " "}[metric.direction]
        cells = [show(comparison.means[name][metric.name]) for name in names]
        rows.append([f"{sign} {metric.name}", *cells])
    counts = [f"{one.num_videos - one.num_failed} of {one.num_videos}" for one in result.systems]
    rows.append(["  videos measured", *counts])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"Means [95 % interval over {comparison.resampled}]; + higher is better, - lower is better.")
    for row in comparison.differences:
        if row.better:
            say(
                f"{row.metric}: {row.better} is better ({row.a} less {row.b}: {show(row.difference, sign='+')}, "
                f"p {row.p_corrected:.3g} corrected (Benjamini-Hochberg), {row.num_pairs} pairs)"
            )
    for name, why in result.left_out.items():
        say(f"not measured: {name}: {why}")
    engine, points = result.settings.get("engine"), result.settings.get("landmark_engine")
    if points != engine:
        say(f"Similarity by {engine}, landmarks by {points}.")


def _print_json(result: "EvaluationResult", comparison: "Comparison", output: Path) -> None:
    import json

    record = result.to_dict()
    for video in record["videos"]:
        del video["frames"]  # Thousands of numbers, which the file contains.
    printed = {"output": str(output), **record, "comparison": comparison.to_dict()}
    print(json.dumps(printed, allow_nan=False))


def _leave(result: "EvaluationResult", *, is_quiet: bool) -> None:
    """Set the exit code for videos without figures and for missing metrics."""
    from likeness.evaluation.vbench.run import PREFIX

    report_failed(result.videos, is_quiet=is_quiet)
    if any(file.is_video for file in result.skipped):
        raise typer.Exit(_REJECTED)
    if any(name.startswith(PREFIX) for name in result.left_out):
        raise typer.Exit(_MISSING)


def report_failed(videos: "Sequence[VideoResult]", *, is_quiet: bool, leaves: bool = True) -> None:
    """Print the videos without figures, and exit with code 3 if there are any."""
    failed = [video for video in videos if video.error is not None]
    if failed and not is_quiet:
        say(f"likeness: {len(failed)} of {len(videos)} videos have no figures:", stream=sys.stderr)
        for video in failed:
            say(f"  {video.system} / {video.name}: {video.error}", lines=False, stream=sys.stderr)
    if failed and leaves:
        raise typer.Exit(_REJECTED)
