"""The joined video of a story, its contact sheet, its plot of similarity over time, and its page."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from likeness.generation.outputs.page import ReportItem, write_report
from likeness.generation.outputs.plots import evenly_spaced_indices, plot_story, summarize
from likeness.media import contact_sheet, write_image, write_video
from likeness.records import Clip

FRAMES_PER_SHOT = 7
LABEL_PX = 230


def write_story_files(folder: Path, title: str, shots: Sequence[tuple[Path, Clip]]) -> tuple[Path, Path]:
    """Write `story.mp4`, `contact_sheet.png`, `similarity.png` and `report.html`.

    Returns:
        The joined video and the page.
    """
    clips = [clip for _, clip in shots]
    video, page = folder / "story.mp4", folder / "report.html"
    record = {"title": title, "shots": [clip.to_dict() for clip in clips]}
    write_video(video, np.concatenate([clip.frames for clip in clips]), clips[0].fps, metadata=record)
    portraits = _write_portraits(folder, clips[0])
    sheet, plot = folder / "contact_sheet.png", folder / "similarity.png"
    rows = [
        [
            clip.references[0].crop,
            *(clip.frames[index] for index in evenly_spaced_indices(len(clip.frames), FRAMES_PER_SHOT)),
        ]
        for clip in clips
    ]
    labels = [label_shot(number, clip) for number, clip in enumerate(clips, start=1)]
    write_image(sheet, contact_sheet(rows, labels, label_px=LABEL_PX))
    plot_story(plot, clips)
    items = [
        ReportItem(clip=clip, video=file, person="The character", references=portraits, name=f"Shot {number}")
        for number, (file, clip) in enumerate(shots, start=1)
    ]
    subtitle = f"One character in {len(clips)} shots, one sentence each."
    write_report(page, items, title=title, sheet=sheet, plot=plot, subtitle=subtitle, joined_video=video)
    return video, page


def label_shot(number: int, clip: Clip) -> str:
    """Number, prompt and similarity of a shot."""
    return f"{number}. {clip.prompt} ({summarize(clip)})"


def _write_portraits(folder: Path, clip: Clip) -> tuple[Path, ...]:
    paths = []
    for number, face in enumerate(clip.references, start=1):
        paths.append(folder / f"reference_{number}.png")
        write_image(paths[-1], face.crop)
    return tuple(paths)
