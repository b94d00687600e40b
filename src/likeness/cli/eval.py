"""`likeness eval`: measure identity, face motion and text alignment of the videos of any system."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from likeness.cli.console.options import Json
from likeness.cli.console.scores import print_result, print_scores, report_failed, report_skipped
from likeness.cli.console.terminal import echo, print_json

if TYPE_CHECKING:
    from likeness.evaluation.evaluate import EvaluationSettings
    from likeness.evaluation.inputs.manifest import EvaluationRequest
    from likeness.evaluation.results.records import EvaluationResult

_EXIT_REJECTED, _EXIT_MISSING = 3, 4

_Videos = Annotated[
    list[str] | None,
    typer.Argument(
        help="A folder of videos for each system (or NAME=FOLDER), files, or manifests (.csv, .json, .toml)."
    ),
]
_References = Annotated[Path | None, typer.Option(help="Folder of pictures, NAME.jpg or NAME/*.jpg; or cases in JSON.")]
_Prompts = Annotated[Path | None, typer.Option(help="Prompts by video name: JSON, TOML or CSV.")]
_Output = Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")]
_FirstFace = Annotated[bool, typer.Option("--first-face", help="Compare each video with its own first face.")]
_Metrics = Annotated[str | None, typer.Option(help="Names, separated by commas; all that can be measured by default.")]
_Engine = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Face engine for similarity: dlib (default), open, open/sface, research or research/antelopev2.",
    ),
]
_LandmarkEngine = Annotated[
    str | None,
    typer.Option(
        "--landmark-engine",
        metavar="NAME",
        help="Another engine for the landmarks of face motion; open/sface and research have the papers' five points.",
    ),
]
_Pick = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Where a reference shows several faces, take the Nth from the left."),
]
_Workers = Annotated[int, typer.Option(min=1, help="Processes that measure videos.")]
_WhichFace = Annotated[str, typer.Option(help="Which face of several counts: prominent, or nearest (flatters).")]
_Title = Annotated[str, typer.Option(help="Headline of the page.")]
_VBench = Annotated[bool, typer.Option("--vbench", help="Run the real VBench as well (GPU).")]
_Dimensions = Annotated[str | None, typer.Option(help="VBench's dimensions, separated by commas.")]
_Setup = Annotated[bool, typer.Option("--vbench-setup", help="Make VBench's environment, and nothing else.")]


def register(app: typer.Typer) -> None:
    app.command(name="eval")(evaluate)


def evaluate(
    videos: _Videos = None,
    references: _References = None,
    prompts: _Prompts = None,
    output: _Output = Path("runs/evaluation"),
    first_face: _FirstFace = False,
    metrics: _Metrics = None,
    engine: _Engine = None,
    landmark_engine: _LandmarkEngine = None,
    pick: _Pick = None,
    workers: _Workers = 1,
    face: _WhichFace = "prominent",
    title: _Title = "Evaluation",
    vbench: _VBench = False,
    vbench_dimensions: _Dimensions = None,
    vbench_setup: _Setup = False,
    as_json: Json = False,
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
    from likeness.app.folders import prepare_folder
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
    prepare_folder(output, files=RESULTS, folders=["features", "vbench"])
    if not as_json:
        report_skipped(request)
    result = _measure(request, names, settings, is_quiet=as_json)
    if dimensions is not None:
        result = _run_vbench(result, output, dimensions, is_quiet=as_json)
    _publish(result, request, output, title, as_json=as_json)
    _exit_by_result(result, is_quiet=as_json)


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

    names = None if words is None else _split_names(words, "--metrics")
    select(names)
    return names


def _measure(
    request: "EvaluationRequest", metrics: list[str] | None, settings: "EvaluationSettings", *, is_quiet: bool
) -> "EvaluationResult":
    from dataclasses import replace

    from likeness.cli.console.progress import progress
    from likeness.evaluation.evaluate import evaluate as run

    with progress("Measuring videos", done_label="Scoring", is_quiet=is_quiet) as on_progress:
        result = run(request.items, request.references, metrics=metrics, settings=settings, on_progress=on_progress)
    return replace(result, skipped=request.skipped, notes=request.notes)


def _publish(
    result: "EvaluationResult", request: "EvaluationRequest", output: Path, title: str, *, as_json: bool
) -> None:
    """Write the files and print the figures. If files cannot be written, the figures are printed all the same."""
    from likeness.errors import FileWriteError, LockedError
    from likeness.evaluation.report.export import publish
    from likeness.evaluation.results.compare_systems import compare_systems

    write_error = None
    try:
        comparison = publish(output, result, request.references, title=title)
    except (FileWriteError, LockedError) as error:
        write_error, comparison = error, compare_systems(result)
    if as_json:
        print_result(result, comparison, output)
    else:
        print_scores(result, comparison)
    if write_error is not None:
        report_failed(result.videos, is_quiet=as_json, exits=False)
        raise write_error
    if not as_json:
        echo(output / "report.html", lines=False)


def _dimensions(words: str | None) -> list[str]:
    """The dimensions of VBench. A missing environment is an error before anything is measured."""
    from likeness.evaluation.vbench.environment import environment, executable
    from likeness.evaluation.vbench.run import DEFAULT, check_dimensions

    dimensions = list(DEFAULT) if words is None else _split_names(words, "--vbench-dimensions")
    check_dimensions(dimensions)
    executable(environment())
    return dimensions


def _split_names(text: str, option: str) -> list[str]:
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

    with progress("VBench", done_label="VBench", is_quiet=is_quiet) as on_dimension:
        scores = run_vbench(
            executable(environment()),
            result.videos,
            output / "vbench",
            dimensions,
            on_dimension=on_dimension,
        )
    return add_vbench(result, scores)


def _set_up_vbench(*, as_json: bool) -> None:
    from likeness.evaluation.vbench.environment import environment, set_up

    command = set_up(environment(), (lambda _: None) if as_json else print)
    if as_json:
        print_json({"vbench": str(command)})
        return
    echo(f"{command}: ready. Use it with `likeness eval ... --vbench`.")


def _exit_by_result(result: "EvaluationResult", *, is_quiet: bool) -> None:
    """Set the exit code for videos without figures and for missing metrics."""
    from likeness.evaluation.vbench.run import PREFIX

    report_failed(result.videos, is_quiet=is_quiet)
    if any(file.is_video for file in result.skipped):
        raise typer.Exit(_EXIT_REJECTED)
    if any(name.startswith(PREFIX) for name in result.left_out):
        raise typer.Exit(_EXIT_MISSING)
