"""Generate a benchmark's videos and measure them. An interrupted run resumes with the missing videos."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from likeness.app.bench.manifest import Bench, BenchCase, run_folder, run_lock
from likeness.errors import ConfigError
from likeness.evaluation.evaluate import EvaluationSettings, evaluate
from likeness.evaluation.inputs.video_items import VideoItem
from likeness.evaluation.results.records import EvaluationResult
from likeness.files import read_json, write_atomically, write_text
from likeness.generation.inputs.references import read_faces
from likeness.generation.likeness import GenerationRequest, GenerationSettings, Likeness
from likeness.generation.outputs.save import save_clip
from likeness.generation.sampling.shape_control import reads_shapes
from likeness.identity.face_shape.flame import NUM_VERTICES
from likeness.records import Face

_LOG = logging.getLogger(__name__)

CaseCallback = Callable[[int, int], None]
"""Called with the number of existing videos and of all videos."""


def run_bench(
    folder: Path,
    likeness: Likeness,
    *,
    system: str,
    settings: GenerationSettings | None = None,
    regenerate: bool = False,
    on_case: CaseCallback | None = None,
) -> int:
    """Generate the missing videos.

    Args:
        folder: The benchmark.
        likeness: The pipeline.
        system: Name of the run.
        settings: Generation settings; None takes the preset's.
        regenerate: Generate videos again whose case was changed.
        on_case: Called before every video.

    Returns:
        Number of generated videos.

    Raises:
        LockedError: Another process generates or measures this run.
        ConfigError: The run's name cannot be a folder's name, it began with other settings or weights, or its cases
            were changed.
    """
    bench = Bench.load(folder)
    settings = settings or likeness.settings()
    system_folder = run_folder(folder, system)
    with run_lock(folder, system):
        _check_same_settings(system_folder / "run.json", describe_run(likeness, settings))
        changed = [
            case.name for case in bench.cases if _digest_of_video(system_folder, case) not in (None, bench.digest(case))
        ]
        if changed and not regenerate:
            raise ConfigError(
                f"{len(changed)} cases were changed since `{system}` generated their videos (first: {changed[0]}). "
                "Generate those again with `--remake`, or restore the benchmark."
            )
        pending = [case for case in bench.cases if _digest_of_video(system_folder, case) != bench.digest(case)]
        people = _PersonCache(bench, folder, _shapes_for(likeness, settings, bench, folder))
        for number, case in enumerate(pending):
            if on_case:
                on_case(len(bench.cases) - len(pending) + number, len(bench.cases))
            _generate_video(likeness, settings, people, case, _video(system_folder, case))
    if on_case:
        on_case(len(bench.cases), len(bench.cases))
    return len(pending)


def reads_flame(likeness: Likeness) -> bool:
    """Whether a method reads vertices in FLAME's topology."""
    method: Any = likeness.method
    return reads_shapes(method) and method.config["num_vertices"][0] == NUM_VERTICES


def _shapes_for(likeness: Likeness, settings: GenerationSettings, bench: Bench, folder: Path) -> dict[str, Path]:
    """The files of vertices that this method reads; warns if existing ones are not used."""
    shapes = bench.shape_paths(folder)
    if shapes and settings.shape is not None:
        _LOG.warning("`shape` is %r for everybody: the vertices beside the pictures are not used.", settings.shape)
        return {}
    if shapes and not reads_flame(likeness):
        _LOG.warning(
            "%s reads no vertices in FLAME's topology: those beside the pictures are not used.",
            type(likeness.method).__name__,
        )
        return {}
    return shapes


class _PersonCache:
    """Faces and vertices of all people, read on first use."""

    def __init__(self, bench: Bench, folder: Path, shapes: dict[str, Path]) -> None:
        self.bench = bench
        self.folder = folder
        self.pictures = bench.reference_paths(folder)
        self.shapes = shapes
        self._faces: dict[str, tuple[Face, ...]] = {}

    def faces(self, name: str) -> tuple[Face, ...]:
        if name not in self._faces:
            self._faces[name] = read_faces(self.pictures[name])
        return self._faces[name]


def _generate_video(
    likeness: Likeness, settings: GenerationSettings, people: _PersonCache, case: BenchCase, video: Path
) -> None:
    request = GenerationRequest(prompt=case.prompt, people=(people.faces(case.identity),), seed=case.seed)
    shape = people.shapes.get(case.identity)
    video_settings = settings if shape is None else settings.model_copy(update={"shape": f"flame:{shape}"})
    clip = likeness.generate_many([request], video_settings, is_measured=False)[0]
    record: dict[str, Any] = {"bench": {"case": case.name, "digest": people.bench.digest(case)}}
    if shape is not None:  # Relative, so that the record does not depend on the benchmark's place.
        record["shape"] = f"flame:{shape.relative_to(people.folder).as_posix()}"
    _remove_damaged_record(video)
    save_clip(replace(clip, settings=clip.settings | record), video)


def _remove_damaged_record(video: Path) -> None:
    """Remove a half-written record of an interrupted run, which `save_clip` would not replace."""
    record = video.with_suffix(".json")
    try:
        read_json(record)
    except FileNotFoundError:
        return
    except ValueError as error:
        _LOG.warning("%s is damaged (%s); the video is generated again.", record, error)
        record.unlink()


def score_bench(folder: Path, system: str, *, on_video: CaseCallback | None = None) -> EvaluationResult:
    """Measure a run's videos with all available metrics, and save the result beside them.

    Raises:
        ConfigError: Videos are missing, or the run's name cannot be a folder's name.
    """
    bench = Bench.load(folder)
    system_folder = run_folder(folder, system)
    missing = [case.name for case in bench.cases if not _video(system_folder, case).is_file()]
    if missing:
        raise ConfigError(
            f"The run `{system}` lacks {len(missing)} of {len(bench.cases)} videos (first: {missing[0]}). Generate "
            f"them with `likeness bench run {folder}`, or put them into {system_folder / 'videos'}."
        )
    items = [
        VideoItem(
            path=_video(system_folder, case),
            identity=case.identity,
            prompt=case.prompt,
            system=system,
            name=case.name,
        )
        for case in bench.cases
    ]
    references = {name: list(paths) for name, paths in bench.reference_paths(folder).items()}
    with run_lock(folder, system):
        result = evaluate(items, references, settings=EvaluationSettings(cache=folder / "cache"), on_progress=on_video)
        with write_atomically(system_folder / "evaluation.json") as draft:
            result.save(draft)
    return result


def describe_run(likeness: Likeness, settings: GenerationSettings) -> dict[str, Any]:
    """Preset, method, settings and weights of a run."""
    return {
        "preset": likeness.preset.name,
        "method": type(likeness.method).__name__,
        "settings": settings.model_dump(mode="json"),
        "weights": likeness.weights,
    }


def _check_same_settings(path: Path, current: dict[str, Any]) -> None:
    """Write the settings of a new run, or compare them with those that it began with."""
    if not path.is_file():
        write_text(path, json.dumps(current, indent=2) + "\n")
        return
    try:
        recorded = read_json(path)
        if not isinstance(recorded, dict):
            raise ValueError("it is not a JSON object")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}). Begin another run with `--name`, or move {path.parent} away."
        ) from error
    different = [name for name in current if current[name] != recorded.get(name)]
    if not different:
        return
    details = "; ".join(
        f"`{name}` was {_to_json(recorded.get(name))}, now {_to_json(current[name])}"
        for name in different
        if name != "weights"
    )
    raise ConfigError(
        f"The run {path.parent.name} began otherwise: {details or 'it used other weights'}. Continue with the same, or "
        "begin another with `--name`."
    )


def _digest_of_video(system_folder: Path, case: BenchCase) -> str | None:
    """The digest that a case's video was generated with; None if there is no complete video."""
    video = _video(system_folder, case)
    try:
        record = read_json(video.with_suffix(".json"))
        return record["settings"]["bench"]["digest"] if video.is_file() else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _video(system_folder: Path, case: BenchCase) -> Path:
    return system_folder / "videos" / f"{case.name}.mp4"


def _to_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
