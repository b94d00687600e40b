"""The record of a run, and whether a recipe may continue it.

`recipe.json` of a run holds the resolved settings, checksums of all files that the recipe names, and the version of the
renderer of its data. It is written at the start of a run and compared when the run is continued: a stage with a
checkpoint may only be made longer, a stage without one may be changed, and settings outside of stages are fixed by the
first checkpoint.
"""

import copy
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
from likeness.training.engine.loop import FINAL_WEIGHTS_FILE
from likeness.training.engine.settings import ADJUSTABLE_SETTINGS, LENGTH_SETTINGS, LoopSettings, compute_progress
from likeness.training.methods.settings import MethodStageSettings
from likeness.training.recipes import upgrade
from likeness.weights import sha256_of

T = TypeVar("T")

_LOG = logging.getLogger(__name__)

RECORD_FILE = "recipe.json"


def build_record(recipe: Settings) -> dict[str, Any]:
    """The record of a new run of `recipe`, as JSON.

    Raises:
        WeightsError: A folder that the recipe names does not exist.
    """
    return {
        "likeness_version": __version__,
        "settings": recipe.model_dump(mode="json"),
        "inputs": {name: _checksum(name, path) for name, path in _fields_of(recipe, Path)},
        "data": {
            name: render_puppets.digest(settings)
            for name, settings in _fields_of(recipe, render_puppets.PuppetSettings)
        },
        "complete": False,
    }


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of the run in `folder`, None if there is none.

    Raises:
        CheckpointError: The record is damaged.
    """
    path = folder / RECORD_FILE
    try:
        record = files.read_json(path)
        if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
            raise ValueError("it has no settings")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        if not _has_begun(folder):
            return None
        raise CheckpointError(
            f"{path} cannot be read ({error}), so the settings of {folder} are unknown. Restore the file, or use "
            "another `--output`."
        ) from error
    return record


def write_record(folder: Path, record: dict[str, Any]) -> None:
    files.write_text(folder / RECORD_FILE, json.dumps(record, indent=2) + "\n")


def start_or_continue(recipe: Settings, folder: Path) -> bool:
    """Start a run of `recipe` in `folder`, or continue it. The caller holds the run's lock.

    Returns:
        Whether anything is left to do: False if the same run is complete.

    Raises:
        CheckpointError: The run there was started with other settings or data; its record is not changed.
        WeightsError: A folder that the recipe names does not exist.
    """
    now, before = build_record(recipe), read_record(folder)
    _remove_stale(recipe, folder)
    if not _has_begun(folder):
        write_record(folder, now)
        return True
    if before is None:
        raise CheckpointError(
            f"{folder} has checkpoints and no {RECORD_FILE}, so their settings are unknown. Use another `--output`."
        )
    extended = _compare(recipe, folder, _upgrade_record(before), now)
    if before.get("likeness_version") != __version__:
        _LOG.warning(
            "%s was started with likeness %s; this is %s.", folder, before.get("likeness_version"), __version__
        )
    if before.get("complete") and not extended and (folder / "model").is_dir() and not _has_unfinished(recipe, folder):
        return False
    write_record(folder, now)
    for stage_folder in extended:
        _LOG.warning("%s continues: the recipe has made it longer.", stage_folder)
        (stage_folder / FINAL_WEIGHTS_FILE).unlink(missing_ok=True)
    return True


def mark_complete(folder: Path) -> None:
    """Mark a run as complete in its record."""
    record = read_record(folder)
    assert record is not None
    write_record(folder, {**record, "complete": True})


def stages_by_path(recipe: Settings) -> dict[str, LoopSettings]:
    """The stages of a recipe in training order, by their path in the recipe."""
    stages: dict[str, LoopSettings] = {}
    for name, value in recipe:
        if isinstance(value, LoopSettings):  # FantasyID's descriptor, which is trained first.
            stages[name] = value
    for number, stage in enumerate(getattr(recipe, "stages", ())):
        stages[f"stages.{number}"] = stage
    return stages


def _has_begun(folder: Path) -> bool:
    """Whether any stage has a checkpoint or is done."""
    return any(_stage_has_begun(stage_folder) for stage_folder in folder.glob("*/"))


def _has_unfinished(recipe: Settings, folder: Path) -> bool:
    """Whether a stage has checkpoints but no final weights, as after the advice to delete a damaged file of them."""
    stage_folders = [folder / stage.name for stage in stages_by_path(recipe).values()]
    return any(
        checkpoints.list_checkpoints(stage_folder / "checkpoints") and not (stage_folder / FINAL_WEIGHTS_FILE).exists()
        for stage_folder in stage_folders
    )


def _stage_has_begun(stage_folder: Path) -> bool:
    return (
        bool(checkpoints.list_checkpoints(stage_folder / "checkpoints")) or (stage_folder / FINAL_WEIGHTS_FILE).exists()
    )


def _compare(recipe: Settings, folder: Path, before: dict[str, Any], now: dict[str, Any]) -> list[Path]:
    """The folders of finished stages that the recipe makes longer.

    Raises:
        CheckpointError: Something differs that must not.
    """
    old, new = (dict(_flatten(record["settings"])) for record in (before, now))
    stages = stages_by_path(recipe)
    paths = {key.removesuffix(".name") for key in old.keys() | new.keys() if key.endswith(".name")}
    begun = {
        path: folder / str(old[f"{path}.name"])
        for path in paths
        if f"{path}.name" in old and _stage_has_begun(folder / str(old[f"{path}.name"]))
    }
    changed, resized = [], set()
    for key in sorted(old.keys() | new.keys()):
        path = next((path for path in paths if key.startswith(f"{path}.")), None)
        name = key.rpartition(".")[2]
        if old.get(key) == new.get(key) or (path is not None and path not in begun):
            continue
        if path is not None and key == f"{path}.{name}" and name in (*ADJUSTABLE_SETTINGS, *LENGTH_SETTINGS):
            resized |= {path} if name in LENGTH_SETTINGS else set()
        elif not (key in before.get("inputs", {}) and key in now["inputs"]):  # Those are compared by checksum below.
            changed.append(f"`{key}` was {old.get(key)!r}, now it is {new.get(key)!r}")
    for name, checksum in now["inputs"].items():
        if (known := before.get("inputs", {}).get(name, checksum)) != checksum:
            changed.append(f"`{name}` ({new[name]}) has other files than before ({known[:8]}, now {checksum[:8]})")
    extended = (
        [f for path in stages if path in resized and (f := _find_extended_stage(path, stages, begun))]
        if not changed
        else []
    )
    if not changed and (extended or not before.get("complete")):
        for name, digest in now["data"].items():
            if before.get("data", {}).get(name, digest) != digest:
                changed.append(f"the puppets of `{name}` are drawn in another way by this version")
    if changed:
        raise CheckpointError(
            f"{folder} was started with something else:\n  "
            + "\n  ".join(changed)
            + "\nContinue with what it was started with, or use another `--output`."
        )
    return extended


def _find_extended_stage(path: str, stages: dict[str, LoopSettings], begun: dict[str, Path]) -> Path | None:
    """The folder of a finished stage that is made longer, None if the stage has not finished.

    Raises:
        CheckpointError: The stage cannot get the length in the recipe.
    """
    stage_folder, settings = begun[path], stages[path]
    saved = checkpoints.list_checkpoints(stage_folder / "checkpoints")
    if not saved:
        raise CheckpointError(
            f"{stage_folder} has no checkpoint to continue from, so its length cannot be changed. Use another "
            "`--output`."
        )
    state = checkpoints.load_state(saved[-1])
    if compute_progress(settings, state["step"], state["elapsed_s"]) > 1:
        raise CheckpointError(
            f"{stage_folder} has already done {state['step']} steps in {state['elapsed_s'] / 60:.1f} minutes, more "
            f"than the recipe now has (steps {settings.steps}, minutes {settings.minutes}). Raise them, or use another "
            "`--output`."
        )
    if not (stage_folder / FINAL_WEIGHTS_FILE).exists():
        return None
    order = list(stages)
    if after := [begun[other].name for other in order[order.index(path) + 1 :] if other in begun]:
        raise CheckpointError(
            f"{stage_folder} cannot be made longer: stage `{after[0]}` has begun from its weights. Make the last stage "
            "longer, or use another `--output`."
        )
    return stage_folder


def _upgrade_record(record: dict[str, Any]) -> dict[str, Any]:
    """A record with today's names, and with what settings that later versions added were before, or their defaults."""
    record = copy.deepcopy(upgrade.upgrade_record(record, where=RECORD_FILE))
    stages = [stage for stage in record["settings"].get("stages") or () if "identity_weight" in stage]
    for stage in stages:  # Of a method.
        stage |= {name: value for name, value in MethodStageSettings.LEGACY_VALUES.items() if name not in stage}
    try:
        settings = recipes.build(record["settings"], where=RECORD_FILE).model_dump(mode="json")
    except ValueError:  # A setting that this version does not have; the comparison reports it.
        return record
    return {**record, "settings": settings}


def _flatten(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by dotted path; lists are values unless they are lists of tables."""
    if isinstance(values, dict):
        pairs = values.items()
    elif isinstance(values, list) and values and all(isinstance(value, dict) for value in values):
        pairs = enumerate(values)
    else:
        yield prefix, values
        return
    for name, value in pairs:
        yield from _flatten(value, f"{prefix}.{name}" if prefix else str(name))


def _fields_of(recipe: Settings, kind: type[T]) -> Iterator[tuple[str, T]]:
    for name, value in recipe:
        if isinstance(value, kind):
            yield name, value


def check_inputs_exist(recipe: Settings) -> None:
    """Refuse a recipe with files or folders that do not exist.

    Raises:
        WeightsError: One of them does not exist.
    """
    for name, path in _fields_of(recipe, Path):
        _check_input_exists(name, path)


def _check_input_exists(name: str, path: Path) -> None:
    if not path.exists():
        raise WeightsError(
            f"`{name}` is {path}, which does not exist. Train it first with the recipe of that name, or set the "
            f"folder of a trained one: `--set {name}=FOLDER`."
        )


def _checksum(name: str, path: Path) -> str:
    """A hash of the names and contents of the files at `path`."""
    _check_input_exists(name, path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts):
            digest.update(f"{file.relative_to(path).as_posix()}\0".encode())
            digest.update(bytes.fromhex(sha256_of(file)))
    return digest.hexdigest()


def _remove_stale(recipe: Settings, folder: Path) -> None:
    """Remove temporary files of killed processes, also those of earlier versions."""
    stage_folders = [folder / stage.name for stage in stages_by_path(recipe).values()]
    for each_folder in (folder, *stage_folders, *(stage_folder / "checkpoints" for stage_folder in stage_folders)):
        files.remove_stale_temporaries(each_folder)
        for rest in (*each_folder.glob("*.partial"), *each_folder.glob("partial_*")):
            files.remove(rest)
