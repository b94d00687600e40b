"""Render the shots of a story and join them into one video.

Finished shots are kept if their prompt, settings, references, weights and software are unchanged. The joined video,
sheet, plot and page are made from the files of the shots, so they do not depend on which shots were kept.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from likeness.errors import PromptError
from likeness.files import lock, read_json, write_bytes, write_text
from likeness.generation.inputs.characters import Character
from likeness.generation.inputs.prompts import add_style
from likeness.generation.inputs.references import PersonInput, choose_person, read_faces
from likeness.generation.inputs.request import GenerationRequest
from likeness.generation.inputs.search import SeedSearch
from likeness.generation.inputs.settings import GenerationSettings
from likeness.generation.loading.presets import Preset
from likeness.generation.outputs.destinations import record_file
from likeness.generation.outputs.folders import STORY_RECORD, check_story_folder
from likeness.generation.outputs.provenance import describe_software
from likeness.generation.outputs.save import read_clip, save_with_fallback
from likeness.generation.sampling.best_of import GenerateFunction, choose_best, offset_progress
from likeness.generation.sampling.sample import StepCallback
from likeness.generation.stories.page import write_story_files
from likeness.generation.stories.story_file import Story, check_shot_frames, read_story, resolve_shots
from likeness.records import Clip, Face
from likeness.weights import sha256_of

StoryCallback = Callable[[int, int, bool], None]
"""Called before each shot with its number, the number of shots, and whether it is kept."""
LOCK_FILE = ".story.lock"
"""Held while a story is rendered in its folder."""


class StoryGenerator(Protocol):
    """The members of `Likeness` that a story needs."""

    preset: Preset
    method: Any
    weights: dict[str, str]

    @property
    def generate_many(self) -> GenerateFunction: ...

    def check_frames(self, frames: int) -> None: ...

    def check_length(self, prompt: str, num_references: int) -> None: ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RenderedShot:
    """A finished shot."""

    file: Path
    is_kept: bool
    """It was finished in an earlier run, and nothing about it changed."""
    clip: Clip
    """Read back from the file."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class StoryResult:
    """The files of a rendered story."""

    title: str
    video: Path
    page: Path
    shots: tuple[RenderedShot, ...]

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
class _ShotPlan:
    """One shot with its request and resolved settings."""

    request: GenerationRequest
    settings: GenerationSettings
    search: SeedSearch
    fingerprint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _FinishedShot:
    """The record of a shot's file."""

    file: str
    fingerprint: str
    sha256: str


def render_story(
    generator: StoryGenerator,
    story: str | Path | Story,
    folder: Path,
    faces: PersonInput | None = None,
    *,
    on_step: StepCallback | None = None,
    on_shot: StoryCallback | None = None,
    overwrite: bool = True,
) -> StoryResult:
    """Render the missing shots of a story, then write the joined video and pages. See `Likeness.story`."""
    story = story if isinstance(story, Story) else read_story(story)
    resolved = resolve_shots(story, generator.preset, method=type(generator.method))
    check_shot_frames(resolved, generator.check_frames)
    check_story_folder(folder, overwrite=overwrite)
    person = choose_person(story.faces, story.character) if faces is None else faces
    references = read_faces(person)
    plans = _plan_shots(generator, story, resolved, person, references)
    busy = f"{{owner}} makes a story in {folder}. Wait until it has ended, or choose another folder."
    with lock(folder / LOCK_FILE, busy=busy):
        shots = _render_shots(generator, plans, folder, references, on_step, on_shot)
        video, page = write_story_files(folder, story.title, [(shot.file, shot.clip) for shot in shots])
        result = StoryResult(title=story.title, video=video, page=page, shots=tuple(shots))
        finished = [asdict(entry) for entry in _read_finished_shots(folder).values()]
        _write_record(folder, result.to_dict() | {"finished": finished})
    return result


def _render_shots(
    generator: StoryGenerator,
    plans: Sequence[_ShotPlan],
    folder: Path,
    references: tuple[Face, ...],
    on_step: StepCallback | None,
    on_shot: StoryCallback | None,
) -> list[RenderedShot]:
    """Render the missing shots, and record each as soon as it is saved."""
    finished = _read_finished_shots(folder)
    num_steps = [plan.settings.steps * plan.search.best_of for plan in plans]
    shots: list[RenderedShot] = []
    for index, plan in enumerate(plans):
        earlier = finished.get(plan.fingerprint)
        if on_shot is not None:
            on_shot(index + 1, len(plans), earlier is not None)
        file = folder / f"shot_{index + 1:02d}_{plan.fingerprint[:8]}.mp4"
        if earlier is None:
            report = on_step and offset_progress(on_step, sum(num_steps[:index]), sum(num_steps))
            save_with_fallback(_generate_shot(generator, plan, report), file)
        elif earlier.file != file.name:
            for source in (folder / earlier.file, record_file(folder / earlier.file)):
                write_bytes(file.with_suffix(source.suffix), source.read_bytes())
        finished[plan.fingerprint] = _FinishedShot(file=file.name, fingerprint=plan.fingerprint, sha256=sha256_of(file))
        _write_record(folder, {"finished": [asdict(entry) for entry in finished.values()]})
        shots.append(RenderedShot(file=file, is_kept=earlier is not None, clip=read_clip(file, references)))
        if on_step is not None:
            on_step(sum(num_steps[: index + 1]), sum(num_steps))
    return shots


def _plan_shots(
    generator: StoryGenerator,
    story: Story,
    resolved: Sequence[tuple[GenerationSettings, SeedSearch]],
    person: PersonInput,
    references: tuple[Face, ...],
) -> list[_ShotPlan]:
    character = person.describe() if isinstance(person, Character) else None
    shared_inputs = {
        "preset": generator.preset.model_dump(include={"name", "fps"}),
        "method": type(generator.method).__name__,
        "weights": generator.weights,
        "software": describe_software(),
        "references": [_fingerprint(face) for face in references],
        "character": character,
    }
    plans = []
    for number, (shot, (settings, search)) in enumerate(zip(story.shots, resolved, strict=True), start=1):
        seed = story.seed if shot.seed is None else shot.seed
        prompt = add_style(shot.prompt, settings.style)
        try:
            generator.check_length(prompt, len(references) if settings.identity_scale else 0)
        except PromptError as error:
            raise PromptError(f"Shot {number}: {error}") from error
        shot_inputs = {
            "prompt": prompt,
            "seed": seed,
            "settings": settings.model_dump(),
            "search": search.model_dump(),
        }
        fingerprint = hashlib.sha256(json.dumps(shared_inputs | shot_inputs, sort_keys=True).encode()).hexdigest()
        request = GenerationRequest(prompt=shot.prompt, people=(references,), seed=seed, character=character)
        plans.append(_ShotPlan(request=request, settings=settings, search=search, fingerprint=fingerprint))
    return plans


def _fingerprint(face: Face) -> str:
    return hashlib.sha256(face.crop.tobytes() + face.embedding.tobytes()).hexdigest()


def _generate_shot(generator: StoryGenerator, plan: _ShotPlan, on_step: StepCallback | None) -> Clip:
    if plan.search.is_needed:
        clip = choose_best(generator.generate_many, plan.request, plan.settings, plan.search, on_step=on_step)
    else:
        clip = generator.generate_many([plan.request], plan.settings, on_step=on_step)[0]
    return replace(clip, settings=clip.settings | {"fingerprint": plan.fingerprint})


def _read_finished_shots(folder: Path) -> dict[str, _FinishedShot]:
    """The complete shots in `folder`, by fingerprint. Files that changed since they were written are left out."""
    try:
        listed = read_json(folder / STORY_RECORD)["finished"]
        entries = [_FinishedShot(**{**entry, "file": Path(entry["file"]).name}) for entry in listed]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return {entry.fingerprint: entry for entry in entries if _is_unchanged(folder / entry.file, entry.sha256)}


def _is_unchanged(file: Path, sha256: str) -> bool:
    return file.is_file() and record_file(file).is_file() and sha256_of(file) == sha256


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record atomically, so that a killed run can resume."""
    write_text(folder / STORY_RECORD, json.dumps(record, indent=2) + "\n")
