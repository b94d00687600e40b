"""`likeness character`: people saved as one file each and used again by name."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from likeness.cli.console.options import Json, Overwrite
from likeness.cli.console.terminal import echo, escape_control_characters, print_json


def register(app: typer.Typer) -> None:
    group = typer.Typer(name="character", help="Save people once and use them again by name.", no_args_is_help=True)
    group.command()(add)
    group.command("list")(list_names)
    group.command()(show)
    group.command()(remove)
    app.add_typer(group)


def add(
    name: Annotated[str, typer.Argument(help="What to call the person.")],
    face: Annotated[list[Path], typer.Option(help="Picture of the person; repeat it for more pictures.")],
    consent: Annotated[str, typer.Option(help="Who agreed to be shown, when and for what. It stays in the file.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A .safetensors file elsewhere, instead of by name.")
    ] = None,
    pick: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Where a picture shows several faces, take the Nth."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", "--overwrite", help="Overwrite a character of that name.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read pictures of one person and save them as a character."""
    from likeness.generation.inputs.character_files import character_file, check_character
    from likeness.generation.inputs.people import check_person

    check_character(name, consent)
    target = character_file(name, output, replace=replace)
    check_person(face, character=None)
    from likeness.generation.inputs.characters import Character

    character = Character.create(name, face, consent=consent, pick=pick)
    path = character.save(target, replace=replace)
    if as_json:
        print_json({"file": str(path), **character.to_dict()})
        return
    echo(f"{path}: {character.name}, {_count(len(character.faces))}")
    if character.max_distance >= character.faces[0].threshold:
        echo(
            f"likeness: two of the pictures are {character.max_distance:.2f} apart, as different people are. Check "
            "them, and make the character again with `--replace` if one shows another person.",
            stream=sys.stderr,
        )


def list_names(as_json: Json = False) -> None:
    """List the saved characters."""
    from likeness.errors import CharacterError
    from likeness.generation.inputs.characters import Character, character_folder, character_names, find_character

    rows = []
    for name in character_names():
        try:
            rows.append({"file": str(find_character(name)), **Character.load(name).to_dict()})
        except CharacterError as error:
            rows.append({"file": str(find_character(name)), "name": name, "problem": str(error)})
    if as_json:
        print_json(rows)
        return
    for row in rows:
        state = row["problem"] if "problem" in row else _count(len(row["references"]))
        echo(f"{escape_control_characters(row['name'], lines=False)}: {state}")
    if not rows:
        echo(f"No character is saved in {character_folder()}.")


def show(
    character: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A saved character, or any file.")],
    picture: Annotated[Path | None, typer.Option(help="Write its references side by side to this .png.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Show a character: its references, face engine (detector, landmarks, recognizer) and consent note."""
    if picture is not None:
        from likeness.generation.outputs.destinations import check_image_output

        check_image_output(picture, overwrite=overwrite)
    from likeness.generation.inputs.characters import Character, find_character

    loaded = Character.load(character)
    if picture is not None:
        from likeness.media import contact_sheet, write_image

        write_image(picture, contact_sheet([[face.crop for face in loaded.faces]], cell_px=224))
    facts = {"file": str(find_character(character)), **loaded.to_dict()}
    if as_json:
        print_json(facts)
        return
    facts["references"] = ", ".join(facts["references"])
    for key, value in facts.items():
        echo(f"{key}: {escape_control_characters(value, lines=False)}")


def remove(name: Annotated[str, typer.Argument(help="A saved character.")]) -> None:
    """Delete a saved character, its consent note included."""
    from likeness.generation.inputs.character_files import remove_character

    echo(f"{remove_character(name)} is deleted.")


def _count(num_references: int) -> str:
    return f"{num_references} reference{'s' if num_references > 1 else ''}"
