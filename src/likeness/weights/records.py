"""Records of the weight registry: files, sources, licences, presets."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LicencePreset = Literal["tiny", "open", "research"]
"""`tiny` ships with the package, `open` allows commercial use, `research` does not."""

LICENCE_PRESETS: tuple[LicencePreset, ...] = ("tiny", "open", "research")
"""From the least to the most restricted: a preset may use its own weights and those before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightFile:
    """Expected properties of a file. None means unknown; it is not checked."""

    path: Path
    """Absolute in what `entry` returns; relative to the entry's folder in `MODELS`."""
    sha256: str | None = None
    size_bytes: int | None = None
    git_sha1: str | None = None
    """Git's blob hash, for repositories that publish no SHA-256."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HubSource:
    """A repository of the Hugging Face Hub."""

    repository: str
    revision: str = "main"
    """A commit if known; `pull` records the commit that it fetched."""
    patterns: tuple[str, ...] = ()
    """`fnmatch` patterns of files to fetch beside those listed."""

    @property
    def address(self) -> str:
        return f"hub {self.repository}@{self.revision[:8]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class UrlSource:
    """One file at another address."""

    url: str

    @property
    def address(self) -> str:
        return self.url


@dataclass(frozen=True, kw_only=True, slots=True)
class ZipSource:
    """An archive that contains the files, in any folder."""

    url: str
    sha256: str | None = None
    size_bytes: int | None = None

    @property
    def address(self) -> str:
        return self.url


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightEntry:
    """One named set of weights."""

    name: str
    preset: LicencePreset
    licence: str
    files: tuple[WeightFile, ...]
    remedy: str = ""
    """What to do if files are missing or altered, for error messages."""
    purpose: str = ""
    """What uses them, in a few words."""
    folder: Path = Path()
    """Folder of the files."""
    source: HubSource | UrlSource | ZipSource | None = None
    """Source for `pull`. None: they come with a package."""
    components: tuple[str, ...] = ()
    """Stems such as `transformer/diffusion_pytorch_model`: one safetensors file, or shards with an index."""
    needs: tuple[str, ...] = ()
    """Other entries that these weights need; `pull` fetches them too."""
    estimated_bytes: int = 0
    """Estimated download size if file sizes are unknown: two bytes per parameter."""

    @property
    def size_bytes(self) -> int:
        """Sum of the known file sizes, at least `estimated_bytes`."""
        return max(self.estimated_bytes, sum(file.size_bytes or 0 for file in self.files))

    @property
    def sha256(self) -> str:
        """One checksum over the checksums of all files."""
        joined = "".join(f"{file.path.name}:{file.sha256}\n" for file in self.files)
        return hashlib.sha256(joined.encode()).hexdigest()

    @property
    def pinned(self) -> str:
        """How a first download is checked: by checksums of the table, by a fixed commit, or not (`first pull`)."""
        if self.source is None or all(file.sha256 or file.git_sha1 for file in self.files):
            return "checksums"
        if isinstance(self.source, HubSource) and self.source.revision != "main":
            return "revision"
        return "first pull"

    @property
    def is_one_file(self) -> bool:
        return len(self.files) == 1 and not self.components
