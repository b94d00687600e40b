"""Make a benchmark's videos and measure them. What was made stays made: an interrupted run goes on where it stopped."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from likeness.app.bench.manifest import Bench, BenchCase, run_folder
from likeness.errors import ConfigError
from likeness.evaluation.evaluate import EvaluationSettings, evaluate
from likeness.evaluation.items import VideoItem
from likeness.evaluation.results import EvaluationResult
from likeness.generation.likeness import GenerationRequest, GenerationSettings, Likeness
from likeness.generation.references import read_faces
from likeness.generation.saving import save_clip
from likeness.records import Face

OnCase = Callable[[int, int], None]
"""Called with the videos that are there and all videos."""


def run_bench(
    folder: Path,
    likeness: Likeness,
    *,
    system: str,
    settings: GenerationSettings | None = None,
    remake: bool = False,
    on_case: OnCase | None = None,
) -> int:
    """Make the videos that are not there yet.

    Args:
        folder: The benchmark.
        likeness: Who makes them.
        system: Name of the run.
        settings: How; the preset's where None.
        remake: Make videos anew whose case was changed since.
        on_case: Hears of every video.

    Returns:
        How many were made now.

    Raises:
        ConfigError: The run's name is no name of a folder, it began with other settings or weights, or its cases were changed since.
    """
    bench = Bench.load(folder)
    settings = settings or likeness.settings()
    place = run_folder(folder, system)
    _agree(place / "run.json", describe_run(likeness, settings))
    changed = [case.name for case in bench.cases if _made(place, case) not in (None, bench.digest(case))]
    if changed and not remake:
        raise ConfigError(
            f"{len(changed)} cases were changed since `{system}` made their videos (first: {changed[0]}). Make those anew "
            "with `--remake`, or put the benchmark back."
        )
    faces: dict[str, tuple[Face, ...]] = {}
    references = bench.reference_paths(folder)
    made = 0
    for done, case in enumerate(bench.cases):
        if on_case:
            on_case(done, len(bench.cases))
        if _made(place, case) == bench.digest(case):
            continue
        if case.identity not in faces:
            faces[case.identity] = read_faces(references[case.identity])
        request = GenerationRequest(prompt=case.prompt, references=faces[case.identity], seed=case.seed)
        clip = likeness.generate_many([request], settings, is_measured=False)[0]
        record = {"case": case.name, "digest": bench.digest(case)}
        save_clip(replace(clip, settings=clip.settings | {"bench": record}), _video(place, case))
        made += 1
    if on_case:
        on_case(len(bench.cases), len(bench.cases))
    return made


def score_bench(folder: Path, system: str, *, on_video: OnCase | None = None) -> EvaluationResult:
    """Measure a run's videos with every metric that can be measured here, and keep the result beside them.

    Raises:
        ConfigError: Videos are missing, or the run's name is no name of a folder.
    """
    bench = Bench.load(folder)
    place = run_folder(folder, system)
    missing = [case.name for case in bench.cases if not _video(place, case).is_file()]
    if missing:
        raise ConfigError(
            f"The run `{system}` lacks {len(missing)} of {len(bench.cases)} videos (first: {missing[0]}). Make them with "
            f"`likeness bench run {folder}`, or put them into {place / 'videos'}."
        )
    items = [
        VideoItem(
            path=_video(place, case),
            identity=case.identity,
            prompt=case.prompt,
            system=system,
            name=case.name,
        )
        for case in bench.cases
    ]
    references = {name: list(paths) for name, paths in bench.reference_paths(folder).items()}
    result = evaluate(
        items, references, settings=EvaluationSettings(cache=folder / "cache"), on_progress=on_video
    )
    result.save(place / "evaluation.json")
    return result


def describe_run(likeness: Likeness, settings: GenerationSettings) -> dict[str, Any]:
    """What all videos of a run have in common."""
    return {
        "preset": likeness.preset.name,
        "method": type(likeness.method).__name__,
        "settings": settings.model_dump(mode="json"),
        "weights": likeness.weights,
    }


def _agree(path: Path, ours: dict[str, Any]) -> None:
    """Write how a run is made, or hold it against how it began."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(ours, indent=2) + "\n", encoding="utf-8")
        draft.replace(path)
        return
    theirs = json.loads(path.read_text(encoding="utf-8"))
    other = [name for name in ours if ours[name] != theirs.get(name)]
    if not other:
        return
    details = "; ".join(
        f"`{name}` was {_short(theirs.get(name))}, now {_short(ours[name])}"
        for name in other
        if name != "weights"
    )
    raise ConfigError(
        f"The run {path.parent.name} began otherwise: {details or 'its weights were others'}. Go on with the same, or "
        "begin another with `--name`."
    )


def _made(place: Path, case: BenchCase) -> str | None:
    """The digest with which a case's video was made; None where there is none, or it was interrupted."""
    video = _video(place, case)
    try:
        record = json.loads(video.with_suffix(".json").read_text(encoding="utf-8"))
        return record["settings"]["bench"]["digest"] if video.is_file() else None
    except (OSError, ValueError, KeyError):
        return None


def _video(place: Path, case: BenchCase) -> Path:
    return place / "videos" / f"{case.name}.mp4"


def _short(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
