"""Settings of data from files in a recipe."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from likeness.config import Settings
from likeness.training.files.buckets import BucketGrid, make_grid


class FileDataSettings(Settings):
    """Photographs and videos on disk: `data = { kind = "files", path = "people.jsonl", resolution_px = 480 }`."""

    kind: Literal["files"] = "files"
    path: Path
    """A manifest, a folder of media beside captions or of shards, or the data set file of another trainer."""
    media_root: Path | None = None
    """Folder that a manifest's paths start from, and lie in; by default the manifest's own."""
    validation_path: Path | None = None
    """Data set of people who are not trained on."""
    validation_people: int = Field(default=0, ge=0)
    """Number of people of `path` held out for validation, if there is no `validation_path`."""
    resolution_px: int | None = Field(default=None, ge=16)
    """Side of the square with as many pixels as a frame should have; frames keep their aspect."""
    height_px: int | None = Field(default=None, ge=16)
    """With `width_px`: one size for all frames instead of `resolution_px`."""
    width_px: int | None = Field(default=None, ge=16)
    """See `height_px`."""
    num_frames: int = Field(default=49, ge=1)
    """Frames of the longest clips; 1 for pictures alone."""
    fps: float = Field(default=8.0, gt=0, le=120)
    """Frame rate of the base."""
    references: Literal["same", "other", "views", "any"] = "any"
    """`same`: the target itself. `other`: another picture of the person. `views`: frames of the same video. `any`: the
    manifest's references, else another picture, else views or the target."""
    num_views: int = Field(default=6, ge=1, le=32)
    """Views of a person taken from a video (FantasyID, element F1)."""
    min_face_score: float = Field(default=0.9, ge=0, le=1)
    """Least face confidence of a reference and of a target, on the engine's calibrated scale."""
    engine: str | None = None
    """Face engine; by default the one of the recognizer."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if (self.height_px is None) != (self.width_px is None):
            raise ValueError("height_px and width_px go together; set both, or resolution_px alone")
        if (self.resolution_px is None) == (self.height_px is None):
            raise ValueError("set either resolution_px, or height_px and width_px")
        if self.validation_path is not None and self.validation_people:
            raise ValueError("set either validation_path or validation_people")
        return self

    def grid(self, *, frame_step: int = 8, side_step_px: int = 16) -> BucketGrid:
        """The buckets for a base; see `make_grid`.

        Raises:
            ConfigError: A size or length does not suit the base.
        """
        size_px = None if self.height_px is None or self.width_px is None else (self.height_px, self.width_px)
        return make_grid(
            num_frames=self.num_frames,
            resolution_px=self.resolution_px,
            size_px=size_px,
            frame_step=frame_step,
            side_step_px=side_step_px,
        )
