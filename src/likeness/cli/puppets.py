"""`likeness puppets`: draw synthetic people as a contact sheet or a clip."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from likeness.cli.console.options import MAX_BASE_SEED, Overwrite
from likeness.cli.console.terminal import echo

if TYPE_CHECKING:
    from likeness.puppets import PuppetClip

CELL_PX = 128
"""Side of a cell of the sheet."""


def register(app: typer.Typer) -> None:
    app.command()(puppets)


def puppets(
    output: Annotated[Path, typer.Argument(help="A .png makes a contact sheet, an .mp4 one clip.")] = Path(
        "runs/puppets.png"
    ),
    seed: Annotated[int, typer.Option(min=0, max=MAX_BASE_SEED, help="Same seed, same people.")] = 0,
    people: Annotated[int, typer.Option(min=1, max=200, help="Rows of the sheet.")] = 8,
    group: Annotated[str | None, typer.Option(help="Only this group, such as woman or elderly man.")] = None,
    action: Annotated[str | None, typer.Option(help="The action, such as nod; by default random.")] = None,
    size: Annotated[int, typer.Option(min=32, max=1024, help="Pixels of one side.")] = 128,
    frames: Annotated[int, typer.Option(min=1, max=257, help="Frames of a clip.")] = 17,
    overwrite: Overwrite = False,
) -> None:
    """Draw people who do not exist: a sheet of several, or one clip."""
    from likeness.errors import ConfigError
    from likeness.generation.outputs.destinations import IMAGE_SUFFIXES, VIDEO_SUFFIX, check_output_file

    suffix = output.suffix.lower()
    if suffix not in (*IMAGE_SUFFIXES, VIDEO_SUFFIX):
        raise ConfigError(f"`{output}` ends in neither .png nor .mp4; give one for a sheet or a clip.")
    check_output_file(output, overwrite=overwrite)
    from likeness.generation.loading.presets import require_known
    from likeness.media import contact_sheet, resize, write_image, write_video
    from likeness.puppets import ACTIONS, GROUPS, sample_clip, sample_person

    if group is not None:
        require_known("group", group, tuple(GROUPS))
    if action is not None:
        require_known("action", action, tuple(ACTIONS))

    def draw(number: int, num_frames: int) -> "PuppetClip":
        person = sample_person(seed + number, group)
        return sample_clip(seed + number, person=person, action=action, num_frames=num_frames, size_px=size)

    if suffix == VIDEO_SUFFIX:
        clip = draw(0, frames)
        write_video(output, clip.frames, 8.0, metadata={"prompt": clip.prompt, "seed": seed})
        echo(f"{output}: {clip.prompt}")
        return
    rows, prompts = [], []
    for number in range(people):  # Only the frames on the sheet are kept.
        clip = draw(number, 17)
        rows.append([resize(clip.frames[index], CELL_PX, CELL_PX) for index in (0, 3, 6, 8, 11, 14, 16)])
        prompts.append(clip.prompt)
    write_image(output, contact_sheet(rows, prompts, cell_px=CELL_PX))
    echo(f"{output}: {people} people")
