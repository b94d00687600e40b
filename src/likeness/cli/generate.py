"""`likeness generate`: make a video or an image of the person in a reference picture."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from likeness.cli.console.options import PRESET_HELP, Json, MemoryGb, Overwrite
from likeness.cli.console.terminal import echo, print_json

if TYPE_CHECKING:
    from likeness.generation import Likeness
    from likeness.generation.inputs.references import PersonInput
    from likeness.generation.inputs.search import SeedSearch
    from likeness.generation.inputs.settings import GenerationOptions
    from likeness.identity.face_shape.sliders import FaceShape
    from likeness.records import Clip

MIN_FRAME_PX = 64
"""Side of the frames of `tiny`, the smallest of all backbones."""
MAX_ENLARGE = 128
"""Largest factor for the smallest frames; the size of the result is checked as well."""

_Prompt = Annotated[str, typer.Argument(help='A sentence with "img" after the word for the person.')]
_Face = Annotated[
    list[Path] | None,
    typer.Option(help="Picture or short video of the person; repeat it for more pictures of them."),
]
_Character = Annotated[str | None, typer.Option(metavar="NAME|FILE", help="A saved character instead of pictures.")]
_SecondFace = Annotated[
    list[Path] | None,
    typer.Option(help='Picture of a second person, who is "img2" in the prompt beside "img1"; repeat it for more.'),
]
_SecondCharacter = Annotated[
    str | None, typer.Option(metavar="NAME|FILE", help="A saved character as the second person.")
]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        help="An .mp4, or a .png or .jpg with --frames 1; by default likeness.mp4 or .png.",
    ),
]
_Seed = Annotated[int, typer.Option(min=0, help="Same seed, same machine: same video.")]
_BestOf = Annotated[int, typer.Option(metavar="N", help="Try N seeds and keep the clip most like the face.")]
_MinSimilarity = Annotated[
    float | None, typer.Option(metavar="X", help="Stop at the first clip of this similarity, from 0 to 1.")
]
_Steps = Annotated[int | None, typer.Option(help="Denoising steps; more take longer.")]
_Guidance = Annotated[float | None, typer.Option(help="Weight of the prompt; 1 is none.")]
_Scale = Annotated[
    float | None, typer.Option(help="Weight of the face; 0 ignores it; by default what suits the preset.")
]
_Start = Annotated[float, typer.Option(help="Share of the steps before the face acts.")]
_End = Annotated[float, typer.Option(help="Share of the steps after which it acts no more.")]
_Blocks = Annotated[str | None, typer.Option(metavar="0-20", help="Blocks in which the face acts: 0-20, or 0,2,4.")]
_Branch = Annotated[
    Literal["conditional", "both"] | None,
    typer.Option(help="Branch of guidance that sees the face; by default as the method was trained."),
]
_Frames = Annotated[int | None, typer.Option(help="Length, a multiple of eight plus one; 1 makes a picture.")]
_Negative = Annotated[str, typer.Option(help="What the video should not show.")]
_Style = Annotated[str, typer.Option(help='Put behind the prompt as ", in the style of ...".')]
_Pick = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Where a picture shows several faces, take the Nth.")
]
_SecondPick = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Where a picture of --second-face shows several faces, take the Nth."),
]
_Enlarge = Annotated[
    int | None,
    typer.Option(min=1, max=MAX_ENLARGE, help="Save the video this many times larger; by default to 256 px."),
]
_Preset = Annotated[str, typer.Option(help=PRESET_HELP)]
_Method = Annotated[str, typer.Option(help="How the face enters the model.")]
_Backbone = Annotated[str | None, typer.Option(help="Another diffusers folder or hub name.")]
_Adapter = Annotated[Path | None, typer.Option(help="Another folder of the method's weights.")]
_Shape = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="Where the face's shape is read: learned, mediapipe, flame:FILE, beside (a file beside the picture), "
        "mean_head:PITCH_DEG or puppet:SEED.",
    ),
]


def _slider(what: str) -> Any:
    return typer.Option(min=-3, max=3, metavar="-3..3", help=f"{what}, in standard deviations from the person's.")


_FaceWidth = Annotated[float, _slider("Width of the face")]
_FaceLength = Annotated[float, _slider("Length of the face")]
_Jaw = Annotated[float, _slider("Width of the jaw")]
_Chin = Annotated[float, _slider("Length of the chin")]
_Nose = Annotated[float, _slider("Length of the nose")]
_Eyes = Annotated[float, _slider("Distance of the eyes")]
_Verify = Annotated[
    bool, typer.Option("--verify", help="Read every byte of the weights and compare checksums before loading.")
]


def register(app: typer.Typer) -> None:
    app.command()(generate)


def generate(
    prompt: _Prompt, face: _Face = None, character: _Character = None, pick: _Pick = None,
    second_face: _SecondFace = None, second_character: _SecondCharacter = None, second_pick: _SecondPick = None,
    output: _Output = None, overwrite: Overwrite = False, enlarge: _Enlarge = None,
    seed: _Seed = 0, best_of: _BestOf = 1, min_similarity: _MinSimilarity = None,
    steps: _Steps = None, guidance: _Guidance = None, frames: _Frames = None,
    negative_prompt: _Negative = "", style: _Style = "",
    identity_scale: _Scale = None, identity_start: _Start = 0.0, identity_end: _End = 1.0,
    identity_blocks: _Blocks = None, identity_branch: _Branch = None,
    shape: _Shape = None, face_width: _FaceWidth = 0.0, face_length: _FaceLength = 0.0, jaw: _Jaw = 0.0,
    chin: _Chin = 0.0, nose: _Nose = 0.0, eyes: _Eyes = 0.0,
    preset: _Preset = "tiny", method: _Method = "magic_mirror", backbone: _Backbone = None, adapter: _Adapter = None,
    memory_gb: MemoryGb = None, verify: _Verify = False, as_json: Json = False,
) -> None:  # fmt: skip
    """Make a video of the person in a picture, or with `--frames 1` a picture."""
    from likeness.cli.console.progress import progress, spinner

    choices: GenerationOptions = {
        "steps": steps, "guidance": guidance, "frames": frames, "negative_prompt": negative_prompt, "style": style,
        "identity_scale": identity_scale, "identity_start": identity_start, "identity_end": identity_end,
        "identity_blocks": identity_blocks, "identity_branch": identity_branch,
        "shape": shape, "face_shape": _sliders(face_width, face_length, jaw, chin, nose, eyes),
    }  # fmt: skip
    named = [PersonOptions(face, character, pick)]
    if second_face or second_character or second_pick is not None:
        named.append(PersonOptions(second_face, second_character, second_pick, pick_option="--second-pick"))
    output, num_frames, search = _check_options(
        prompt, choices, output, preset=preset, method=method, best_of=best_of, min_similarity=min_similarity,
        seed=seed, overwrite=overwrite, enlarge=enlarge, named=named, backbone=backbone, adapter=adapter,
    )  # fmt: skip
    with spinner("Reading the face", is_quiet=as_json):
        people = [one.read() for one in named]
    with spinner("Verifying and loading the models" if verify else "Loading the models", is_quiet=as_json):
        likeness = load(preset, method, backbone=backbone, adapter=adapter, memory_gb=memory_gb, verify=verify)
    likeness.check_enlarge_factor(num_frames, enlarge, num_people=len(named))
    from likeness.generation.inputs.multi_person import build_request

    request = build_request(prompt, people, seed=seed)
    with progress("Denoising", is_quiet=as_json) as on_step:
        # The loaded method supplies the defaults of `identity_scale` and `identity_branch`.
        clip = likeness.generate_best(request, likeness.settings(**choices), search, on_step=on_step)
    _save(clip, output, enlarge=enlarge, overwrite=overwrite, as_json=as_json)


def _save(clip: "Clip", output: Path, *, enlarge: int | None, overwrite: bool, as_json: bool) -> None:
    """Write the clip and print what it is."""
    from likeness.generation.outputs.save import save_with_fallback

    save_with_fallback(clip, output, enlarge=enlarge, overwrite=overwrite)
    if as_json:
        print_json({"picture" if len(clip.frames) == 1 else "video": str(output), **clip.to_dict()})
    else:
        echo(f"{output}: {describe(clip)}")


@dataclass(frozen=True, slots=True)
class PersonOptions:
    """A person as given by the options of a command."""

    faces: Sequence[str | Path] | None
    character: str | None
    pick: int | None = None
    pick_option: str = "--pick"

    def check(self) -> None:
        """Check the options without reading a picture."""
        from likeness.errors import ConfigError
        from likeness.generation.inputs.people import check_person

        if self.pick is not None and not self.faces and not self.character:
            raise ConfigError(
                f"`{self.pick_option} {self.pick}` chooses among the faces of a picture, and this person has none. Add "
                f"`{self.pick_option.replace('pick', 'face')} FILE`, or leave it out."
            )
        check_person(self.faces or (), character=self.character)
        if self.pick is not None and self.character:
            raise ConfigError(
                f"`{self.pick_option}` chooses among the faces of a picture, and a character was given. Leave it out."
            )

    def read(self) -> "PersonInput":
        """Read the pictures, or load the character."""
        from likeness.errors import ManyFacesError
        from likeness.generation.inputs.references import choose_person

        try:
            return choose_person(self.faces or (), self.character, pick=self.pick)
        except ManyFacesError as error:
            raise ManyFacesError(error.source, error.boxes, option=self.pick_option) from error


def _check_options(
    prompt: str,
    choices: "GenerationOptions",
    output: Path | None,
    *,
    preset: str,
    method: str,
    backbone: str | None,
    adapter: Path | None,
    best_of: int,
    min_similarity: float | None,
    seed: int,
    overwrite: bool,
    enlarge: int | None,
    named: "list[PersonOptions]",
) -> "tuple[Path, int, SeedSearch]":
    """Check all options before anything is loaded.

    Returns:
        The output file, the number of frames, and the search among seeds.
    """
    from likeness.generation.inputs.prompts import check_prompt
    from likeness.generation.inputs.search import SeedSearch
    from likeness.generation.inputs.settings import resolve_settings
    from likeness.generation.loading.presets import METHODS, find_preset, require_known
    from likeness.generation.loading.resolve_weights import check_frames, check_weights, uses_published_checkpoint
    from likeness.generation.outputs.destinations import check_enlarge_factor, check_output
    from likeness.generation.sampling.shape_control import check_shape

    require_known("method", method, METHODS)  # Whether the prompt needs a trigger word depends on it.
    check_prompt(prompt, len(named), method=method)
    chosen = find_preset(preset)
    settings = resolve_settings(chosen, dict(choices))
    check_folders(backbone, adapter)
    check_frames(settings.frames, chosen, method=method, backbone=backbone, adapter=adapter)
    pictures = [Path(face) for face in named[0].faces or ()]
    is_published = uses_published_checkpoint(chosen, method, backbone, adapter)
    check_shape(
        settings.shape,
        settings.face_shape,
        method=method,
        faces=pictures,
        is_published_checkpoint=is_published,
    )
    search = SeedSearch.of(best_of, min_similarity)
    search.check_seed(seed)
    output = output or Path("likeness.png" if settings.frames == 1 else "likeness.mp4")
    check_output(output, settings.frames, overwrite=overwrite)
    if enlarge is not None:
        # A lower bound; `Likeness.check_enlarge_factor` repeats the check with the true size of the frames.
        check_enlarge_factor((settings.frames, MIN_FRAME_PX, MIN_FRAME_PX), enlarge)
    for person in named:
        person.check()
    check_weights(chosen, method, backbone, adapter)
    return output, settings.frames, search


def check_folders(backbone: str | None, adapter: Path | None) -> None:
    """Refuse folders of weights that do not exist. A backbone may also be a hub name.

    Raises:
        WeightsError: A folder does not exist.
    """
    from likeness.errors import WeightsError

    folders = [("adapter", adapter)]
    if backbone is not None and (backbone.startswith((".", "~", "/")) or Path(backbone).is_absolute()):
        folders.append(("backbone", Path(backbone)))
    for role, folder in folders:
        if folder is not None and not folder.is_dir():
            raise WeightsError(f"`--{role} {folder}` is no folder. Name the folder that holds its weights.")


def _sliders(
    face_width: float, face_length: float, jaw: float, chin: float, nose: float, eyes: float
) -> "FaceShape | None":
    if not any((face_width, face_length, jaw, chin, nose, eyes)):
        return None
    from likeness.config import build
    from likeness.identity.face_shape.sliders import FaceShape

    values = {
        "face_width": face_width,
        "face_length": face_length,
        "jaw": jaw,
        "chin": chin,
        "nose": nose,
        "eyes": eyes,
    }
    return build(FaceShape, values, where="sliders")


def load(
    preset: str,
    method: str,
    *,
    backbone: str | None = None,
    adapter: Path | None = None,
    memory_gb: float | None = None,
    verify: bool = False,
) -> "Likeness":
    """Load a preset; the bundled one without access to the network."""
    if preset == "tiny":
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from likeness.generation import Likeness

    return Likeness.load(preset, method, backbone=backbone, adapter=adapter, memory_gb=memory_gb, verify=verify)


def describe(clip: "Clip") -> str:
    """One line about a clip."""
    from likeness.generation.outputs.similarity import describe_similarity

    length = "a picture" if len(clip.frames) == 1 else f"{clip.duration_s:.1f} s"
    made_by = f"{clip.settings['method']}, seed {clip.settings['seed']}"
    line = f"{length}, {made_by}, {describe_similarity(clip.similarity)}"
    for number, person in enumerate(clip.people, start=1):
        line += f"; img{number}: {describe_similarity(person)}"
    search = clip.settings.get("best_of")
    if search and search["asked"] > 1:
        tried = len(search["candidates"])
        line += f"; best of {tried} in {search['steps']} of {search['steps_of_all_in_full']} steps"
    return line
