"""`likeness demo`: videos of a puppet (a rendered synthetic person) and of a photograph, with a page."""

from pathlib import Path
from typing import Annotated

import typer

from likeness.cli.console.options import MAX_BASE_SEED, Json, Overwrite
from likeness.cli.console.terminal import echo, print_json


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for videos and page.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(min=0, max=MAX_BASE_SEED, help="Same seed, same machine: same videos.")] = 7,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Denoising steps; more take longer.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Another folder of the tiny backbone.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Another folder of the method's weights.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make videos of a drawn and of a photographed person, and a page that shows them."""
    from likeness.cli.console.progress import progress, spinner
    from likeness.cli.generate import check_folders, describe, load
    from likeness.generation.loading.presets import find_preset
    from likeness.generation.loading.resolve_weights import check_weights
    from likeness.generation.outputs.folders import check_demo_folder

    check_demo_folder(output, overwrite=overwrite)
    check_folders(backbone, adapter)
    check_weights(find_preset("tiny"), "magic_mirror", backbone, adapter)
    with spinner("Loading the models", is_quiet=as_json):
        likeness = load("tiny", "magic_mirror", backbone=backbone, adapter=adapter)
        from likeness.app.demo import run_demo
    with progress("Making the videos", is_quiet=as_json) as on_step:
        videos = run_demo(likeness, output, seed=seed, steps=steps, on_step=on_step)
    page = output / "report.html"
    if as_json:
        print_json({"report": str(page), "videos": [{"video": str(v), **c.to_dict()} for v, c in videos]})
        return
    for video, clip in videos:
        echo(f"{video}: {describe(clip)}")
    echo(f"Open {page} in a browser.")
