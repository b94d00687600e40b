"""From a story to its shots and one joined video.

Shots that were finished before, and of which nothing changed (prompt, settings, references, weights, software), are
kept. What is shown (the joined video, sheet, plot, page) is made from the shots' files, so it is the same whether they
were kept or not.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from likeness.errors import PromptError
from likeness.files import lock, write_bytes, write_text
from likeness.generation.inputs.characters import Character
from likeness.generation.inputs.prompts import add_style
from likeness.generation.inputs.references import Person, choose_person, read_faces
from likeness.generation.inputs.settings import GenerationSettings
from likeness.generation.outputs.destinations import record_file
from likeness.generation.outputs.folders import STORY_RECORD, check_story_folder
from likeness.generation.outputs.provenance import describe_software
from likeness.generation.outputs.save import read_clip, save_or_rescue
from likeness.generation.sampling.best_of import choose_best
from likeness.generation.sampling.sample import GenerationRequest, StepCallback
from likeness.generation.sampling.search import Search
from likeness.generation.stories.page import show_story
from likeness.generation.stories.story_file import Story, decide_shots, read_story
from likeness.records import Clip, Face
from likeness.weights import sha256_of

if TYPE_CHECKING:
    from likeness.generation.likeness import Likeness

StoryCallback = Callable[[int, int, bool], None]
"""Called before each shot with its number, their count, and whether it is kept from before."""
RECORD = STORY_RECORD
LOCK = ".story.lock"
"""Held while a story is made in its folder."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ToldShot:
    """A shot that is there."""

    file: Path
    is_kept: bool
    """It was finished before, and nothing about it changed."""
    clip: Clip
    """Read back from the file."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoryResult:
    """What became of a story."""

    title: str
    video: Path
    page: Path
    shots: tuple[ToldShot, ...]

    def to_dict(self) -> dict[str, Any]:
        """The record beside the joined video; shots in order, with the similarity of each."""
        return {
            "title": self.title,
            "video": self.video.name,
            "report": self.page.name,
            "shots": [
                {
                    "file": shot.file.name,
                    "prompt": shot.clip.prompt,
                    "seed": shot.clip.settings["seed"],
                    "best_of": shot.clip.settings.get("best_of"),
                    "similarity": shot.clip.similarity.to_dict() if shot.clip.similarity else None,
                }
                for shot in self.shots
            ],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """One shot with everything decided."""

    request: GenerationRequest
    settings: GenerationSettings
    search: Search
    fingerprint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Finished:
    """A shot's file, as noted when it was written."""

    file: str
    fingerprint: str
    sha256: str


def render_story(
    likeness: "Likeness",
    story: str | Path | Story,
    folder: Path,
    faces: Person | None = None,
    *,
    on_step: StepCallback | None = None,
    on_shot: StoryCallback | None = None,
    overwrite: bool = True,
) -> StoryResult:
    """Make what is missing of a story, then join and show it. See `Likeness.story`."""
    story = story if isinstance(story, Story) else read_story(story)
    decided = decide_shots(story, likeness.preset)
    check_story_folder(folder, overwrite=overwrite)
    person = choose_person(story.faces, story.character) if faces is None else faces
    references = read_faces(person)
    plans = _plan(likeness, story, decided, person, references)
    busy = f"{{owner}} makes a story in {folder}. Wait until it has ended, or choose another folder."
    with lock(folder / LOCK, busy=busy):
        shots = _make_shots(likeness, plans, folder, references, on_step, on_shot)
        video, page = show_story(folder, story.title, [(shot.file, shot.clip) for shot in shots])
        told = StoryResult(title=story.title, video=video, page=page, shots=tuple(shots))
        finished = [asdict(entry) for entry in _finished(folder).values()]
        _write_record(folder, told.to_dict() | {"finished": finished})
    return told


def _make_shots(
    likeness: "Likeness",
    plans: Sequence[_Plan],
    folder: Path,
    references: tuple[Face, ...],
    on_step: StepCallback | None,
    on_shot: StoryCallback | None,
) -> list[ToldShot]:
    """Make the shots that are missing, and note each as soon as it is there."""
    finished = _finished(folder)
    costs = [plan.settings.steps * plan.search.best_of for plan in plans]
    shots: list[ToldShot] = []
    for index, plan in enumerate(plans):
        before = finished.get(plan.fingerprint)
        if on_shot is not None:
            on_shot(index + 1, len(plans), before is not None)
        file = folder / f"shot_{index + 1:02d}_{plan.fingerprint[:8]}.mp4"
        if before is None:
            count = _counter(sum(costs[:index]), sum(costs), on_step)
            save_or_rescue(_make(likeness, plan, count), file)
        elif before.file != file.name:
            for source in (folder / before.file, record_file(folder / before.file)):
                write_bytes(file.with_suffix(source.suffix), source.read_bytes())
        finished[plan.fingerprint] = _Finished(file=file.name, fingerprint=plan.fingerprint, sha256=sha256_of(file))
        _write_record(folder, {"finished": [asdict(entry) for entry in finished.values()]})
        shots.append(ToldShot(file=file, is_kept=before is not None, clip=read_clip(file, references)))
        if on_step is not None:
            on_step(sum(costs[: index + 1]), sum(costs))
    return shots


def _plan(
    likeness: "Likeness",
    story: Story,
    decided: Sequence[tuple[GenerationSettings, Search]],
    person: Person,
    references: tuple[Face, ...],
) -> list[_Plan]:
    character = person.describe() if isinstance(person, Character) else None
    common = {
        "preset": likeness.preset.model_dump(include={"name", "fps"}),
        "method": type(likeness.method).__name__,
        "weights": likeness.weights,
        "software": describe_software(),
        "references": [_print_of(face) for face in references],
        "character": character,
    }
    plans = []
    for number, (shot, (settings, search)) in enumerate(zip(story.shots, decided, strict=True), start=1):
        seed = story.seed if shot.seed is None else shot.seed
        prompt = add_style(shot.prompt, settings.style)
        try:
            likeness.check_length(prompt, len(references) if settings.identity_scale else 0)
        except PromptError as error:
            raise PromptError(f"Shot {number}: {error}") from error
        own = {
            "prompt": prompt,
            "seed": seed,
            "settings": settings.model_dump(),
            "search": search.model_dump(),
        }
        fingerprint = hashlib.sha256(json.dumps(common | own, sort_keys=True).encode()).hexdigest()
        request = GenerationRequest(prompt=shot.prompt, references=references, seed=seed, character=character)
        plans.append(_Plan(request=request, settings=settings, search=search, fingerprint=fingerprint))
    return plans


def _print_of(face: Face) -> str:
    return hashlib.sha256(face.crop.tobytes() + face.embedding.tobytes()).hexdigest()


def _make(likeness: "Likeness", plan: _Plan, on_step: StepCallback | None) -> Clip:
    if plan.search.is_needed:
        clip = choose_best(likeness, plan.request, plan.settings, plan.search, on_step=on_step)
    else:
        clip = likeness.generate_many([plan.request], plan.settings, on_step=on_step)[0]
    return replace(clip, settings=clip.settings | {"fingerprint": plan.fingerprint})


def _counter(before: int, total: int, on_step: StepCallback | None) -> StepCallback | None:
    if on_step is None:
        return None
    return lambda done, _total: on_step(before + done, total) if before + done < total else None


def _finished(folder: Path) -> dict[str, _Finished]:
    """Shots that lie whole in `folder`, by fingerprint. What is not exactly as it was written does not count."""
    try:
        listed = json.loads((folder / RECORD).read_text(encoding="utf-8"))["finished"]
        entries = [_Finished(**{**entry, "file": Path(entry["file"]).name}) for entry in listed]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {entry.fingerprint: entry for entry in entries if _is_whole(folder / entry.file, entry.sha256)}


def _is_whole(file: Path, sha256: str) -> bool:
    return file.is_file() and record_file(file).is_file() and sha256_of(file) == sha256


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    """Note what is finished, wholly or not at all, so that a killed story goes on where it was."""
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")
