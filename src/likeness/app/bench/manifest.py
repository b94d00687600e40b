"""The files of a benchmark.

BENCH/
├── bench.json               people, cases, seeds, checksums
├── cases.json               the same for other systems, in OpenS2V's layout: {"case": {"prompt", "img_paths"}}
├── references/NAME/1.png    pictures, and beside each the vertices of its face if there are any (1.ply)
├── cache/                   features of videos, by content
└── runs/SYSTEM/             run.json, videos/CASE.mp4 and .json, evaluation.json
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from likeness.app.folders import FileName, is_plain_name
from likeness.config import Settings, load, save
from likeness.errors import ConfigError
from likeness.evaluation.inputs.reference_matching import remove_trigger_words
from likeness.files import lock, write_text
from likeness.weights import sha256_of

MANIFEST = "bench.json"
CASES = "cases.json"
REFERENCES = "references"
RUNS = "runs"


def run_folder(folder: Path, system: str) -> Path:
    """The folder of a system's run.

    Raises:
        ConfigError: The name cannot be a folder's name.
    """
    if not is_plain_name(system):
        raise ConfigError(
            f"A run cannot be called {system!r}: it becomes a folder in {folder / RUNS}. Use a plain name."
        )
    return folder / RUNS / system


@contextmanager
def run_lock(folder: Path, system: str) -> Iterator[None]:
    """Lock a run against other processes.

    Raises:
        ConfigError: The name cannot be a folder's name.
        LockedError: Another process generates or measures this run.
        FileWriteError: Nothing can be written there.
    """
    busy = f"The run `{system}` is used by {{owner}}. Wait for it, or begin another with `--name`."
    with lock(run_folder(folder, system) / ".lock", busy=busy):
        yield


class BenchIdentity(Settings):
    """A person of the benchmark."""

    name: FileName
    """Folder in `references/`."""
    group: str
    """One of the seven, or `person`."""
    references: dict[FileName, str] = Field(min_length=1)
    """Pictures: SHA-256 by file name."""
    shapes: dict[FileName, str] = Field(default_factory=dict)
    """Vertices of a picture's face (`1.ply` belongs to `1.jpg`): SHA-256 by file name."""

    @property
    def shape(self) -> str | None:
        """The vertices of the first picture that has any."""
        by_stem = {Path(name).stem: name for name in self.shapes}
        return next((by_stem[Path(name).stem] for name in self.references if Path(name).stem in by_stem), None)


class BenchCase(Settings):
    """One video to generate."""

    name: FileName
    """File name without suffix."""
    identity: FileName
    """The person's name."""
    prompt: str
    """With the trigger word."""
    seed: int
    """Seed of the noise."""


class Bench(Settings):
    """A benchmark without its runs."""

    format: int = 1
    """Version of this layout."""
    protocol: str
    """Name or file of the protocol."""
    title: str
    """Title of the report."""
    source: str
    """What the protocol follows."""
    is_complete: bool
    """Whether it has all people that the protocol requires."""
    identities: tuple[BenchIdentity, ...] = Field(min_length=1)
    """All people."""
    cases: tuple[BenchCase, ...] = Field(min_length=1)
    """All videos, in order."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for kind, names in (
            ("people", [identity.name for identity in self.identities]),
            ("videos", [case.name for case in self.cases]),
        ):
            # Names that differ only in case are one file on some systems.
            twice = [name for name, count in Counter(name.casefold() for name in names).items() if count > 1]
            if twice:
                raise ValueError(f"two {kind} are called {twice[0]!r}; each needs a name of its own")
        unknown = {case.identity for case in self.cases} - {identity.name for identity in self.identities}
        if unknown:
            raise ValueError(f"videos show people who are not listed: {', '.join(sorted(unknown))}")
        return self

    @cached_property
    def by_name(self) -> dict[str, BenchIdentity]:
        return {identity.name: identity for identity in self.identities}

    def digest(self, case: BenchCase) -> str:
        """Hash of everything that a case's video depends on, except the system."""
        person = self.by_name[case.identity]
        parts = [case.prompt, case.seed, sorted(person.references.items())]
        if person.shapes:
            parts.append(sorted(person.shapes.items()))
        text = json.dumps(parts)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def reference_paths(self, folder: Path) -> dict[str, list[Path]]:
        """Reference pictures of each person."""
        return {
            identity.name: [folder / REFERENCES / identity.name / file for file in identity.references]
            for identity in self.identities
        }

    def shape_paths(self, folder: Path) -> dict[str, Path]:
        """The file of vertices of each person that has one."""
        return {
            identity.name: folder / REFERENCES / identity.name / identity.shape
            for identity in self.identities
            if identity.shape is not None
        }

    def save(self, folder: Path) -> None:
        """Write the cases for other systems, then the manifest: a folder with a manifest is complete."""
        entries: dict[str, Any] = {
            case.name: {
                "prompt": remove_trigger_words(case.prompt),
                "img_paths": [
                    f"{REFERENCES}/{case.identity}/{file}" for file in self.by_name[case.identity].references
                ],
                "class_label": [self.by_name[case.identity].group],
            }
            for case in self.cases
        }
        write_text(folder / CASES, json.dumps(entries, indent=2) + "\n")
        save(self, folder / MANIFEST)

    @classmethod
    def load(cls, folder: Path) -> "Bench":
        """Read a benchmark and check its pictures.

        Raises:
            ConfigError: The folder holds none, or a picture is missing or was changed.
        """
        if not (folder / MANIFEST).is_file():
            raise ConfigError(f"{folder} holds no benchmark ({MANIFEST}). Create one with `likeness bench create`.")
        bench = load(cls, folder / MANIFEST)
        for identity in bench.identities:
            for file, checksum in (identity.references | identity.shapes).items():
                path = folder / REFERENCES / identity.name / file
                if not path.is_file():
                    raise ConfigError(
                        f"{path} is gone, but {MANIFEST} names it. Restore it, or create the benchmark again."
                    )
                if sha256_of(path) != checksum:
                    raise ConfigError(
                        f"{path} is another file than when the benchmark was made. Restore the first one, or "
                        "create another benchmark: results of different references do not compare."
                    )
        return bench
