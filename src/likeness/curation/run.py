"""Turns raw files into training shards, as a recipe says."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likeness import files
from likeness.curation.advice import CAPTIONS_NEEDED
from likeness.curation.forget import FINAL_NAME, INDEX_NAME, Forgotten
from likeness.curation.ledger import LEDGER_NAME, Ledger
from likeness.curation.pipeline import OnProgress, Pipeline
from likeness.curation.reading.hashes import HashIndex
from likeness.curation.reading.sources import find_sources, ignore_progress
from likeness.curation.settings import DataRecipe
from likeness.curation.write import DATA_NAME, Written, find_written, write_data, write_key

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a run did."""

    folder: Path
    """Of the shards."""
    manifest: dict[str, Any]
    """As in `manifest.json`."""
    is_new: bool
    """False if everything was there already."""
    failed: dict[str, str]
    """Reasons of sources whose workers failed on this machine; `retry_failed` tries them again."""


def curate(
    recipe: DataRecipe,
    output: str | Path,
    *,
    modules: Sequence[str] = (),
    retry_failed: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> Result:
    """Make training shards in `output/data`; results of stages are kept in `output/ledger`.

    It can be killed at any time, and the same call goes on; a call for finished work returns at once. Equal files and
    settings give equal shards, whatever was killed between.

    Args:
        recipe: From `read_recipe`.
        output: Folder of the shards and the ledger.
        modules: Python modules that register further stages.
        retry_failed: Try sources again whose workers died or took too long in earlier runs.
        on_progress: Called with what is being done, the number done, and of all.

    Raises:
        ConfigError: A setting is wrong, or a folder or list is missing.
        LockedError: Another process works on `output`.
        FileWriteError: `output` cannot be written.
        ResourceError: Weights or libraries that stages need are missing, or every source fails.
    """
    ledger, folder = Ledger(Path(output) / LEDGER_NAME), Path(output) / DATA_NAME
    with ledger.locked():
        forgotten = Forgotten(ledger.folder)
        sources = find_sources(
            recipe.read,
            HashIndex(ledger.folder / INDEX_NAME),
            write=recipe.write,
            is_forgotten=forgotten.has,
            on_progress=lambda done, total: on_progress("hashing files", done, total),
        )
        pipeline = Pipeline(recipe, ledger, sources.used, modules=modules, on_progress=on_progress)
        if retry_failed:
            pipeline.failures.clear()
        written = _finished(pipeline, sources.left_out, folder)
        if written is None:
            _warn_of_captions(pipeline)

            def run() -> Written:
                keys = pipeline.run()
                _write_final(pipeline, keys)
                return write_data(pipeline, keys, sources.left_out, folder)

            written = pipeline.repairing(run)
        failed = dict(pipeline.failures)
    return Result(folder=folder, manifest=written.manifest, is_new=written.is_new, failed=failed)


def _finished(pipeline: Pipeline, left_out: Sequence[Any], folder: Path) -> Written | None:
    keys = pipeline.known_keys()
    return None if keys is None else find_written(folder, write_key(pipeline, keys, left_out))


def _warn_of_captions(pipeline: Pipeline) -> None:
    """Say before hours of work that nothing will be left of files without captions."""
    stages = [stage for segment in pipeline.segments for stage in segment.stages]
    is_written = any(
        "caption" in stage.writes and getattr(stage.settings, "captioner", None) != "given" for stage in stages
    )
    count = len(pipeline.sources)
    if count and not is_written and not any(found.source.facts.get("caption") for found in pipeline.sources.values()):
        logger.warning("No file has a caption: all %d will be rejected. %s", count, CAPTIONS_NEEDED)


def _write_final(pipeline: Pipeline, keys: dict[str, str]) -> None:
    rows = {
        sha: {
            "key": key,
            "path": str(pipeline.sources[sha].source.path),
            "name": pipeline.sources[sha].name,
            "kind": pipeline.sources[sha].source.kind,
        }
        for sha, key in keys.items()
    }
    text = json.dumps(rows, sort_keys=True, ensure_ascii=False)
    files.write_text(pipeline.ledger.folder / FINAL_NAME, text + "\n")
