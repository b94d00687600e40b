"""The worst and best clips of an evaluation as strips of frames embedded in the page."""

import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from likeness.errors import LikenessError
from likeness.evaluation.results.records import EvaluationResult, MetricRecord, VideoResult
from likeness.generation.outputs.page import inline
from likeness.media import contact_sheet, read_image, read_video, write_image
from likeness.text import escape_html

logger = logging.getLogger(__name__)

RANKED_BY = ("average_id_similarity_all", "average_id_similarity", "match_rate")
"""Metrics that rank clips: the first that was measured, else the first with a direction."""
CLIPS_A_SIDE = 3
_STRIP_FRAMES = 7
_CELL_PX = 112


def clips(result: EvaluationResult, references: Mapping[str, Sequence[Path]]) -> str:
    """The worst and the best clips of each system; with few videos each appears once."""
    parts = []
    with tempfile.TemporaryDirectory(prefix="likeness-") as folder:
        for system in result.systems:
            metric, ranked = rank_videos(result, system.name)
            count = min(CLIPS_A_SIDE, math.ceil(len(ranked) / 2))
            sides = {"worst": ranked[:count], "best": ranked[count:][::-1][:count]}
            by = f", by {escape_html(metric.title)}" if metric else ""
            parts.append(f"<h3>{escape_html(system.name)}{by}</h3>")
            for side, videos in sides.items():
                parts += [_strip(video, side, metric, references, Path(folder)) for video in videos]
    return "\n".join(parts)


def _strip(
    video: VideoResult,
    side: str,
    metric: MetricRecord | None,
    references: Mapping[str, Sequence[Path]],
    folder: Path,
) -> str:
    score = video.scores.get(metric.name) if metric else None
    value = "" if metric is None else f": {'undefined' if score is None else format(score, '.3f')}"
    caption = f"<p><b>{side}</b>{value} &middot; {escape_html(video.name)}"
    caption += f' <span class="soft">{escape_html(video.prompt)}</span></p>' if video.prompt else "</p>"
    try:
        frames, _ = read_video(video.path)
        chosen = np.linspace(0, len(frames) - 1, min(_STRIP_FRAMES, len(frames))).round().astype(int)
        pictures = [read_image(path) for path in list(references.get(video.identity or "", ()))[:1]]
        sheet = contact_sheet([[*pictures, *frames[chosen]]], cell_px=_CELL_PX)
        strip_path = folder / "strip.jpg"
        write_image(strip_path, sheet)
    except LikenessError as error:  # The file changed after it was measured; its scores remain valid.
        return f'<div class="strip">{caption}<p class="soft">{escape_html(str(error))}</p></div>'
    except Exception as error:  # A failed strip must not lose the page.
        logger.debug("%s", video.path, exc_info=True)
        reason = f"{video.path} cannot be shown ({type(error).__name__}: {error})."
        return f'<div class="strip">{caption}<p class="soft">{escape_html(reason)}</p></div>'
    prefix = "the reference, then " if pictures else ""
    alt = f"{prefix}{len(chosen)} frames of {video.name}"
    return f'<div class="strip">{caption}<img src="{inline(strip_path)}" alt="{escape_html(alt)}"></div>'


def rank_videos(result: EvaluationResult, system: str) -> tuple[MetricRecord | None, list[VideoResult]]:
    """The ranking metric and a system's videos from worst to best; undefined scores come first."""
    of_videos = {name: metric for name, metric in result.metrics.items() if metric.level == "video"}
    ordered = [metric for metric in of_videos.values() if metric.direction != "neither"]
    chosen = next((of_videos[name] for name in RANKED_BY if name in of_videos), ordered[0] if ordered else None)
    own = [video for video in result.videos if video.system == system and video.error is None]
    if chosen is None:
        return None, own
    sign = 1.0 if chosen.direction == "higher" else -1.0

    def worth(video: VideoResult) -> float:
        score = video.scores.get(chosen.name)
        return -math.inf if score is None else sign * score

    return chosen, sorted(own, key=worth)
