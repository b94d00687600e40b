"""`likeness models`: list weights, download them, and check them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from likeness.cli.console.options import Json
from likeness.cli.console.terminal import echo, escape_control_characters, print_json

if TYPE_CHECKING:
    from likeness.weights import WeightEntry

models = typer.Typer(help="List, bring and check weights.", invoke_without_command=True)


def register(app: typer.Typer) -> None:
    app.add_typer(models, name="models")


@models.callback()
def show(context: typer.Context, as_json: Json = False) -> None:
    """List, bring and check weights."""
    if context.invoked_subcommand is None:
        show_list(as_json)


@models.command("list")
def show_list(as_json: Json = False) -> None:
    """List all weights: what for, licence, preset, size, and whether they are here."""
    rows = [_describe(name) for name in _all_names()]
    if as_json:
        print_json({"weights": rows}, indent=2)
        return
    columns = ("name", "what for", "licence", "preset", "size", "pinned by", "here")
    _print_table(
        columns,
        [
            (
                row["name"],
                row["purpose"],
                row["licence"],
                row["preset"],
                _size(row["size_bytes"]),
                row["pinned"],
                "yes" if row["is_here"] else "no",
            )
            for row in rows
        ],
    )


@models.command("pull")
def pull(
    name: Annotated[str, typer.Argument(help="As `likeness models` lists it.")],
    preset: Annotated[
        str, typer.Option(help="What you may do with the results: open (commercial use) or research.")
    ] = "open",
    source: Annotated[
        Path | None, typer.Option("--from", help="Take the files from this folder, not from the network.")
    ] = None,
    is_quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
) -> None:
    """Bring weights from their publisher or from a folder, and check every byte that can be checked."""
    from typing import cast

    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from likeness.weights import LicencePreset
    from likeness.weights.pull import pull as pull_weights

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=is_quiet) as bars:
        tasks: dict[str, Any] = {}

        def report(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=total)
            bars.update(tasks[file], completed=done, total=total)

        item = pull_weights(name, preset=cast(LicencePreset, preset), folder=source, on_progress=report)
    echo(f"{item.folder}: {_size(sum(file.path.stat().st_size for file in item.files))}, {item.licence}")


@models.command("check")
def check(
    names: Annotated[list[str] | None, typer.Argument(help="By default all that are here.")] = None,
    as_json: Json = False,
) -> None:
    """Check every byte of the weights that are here against their checksums."""
    from likeness.cli.console.progress import spinner
    from likeness.errors import WeightsError

    with spinner("Reading", is_quiet=as_json):
        rows = [_check(name) for name in names or _all_names() if names or _is_started(name)]
    if as_json:
        print_json({"weights": rows}, indent=2)
    else:
        columns = ("name", "files", "checked by checksum", "state")
        _print_table(columns, [(row["name"], str(row["files"]), str(row["checked"]), row["state"]) for row in rows])
    if problems := [row["problem"] for row in rows if row["problem"]]:
        raise WeightsError("\n".join(problems))


def _all_names() -> list[str]:
    from likeness import weights

    return [*weights.names(), *weights.MODELS]


def _is_started(name: str) -> bool:
    """Whether any file of these weights is installed; weights that were never pulled are no problem."""
    return any(file.path.is_file() for file in _entry(name).files)


def _entry(name: str) -> "WeightEntry":
    from likeness import weights

    return weights.entry(name)


def _describe(name: str) -> dict[str, Any]:
    from likeness import weights
    from likeness.errors import WeightsError
    from likeness.weights import MODELS

    try:
        item = weights.entry(name)
    except WeightsError as error:  # A damaged list of checksums gives a row, not the end of the table.
        return {
            "name": name,
            "purpose": "",
            "licence": "unknown",
            "preset": "unknown",
            "size_bytes": 0,
            "pinned": "",
            "source": "",
            "folder": "",
            "is_here": False,
            "problem": str(error),
        }
    try:
        weights.locate(name)
        problem = None
    except WeightsError as error:
        problem = str(error)
    return {
        "name": name,
        "purpose": item.purpose,
        "licence": item.licence,
        "preset": item.preset,
        "size_bytes": item.size_bytes,
        "pinned": MODELS[name].pinned if name in MODELS else "checksums",
        "source": item.source.address if item.source else "ships with likeness",
        "folder": str(item.folder),
        "is_here": problem is None,
        "problem": problem,
    }


def _check(name: str) -> dict[str, Any]:
    from likeness import weights
    from likeness.errors import WeightsError

    row: dict[str, Any] = {"name": name, "files": 0, "checked": 0, "state": "whole", "problem": None}
    try:
        item = weights.entry(name)
        checked = sum(bool(file.sha256 or file.git_sha1) for file in item.files)
        row |= {"files": len(item.files), "checked": checked}
        weights.verify(name)
    except WeightsError as error:
        row |= {"state": "not whole", "problem": str(error)}
    return row


def _size(size_bytes: int) -> str:
    if not size_bytes:
        return "not known"
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.1f} MB"


def _print_table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, no_wrap=column in ("name", "size"))
    for row in rows:
        # Strings are markup to rich.
        table.add_row(*(Text(escape_control_characters(cell, lines=False)) for cell in row))
    Console().print(table)
