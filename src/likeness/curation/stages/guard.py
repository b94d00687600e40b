"""Limits on raw files: size, resolution, length, frame rate, number of streams.

The kind of a file is decided by its first bytes (`media.guard`), and its header is read before anything is decoded:
where this is the first stage of a recipe, what is too large or too long is never opened. Limits of memory and time are
those of the worker process in which stages run.
"""

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from likeness.config import Settings
from likeness.curation.stage import Candidate, Drop, Needs, Source, SourceView, register
from likeness.curation.stages.frames import with_facts
from likeness.errors import MediaError
from likeness.media.guard import check_media_file
from likeness.media.pictures import read_image_size
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
    version = 2
    reads = ()
    writes = ("num_streams",)
    needs = Needs()
    Settings = GuardSettings
    limits: ClassVar = {
        "file too large": "max_bytes",
        "too many streams": "max_streams",
        "too long": "max_duration_s",
        "resolution too low": "min_side_px",
        "resolution too high": "max_megapixels",
        "frame rate too low": "min_fps",
        "frame rate too high": "max_fps",
        "too short": "min_duration_s",
    }

    def __init__(self, settings: GuardSettings) -> None:
        self.settings = settings

    def check_source(self, source: Source) -> Drop | None:
        """Check what the file says of itself, before it is opened: decoding costs time and memory.

        Raises:
            MediaError: Its header cannot be read.
        """
        with tar.opened(source.path) as path:  # A source can be a member of a tar file.
            return self._check_file(path, is_video=source.kind == "video")[0]

    def __call__(self, candidates: list[Candidate], view: SourceView) -> list[Candidate]:
        problem, num_streams = self._check(view)
        if problem is not None:
            return [candidate.drop(self.name, problem.reason, problem.value) for candidate in candidates]
        return [with_facts(candidate, num_streams=num_streams) for candidate in candidates]

    def _check(self, view: SourceView) -> tuple[Drop | None, int]:
        is_video = view.source.kind == "video"
        try:
            with tar.opened(view.source.path) as path:
                problem, num_streams = self._check_file(path, is_video=is_video)
        except MediaError as error:
            return self._problem("unreadable header", str(error).splitlines()[0]), 0
        problem = problem or self._check_size(view.width_px, view.height_px)
        return problem or (self._check_frames(view) if is_video else None), num_streams

    def _check_file(self, path: Path, *, is_video: bool) -> tuple[Drop | None, int]:
        """The problem of a file by its first bytes and its header, and its number of streams."""
        limits = self.settings
        if (size_bytes := path.stat().st_size) > limits.max_bytes:
            return self._problem("file too large", size_bytes), 0
        expected = "a video" if is_video else "a picture"
        kind, name = check_media_file(path, expected=expected)
        if kind == "other":
            return self._problem("unknown format", name), 0
        if not is_video:
            return self._check_size(*read_image_size(path)), 1
        header = read_header(path)
        if header.num_streams > limits.max_streams:
            return self._problem("too many streams", header.num_streams), header.num_streams
        if header.duration_s > limits.max_duration_s:
            return self._problem("too long", header.duration_s), header.num_streams
        return self._check_size(header.width_px, header.height_px), header.num_streams

    def _check_size(self, width_px: int, height_px: int) -> Drop | None:
        if (side_px := min(width_px, height_px)) < self.settings.min_side_px:
            return self._problem("resolution too low", side_px)
        if (megapixels := width_px * height_px / 1e6) > self.settings.max_megapixels:
            return self._problem("resolution too high", megapixels)
        return None

    def _check_frames(self, view: SourceView) -> Drop | None:
        """What is known only of an opened video: headers state wrong rates and durations."""
        limits = self.settings
        if view.fps < limits.min_fps:
            return self._problem("frame rate too low", view.fps)
        if view.fps > limits.max_fps:
            return self._problem("frame rate too high", view.fps)
        if (duration_s := view.num_frames / view.fps) < limits.min_duration_s:
            return self._problem("too short", duration_s)
        return self._problem("too long", duration_s) if duration_s > limits.max_duration_s else None

    def _problem(self, reason: str, value: float | str) -> Drop:
        return Drop(stage=self.name, reason=reason, value=value)
