"""Create a blind, self-contained, balanced study from folders of videos.

Videos and pictures of all systems are re-encoded alike, under neutral names and with one date: neither names, dates,
metadata nor codec reveal the system. Frame size and length stay, because they are part of what is judged.
"""

import hashlib
import json
import os
import random
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

from likeness.app.folders import fill_folder
from likeness.app.study.manifest import ANSWERS, MANIFEST, SITE, AttentionCheck, Study, StudyItem
from likeness.app.study.pairing import VideoSet
from likeness.app.study.questions import Questionnaire
from likeness.errors import ConfigError
from likeness.evaluation.inputs.reference_matching import remove_trigger_words
from likeness.media import read_image, read_video, resize, write_image, write_video
from likeness.weights import sha256_of

STATIC = Path(__file__).parent / "site"
MAX_PICTURE_PX = 768
"""Larger reference pictures are scaled down."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyOptions:
    """Options of a study."""

    seed: int = field(default_factory=lambda: secrets.randbelow(2**31))
    """Seed of neutral names, plans and checks; random, so that raters cannot guess it, and stored."""
    num_checks: int = 2
    """Attention checks that each rater meets."""
    videos_per_rater: int | None = None
    """Rounded down to whole sets; all videos if None."""


def create_study(
    folder: Path,
    sets: Sequence[VideoSet],
    questionnaire: Questionnaire,
    options: StudyOptions | None = None,
    *,
    on_progress: Progress | None = None,
) -> Study:
    """Write a study to `folder`.

    Args:
        folder: Must not hold a study.
        sets: From `pair_videos`.
        questionnaire: The questions.
        options: Seed, checks, videos for each rater.
        on_progress: Called with the files written and all files.

    Raises:
        ConfigError: The folder holds a study, a site or answers, a question needs prompts that are missing, or an
            option is out of range.
        MediaError: A video or picture cannot be read.
    """
    options = options or StudyOptions()
    if (folder / ANSWERS).exists():
        raise ConfigError(
            f"{folder} holds answers to a study ({ANSWERS}), which do not fit another. Choose another folder."
        )
    _check_options(options, sets)
    _check_prompts(questionnaire, sets)
    study, sources = plan_study(sets, questionnaire, options)
    with fill_folder(folder, SITE, manifest=MANIFEST) as draft:
        site = draft / SITE
        (site / "media").mkdir()
        _write_media(site / "media", sources, on_progress)
        study = Study.model_validate(study.model_dump() | {"content": _hash_media(site / "media")})
        _write_page(site, study)
        # One date for all files: their order would reveal the system. Static hosts validate files by date and size.
        now_s = int(time.time())
        for path in sorted(site.rglob("*")):
            os.utime(path, (now_s, now_s))
        study.save(draft)
    return study


def plan_study(
    sets: Sequence[VideoSet], questionnaire: Questionnaire, options: StudyOptions
) -> tuple[Study, dict[str, Path]]:
    """Assign neutral names to videos and pictures.

    Returns:
        The study, and the file of each neutral name.
    """
    rng = random.Random(options.seed)
    systems = tuple(sets[0].videos)
    pictures = sorted({picture for video_set in sets for picture in video_set.references})
    picture_names = dict(zip(rng.sample(pictures, len(pictures)), _neutral_names("p", len(pictures)), strict=True))
    videos = [(video_set, system) for video_set in sets for system in systems]
    names = _neutral_names("v", len(videos) + options.num_checks)
    rng.shuffle(names)
    items = tuple(
        StudyItem(
            id=name,
            system=system,
            video=video_set.name,
            references=tuple(picture_names[picture] for picture in video_set.references),
            prompt=remove_trigger_words(video_set.prompt)
            if video_set.prompt and questionnaire.shows("prompt")
            else None,
        )
        for name, (video_set, system) in zip(names[: len(videos)], videos, strict=True)
    )
    scale = range(questionnaire.lowest, questionnaire.highest + 1)
    shuffled = rng.sample(items, len(items))
    repeated = islice(cycle(shuffled), options.num_checks)  # As few repetitions as possible.
    checks = tuple(
        AttentionCheck(id=name, like=item.id, expected=rng.choice(scale))
        for name, item in zip(names[len(videos) :], repeated, strict=True)
    )
    videos_per_rater = options.videos_per_rater or len(videos)
    study = Study(
        seed=options.seed,
        questionnaire=questionnaire,
        systems=systems,
        items=items,
        checks=checks,
        videos_per_rater=videos_per_rater // len(systems) * len(systems),
    )
    sources = {item.id: video_set.videos[system] for item, (video_set, system) in zip(items, videos, strict=True)}
    sources |= {check.id: sources[check.like] for check in checks}
    return study, sources | {name: picture for picture, name in picture_names.items()}


def _hash_media(media: Path) -> str:
    """One hash of all videos and pictures."""
    names = [f"{path.name} {sha256_of(path)}" for path in sorted(media.iterdir())]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def _write_page(site: Path, study: Study) -> None:
    """Write the page and its data; addresses contain the study's key, so that caches do not mix two studies."""
    for path in STATIC.iterdir():
        shutil.copyfile(path, site / path.name)
    index = site / "index.html"
    page = index.read_text(encoding="utf-8").replace('.js"', f'.js?{study.key}"').replace('.css"', f'.css?{study.key}"')
    index.write_text(page, encoding="utf-8")
    (site / "data.js").write_text(f"window.STUDY = {json.dumps(study.public())};\n", encoding="utf-8")


def _neutral_names(letter: str, count: int) -> list[str]:
    return [f"{letter}{number:0{len(str(count))}}" for number in range(1, count + 1)]


def _write_media(folder: Path, sources: Mapping[str, Path], on_progress: Progress | None) -> None:
    for done, (name, source) in enumerate(sorted(sources.items()), start=1):
        if name.startswith("v"):
            frames, fps = read_video(source)
            write_video(folder / f"{name}.mp4", frames, fps)
        else:
            picture = read_image(source)
            height, width = picture.shape[:2]
            scale = min(1.0, MAX_PICTURE_PX / max(height, width))
            write_image(
                folder / f"{name}.jpg",
                resize(picture, max(1, round(width * scale)), max(1, round(height * scale))),
            )
        if on_progress:
            on_progress(done, len(sources))


def _check_options(options: StudyOptions, sets: Sequence[VideoSet]) -> None:
    if not sets:
        raise ConfigError("No videos were given. A study needs at least one.")
    num_systems = len(sets[0].videos)
    if options.videos_per_rater is not None and options.videos_per_rater < num_systems:
        raise ConfigError(
            f"`videos_per_rater` is {options.videos_per_rater}; a rater sees whole sets, one video of each of "
            f"{num_systems} systems. Give at least {num_systems}."
        )
    if not 0 <= options.num_checks <= 20:
        raise ConfigError(f"`num_checks` is {options.num_checks}; 0 to 20 can be put in.")


def _check_prompts(questionnaire: Questionnaire, sets: Sequence[VideoSet]) -> None:
    without_prompt = [video_set.name for video_set in sets if not video_set.prompt]
    if without_prompt and questionnaire.shows("prompt"):
        questions = [question.name for question in questionnaire.questions if "prompt" in question.needs]
        raise ConfigError(
            f"The question `{questions[0]}` needs the sentence of each video, but {len(without_prompt)} have none in "
            f"their file (first: {without_prompt[0]}). Give them in a `--manifest`, or ask other `--questions`."
        )
