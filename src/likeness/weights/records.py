"""What the registry says of weights: files, where they come from, what one may do with them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Preset = Literal["tiny", "open", "research"]
"""`tiny` ships with the package, `open` allows commercial use, `research` does not."""

PRESETS: tuple[Preset, ...] = ("tiny", "open", "research")
"""From the most to the least free: a preset may use its own weights and those before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFile:
    """One file, as it must be. What is None is not known and not checked."""

    path: Path
    """Absolute in what `entry` returns; relative to the entry's folder in `MODELS`."""
    sha256: str | None = None
    size_bytes: int | None = None
    git_sha1: str | None = None
    """Git's name for the content, where a repository publishes that alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hub:
    """A repository of the Hugging Face hub."""

    repository: str
    revision: str = "main"
    """A commit where it is known; `pull` records the commit that it got."""
    patterns: tuple[str, ...] = ()
    """Files to bring beside those listed, as `fnmatch` reads them."""

    @property
    def place(self) -> str:
        return f"hub {self.repository}@{self.revision[:8]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Url:
    """One file anywhere else."""

    url: str

    @property
    def place(self) -> str:
        return self.url


@dataclass(frozen=True, kw_only=True, slots=True)
class Zip:
    """An archive that holds the files, in whatever folder inside."""

    url: str
    sha256: str | None = None
    size_bytes: int | None = None

    @property
    def place(self) -> str:
        return self.url


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightEntry:
    """One name under which weights can be asked for."""

    name: str
    preset: Preset
    licence: str
    files: tuple[WeightFile, ...]
    remedy: str = ""
    """What brings the files back when they are missing or altered."""
    purpose: str = ""
    """What uses them, in a few words."""
    folder: Path = Path()
    """Where the files lie."""
    source: Hub | Url | Zip | None = None
    """Where `pull` gets them. None: they come with a package."""
    components: tuple[str, ...] = ()
    """Stems such as `transformer/diffusion_pytorch_model`: one safetensors file, or shards and their index."""
    needs: tuple[str, ...] = ()
    """Other entries without which these weights are of no use; `pull` brings them along."""
    about_bytes: int = 0
    """Size of the download where that of the files is not known: two bytes for each parameter."""

    @property
    def size_bytes(self) -> int:
        """What the files must hold, as far as that is known, and at least `about_bytes`."""
        return max(self.about_bytes, sum(file.size_bytes or 0 for file in self.files))

    @property
    def sha256(self) -> str:
        """One checksum over the checksums of all files."""
        joined = "".join(f"{file.path.name}:{file.sha256}\n" for file in self.files)
        return hashlib.sha256(joined.encode()).hexdigest()

    @property
    def pinned(self) -> str:
        """What a first download is held against: checksums of ours, the commit that we name, or nothing of ours."""
        if self.source is None or all(file.sha256 or file.git_sha1 for file in self.files):
            return "checksums"
        if isinstance(self.source, Hub) and self.source.revision != "main":
            return "revision"
        return "first pull"

    @property
    def is_one_file(self) -> bool:
        return len(self.files) == 1 and not self.components
