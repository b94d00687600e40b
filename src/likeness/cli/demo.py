"""`likeness demo`: the main job on people who need no permission, with a page that shows the result."""

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for videos and page.")] = Path(
        "runs/demo"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same machine: same videos.")] = 7,
    steps: Annotated[int | None, typer.Option(help="Denoising steps; more take longer.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Another folder of the tiny backbone.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Another folder of the method's weights.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> None:
    """Make videos of a drawn and of a photographed person, and a page that shows them."""
    from likeness.cli.generate import describe, load
    from likeness.cli.progress import progress, spinner

    with spinner("Loading the models", is_quiet=as_json):
        likeness = load("tiny", "magic_mirror", backbone=backbone, adapter=adapter)
        from likeness.generation.demo import run_demo
    with progress("Making the videos", is_quiet=as_json) as on_step:
        made = run_demo(likeness, output, seed=seed, steps=steps, on_step=on_step)
    page = output / "report.html"
    if as_json:
        import json

        print(
            json.dumps({"report": str(page), "videos": [{"video": str(v), **c.to_dict()} for v, c in made]})
        )
        return
    for video, clip in made:
        print(f"{video}: {describe(clip)}")
    print(f"Open {page} in a browser.")
