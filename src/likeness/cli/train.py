"""`likeness train`: trains a model from a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from likeness.cli.console.terminal import say


def register(app: typer.Typer) -> None:
    app.command()(train)


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe, for example recipes/tiny/vae.toml.")],
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
            help="Number of training processes. [default: one per core, at most 8 and at most the samples of a batch]",
        ),
    ] = None,
) -> None:
    """Train a model from a recipe.

    The same command continues a run that was interrupted or killed. With more `steps` or `minutes` the last stage of a
    finished run continues; with other data, weights or settings the command is refused.
    """
    from likeness.training import run

    run.configure_malloc()
    target = run.train(
        recipe,
        overrides=tuple(overrides or ()),
        output=output,
        processes=processes,
    )
    say(target, lines=False)
