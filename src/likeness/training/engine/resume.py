"""What a run was begun with, and whether a recipe may go on with it.

`recipe.json` of a run holds the resolved settings, the checksums of everything that the recipe names by a path, and
what puppets its data are of. It is written when a run begins and compared when it goes on: a stage that has a checkpoint
may be made longer and nothing else, a stage that has none may still be changed, and everything outside of stages is
fixed with the first checkpoint.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from likeness import __version__, files
from likeness.config import Settings
from likeness.errors import CheckpointError, WeightsError
from likeness.training import recipes
from likeness.training.data import render_puppets
from likeness.training.engine import checkpoints
from likeness.training.engine.loop import ADJUSTABLE, FINISHED, LENGTHS, LoopSettings, progress_of

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

RECORD = "recipe.json"


def describe(recipe: Settings) -> dict[str, Any]:
    """What a run of `recipe` follows from, as JSON.

    Raises:
        WeightsError: A folder that the recipe names is not there.
    """
    return {
        "likeness_version": __version__,
        "settings": recipe.model_dump(mode="json"),
        "inputs": {name: _checksum(name, path) for name, path in _fields_of(recipe, Path)},
        "data": {
            name: render_puppets.digest(found) for name, found in _fields_of(recipe, render_puppets.PuppetSettings)
        },
        "complete": False,
    }


def read(folder: Path) -> dict[str, Any] | None:
    """What the run in `folder` was begun with, None if there is no record.

    Raises:
        CheckpointError: The record is damaged.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
            raise ValueError("it holds no settings")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        if not _has_begun(folder):
            return None
        raise CheckpointError(
            f"{path} cannot be read ({error}), so nothing tells what {folder} was trained with. Put it back, or use another "
            "`--output`."
        ) from error
    return record


def write(folder: Path, record: dict[str, Any]) -> None:
    files.write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")


def begin(recipe: Settings, folder: Path) -> bool:
    """Let `recipe` begin in `folder`, or go on there; call it under the run's lock, before anything is trained.

    Returns:
        Whether anything is left to do: False where the same run is complete already.

    Raises:
        CheckpointError: The run there was begun with something else; the record there stays as it was.
        WeightsError: A folder that the recipe names is not there.
    """
    now, before = describe(recipe), read(folder)
    _remove_stale(recipe, folder)
    if not _has_begun(folder):
        write(folder, now)
        return True
    if before is None:
        raise CheckpointError(
            f"{folder} has checkpoints and no {RECORD}, so nothing tells what they were trained with. Use another `--output`."
        )
    longer = _compare(recipe, folder, _upgraded(before), now)
    if before.get("likeness_version") != __version__:
        _LOG.warning("%s was begun with likeness %s; this is %s.", folder, before.get("likeness_version"), __version__)
    if before.get("complete") and not longer and (folder / "model").is_dir():
        return False
    write(folder, now)
    for place in longer:
        _LOG.warning("%s goes on: the recipe has made it longer.", place)
        (place / FINISHED).unlink(missing_ok=True)
    return True


def complete(folder: Path) -> None:
    """Record that everything of a recipe is done."""
    record = read(folder)
    assert record is not None
    write(folder, {**record, "complete": True})


def stages_of(recipe: Settings) -> dict[str, LoopSettings]:
    """The stages of a recipe in the order in which they are trained, by where they are in it."""
    named: dict[str, LoopSettings] = {}
    for name, value in recipe:
        if isinstance(value, LoopSettings):  # FantasyID's descriptor, which is trained first.
            named[name] = value
    for number, stage in enumerate(getattr(recipe, "stages", ())):
        named[f"stages.{number}"] = stage
    return named


def _has_begun(folder: Path) -> bool:
    """Has any stage a checkpoint or an end?"""
    return any(True for place in folder.glob("*/") if _is_begun(place))


def _is_begun(place: Path) -> bool:
    return bool(checkpoints.complete(place / "checkpoints")) or (place / FINISHED).exists()


def _compare(recipe: Settings, folder: Path, before: dict[str, Any], now: dict[str, Any]) -> list[Path]:
    """The stages that are to go on after their end.

    Raises:
        CheckpointError: Something differs that must not.
    """
    old, new = (dict(_flat(record["settings"])) for record in (before, now))
    stages = stages_of(recipe)
    places = {key.removesuffix(".name") for key in old.keys() | new.keys() if key.endswith(".name")}
    begun = {
        where: folder / str(old[f"{where}.name"])
        for where in places
        if f"{where}.name" in old and _is_begun(folder / str(old[f"{where}.name"]))
    }
    changed, resized = [], set()
    for key in sorted(old.keys() | new.keys()):
        where = next((place for place in places if key.startswith(f"{place}.")), None)
        name = key.rpartition(".")[2]
        if old.get(key) == new.get(key) or (where is not None and where not in begun):
            continue
        if where is not None and key == f"{where}.{name}" and name in (*ADJUSTABLE, *LENGTHS):
            resized |= {where} if name in LENGTHS else set()
        elif not (key in before.get("inputs", {}) and key in now["inputs"]):  # Those are compared by what they hold.
            changed.append(f"`{key}` was {old.get(key)!r}, now it is {new.get(key)!r}")
    for name, checksum in now["inputs"].items():
        if (known := before.get("inputs", {}).get(name, checksum)) != checksum:
            changed.append(f"`{name}` ({new[name]}) holds other files than it did ({known[:8]}, now {checksum[:8]})")
    if not changed:
        for name, digest in now["data"].items():
            if before.get("data", {}).get(name, digest) != digest and not before.get("complete"):
                changed.append(f"the puppets of `{name}` are drawn in another way by this version")
    if changed:
        raise CheckpointError(
            f"{folder} was begun with something else:\n  "
            + "\n  ".join(changed)
            + "\nGo on with what it was begun with, or use another `--output`."
        )
    return [place for where in stages if where in resized and (place := _resize(where, stages, begun))]


def _resize(where: str, stages: dict[str, LoopSettings], begun: dict[str, Path]) -> Path | None:
    """The folder of a stage that is to go on after its end, None if it has not ended.

    Raises:
        CheckpointError: It cannot get the length that the recipe now says.
    """
    place, settings = begun[where], stages[where]
    kept = checkpoints.complete(place / "checkpoints")
    if not kept:
        raise CheckpointError(
            f"{place} has no checkpoint to go on from, so its length cannot be changed. Use another `--output`."
        )
    state = checkpoints.load_state(kept[-1])
    if progress_of(settings, state["step"], state["elapsed_s"]) > 1:
        raise CheckpointError(
            f"{place} has already done {state['step']} steps in {state['elapsed_s'] / 60:.1f} minutes, more than the recipe now "
            f"says (steps {settings.steps}, minutes {settings.minutes}). Give it more, or use another `--output`."
        )
    if not (place / FINISHED).exists():
        return None
    order = list(stages)
    if after := [begun[other].name for other in order[order.index(where) + 1 :] if other in begun]:
        raise CheckpointError(
            f"{place} cannot be made longer: stage `{after[0]}` has begun from what it ended with. Make the last stage longer, "
            "or use another `--output`."
        )
    return place


def _upgraded(record: dict[str, Any]) -> dict[str, Any]:
    """A record with the defaults of settings that came with later versions, as they were then."""
    try:
        settings = recipes.build(record["settings"], where=RECORD).model_dump(mode="json")
    except ValueError:  # A setting of another version: it shows in the comparison.
        return record
    return {**record, "settings": settings}


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by dotted names; lists of anything but tables are values."""
    if isinstance(values, dict):
        pairs = values.items()
    elif isinstance(values, list) and values and all(isinstance(value, dict) for value in values):
        pairs = enumerate(values)
    else:
        yield prefix, values
        return
    for name, value in pairs:
        yield from _flat(value, f"{prefix}.{name}" if prefix else str(name))


def _fields_of(recipe: Settings, kind: type[T]) -> Iterator[tuple[str, T]]:
    for name, value in recipe:
        if isinstance(value, kind):
            yield name, value


def _checksum(name: str, path: Path) -> str:
    """Of the files at `path`, with their names."""
    if not path.exists():
        raise WeightsError(
            f"`{name}` is {path}, which is not there. Train it first by the recipe of its name, or name the folder of a "
            f"trained one: `--set {name}=FOLDER`."
        )
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts):
            digest.update(f"{file.relative_to(path).as_posix()}\0".encode())
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _remove_stale(recipe: Settings, folder: Path) -> None:
    """What killed processes left, in today's way and in that of earlier versions."""
    places = [folder / stage.name for stage in stages_of(recipe).values()]
    for place in (folder, *places, *(place / "checkpoints" for place in places)):
        files.remove_stale_temporaries(place)
        for rest in (*place.glob("*.partial"), *place.glob("partial_*")):
            files.remove(rest)
