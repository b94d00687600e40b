"""`likeness generate`: make a video of the person in a picture."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from likeness.generation import Likeness
    from likeness.records import Clip

MAX_SEED = 2**63 - 1
"""Larger ones are no seed to torch."""


def register(app: typer.Typer) -> None:
    app.command()(generate)


def generate(
    prompt: Annotated[str, typer.Argument(help='A sentence with "img" after the word for the person.')],
    face: Annotated[
        list[Path], typer.Option(help="Picture of the person; repeat it for more pictures of them.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the mp4 goes.")] = Path(
        "likeness.mp4"
    ),
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Same seed, same machine: same video.")] = 0,
    steps: Annotated[int | None, typer.Option(help="Denoising steps; more take longer.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Weight of the prompt; 1 is none.")] = None,
    identity_scale: Annotated[float, typer.Option(help="Weight of the face; 0 ignores it.")] = 1.0,
    frames: Annotated[int | None, typer.Option(help="Length, a multiple of eight plus one.")] = None,
    negative_prompt: Annotated[str, typer.Option(help="What the video should not show.")] = "",
    pick: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Where a picture shows several faces, take the Nth."),
    ] = None,
    enlarge: Annotated[
        int | None, typer.Option(min=1, help="Save the video this many times larger; by default to 256 px.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Backbone and licence: tiny, open or research.")] = "tiny",
    method: Annotated[str, typer.Option(help="How the face enters the model.")] = "magic_mirror",
    backbone: Annotated[str | None, typer.Option(help="Another diffusers folder or hub name.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Another folder of the method's weights.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the record as JSON, and nothing else.")
    ] = False,
) -> None:
    """Make a video of the person in a picture."""
    from likeness.cli.progress import progress, spinner
    from likeness.generation.prompts import check_prompt

    check_prompt(prompt)
    with spinner("Reading the face", is_quiet=as_json):
        from likeness.media import check_video_path

        check_video_path(output)
        from likeness.generation.references import read_faces

        references = read_faces(face, pick=pick)
    with spinner("Loading the models", is_quiet=as_json):
        likeness = load(preset, method, backbone=backbone, adapter=adapter)
    with progress("Denoising", is_quiet=as_json) as on_step:
        clip = likeness.generate(
            prompt,
            references,
            seed=seed,
            steps=steps,
            guidance=guidance,
            identity_scale=identity_scale,
            frames=frames,
            negative_prompt=negative_prompt,
            on_step=on_step,
        )
    clip.save(output, enlarge=enlarge)
    if as_json:
        import json

        print(json.dumps({"video": str(output), **clip.to_dict()}))
        return
    print(f"{output}: {describe(clip)}")


def load(preset: str, method: str, *, backbone: str | None = None, adapter: Path | None = None) -> "Likeness":
    if preset == "tiny":
        # What ships with the package needs no network, so nothing may wait for one.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from likeness.generation import Likeness

    return Likeness.load(preset, method, backbone=backbone, adapter=adapter)


def describe(clip: "Clip") -> str:
    """One line about a clip."""
    line = f"{clip.duration_s:.1f} s, seed {clip.settings['seed']}"
    if clip.similarity is None or clip.similarity.face_rate == 0:
        return f"{line}, no face found in any frame"
    similarity = clip.similarity
    return (
        f"{line}, distance to the reference {similarity.mean_distance:.2f} (cosine {similarity.mean:.3f}), "
        f"face found in {similarity.face_rate:.0%} of frames"
    )
