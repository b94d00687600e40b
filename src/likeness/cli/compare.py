"""`likeness compare`: are two pictures of one person?"""

from pathlib import Path
from typing import Annotated

import typer

from likeness.cli.console.options import Json
from likeness.cli.console.terminal import echo, print_json


def register(app: typer.Typer) -> None:
    app.command()(compare)


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A picture of one person.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="A picture to compare with it.")],
    pick: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Where a picture shows several faces, take the Nth from the left (both pictures).",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The face engine: dlib (default), open, open/sface, research or research/antelopev2. All but dlib's "
            "need models (`likeness models`).",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the faces in two pictures."""
    from likeness.media.guard import check_media_file

    for picture in (first, second):
        check_media_file(picture, expected="a picture")
    from likeness import faces

    result = faces.compare(
        faces.read_face(first, pick=pick, engine=engine), faces.read_face(second, pick=pick, engine=engine)
    )
    if as_json:
        from dataclasses import asdict

        print_json({"a": str(first), "b": str(second), **asdict(result), "same": result.is_same})
        return
    verdict = "same person" if result.is_same else "different people"
    if result.min_cosine is not None:
        sign = ">" if result.is_same else "<="
        echo(f"{verdict}: cosine {result.cosine:.3f} {sign} {result.min_cosine:.3f}")
        return
    sign = "<" if result.is_same else ">="
    echo(f"{verdict}: distance {result.distance:.3f} {sign} {result.threshold:.2f}, cosine {result.cosine:.3f}")
