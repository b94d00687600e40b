"""The verbs of `likeness data`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from likeness.cli.console.options import Json, add_family
from likeness.cli.console.terminal import echo, print_json

if TYPE_CHECKING:
    from likeness.curation.run import Result

Output = Annotated[Path, typer.Argument(metavar="OUTPUT", help="Output folder of `likeness data run`.")]
_REJECTED = 3


def register(app: typer.Typer) -> None:
    verbs = (run, inspect, verify, forget)
    add_family(app, "data", verbs, about="Make training data from raw photographs and videos.")


def run(
    recipe: Annotated[Path, typer.Argument(help="A recipe, for example recipes/data/folder.toml.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of shards and results.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=1", help="Change one setting of the recipe; may be repeated."),
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try files again whose workers died or took too long.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make training shards; the same command continues a run that was interrupted or killed.

    Finished work is never done again: a changed setting repeats only what depends on it. Exit code 3 if no sample is
    left.
    """
    from likeness.cli.console.progress import phases
    from likeness.curation.advice import advise
    from likeness.curation.recipe import read_recipe
    from likeness.curation.run import curate
    from likeness.curation.verify import iterate_dropped

    settings = read_recipe(recipe, overrides or ())
    with phases(is_quiet=as_json) as on_progress:
        result = curate(settings, output, retry_failed=retry_failed, on_progress=on_progress)
    advice = advise(result.manifest, iterate_dropped(result.folder))
    if as_json:
        found = {"data": str(result.folder), "is_new": result.is_new, "counts": result.manifest["counts"]}
        print_json({**found, "dropped": result.manifest["dropped"], "failed": result.failed, "advice": advice})
    else:
        _print_result(result, advice)
    if not result.manifest["counts"]["samples"]:
        raise typer.Exit(_REJECTED)


def _print_result(result: "Result", advice: Sequence[str]) -> None:
    counts = result.manifest["counts"]
    echo(
        f"{result.folder}: {counts['samples']:,} samples of {counts['people']:,} people in "
        f"{len(result.manifest['shards']):,} shards from {counts['sources']:,} files, {counts['dropped']:,} dropped"
        f"{'' if result.is_new else ' (all of it was there already)'}"
    )
    for stage, reasons in result.manifest["dropped"].items():
        for reason, count in reasons.items():
            echo(f"  {stage}: {count:,} {reason}", lines=False)
    if result.failed:
        echo(f"{len(result.failed):,} files failed on this machine; `--retry-failed` tries them again.")
    if advice:
        state = "few samples are" if counts["samples"] else "no sample is"
        echo(f"likeness: {state} left. What rejected most:", stream=sys.stderr)
    for line in advice:
        echo(f"  {line}", lines=False, stream=sys.stderr)


def inspect(
    folder: Output,
    page: Annotated[Path | None, typer.Option("-o", "--output", help="The page. [default: OUTPUT/report.html]")] = None,
    as_json: Json = False,
) -> None:
    """Write one page with what was kept, what was dropped and why, people, sizes, poses and captions."""
    from likeness.curation.report.page import write_page
    from likeness.curation.report.read import to_json

    target = page or folder / "report.html"
    records = write_page(folder, target)
    if as_json:
        print_json({"page": str(target), **to_json(records)})
    else:
        echo(target, lines=False)


def verify(folder: Output, as_json: Json = False) -> None:
    """Compare every shard and manifest with the recorded hashes; exit code 3 if something differs."""
    from likeness.curation.verify import verify as check

    found = check(folder)
    if as_json:
        print_json({"shards": found.num_shards, "samples": found.num_samples, "problems": list(found.problems)})
    else:
        for problem in found.problems:
            echo(problem, lines=False)
        state = f"{len(found.problems)} problems" if found.problems else "every byte is as it was written"
        echo(f"{folder}: {found.num_shards} shards, {found.num_samples} samples, {state}", lines=False)
    if found.problems:
        raise typer.Exit(_REJECTED)


def forget(
    folder: Output,
    person: Annotated[str | None, typer.Option("--person", help="A person, as samples name them.")] = None,
    source: Annotated[
        str | None, typer.Option("--source", help="A source: its SHA-256, its name in the records, or a copy of it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Remove a person or a source from shards and results; later runs do not bring them back.

    Of a person, all sources that show them are removed, with everybody else in these sources.
    """
    from likeness.curation.forget import forget as remove

    removed = remove(folder, person=person, source=source)
    if as_json:
        print_json(
            {
                "sources": removed.sources,
                "samples": removed.samples,
                "references": removed.references,
                "results": removed.results,
            }
        )
        return
    echo(
        f"{folder}: {removed.sources} sources are forgotten; {removed.samples} samples, {removed.references} reference "
        f"pictures and {removed.results} files of results are removed. Copies of shards elsewhere are not.",
        lines=False,
    )
