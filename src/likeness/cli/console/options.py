"""What several commands share: options with the same bounds and help, and families of verbs."""

from collections.abc import Callable, Sequence
from typing import Annotated

import typer

MAX_BASE_SEED = 2**31 - 1
"""Largest seed of commands that derive further seeds from it."""
MAX_MEMORY_GB = 100_000

PRESET_HELP = "Backbone and licence: tiny, open (CogVideoX-2B) or research (CogVideoX-5B)."

MemoryGb = Annotated[
    float | None,
    typer.Option(
        "--memory-gb",
        metavar="GB",
        min=0.1,
        max=MAX_MEMORY_GB,
        help="Plan for a GPU with this much memory; by default the machine's own GPU.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace results that are there already; without it they are kept."),
]


def add_family(app: typer.Typer, name: str, verbs: Sequence[Callable[..., None]], *, about: str) -> None:
    """Add `likeness NAME VERB` for functions that are named like their verbs."""
    family = typer.Typer(no_args_is_help=True, help=about)
    for verb in verbs:
        family.command()(verb)
    app.add_typer(family, name=name)
