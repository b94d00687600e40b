"""Stages that cost nothing, and small recipes and sources for tests of the engine."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from likeness.config import Settings
from likeness.curation.recipe import build_recipe
from likeness.curation.settings import DataRecipe
from likeness.curation.stage import Candidate, Needs, SourceView, register
from likeness.media.pictures import write_image

MODULES = ("toy_stages",)


class NoSettings(Settings):
    """Nothing to set."""


def log_call(settings: Any, text: str) -> None:
    """Append to a file that all processes share."""
    if settings.log is not None:
        with settings.log.open("a") as file:
            file.write(text + "\n")


class LoggedSettings(Settings):
    log: Path | None = None


class BrightnessSettings(LoggedSettings):
    min_brightness: float = 0.0
    pause_s: float = 0.0


@register("toy_brightness")
class Brightness:
    name, version = "toy_brightness", 1
    reads, writes, needs = ("kind",), ("brightness", "embedding"), Needs()
    Settings = BrightnessSettings

    def __init__(self, settings: BrightnessSettings) -> None:
        self.settings = settings

    def __call__(self, candidates: list[Candidate], view: SourceView) -> list[Candidate]:
        log_call(self.settings, f"brightness {view.source.sha256}")
        time.sleep(self.settings.pause_s)
        result = []
        for one in candidates:
            value = float(view.frames(one.first_frame, 1)[0].mean())
            arrays = {**one.arrays, "embedding": np.full(4, value, np.float32), "boxes": np.zeros((1, 4))}
            new = replace(one, facts={**one.facts, "brightness": value}, arrays=arrays)
            is_dark = value < self.settings.min_brightness
            result.append(new.drop(self.name, "too dark", value) if is_dark else new)
        return result


@register("toy_caption")
class Caption:
    name, version = "toy_caption", 1
    reads, writes, needs = ("brightness",), ("caption", "person", "class_word"), Needs()

    class Settings(LoggedSettings):
        noun: str = "woman"

    def __init__(self, settings: "Caption.Settings") -> None:
        self.settings = settings

    def __call__(self, candidates: list[Candidate], view: SourceView) -> list[Candidate]:
        log_call(self.settings, f"caption {view.source.sha256}")
        noun = self.settings.noun
        facts = {"caption": f"a {noun} stands in a park", "class_word": noun}
        return [replace(one, facts={"person": f"person {one.id[:1]}", **one.facts, **facts}) for one in candidates]


@register("toy_limit")
class Limit:
    """A global stage: keeps the first candidates, and gives each the others of its person as references."""

    name, version, is_global = "toy_limit", 1, True
    reads, writes, needs = ("embedding",), ("references",), Needs()

    class Settings(LoggedSettings):
        most: int = 1000

    def __init__(self, settings: "Limit.Settings") -> None:
        self.settings = settings

    def __call__(self, candidates: list[Candidate]) -> list[Candidate]:
        log_call(self.settings, f"limit {len(candidates)}")
        assert all(set(one.arrays) == {"embedding"} for one in candidates)
        kept = [
            replace(
                one,
                facts={
                    **one.facts,
                    "references": [
                        {"candidate": other.id, "frame": other.first_frame}
                        for other in candidates
                        if other is not one and other.facts.get("person") == one.facts.get("person")
                    ],
                },
            )
            for one in candidates[: self.settings.most]
        ]
        return kept + [one.drop(self.name, "too many") for one in candidates[self.settings.most :]]


@register("toy_killer")
class Killer:
    """Kills its own worker, takes its time or memory, for sources of one person; at most `times` times."""

    name, version = "toy_killer", 1
    reads, writes, needs = (), (), Needs()

    class Settings(LoggedSettings):
        person: str
        folder: Path
        times: int = 100
        pause_s: float | None = None
        error: str | None = None
        allocate_gb: float | None = None

    def __init__(self, settings: "Killer.Settings") -> None:
        self.settings = settings

    def __call__(self, candidates: list[Candidate], view: SourceView) -> list[Candidate]:
        settings = self.settings
        if view.source.facts.get("person") == settings.person and len(list(settings.folder.iterdir())) < settings.times:
            (settings.folder / f"{time.monotonic_ns()}").touch()
            if settings.error is not None:
                raise RuntimeError(settings.error)
            if settings.allocate_gb is not None:
                np.ones(int(settings.allocate_gb * 1e9), np.uint8)
                return candidates
            if settings.pause_s is not None:
                time.sleep(settings.pause_s)
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return candidates


def write_pictures(folder: Path, count: int = 4, *, people: int = 2) -> Path:
    """Pictures of 32 px, each of another brightness, in folders of people, with captions."""
    for number in range(count):
        picture = np.full((32, 32, 3), 40 + 20 * number % 200, np.uint8)
        picture[number % 32, :, 0] = number // 32
        path = folder / f"person{number % people}" / f"{number:03d}.png"
        write_image(path, picture)
        path.with_suffix(".txt").write_text(f"a woman number {number} smiles")
    return folder


def make_recipe(folder: Path, stages: list[dict[str, Any]], *, workers: int = 0, **write: Any) -> DataRecipe:
    """A recipe that reads a folder of people."""
    return build_recipe(
        {
            "kind": "data",
            "executor": {"workers": workers},
            "read": {"folders": [str(folder)], "are_folders_people": True, "facts": {"licence": "CC0"}},
            "stages": stages,
            "write": {"shard_samples": 3, **write},
        }
    )


STAGES: list[dict[str, Any]] = [{"name": "toy_brightness"}, {"name": "toy_limit"}, {"name": "toy_caption"}]


def file_hashes(folder: Path) -> dict[str, bytes]:
    """The bytes of all files of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
