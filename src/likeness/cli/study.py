"""`likeness study`: blind user studies of videos, and reports of their answers."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from likeness.cli.console.options import Json, add_family
from likeness.cli.console.terminal import echo, escape_control_characters, print_json

Folder = Annotated[Path, typer.Argument(help="Folder of the study.")]


def register(app: typer.Typer) -> None:
    verbs = (create, serve, merge, report)
    add_family(app, "study", verbs, about="Ask people about videos, blind, and sum up what they say.")


def create(
    systems: Annotated[
        list[str],
        typer.Argument(help="A folder of videos for each system, or NAME=FOLDER; same video names."),
    ],
    references: Annotated[Path, typer.Option(help="Folder of pictures: NAME.jpg or NAME/*.jpg.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new study.")],
    questions: Annotated[
        str, typer.Option(help="magic_mirror, fantasy_id, or a TOML file of your own.")
    ] = "magic_mirror",
    manifest: Annotated[
        Path | None, typer.Option(help="JSON of pictures and prompt for each video (OpenS2V's layout).")
    ] = None,
    per_rater: Annotated[int | None, typer.Option(min=1, help="Videos that one rater sees; all by default.")] = None,
    checks: Annotated[int, typer.Option(min=0, max=20, help="Attention checks for each rater.")] = 2,
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**31 - 1, help="Of neutral names and orders; random by default, and kept."),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out videos that some systems lack.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a survey of videos: blind, with its own page and plans of who sees what."""
    from dataclasses import replace

    from likeness.app.study.create import StudyOptions, create_study
    from likeness.app.study.pairing import pair_videos, read_systems
    from likeness.app.study.questions import read_questionnaire
    from likeness.cli.console.progress import progress

    sets = pair_videos(read_systems(systems), references, manifest=manifest, allow_missing=allow_missing)
    options = StudyOptions(num_checks=checks, videos_per_rater=per_rater)
    if seed is not None:
        options = replace(options, seed=seed)
    with progress("Writing videos", done_label="Writing videos", is_quiet=as_json) as on_progress:
        study = create_study(output, sets, read_questionnaire(questions), options, on_progress=on_progress)
    shown = len(study.plans[0])
    if as_json:
        print_json({"study": str(output), "key": study.key, "videos": len(study.items), "per_rater": shown})
        return
    echo(
        f"{output}: {len(study.items)} videos of {len(study.systems)} systems, {shown} pages for each rater. "
        f"Serve it with `likeness study serve {output}`, or host the folder {output / 'site'} anywhere."
    )


def serve(
    study: Folder,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where browsers find it.")] = 8000,
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in; put TLS in front of it.")] = "127.0.0.1",
) -> None:
    """Serve a survey and keep the answers, until interrupted."""
    from importlib.util import find_spec

    from likeness.errors import ResourceError

    if find_spec("fastapi") is None or find_spec("uvicorn") is None:
        raise ResourceError("The web framework is not installed. Run `pip install 'likeness[app]'`.")
    from likeness.app.study.server import build_app
    from likeness.app.study.server import serve as run

    pages = build_app(study)
    echo(f"http://{host}:{port} (stop with Ctrl+C; answers are in {study / 'answers.sqlite'})", lines=False)
    sys.stdout.flush()  # The server blocks.
    run(pages, host=host, port=port)


def merge(
    study: Folder,
    files: Annotated[list[Path], typer.Argument(help="Files that raters saved.")],
    as_json: Json = False,
) -> None:
    """Store the answers that raters of a hosted survey saved as files. Merging twice adds nothing."""
    from likeness.app.study.answers import AnswerStore
    from likeness.app.study.answers import merge as merge_files
    from likeness.app.study.manifest import Study

    store = AnswerStore(study, Study.load(study))
    added, known = merge_files(store, files)
    raters, _ = store.count()
    store.close()
    if as_json:
        print_json({"added": added, "known": known, "raters": raters})
        return
    echo(f"{study}: {added} new answers, {known} known before, {raters} raters in all")


def report(
    study: Folder,
    metrics: Annotated[
        Path | None, typer.Option(help="CSV, JSON or Parquet of metrics: system, video, numbers.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page; report.html in the study by default.")
    ] = None,
    allow_failed: Annotated[
        int, typer.Option(min=0, help="Attention checks that a rater may fail and still count.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Sum up the answers: means, intervals, agreement, and what metrics agree with people."""
    import json

    from likeness.app.folders import check_report_path
    from likeness.app.study.answers import AnswerStore
    from likeness.app.study.manifest import MANIFEST, Study
    from likeness.app.study.metric_table import read_metric_table
    from likeness.app.study.page import write_page
    from likeness.app.study.report import OVERALL, make_report
    from likeness.files import write_text

    manifest, page = Study.load(study), output or study / "report.html"
    json_path = check_report_path(page, root=study, reserved_names=[MANIFEST])
    table = read_metric_table(metrics) if metrics else None
    store = AnswerStore(study, manifest)
    answers = store.newest()
    store.close()
    results = make_report(manifest, answers, metrics=table, allowed_failures=allow_failed)
    write_page(page, manifest, results)
    write_text(json_path, json.dumps(results.to_dict(), indent=2) + "\n")
    if as_json:
        print_json(results.to_dict())
        return
    for system in manifest.systems:
        cells = [
            f"{name} {results.ratings[name][system].mean.value:.2f}"
            for name in (*manifest.questionnaire.names, OVERALL)
        ]
        echo(f"{escape_control_characters(system, lines=False)}: {', '.join(cells)}")
    raters = results.raters
    echo(
        f"{len(raters.used)} of {raters.total} raters count ({len(raters.failed_checks)} failed checks, "
        f"{len(raters.unchecked)} met none). {page}"
    )
