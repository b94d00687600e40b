"""What a benchmark is made of.

BENCH/
├── bench.json               people, cases, seeds, checksums
├── cases.json               the same for other systems, in OpenS2V's layout: {"case": {"prompt", "img_paths"}}
├── references/NAME/1.png
├── cache/                   features of videos, by content
└── runs/SYSTEM/             run.json, videos/CASE.mp4 and .json, evaluation.json
"""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from likeness.config import Settings, load, save
from likeness.errors import ConfigError
from likeness.evaluation.people import plain
from likeness.weights import sha256_of

MANIFEST = "bench.json"
CASES = "cases.json"
REFERENCES = "references"
RUNS = "runs"


def run_folder(folder: Path, system: str) -> Path:
    """Where the run of a system lies.

    Raises:
        ConfigError: It cannot be the name of a folder.
    """
    if not system or system != Path(system).name or system.startswith("."):
        raise ConfigError(
            f"A run cannot be called `{system}`: it becomes a folder in {folder / RUNS}. Use a plain name."
        )
    return folder / RUNS / system


class BenchIdentity(Settings):
    """Somebody whose videos are made."""

    name: str
    """Folder in `references/`."""
    group: str
    """One of the seven, or `person`."""
    references: dict[str, str]
    """SHA-256 by file name."""


class BenchCase(Settings):
    """One video to be made."""

    name: str
    """File name without suffix."""
    identity: str
    """Whose."""
    prompt: str
    """With the trigger word."""
    seed: int
    """Of the noise."""


class Bench(Settings):
    """A benchmark without its runs."""

    format: int = 1
    """Version of this layout."""
    protocol: str
    """Name or file of the protocol."""
    title: str
    """For people to read."""
    source: str
    """What the protocol follows."""
    is_complete: bool
    """Whether it has all the people that the protocol wants."""
    identities: tuple[BenchIdentity, ...] = Field(min_length=1)
    """Everybody."""
    cases: tuple[BenchCase, ...] = Field(min_length=1)
    """Every video, in order."""

    @cached_property
    def by_name(self) -> dict[str, BenchIdentity]:
        return {identity.name: identity for identity in self.identities}

    def digest(self, case: BenchCase) -> str:
        """Short name of everything that a case's video depends on, apart from the system."""
        references = sorted(self.by_name[case.identity].references.items())
        text = json.dumps([case.prompt, case.seed, references])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def reference_paths(self, folder: Path) -> dict[str, list[Path]]:
        """Pictures of each person."""
        return {
            one.name: [folder / REFERENCES / one.name / file for file in one.references]
            for one in self.identities
        }

    def save(self, folder: Path) -> None:
        """Write the cases for other systems, and then the manifest: a folder that has one is whole."""
        entries: dict[str, Any] = {
            case.name: {
                "prompt": plain(case.prompt),
                "img_paths": [
                    f"{REFERENCES}/{case.identity}/{file}" for file in self.by_name[case.identity].references
                ],
                "class_label": [self.by_name[case.identity].group],
            }
            for case in self.cases
        }
        (folder / CASES).write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
        save(self, folder / MANIFEST)

    @classmethod
    def load(cls, folder: Path) -> "Bench":
        """Read a benchmark and check its pictures.

        Raises:
            ConfigError: The folder holds none, or a picture is gone or another.
        """
        if not (folder / MANIFEST).is_file():
            raise ConfigError(
                f"{folder} holds no benchmark ({MANIFEST}). Make one with `likeness bench create`."
            )
        bench = load(cls, folder / MANIFEST)
        for one in bench.identities:
            for file, checksum in one.references.items():
                path = folder / REFERENCES / one.name / file
                if not path.is_file():
                    raise ConfigError(
                        f"{path} is gone, but {MANIFEST} names it. Put it back, or create the benchmark anew."
                    )
                if sha256_of(path) != checksum:
                    raise ConfigError(
                        f"{path} is another picture than when the benchmark was made. Put the first one back, or "
                        "create another benchmark: figures of two references do not mix."
                    )
        return bench
