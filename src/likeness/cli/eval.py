"""`likeness eval`: is it the same person, does the face move, does it follow the text, for any system's videos."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from likeness.evaluation.compare import Comparison
    from likeness.evaluation.manifest import Request
    from likeness.evaluation.results import EvaluationResult, VideoResult

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
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")] = Path(
        "runs/evaluation"
    ),
    first_face: Annotated[
        bool, typer.Option("--first-face", help="Hold each video against its own first face.")
    ] = False,
    metrics: Annotated[
        str | None, typer.Option(help="Names, separated by commas; all that can be measured by default.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that measure videos.")] = 1,
    face: Annotated[
        str, typer.Option(help="Which face of several counts: prominent, or nearest (flatters).")
    ] = "prominent",
    title: Annotated[str, typer.Option(help="Headline of the page.")] = "Evaluation",
    vbench: Annotated[bool, typer.Option("--vbench", help="Run the real VBench as well (GPU).")] = False,
    vbench_dimensions: Annotated[
        str | None, typer.Option(help="VBench's dimensions, separated by commas.")
    ] = None,
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
            "Whom should the videos show? Give `--references FOLDER`, or `--first-face` to hold each video against its "
            "own first face; one of the two."
        )
    from likeness.app.folders import check_folder
    from likeness.evaluation.export import RESULTS, publish
    from likeness.evaluation.manifest import read_request

    request = read_request(videos or [], references, prompts, against_first_face=first_face)
    check_folder(output, files=RESULTS, folders=["features", "vbench"])
    dimensions = _dimensions(vbench_dimensions) if vbench or vbench_dimensions else None
    result = _measure(request, output, metrics, workers, face, is_quiet=as_json)
    if dimensions is not None:
        result = _run_vbench(result, output, dimensions, is_quiet=as_json)
    comparison = publish(output, result, request.references, title=title)
    if as_json:
        _print_json(result, comparison, output)
    else:
        _print_table(result, comparison)
        print(f"{output / 'report.html'}")
    _leave(result, is_quiet=as_json)


def _measure(
    request: "Request", output: Path, metrics: str | None, workers: int, face: str, *, is_quiet: bool
) -> "EvaluationResult":
    from pydantic import ValidationError

    from likeness.cli.progress import progress
    from likeness.errors import ConfigError
    from likeness.evaluation.evaluate import EvaluationSettings
    from likeness.evaluation.evaluate import evaluate as run

    try:
        settings = EvaluationSettings.model_validate(
            {"workers": workers, "cache": output / "features", "which_face": face}
        )
    except ValidationError as error:
        raise ConfigError(f"`--face` is {face}; use prominent or nearest.") from error
    names = None if metrics is None else _words(metrics, "--metrics")
    with progress("Measuring videos", last="Scoring", is_quiet=is_quiet) as on_progress:
        return run(
            request.items, request.references, metrics=names, settings=settings, on_progress=on_progress
        )


def _dimensions(words: str | None) -> list[str]:
    """What VBench is to measure. Whatever is missing for it is told before anything is measured."""
    from likeness.evaluation.vbench import DEFAULT, check_dimensions
    from likeness.evaluation.vbench_environment import environment, executable

    dimensions = list(DEFAULT) if words is None else _words(words, "--vbench-dimensions")
    check_dimensions(dimensions)
    executable(environment())
    return dimensions


def _words(told: str, option: str) -> list[str]:
    from likeness.errors import ConfigError

    words = [word.strip() for word in told.split(",") if word.strip()]
    if not words:
        raise ConfigError(
            f"`{option}` is `{told}`, which names nothing. Name one or more, separated by commas."
        )
    return words


def _run_vbench(
    result: "EvaluationResult", output: Path, dimensions: list[str], *, is_quiet: bool
) -> "EvaluationResult":
    from likeness.cli.progress import progress
    from likeness.evaluation.vbench import add_vbench, run_vbench
    from likeness.evaluation.vbench_environment import environment, executable

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

    from likeness.evaluation.vbench_environment import environment, set_up

    command = set_up(environment(), (lambda _: None) if as_json else print)
    if as_json:
        print(json.dumps({"vbench": str(command)}))
        return
    print(f"{command}: ready. Use it with `likeness eval ... --vbench`.")


def _print_table(result: "EvaluationResult", comparison: "Comparison") -> None:
    from likeness.evaluation.report import show

    names = [system.name for system in result.systems]
    rows = [["", *names]]
    for metric in result.metrics.values():
        sign = {"higher": "+", "lower": "-", "neither": " "}[metric.direction]
        cells = [show(comparison.means[name][metric.name]) for name in names]
        rows.append([f"{sign} {metric.name}", *cells])
    counts = [f"{one.num_videos - one.num_failed} of {one.num_videos}" for one in result.systems]
    rows.append(["  videos measured", *counts])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"Means [95 % interval over {comparison.resampled}]; + higher is better, - lower is better.")
    for row in comparison.differences:
        if row.better:
            print(
                f"{row.metric}: {row.better} is better ({row.a} less {row.b}: {show(row.difference, sign='+')}, "
                f"p {row.p_corrected:.3g} corrected (Benjamini-Hochberg), {row.num_pairs} pairs)"
            )
    for name, why in result.left_out.items():
        print(f"not measured: {name}: {why}")


def _print_json(result: "EvaluationResult", comparison: "Comparison", output: Path) -> None:
    import json

    record = result.to_dict()
    for video in record["videos"]:
        del video["frames"]  # Thousands of numbers; they are in the file.
    told = {"output": str(output), **record, "comparison": comparison.to_dict()}
    print(json.dumps(told, allow_nan=False))


def _leave(result: "EvaluationResult", *, is_quiet: bool) -> None:
    """One bad video loses no other's results, but the exit code tells of it."""
    from likeness.evaluation.vbench import PREFIX

    tell_failed(result.videos, is_quiet=is_quiet)
    if any(name.startswith(PREFIX) for name in result.left_out):
        raise typer.Exit(_MISSING)


def tell_failed(videos: "Sequence[VideoResult]", *, is_quiet: bool) -> None:
    """Name the videos without figures, and leave with the exit code that tells of them, if there are any."""
    failed = [video for video in videos if video.error is not None]
    if failed and not is_quiet:
        typer.echo(f"likeness: {len(failed)} of {len(videos)} videos have no figures:", err=True)
        for video in failed:
            typer.echo(f"  {video.system} / {video.name}: {video.error}", err=True)
    if failed:
        raise typer.Exit(_REJECTED)
