"""Options that several verbs share, with the same bounds and the same words everywhere."""

from typing import Annotated

import typer

MAX_SEED = 2**63 - 1
"""Larger ones are no seed to torch."""
MAX_FAMILY_SEED = 2**31 - 1
"""Of verbs that count further seeds up from the one given."""
MAX_MEMORY_GB = 100_000

MemoryGb = Annotated[
    float | None,
    typer.Option(
        metavar="GB",
        min=0.1,
        max=MAX_MEMORY_GB,
        help="Plan for a card of this much memory; by default its own.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace results that are there already; without it they are kept."),
]
