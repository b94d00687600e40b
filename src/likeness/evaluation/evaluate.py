"""Evaluate videos in one pass: each is decoded once, its faces found once, and what metrics share is measured once.

    result = evaluate(
        ["out/amy_park.mp4", "out/raj_beach.mp4"],
        {"amy": ["amy1.png", "amy2.png"], "raj": ["raj.png"]},
        prompts={"amy_park": "a woman img smiles in a park", "raj_beach": "a man img nods on a beach"},
        settings=EvaluationSettings(workers=2, cache=Path("runs/evaluation")),
    )
    result.systems[0].scores["average_id_similarity"].mean
    result.videos[0].frames["cosine"]          # its curve
    result.left_out                            # metrics that lack weights or prompts, and the command that brings them
    result.save("evaluation.json")

Videos of several systems are given as `VideoItem(path=..., system=..., identity=..., prompt=..., name=...)`. Without
references (None) each video is held against the most prominent face of its first frame that has one.

Pixels become features (`features`), which know neither references nor prompts; features, references and prompts become a
view (`view`); a view becomes numbers (`metrics`), which are returned as plain records (`results`). Only the first step
costs time, and only its results are kept (`cache`): an evaluation that was killed goes on where it stopped, and
one more reference or another formula looks at no pixel again. A video that cannot be read is a `VideoResult` with an
`error`; it is in no mean, and its system's `num_failed` counts it. Whatever was asked of the whole and is wrong (an unknown
metric, a reference without a face) is raised before any video is opened.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from likeness.errors import FileWriteError, LikenessError, WeightsError
from likeness.evaluation.features.base import Arrays, Footage
from likeness.evaluation.features.cache import FeatureCache, Measured, VideoInfo
from likeness.evaluation.features.registry import FEATURES, in_order
from likeness.evaluation.inputs.engines import Engines, check_weights, choose_engines
from likeness.evaluation.inputs.videos import References, VideoItem, read_references, resolve_items
from likeness.evaluation.metrics.inputs import WhichFace
from likeness.evaluation.metrics.registry import select, why_left_out
from likeness.evaluation.results.records import EvaluationResult
from likeness.evaluation.results.score import score
from likeness.evaluation.workers import measure_in_processes
from likeness.media import read_video
from likeness.weights import sha256_of

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Called with the videos done and all videos whenever one is done; `likeness.cli.console.progress` shows the time left."""


MAX_WORKERS = max(64, 4 * (os.cpu_count() or 1))
"""More processes than this cannot make anything faster."""


class EvaluationSettings(BaseModel):
    """How videos are evaluated; what is evaluated are the arguments of `evaluate`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(default=1, ge=1, le=MAX_WORKERS)
    """Processes that measure videos; each takes some hundred megabytes."""
    cache: Path | None = None
    """Folder in which features are kept by content; None keeps nothing and cannot be resumed."""
    which_face: WhichFace = "prominent"
    """Which face counts where a frame shows several, see `likeness.evaluation.view`."""
    engine: str | None = None
    """Face engine that finds faces and says who they are; None takes the default engine."""
    landmark_engine: str | None = None
    """Face engine that gives the landmarks of face motion; None takes `engine`."""
    pick: int | None = Field(default=None, ge=1)
    """Which face of a reference that shows several, counted from the left."""


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
        videos: Files, or items that say whose they are. A plain file's identity is the reference whose name begins
            the file's name.
        references: Pictures of each identity; None holds each video against its own first face.
        prompts: The sentence of each video, by the video's name.
        metrics: Names in `metrics.METRICS`; None measures all that can be measured here.
        settings: How.
        on_progress: Hears of every video that is done.

    Returns:
        Plain records. Metrics that lack their weights or prompts stand in `left_out` and nowhere else.

    Raises:
        ConfigError: A metric is unknown, or a video cannot be matched with its references.
        FaceError: A reference shows no usable face.
        FileWriteError: The cache cannot be written.
        MediaError: A reference is no readable picture.
        WeightsError: A face engine's models are not here.
    """
    settings = settings or EvaluationSettings()
    engines = choose_engines(settings.engine, settings.landmark_engine)
    chosen = select(metrics)
    check_weights(engines)
    items = resolve_items(videos, references, prompts)
    has_prompts = any(item.prompt is not None for item in items)
    reasons = {
        metric.name: why_left_out(metric, has_prompts=has_prompts, has_pictures=references is not None)
        for metric in chosen
    }
    kept = [metric for metric in chosen if reasons[metric.name] is None]
    always = {"faces", "landmarks"} if engines.are_separate else {"faces"}
    needed = in_order({feature for metric in kept for feature in metric.needs} | always)
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
) -> dict[str, Measured]:
    """Measure features of every file, by its path. What the cache knows is not measured again."""
    paths = list(dict.fromkeys(str(item.path) for item in items))
    measured: dict[str, Measured] = {}
    for path, result in _measure_each(paths, tuple(features), settings):
        measured[path] = result
        if on_progress is not None:
            on_progress(len(measured), len(paths))
    return measured


def measure_video(path: str, features: Sequence[str], folder: Path | None, engines: Engines | None = None) -> Measured:
    """Measure one file, decoding it once and only if something is missing. Whatever is wrong with it is its `error`.

    Raises:
        FileWriteError: The cache cannot be written.
        WeightsError: Weights are damaged. Neither is a fault of the file, and other files would fail as well.
    """
    engines = engines or choose_engines()
    cache = FeatureCache(folder)
    known = recall(path, features, cache, engines)
    if known.error is not None or known.is_whole(features):
        return known
    assert known.sha256 is not None
    try:
        return _measure_pixels(path, features, known, cache, engines)
    except (FileWriteError, WeightsError):
        raise
    except LikenessError as error:
        return Measured(sha256=known.sha256, error=str(error))
    except MemoryError:
        reason = "it needs more memory than there is. Cut it, scale it down, or use fewer workers."
    except Exception as error:  # One video must not end the evaluation of the others.
        logger.debug("%s", path, exc_info=True)
        reason = f"measuring it failed in an unexpected way ({type(error).__name__}: {error}). Convert it anew; if that does not help, report this."
    return Measured(sha256=known.sha256, error=f"{path}: {reason}")


def _measure_pixels(
    path: str, features: Sequence[str], known: Measured, cache: FeatureCache, engines: Engines
) -> Measured:
    arrays = dict(known.features or {})
    frames, fps = read_video(path)
    footage = Footage(frames=frames, fps=fps, engines=engines)
    info = VideoInfo(num_frames=len(frames), fps=fps, width_px=frames.shape[2], height_px=frames.shape[1])
    for feature in features:
        if feature not in arrays:
            arrays[feature] = FEATURES[feature].compute(footage, arrays)
            cache.write(known.sha256 or "", FEATURES[feature].kind(engines), info, arrays[feature])
    return Measured(sha256=known.sha256, info=info, features=arrays)


def recall(path: str, features: Sequence[str], cache: FeatureCache, engines: Engines) -> Measured:
    """What the cache knows of one file; its error if it cannot even be read as bytes."""
    if Path(path).exists() and not Path(path).is_file():  # A pipe would be waited for without end.
        return Measured(error=f"{path} is no regular file. Copy the video to disk and name that.")
    try:
        sha256 = sha256_of(Path(path))
    except OSError as error:
        return Measured(error=f"{path} cannot be read: {error.strerror}. Check the path.")
    arrays: dict[str, Arrays] = {}
    info: VideoInfo | None = None
    for feature in features:
        known = cache.read(sha256, FEATURES[feature].kind(engines))
        if known is not None:
            info, arrays[feature] = known
    return Measured(sha256=sha256, info=info, features=arrays)


def _measure_each(
    paths: list[str], features: tuple[str, ...], settings: EvaluationSettings
) -> Iterator[tuple[str, Measured]]:
    """What the cache knows whole comes first; starting processes for it would cost more than reading it."""
    cache = FeatureCache(settings.cache)
    engines = choose_engines(settings.engine, settings.landmark_engine)
    missing = []
    for path in paths:
        known = recall(path, features, cache, engines)
        if known.error is not None or known.is_whole(features):
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
