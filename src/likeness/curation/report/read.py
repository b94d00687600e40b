"""Reads the records of a run for the page about it."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from likeness import files
from likeness.curation.forget import FINAL_NAME
from likeness.curation.ledger import LEDGER_NAME, DamagedError, Ledger
from likeness.curation.settings import DataRecipe
from likeness.curation.stage import Candidate, Drop
from likeness.curation.verify import read_dropped
from likeness.curation.write import DATA_NAME, read_manifest
from likeness.errors import ConfigError

_FIRST, _LAST = ("read",), ("worker", "write")
"""Stages that the recipe does not list."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageCount:
    """How many candidates reached a stage, and how many it dropped."""

    name: str
    reached: int
    """Counted after all cuts, so that numbers of stages compare."""
    reasons: dict[str, int]

    @property
    def dropped(self) -> int:
        return sum(self.reasons.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Records:
    """All that the page shows."""

    name: str
    manifest: dict[str, Any]
    recipe: DataRecipe
    kept: list[Candidate]
    dropped: list[Candidate]
    left_out: list[dict[str, Any]]
    """Files that are no sources."""
    ledger: Ledger
    sources: dict[str, dict[str, str]]
    """Path, name, kind and key of the candidates of each source."""
    stages: list[StageCount]

    def at(self, stage: str) -> tuple[list[Candidate], list[Candidate]]:
        """Candidates that passed a stage, and those it dropped."""
        names = [one.name for one in self.stages]
        later = set(names[names.index(stage) + 1 :])
        passed = [one for one in self.dropped if one.dropped is not None and one.dropped.stage in later]
        gone = [one for one in self.dropped if one.dropped is not None and one.dropped.stage == stage]
        return sorted([*self.kept, *passed], key=lambda one: one.id), gone


def read_records(output: str | Path) -> Records:
    """Read what a finished run left.

    Raises:
        ConfigError: The folder is not of a finished run.
    """
    output = Path(output)
    manifest, ledger = read_manifest(output / DATA_NAME), Ledger(output / LEDGER_NAME)
    if manifest is None:
        raise ConfigError(f"{output} has no curated data. Name the output folder of a finished `likeness data run`.")
    try:
        sources = files.read_json(ledger.folder / FINAL_NAME)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{output} has no ledger that can be read ({error}). Run `likeness data run` again."
        ) from error
    candidates = _read_candidates(ledger, sources)
    rows = read_dropped(output / DATA_NAME)
    # The writer has the last word: it drops candidates, too.
    reasons = {row["id"]: row for row in rows if row["id"]}
    dropped = [_with_drop(one, reasons[one.id]) for one in candidates if one.id in reasons]
    kept = [one for one in candidates if one.id not in reasons]
    left_out = [row for row in rows if row["id"] is None]
    return Records(
        name=output.absolute().name,
        manifest=manifest,
        recipe=DataRecipe.model_validate(manifest["recipe"]),
        kept=kept,
        dropped=dropped,
        left_out=left_out,
        ledger=ledger,
        sources=sources,
        stages=count_stages(manifest["stages"], len(kept), [*dropped_rows(dropped), *left_out]),
    )


def read_face_boxes(records: Records, candidates: Iterable[Candidate]) -> dict[str, tuple[int, list[float]]]:
    """Frame and box, in pixels of the source, of the middle sample of each candidate whose frames show other faces.

    Raises:
        ConfigError: A result is damaged.
    """
    wanted: dict[str, set[str]] = {}
    for one in candidates:
        if one.facts.get("num_others"):
            wanted.setdefault(one.source, set()).add(one.id)
    found = {}
    for sha, ids in wanted.items():
        try:
            known = records.ledger.read(sha, records.sources[sha]["key"])
        except DamagedError as error:
            raise ConfigError(str(error)) from error
        for one in known:
            if one.id in ids and len(boxes := one.arrays.get("boxes", ())):
                middle = len(boxes) // 2
                found[one.id] = int(one.arrays["frames"][middle]), boxes[middle].tolist()
    return found


def dropped_rows(dropped: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Stage and reason of each dropped candidate."""
    return [{"stage": one.dropped.stage, "reason": one.dropped.reason} for one in dropped if one.dropped is not None]


def count_stages(names: Sequence[str], kept: int, rows: Sequence[Mapping[str, Any]]) -> list[StageCount]:
    """The funnel: how many reach each stage, in their order."""
    order = [*_FIRST, *names, *_LAST]
    order = [*dict.fromkeys(order), *sorted({row["stage"] for row in rows} - set(order))]
    left = kept + len(rows)
    found = []
    for name in order:
        reasons = Counter(row["reason"] for row in rows if row["stage"] == name)
        found.append(StageCount(name=name, reached=left, reasons=dict(sorted(reasons.items()))))
        left -= sum(reasons.values())
    return found


def _read_candidates(ledger: Ledger, sources: Mapping[str, Mapping[str, str]]) -> list[Candidate]:
    found: list[Candidate] = []
    for sha, entry in sorted(sources.items()):
        try:
            found += ledger.read(sha, entry["key"], arrays=False)
        except DamagedError as error:
            raise ConfigError(str(error)) from error
    return sorted(found, key=lambda one: one.id)


def _with_drop(candidate: Candidate, row: Mapping[str, Any]) -> Candidate:
    return replace(candidate, dropped=Drop(stage=row["stage"], reason=row["reason"], value=row["value"]))


def to_json(records: Records) -> dict[str, Any]:
    """The funnel and the counts, for `--json`."""
    return {
        "counts": records.manifest["counts"],
        "stages": [
            {"name": one.name, "reached": one.reached, "dropped": one.dropped, "reasons": one.reasons}
            for one in records.stages
        ],
        "recipe": json.loads(records.recipe.model_dump_json(exclude={"executor"})),
    }
