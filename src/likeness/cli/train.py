"""`likeness train`: from a recipe to weights."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(train)


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, say recipes/tiny/vae.toml.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=1", help="Change one setting of the recipe; may be repeated."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder of the run. [default: runs/NAME OF RECIPE]")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that train together. [default: one a core, at most 8 and no more than samples in a batch]",
        ),
    ] = None,
) -> None:
    """Train by a recipe.

    A run that was stopped, or killed, goes on when the same command is given again. With more `steps` or `minutes` its last
    stage goes on after its end; with other data, weights or settings it is refused.
    """
    from likeness.training import run

    run.keep_memory()
    target = run.train(
        recipe,
        overrides=tuple(overrides or ()),
        output=output,
        processes=processes,
    )
    print(f"{target}")
