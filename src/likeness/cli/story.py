"""`likeness story`: render several shots of one character from one file and join them."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from likeness.cli.console.options import PRESET_HELP, Json, MemoryGb, Overwrite
from likeness.cli.console.terminal import echo, print_json

if TYPE_CHECKING:
    from likeness.generation.stories.render import StoryResult


def register(app: typer.Typer) -> None:
    app.command()(story)


def story(
    file: Annotated[Path, typer.Argument(help="A TOML or JSON file, such as examples/story.toml.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the story; by default runs/NAME OF FILE."),
    ] = None,
    face: Annotated[
        list[Path] | None,
        typer.Option(help="Picture of the person, instead of those in the file; may be repeated."),
    ] = None,
    character: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="A saved character, instead of the file's.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=1", help="Change a setting, such as steps=10 or shots.0.seed=3."),
    ] = None,
    preset: Annotated[str, typer.Option(help=PRESET_HELP)] = "tiny",
    method: Annotated[str, typer.Option(help="How the face enters the model.")] = "magic_mirror",
    backbone: Annotated[str | None, typer.Option(help="Another diffusers folder or hub name.")] = None,
    adapter: Annotated[Path | None, typer.Option(help="Another folder of the method's weights.")] = None,
    memory_gb: MemoryGb = None,
    pick: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Where a picture shows several faces, take the Nth."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make several shots of one character and join them. Finished shots are kept when it runs again."""
    from likeness.cli.console.progress import progress, spinner
    from likeness.cli.generate import PersonOptions, check_folders, load
    from likeness.generation.loading.presets import METHODS, find_preset, require_known
    from likeness.generation.loading.resolve_weights import check_frames, check_weights
    from likeness.generation.outputs.folders import check_story_folder
    from likeness.generation.stories.story_file import check_shot_frames, read_story, resolve_shots

    loaded_story = read_story(file, overrides or ())
    require_known("method", method, METHODS)
    chosen = find_preset(preset)
    shots = resolve_shots(loaded_story, chosen, method=method)
    check_folders(backbone, adapter)
    check_backbone_frames = partial(check_frames, preset=chosen, method=method, backbone=backbone, adapter=adapter)
    check_shot_frames(shots, check_backbone_frames)
    person_inputs = (face, character) if face or character else (loaded_story.faces, loaded_story.character)
    person_options = PersonOptions(*person_inputs, pick)
    person_options.check()
    folder = output or Path("runs") / file.stem
    check_story_folder(folder, overwrite=overwrite)
    check_weights(chosen, method, backbone, adapter)
    with spinner("Reading the face", is_quiet=as_json):
        person = person_options.read()
    with spinner("Loading the models", is_quiet=as_json):
        likeness = load(preset, method, backbone=backbone, adapter=adapter, memory_gb=memory_gb)
    with progress("Making the shots", is_quiet=as_json) as on_step:
        result = likeness.story(loaded_story, folder, person, on_step=on_step, overwrite=overwrite)
    if as_json:
        print_json({"folder": str(result.video.parent), **result.to_dict()})
    else:
        _print(result)


def _print(result: "StoryResult") -> None:
    from likeness.generation.outputs.similarity import describe_similarity

    for number, shot in enumerate(result.shots, start=1):
        state = "kept" if shot.is_kept else "made"
        echo(f"{number}. {state} {shot.file.name}: {describe_similarity(shot.clip.similarity)}")
    echo(f"{result.video}: {sum(shot.clip.duration_s for shot in result.shots):.1f} s")
    echo(f"Open {result.page} in a browser.")
