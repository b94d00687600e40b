"""Demo: videos of a puppet (a rendered synthetic person) and of a person in a public-domain photograph.

Beside them it writes a contact sheet, a plot and a page.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from likeness.faces import find_faces, read_face
from likeness.generation.inputs.search import SeedSearch
from likeness.generation.inputs.settings import GenerationSettings
from likeness.generation.likeness import GenerationRequest, Likeness, StepCallback
from likeness.generation.outputs.page import ReportItem, write_report
from likeness.generation.outputs.plots import plot_similarity, write_contact_sheet
from likeness.generation.outputs.save import save_with_fallback
from likeness.generation.sampling.best_of import Candidate, record_search
from likeness.media import resize, write_image
from likeness.puppets import sample_image, sample_person
from likeness.records import Clip, Face

PUPPET_ACTIONS = (
    "in a red sweater smiles at the camera in a park",
    "in a blue shirt turns his head to the left in a kitchen",
    "in a green jacket nods his head on a beach",
)
ASTRONAUT_PROMPTS = (
    "a woman img in an orange jacket smiles at the camera in a studio",
    "a woman img in an orange jacket tilts her head in a studio",
)
PORTRAIT_PX = 256
PORTRAIT_SEED = 70
SEEDS_PER_VIDEO = 3
"""Seeds tried for each video; the one with the highest similarity is shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoPerson:
    """A reference face and its prompts."""

    name: str
    face: Face
    prompts: tuple[str, ...]


def run_demo(
    likeness: Likeness,
    folder: Path,
    *,
    seed: int = 7,
    steps: int | None = None,
    on_step: StepCallback | None = None,
) -> list[tuple[Path, Clip]]:
    """Make the demo's videos and pages in `folder`.

    Returns:
        The videos with their clips, in the order of the page.
    """
    people = [choose_puppet(seed)]
    if find_spec("skimage") is not None:
        people.append(read_astronaut())
    requests = [
        GenerationRequest(prompt=prompt, people=((person.face,),), seed=seed + number + 100 * candidate)
        for person in people
        for number, prompt in enumerate(person.prompts)
        for candidate in range(SEEDS_PER_VIDEO)
    ]
    names = [person.name for person in people for _ in person.prompts]
    settings = likeness.settings(steps=steps)
    clips = likeness.generate_many(requests, settings, on_step=on_step)
    return write_demo(folder, choose_best_candidates(clips, SEEDS_PER_VIDEO, settings), names)


def choose_best_candidates(clips: Sequence[Clip], candidates: int, settings: GenerationSettings) -> list[Clip]:
    """Keep of every `candidates` consecutive clips the one with the highest similarity; all are in its record."""
    search, chosen = SeedSearch(best_of=candidates, rejects_early=False), []
    for start in range(0, len(clips), candidates):
        group = clips[start : start + candidates]
        scores = [clip.similarity.score if clip.similarity else 0.0 for clip in group]
        tried = [
            Candidate(seed=clip.settings["seed"], similarity=score, steps=settings.steps)
            for clip, score in zip(group, scores, strict=True)
        ]
        best = group[int(np.argmax(scores))]
        record = {"best_of": record_search(tried, search, settings)}
        chosen.append(replace(best, settings=best.settings | record))
    return chosen


def write_demo(folder: Path, clips: list[Clip], names: list[str]) -> list[tuple[Path, Clip]]:
    """Write videos, reference pictures, contact sheet, plot and page."""
    folder.mkdir(parents=True, exist_ok=True)
    portraits: dict[str, Path] = {}
    items = []
    for index, (clip, name) in enumerate(zip(clips, names, strict=True)):
        number = names[: index + 1].count(name)
        slug = name.lower().replace(" ", "_")
        if name not in portraits:
            portraits[name] = folder / f"{slug}_reference.png"
            write_image(portraits[name], clip.references[0].crop)
        video = save_with_fallback(clip, folder / f"{slug}_{number}.mp4")
        items.append(ReportItem(clip=clip, video=video, person=name, references=(portraits[name],)))
    write_contact_sheet(folder / "contact_sheet.png", clips)
    labels = [f"{name}: {_shorten_prompt(clip.prompt)}" for name, clip in zip(names, clips, strict=True)]
    plot_similarity(folder / "similarity.png", clips, names=labels)
    write_report(
        folder / "report.html",
        items,
        title="Videos of a person from one picture",
        subtitle="One reference picture and one sentence went into each video. Each is the one most like its reference "
        f"of {SEEDS_PER_VIDEO} seeds.",
        sheet=folder / "contact_sheet.png",
        plot=folder / "similarity.png",
    )
    return [(item.video, item.clip) for item in items]


def choose_puppet(seed: int) -> DemoPerson:
    """Draw a portrait that is in no training set: the first from `seed` on in which dlib finds one face."""
    for attempt in range(20):
        number = PORTRAIT_SEED + seed + attempt
        person = sample_person(number, "man")
        portrait = sample_image(number, person=person, size_px=PORTRAIT_PX, max_yaw_deg=6)
        picture = portrait.frames[0]
        if len(find_faces(picture)) == 1:
            prompts = tuple(f"a man img {action}" for action in PUPPET_ACTIONS)
            return DemoPerson(name="A drawn man", face=read_face(picture), prompts=prompts)
    raise AssertionError("no face found in twenty portraits")


def read_astronaut() -> DemoPerson:
    """Read the photograph of Eileen Collins from scikit-image (NASA, public domain)."""
    from skimage.data import astronaut

    picture = np.asarray(astronaut(), dtype=np.uint8)
    return DemoPerson(name="A photographed woman", face=read_face(resize(picture, 512, 512)), prompts=ASTRONAUT_PROMPTS)


def _shorten_prompt(prompt: str) -> str:
    """The text after the trigger word, shortened for a legend."""
    words = prompt.split(" img ", maxsplit=1)[-1]
    return words if len(words) <= 40 else f"{words[:37]}..."
