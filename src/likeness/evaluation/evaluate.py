"""Evaluate videos: decode each once, detect its faces once, share features between metrics.

    result = evaluate(
        ["out/amy_park.mp4", "out/raj_beach.mp4"],
        {"amy": ["amy1.png", "amy2.png"], "raj": ["raj.png"]},
        prompts={"amy_park": "a woman img smiles in a park", "raj_beach": "a man img nods on a beach"},
        settings=EvaluationSettings(workers=2, cache=Path("runs/evaluation")),
    )
    result.systems[0].scores["average_id_similarity"].mean
    result.videos[0].frames["cosine"]          # its curve
    result.left_out                            # metrics that lack weights or prompts, and how to get them
    result.save("evaluation.json")

Videos of several systems are given as `VideoItem(path=..., system=..., identity=..., prompt=..., name=...)`. Without
references (None) each video is compared with the most prominent face of its first frame that has a face.

Steps: pixels -> features (`features`) -> `MetricInputs` (`metrics.inputs`) -> records (`results`). Features depend on
neither references nor prompts, take nearly all of the time, and are cached by the video's content: a killed evaluation
resumes, and new references or formulas decode no video again. A video that cannot be read is a `VideoResult` with an
`error`; it is in no mean, and its system's `num_failed` counts it. Errors of the request (an unknown metric, a
reference without a face) are raised before any video is opened.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from likeness.errors import FileWriteError, LikenessError, WeightsError
from likeness.evaluation.features.base import Arrays, DecodedVideo
from likeness.evaluation.features.cache import FeatureCache, MeasuredVideo, VideoInfo
from likeness.evaluation.features.engines import Engines, check_weights, choose_engines
from likeness.evaluation.features.references import References, read_references
from likeness.evaluation.features.registry import FEATURES, sort_by_dependency
from likeness.evaluation.inputs.video_items import VideoItem, resolve_items
from likeness.evaluation.metrics.inputs import WhichFace
from likeness.evaluation.metrics.registry import reason_unavailable, select
from likeness.evaluation.results.records import EvaluationResult
from likeness.evaluation.results.score import score
from likeness.evaluation.workers import MAX_WORKERS, measure_in_processes
from likeness.media import read_video
from likeness.weights import sha256_of

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Called with the number of finished videos and of all videos; `likeness.cli.console.progress` shows the time left."""


class EvaluationSettings(BaseModel):
    """How videos are evaluated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(default=1, ge=1, le=MAX_WORKERS)
    """Processes that measure videos; each needs a few hundred megabytes."""
    cache: Path | None = None
    """Folder of cached features; None caches nothing, so a killed evaluation cannot resume."""
    which_face: WhichFace = "prominent"
    """Which face is measured where a frame shows several, see `likeness.evaluation.metrics.inputs`."""
    engine: str | None = None
    """Face engine that detects and embeds faces; None takes the default engine."""
    landmark_engine: str | None = None
    """Face engine whose landmarks measure face motion; None takes `engine`."""
    pick: int | None = Field(default=None, ge=1)
    """Which face of a reference image that shows several, counted from the left, from 1."""


def evaluate(
    videos: Sequence[str | Path | VideoItem],
    references: References | None,
    prompts: Mapping[str, str] | None = None,
    *,
    metrics: Sequence[str] | None = None,
    settings: EvaluationSettings | None = None,
    on_progress: OnProgress | None = None,
) -> EvaluationResult:
    """Measure every metric on every video.

    Args:
        videos: Files or items. The identity of a plain file is the reference whose name begins the file's name.
        references: Pictures of each identity; None compares each video with its own first face.
        prompts: Prompts by video name.
        metrics: Names in `metrics.registry.METRICS`; None measures all whose weights are installed.
        settings: Engines, cache, number of processes.
        on_progress: Called after every video.

    Returns:
        Records. Metrics that lack their weights or prompts are listed in `left_out` only.

    Raises:
        ConfigError: A metric is unknown, or a video cannot be matched with its references.
        FaceError: A reference image shows no usable face.
        FileWriteError: The cache cannot be written.
        MediaError: A reference image cannot be read.
        WeightsError: A face engine's models are not installed.
    """
    settings = settings or EvaluationSettings()
    engines = choose_engines(settings.engine, settings.landmark_engine)
    chosen = select(metrics)
    check_weights(engines)
    items = resolve_items(videos, references, prompts)
    has_prompts = any(item.prompt is not None for item in items)
    reasons = {
        metric.name: reason_unavailable(metric, has_prompts=has_prompts, has_references=references is not None)
        for metric in chosen
    }
    kept = [metric for metric in chosen if reasons[metric.name] is None]
    always = {"faces", "landmarks"} if engines.are_separate else {"faces"}
    needed = sort_by_dependency({feature for metric in kept for feature in metric.required_features} | always)
    cache = FeatureCache(settings.cache)
    sets = (
        None if references is None else read_references(references, needed, cache, engines=engines, pick=settings.pick)
    )
    measured = measure(items, needed, settings, on_progress)
    return score(
        items,
        [measured[str(item.path)] for item in items],
        sets,
        metrics=kept,
        left_out={name: reason for name, reason in reasons.items() if reason is not None},
        which_face=settings.which_face,
        engines=engines,
    )


def measure(
    items: Sequence[VideoItem],
    features: Sequence[str],
    settings: EvaluationSettings,
    on_progress: OnProgress | None = None,
) -> dict[str, MeasuredVideo]:
    """Measure the features of every file, by path. Cached features are not measured again."""
    paths = list(dict.fromkeys(str(item.path) for item in items))
    measured: dict[str, MeasuredVideo] = {}
    for path, result in _measure_each(paths, tuple(features), settings):
        measured[path] = result
        if on_progress is not None:
            on_progress(len(measured), len(paths))
    return measured


def measure_video(
    path: str, features: Sequence[str], folder: Path | None, engines: Engines | None = None
) -> MeasuredVideo:
    """Measure one file; it is decoded once, and only if a feature is not cached. Its faults are returned as `error`.

    Raises:
        FileWriteError: The cache cannot be written.
        WeightsError: Weights are damaged.
    """
    engines = engines or choose_engines()
    cache = FeatureCache(folder)
    known = read_cached_features(path, features, cache, engines)
    if known.error is not None or known.is_complete(features):
        return known
    assert known.sha256 is not None
    try:
        return _measure_pixels(path, features, known, cache, engines)
    except (FileWriteError, WeightsError):  # Not faults of this file: all others would fail as well.
        raise
    except LikenessError as error:
        return MeasuredVideo(sha256=known.sha256, error=str(error))
    except MemoryError:
        reason = "not enough memory. Shorten it, scale it down, or use fewer workers."
    except Exception as error:  # One video must not end the evaluation of the others.
        logger.debug("%s", path, exc_info=True)
        reason = (
            f"measuring it failed unexpectedly ({type(error).__name__}: {error}). Convert the file again; if that "
            "does not help, report this."
        )
    return MeasuredVideo(sha256=known.sha256, error=f"{path}: {reason}")


def _measure_pixels(
    path: str, features: Sequence[str], known: MeasuredVideo, cache: FeatureCache, engines: Engines
) -> MeasuredVideo:
    arrays = dict(known.features or {})
    frames, fps = read_video(path)
    video = DecodedVideo(frames=frames, fps=fps, engines=engines)
    info = VideoInfo(num_frames=len(frames), fps=fps, width_px=frames.shape[2], height_px=frames.shape[1])
    for feature in features:
        if feature not in arrays:
            arrays[feature] = FEATURES[feature].compute(video, arrays)
            cache.write(known.sha256 or "", FEATURES[feature].cache_key(engines), info, arrays[feature])
    return MeasuredVideo(sha256=known.sha256, info=info, features=arrays)


def read_cached_features(path: str, features: Sequence[str], cache: FeatureCache, engines: Engines) -> MeasuredVideo:
    """Read one file's cached features; `error` is set if its bytes cannot be read."""
    if Path(path).exists() and not Path(path).is_file():  # Reading a pipe would block forever.
        return MeasuredVideo(error=f"{path} is not a regular file. Copy the video to disk and give that path.")
    try:
        sha256 = sha256_of(Path(path))
    except OSError as error:
        return MeasuredVideo(error=f"{path} cannot be read: {error.strerror}. Check the path.")
    arrays: dict[str, Arrays] = {}
    info: VideoInfo | None = None
    for feature in features:
        known = cache.read(sha256, FEATURES[feature].cache_key(engines))
        if known is not None:
            info, arrays[feature] = known
    return MeasuredVideo(sha256=sha256, info=info, features=arrays)


def _measure_each(
    paths: list[str], features: tuple[str, ...], settings: EvaluationSettings
) -> Iterator[tuple[str, MeasuredVideo]]:
    """Yield fully cached files first: starting a process would cost more than reading the cache."""
    cache = FeatureCache(settings.cache)
    engines = choose_engines(settings.engine, settings.landmark_engine)
    missing = []
    for path in paths:
        known = read_cached_features(path, features, cache, engines)
        if known.error is not None or known.is_complete(features):
            yield path, known
        else:
            missing.append(path)
    measure_one = partial(measure_video, features=features, folder=settings.cache, engines=engines)
    workers = min(settings.workers, len(missing))
    if workers > 1:
        yield from measure_in_processes(measure_one, missing, workers)
        return
    for path in missing:
        yield path, measure_one(path)
