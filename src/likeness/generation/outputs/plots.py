"""Contact sheets of clips and plots of similarity by frame."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from likeness.files import write_atomically
from likeness.media import contact_sheet, write_image
from likeness.records import Clip


def evenly_spaced_indices(num_frames: int, count: int) -> list[int]:
    """Indices of `count` frames from the first to the last, evenly."""
    return np.linspace(0, num_frames - 1, min(count, num_frames)).round().astype(int).tolist()


def write_contact_sheet(path: Path, clips: Sequence[Clip], *, frames_per_clip: int = 7) -> None:
    """Lay clips out as rows: the prompt, the reference face, then frames from first to last."""
    rows = [
        [face.crop for face in clip.references[:1]]
        + [clip.frames[index] for index in evenly_spaced_indices(len(clip.frames), frames_per_clip)]
        for clip in clips
    ]
    write_image(path, contact_sheet(rows, [clip.prompt for clip in clips]))


def plot_similarity(path: Path, clips: Sequence[Clip], *, names: Sequence[str]) -> None:
    """Draw the distance to the reference, frame by frame, one line for each clip.

    A frame without a face leaves a gap. The dashed line is the threshold under which two photographs count as one
    person.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.6), dpi=120)
    highest = 0.7
    for name, clip in zip(names, clips, strict=True):
        if clip.similarity is None:
            continue
        distances = clip.similarity.distances
        axes.plot(distances, marker="o", markersize=3.5, linewidth=1.6, label=name)
        if np.isfinite(distances).any():
            highest = max(highest, float(np.nanmax(distances)))
        axes.axhline(clip.similarity.threshold, color="0.4", linestyle="--", linewidth=1)
    axes.set(xlabel="frame", ylabel="distance to the reference", ylim=(0, highest + 0.1))
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False, loc="lower left")
    figure.tight_layout()
    _save(path, figure)


def summarize(clip: Clip) -> str:
    """The similarity score as text."""
    if clip.similarity is None or clip.similarity.face_rate == 0:
        return "no face found"
    return f"similarity {clip.similarity.score:.2f}"


def plot_story(path: Path, clips: Sequence[Clip]) -> None:
    """Draw the distance to the reference over the time of the joined clips, one background shade for each shot.

    A frame without a face leaves a gap; the similarity of each shot is printed above it.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.6), dpi=120)
    measured = [clip.similarity for clip in clips if clip.similarity is not None]
    highest = max([0.7, *(float(d) for s in measured for d in s.distances if np.isfinite(d))]) + 0.1
    start_s = 0.0
    for number, clip in enumerate(clips, start=1):
        if number % 2 == 0:
            axes.axvspan(start_s, start_s + clip.duration_s, color="0.94", linewidth=0)
        if clip.similarity is not None:
            times_s = start_s + (np.arange(len(clip.frames)) + 0.5) / clip.fps
            axes.plot(times_s, clip.similarity.distances, marker="o", markersize=3.5, linewidth=1.6)
            heading = f"{number}: {summarize(clip)}"
            axes.text(start_s + clip.duration_s / 2, highest, heading, ha="center", va="bottom", fontsize=8)
        start_s += clip.duration_s
    if measured:
        threshold = measured[0].threshold
        axes.axhline(threshold, color="0.4", linestyle="--", linewidth=1)
        axes.text(0, threshold, " same person below", va="bottom", fontsize=8, color="0.4")
    axes.set(
        xlabel="seconds",
        ylabel="distance to the reference",
        ylim=(0, highest),
        xlim=(0, start_s),
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    _save(path, figure)


def _save(path: Path, figure: Any) -> None:
    """Write and close a figure."""
    from matplotlib import pyplot

    try:
        with write_atomically(path) as draft:
            figure.savefig(draft, metadata={"Software": None})
    finally:
        pyplot.close(figure)
