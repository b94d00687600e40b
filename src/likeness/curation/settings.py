"""Settings of a recipe of data: what is read, how it is computed, and what is written."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from likeness.config import Settings


class ReadSettings(Settings):
    """`[read]`: where the raw files are. At least one of the three is needed."""

    folders: tuple[Path, ...] = ()
    """Folders, read with all their subfolders. `clip.txt` beside `clip.mp4` is its caption, `clip.json` its facts."""
    lists: tuple[Path, ...] = ()
    """Lists of files: `.txt` (a path on each line), `.csv`, `.jsonl` or `.parquet` (a column `media`, and columns of
    facts). Paths start from the list's folder."""
    shards: tuple[Path, ...] = ()
    """Uncompressed tar files, or folders of them."""
    are_folders_people: bool = False
    """Whether the first level of subfolders of `folders` names the person."""
    facts: dict[str, str] = Field(default_factory=dict)
    """Facts of all files that have no other: `facts = { licence = "CC0", consent = "release forms of 2026" }`."""

    @model_validator(mode="after")
    def _has_something(self) -> Self:
        if not (self.folders or self.lists or self.shards):
            raise ValueError("name at least one of folders, lists and shards")
        return self


class WriteSettings(Settings):
    """`[write]`: what training samples are made of."""

    shard_samples: int = Field(default=1000, ge=1, le=1_000_000)
    """Samples in a tar file."""
    short_side_px: int | None = Field(default=None, ge=16)
    """Larger media are scaled down so that their shorter side has this length; by default sizes are kept."""
    fps: float | None = Field(default=None, gt=0, le=120)
    """Frame rate of videos; by default their own."""
    max_frames: int = Field(default=300, ge=1)
    """Longest clip that is written, in frames; of longer ones the beginning is used."""
    reference_side_px: int = Field(default=1024, ge=16)
    """Larger reference pictures are scaled down so that their longer side has this length."""
    licences: tuple[str, ...] | None = None
    """Licences that are allowed, as lists name them; by default all, also unknown ones."""
    needs_consent: bool = False
    """Whether files without a recorded consent are left out."""
    arrays: tuple[str, ...] = ("frames", "boxes")
    """Arrays of stages that are written into the `.json` of a sample. Embeddings are biometric data: name them only if
    they are needed."""


class ExecutorSettings(Settings):
    """`executor`: where stages run. It changes no result."""

    kind: Literal["local", "ray"] = "local"
    """`local`: processes on this machine. `ray`: tasks of a Ray cluster that shares the file system."""
    workers: int | None = Field(default=None, ge=0, le=10_000)
    """Sources that are processed at the same time; by default one for each core. 0 runs in the driver's own process,
    without any limit of time or memory and without protection against crashes."""
    time_limit_s: float = Field(default=1800.0, gt=0)
    """Longest time for one source, after which its worker is ended."""
    memory_gb: float | None = Field(default=None, gt=0)
    """Largest address space of a worker beyond its start (not with GPUs, whose drivers reserve hundreds of GB)."""
    frame_memory_gb: float = Field(default=1.0, gt=0)
    """Largest memory for the decoded frames that a worker keeps for later stages."""
    attempts: int = Field(default=3, ge=1, le=100)
    """How often a source is tried whose worker dies, before it is recorded as dropped."""
    address: str | None = None
    """Of a running Ray cluster; by default one is started on this machine."""

    @model_validator(mode="after")
    def _suits_its_kind(self) -> Self:
        if self.kind == "local" and self.address is not None:
            raise ValueError("address belongs to kind = 'ray'; remove it, or use that kind")
        if self.kind == "ray" and (self.workers == 0 or self.memory_gb is not None):
            raise ValueError("workers = 0 and memory_gb belong to kind = 'local'; remove them, or use that kind")
        return self


class StageEntry(Settings):
    """An entry of `[[stages]]`: the name of a stage, and its settings, which the stage checks."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @property
    def values(self) -> dict[str, Any]:
        """The settings of the stage."""
        return dict(self.model_extra or {})


class DataRecipe(Settings):
    """A recipe of `kind = "data"`."""

    kind: Literal["data"]
    executor: ExecutorSettings = ExecutorSettings()
    read: ReadSettings
    stages: tuple[StageEntry, ...] = ()
    write: WriteSettings = WriteSettings()
