"""`likeness train`: trains a model from a recipe, and what belongs to it."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from likeness.cli.console.terminal import echo, print_json

Recipe = Annotated[Path, typer.Argument(help="A recipe, for example recipes/tiny/vae.toml.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=1", help="Change one setting of the recipe; may be repeated."),
]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="Folder of the run. [default: runs/NAME OF RECIPE]")
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        help="Number of processes. [default: one per core, at most 8 and at most the samples of a batch; with torchrun "
        "its own number]",
    ),
]


class _DefaultsToRun(TyperGroup):
    """`likeness train RECIPE` is `likeness train run RECIPE`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            args = ["run", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        cls=_DefaultsToRun,
        no_args_is_help=True,
        help="Train a model: `likeness train RECIPE`.",
    )
    for verb in (run, precompute, plan, report):
        group.command()(verb)
    app.add_typer(group, name="train")


def run(recipe: Recipe, overrides: Overrides = None, output: Output = None, processes: Processes = None) -> None:
    """Train a model from a recipe.

    The same command continues a run that was interrupted or killed. With more `steps` or `minutes` the last stage of a
    finished run continues; with other data, weights or settings the command is refused.
    """
    from likeness.training import run as training

    training.configure_malloc()
    target = training.train(recipe, overrides=tuple(overrides or ()), output=output, processes=processes)
    echo(target)


def precompute(
    recipe: Recipe,
    overrides: Overrides = None,
    output: Output = None,
    processes: Processes = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all encoded files first, and make damaged ones again.")
    ] = False,
) -> None:
    """Encode the files of a recipe: latents, prompts, faces and references.

    Only what is missing is encoded; a killed run goes on. `likeness train RECIPE` does the same before it starts.
    """
    from likeness.training import run as training

    training.configure_malloc()
    target = training.precompute(
        recipe, overrides=tuple(overrides or ()), output=output, processes=processes, verify=verify
    )
    echo(target, lines=False)


def plan(
    recipe: Recipe,
    overrides: Overrides = None,
    tflops: Annotated[
        float, typer.Option("--tflops", help="Assumed throughput of one GPU, in TFLOP/s, for the hours.")
    ] = 400.0,
    samples: Annotated[
        int,
        typer.Option(
            "--samples", min=0, max=10**12, help="Files of each kind, where the recipe's data set is not here."
        ),
    ] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers as JSON.")] = False,
) -> None:
    """Count parameters, memory, FLOPs, hours and disk of a method's recipe; nothing is loaded."""
    from likeness.training import recipes
    from likeness.training.plan.plan import make_plan
    from likeness.training.plan.show import describe

    settings: Any = recipes.read(recipe, tuple(overrides or ()))
    counted = make_plan(settings, tflops=tflops, samples=samples)
    if as_json:
        print_json(counted.as_json(), indent=2)
    else:
        echo(describe(counted, settings))


def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, for example runs/magic_mirror.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The page. [default: RUN/report.html]")] = None,
) -> None:
    """Write one page with the curves, sample sheets, settings and checkpoints of a run."""
    from likeness.training.report.page import write_report

    echo(write_report(folder, output or folder / "report.html"), lines=False)
