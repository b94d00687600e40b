"""`likeness compare`: are two pictures of one person?"""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(compare)


def compare(
    a: Annotated[Path, typer.Argument(help="A picture of one person.")],
    b: Annotated[Path, typer.Argument(help="A picture to hold against it.")],
    pick: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Where a picture shows several faces, take the Nth from the left (both pictures).",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say how alike the faces in two pictures are."""
    from likeness import faces

    result = faces.compare(faces.read_face(a, pick=pick), faces.read_face(b, pick=pick))
    if as_json:
        import json
        from dataclasses import asdict

        print(json.dumps({"a": str(a), "b": str(b), **asdict(result), "same": result.is_same}))
        return
    verdict, sign = ("same person", "<") if result.is_same else ("different people", ">=")
    print(
        f"{verdict}: distance {result.distance:.3f} {sign} {result.threshold:.2f}, cosine {result.cosine:.3f}"
    )
