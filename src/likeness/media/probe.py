"""Reads what a video file says of itself, without decoding frames."""

from dataclasses import dataclass
from pathlib import Path

import av

from likeness.errors import MediaError
from likeness.media.decoding import header_fps, media_errors, open_container


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoHeader:
    """Statements of a container; they can be wrong."""

    num_streams: int
    """Tracks of any kind: pictures, sound, subtitles, data."""
    width_px: int
    height_px: int
    fps: float
    """0 if it is not stated."""
    duration_s: float
    """0 if it is not stated."""


def read_header(path: str | Path) -> VideoHeader:
    """The header of a video.

    Raises:
        MediaError: Not an mp4, mov, mkv, webm or gif video, damaged, or without a picture track.
    """
    path = Path(path)
    with media_errors(path), open_container(path) as container:
        if not container.streams.video:
            raise MediaError(f"{path} has no picture track: it is sound alone, or damaged. Use another file.")
        stream = container.streams.video[0]
        return VideoHeader(
            num_streams=len(container.streams),
            width_px=stream.width,
            height_px=stream.height,
            fps=header_fps(stream),
            duration_s=(container.duration or 0) / av.time_base,
        )
