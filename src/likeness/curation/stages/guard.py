"""Limits on raw files: size, resolution, length, frame rate, number of streams.

The kind of a file is decided by its first bytes (`media.guard`), and a video's header is read before any frame is
decoded. Limits of memory and time are those of the worker process in which stages run.
"""

from pathlib import Path

from pydantic import Field

from likeness.config import Settings
from likeness.curation.stage import Candidate, Drop, Needs, SourceView, register
from likeness.curation.stages.frames import with_facts
from likeness.errors import MediaError
from likeness.media.guard import check_media_file
from likeness.media.probe import read_header
from likeness.training.files import tar


class GuardSettings(Settings):
    """Limits; a file outside of one is dropped."""

    max_bytes: int = Field(default=8_000_000_000, ge=1)
    """Largest file."""
    min_side_px: int = 256
    """Smallest shorter side of pictures and frames."""
    max_megapixels: float = 110.0
    """Largest picture or frame."""
    max_streams: int = Field(default=8, ge=1)
    """Most tracks in a video: pictures, sound, subtitles, data."""
    min_fps: float = 5.0
    """Lowest frame rate of a video."""
    max_fps: float = 240.0
    """Highest frame rate of a video."""
    min_duration_s: float = 0.5
    """Shortest video."""
    max_duration_s: float = 4 * 3600.0
    """Longest video, as its header says."""


@register("guard")
class Guard:
    """Drops all candidates of a source that is outside of the limits."""

    name = "guard"
    version = 1
    reads = ()
    writes = ("num_streams",)
    needs = Needs()
    Settings = GuardSettings

    def __init__(self, settings: GuardSettings) -> None:
        self.settings = settings

    def __call__(self, candidates: list[Candidate], view: SourceView) -> list[Candidate]:
        problem, num_streams = self._check(view)
        if problem is not None:
            return [candidate.drop(self.name, problem.reason, problem.value) for candidate in candidates]
        return [with_facts(candidate, num_streams=num_streams) for candidate in candidates]

    def _check(self, view: SourceView) -> tuple[Drop | None, int]:
        with tar.opened(view.source.path) as path:  # A source can be a member of a tar file.
            problem, num_streams = self._check_file(path, is_video=view.source.kind == "video")
        return problem or self._check_pixels(view), num_streams

    def _check_file(self, path: Path, *, is_video: bool) -> tuple[Drop | None, int]:
        limits = self.settings
        if (size_bytes := path.stat().st_size) > limits.max_bytes:
            return self._problem("file too large", size_bytes), 0
        expected = "a video" if is_video else "a picture"
        kind, name = check_media_file(path, expected=expected)
        if kind == "other":
            return self._problem("unknown format", name), 0
        if not is_video:
            return None, 1
        try:
            header = read_header(path)
        except MediaError as error:
            return self._problem("unreadable header", str(error).splitlines()[0]), 0
        if header.num_streams > limits.max_streams:
            return self._problem("too many streams", header.num_streams), header.num_streams
        is_long = header.duration_s > limits.max_duration_s
        return self._problem("too long", header.duration_s) if is_long else None, header.num_streams

    def _check_pixels(self, view: SourceView) -> Drop | None:
        limits = self.settings
        if (side_px := min(view.width_px, view.height_px)) < limits.min_side_px:
            return self._problem("resolution too low", side_px)
        if (megapixels := view.width_px * view.height_px / 1e6) > limits.max_megapixels:
            return self._problem("resolution too high", megapixels)
        if view.source.kind == "image":
            return None
        if view.fps < limits.min_fps:
            return self._problem("frame rate too low", view.fps)
        if view.fps > limits.max_fps:
            return self._problem("frame rate too high", view.fps)
        if (duration_s := view.num_frames / view.fps) < limits.min_duration_s:
            return self._problem("too short", duration_s)
        return self._problem("too long", duration_s) if duration_s > limits.max_duration_s else None

    def _problem(self, reason: str, value: float | str) -> Drop:
        return Drop(stage=self.name, reason=reason, value=value)
