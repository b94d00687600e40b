"""Says which candidates of all sources show the same person, by the mean embeddings of their tracks.

HDBSCAN (Campello et al., 2013) forms groups; average linkage then splits those that reach beyond the engine's
threshold, since density alone joins people through pictures between them. Two tracks at one time in one source are two
people, and names that are given are respected: one name is one person, two names are two.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from likeness.config import Settings
from likeness.curation.stage import Candidate, Needs, register
from likeness.curation.stages.frames import with_facts
from likeness.errors import ConfigError, ResourceError

_CHUNK = 1024


class IdentitySettings(Settings):
    """How people are told apart."""

    max_distance: float = Field(default=0.9, gt=0, le=2)
    """Largest mean distance inside of a person, as a share of the engine's threshold: means over a track vary less
    than single embeddings, for which the threshold holds."""
    min_cluster_size: int = Field(default=2, ge=2)
    """Smallest group that HDBSCAN forms."""
    single: Literal["keep", "drop"] = "keep"
    """Whether a candidate without any other of its person is kept as a person of its own."""


@register("identities")
class Identities:
    """Writes `person`: the given name, or a name made of the first candidate's id."""

    name = "identities"
    version = 1
    reads = ("frames", "embeddings", "engine", "metric", "threshold")
    writes = ("person", "person_size")
    needs = Needs()
    is_global: Literal[True] = True
    Settings = IdentitySettings

    def __init__(self, settings: IdentitySettings) -> None:
        self.settings = settings

    def __call__(self, candidates: list[Candidate]) -> list[Candidate]:
        if not candidates:
            return []
        engines = sorted({str(candidate.facts["engine"]) for candidate in candidates})
        if len(engines) > 1:
            raise ConfigError(
                f"Faces were read by the engines {', '.join(engines)}, whose embeddings do not compare. Set one engine "
                "in `tracks`, and start again."
            )
        names = [str(candidate.facts.get("person") or "") for candidate in candidates]
        groups = group_people(
            np.stack([mean_embedding(candidate) for candidate in candidates]),
            limit=self.settings.max_distance * float(candidates[0].facts["threshold"]),
            apart=find_conflicts(candidates),
            names=names,
            min_cluster_size=self.settings.min_cluster_size,
        )
        members: dict[int, list[int]] = defaultdict(list)
        for index, group in enumerate(groups):
            members[group].append(index)
        result = list(candidates)
        for indices in members.values():
            given = next((names[index] for index in indices if names[index]), "")
            person = given or _make_name(min(candidates[index].id for index in indices))
            for index in indices:
                known = with_facts(candidates[index], person=person, person_size=len(indices))
                is_single = len(indices) == 1 and not given and self.settings.single == "drop"
                result[index] = known.drop(self.name, "no other picture of the person") if is_single else known
        return result


def group_people(
    embeddings: np.ndarray,
    *,
    limit: float,
    apart: Sequence[tuple[int, int]] = (),
    names: Sequence[str] = (),
    min_cluster_size: int = 2,
) -> list[int]:
    """Number of the person of each embedding.

    Args:
        embeddings: (faces, width), such that the Euclidean distance compares them.
        limit: Largest mean distance between two parts of a person.
        apart: Pairs that are two people.
        names: Given names, empty where none is known.
        min_cluster_size: Of HDBSCAN.

    Raises:
        ResourceError: `hdbscan` is not installed.
    """
    names = names or [""] * len(embeddings)
    conflicts: dict[int, set[int]] = defaultdict(set)
    for one, other in apart:
        conflicts[one].add(other)
        conflicts[other].add(one)
    people: list[list[int]] = []
    labels = _cluster(embeddings, limit, min_cluster_size)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        # HDBSCAN's noise is searched for pairs as well: a person of two clips has no density.
        for part in _split_by_distance(embeddings, rows, limit):
            people += _split_by_constraints(embeddings, part, conflicts, names)
    people = _join_names(people, names)
    numbers = [0] * len(embeddings)
    for number, rows in enumerate(sorted(people, key=min)):
        for row in rows:
            numbers[row] = number
    return numbers


def find_conflicts(candidates: Sequence[Candidate]) -> list[tuple[int, int]]:
    """Pairs of candidates of one source whose sampled frames have one in common: two people."""
    by_source: dict[str, list[int]] = defaultdict(list)
    for index, candidate in enumerate(candidates):
        by_source[candidate.source].append(index)
    pairs = []
    for indices in by_source.values():
        frames = {index: set(np.asarray(candidates[index].arrays["frames"]).tolist()) for index in indices}
        pairs += [(a, b) for k, a in enumerate(indices) for b in indices[k + 1 :] if frames[a] & frames[b]]
    return pairs


def mean_embedding(candidate: Candidate) -> np.ndarray:
    """(width,) mean embedding of a track; of length 1 for engines that compare by cosine."""
    embeddings = np.asarray(candidate.arrays["embeddings"], dtype=np.float64)
    if candidate.facts["metric"] != "cosine":
        return embeddings.mean(axis=0)
    mean = (embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)).mean(axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def _cluster(embeddings: np.ndarray, limit: float, min_cluster_size: int) -> np.ndarray:
    """HDBSCAN's labels; -1 is noise."""
    if len(embeddings) <= min_cluster_size:
        return np.zeros(len(embeddings), np.int64)
    try:
        from hdbscan import HDBSCAN
    except ImportError as error:
        raise ResourceError(
            "`hdbscan` is not installed, and `identities` needs it. Run `pip install likeness[curation]`."
        ) from error
    # Groups nearer than the limit are not split by density, so that `_split_by_distance` alone decides there.
    found = HDBSCAN(
        min_cluster_size=min_cluster_size,
        min_samples=1,
        cluster_selection_epsilon=float(limit),
        allow_single_cluster=True,
        core_dist_n_jobs=1,
    ).fit_predict(embeddings)
    return np.asarray(found)


def _split_by_distance(embeddings: np.ndarray, rows: np.ndarray, limit: float) -> list[list[int]]:
    """Average linkage up to the limit.

    Parts that are joined have a pair within the limit, so that connected components can be linked one by one: all
    distances of all faces would not fit in memory.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    parts: list[list[int]] = []
    for component in _components(embeddings, rows, limit):
        if len(component) == 1:
            parts.append(component.tolist())
            continue
        labels = fcluster(linkage(pdist(embeddings[component]), "average"), limit, "distance")
        parts += [component[labels == label].tolist() for label in np.unique(labels)]
    return parts


def _components(embeddings: np.ndarray, rows: np.ndarray, limit: float) -> list[np.ndarray]:
    """Groups that are connected by pairs within the limit."""
    from scipy.sparse import csr_array, vstack
    from scipy.sparse.csgraph import connected_components

    points = embeddings[rows]
    squares = (points**2).sum(axis=1)
    near = []
    for start in range(0, len(rows), _CHUNK):
        block = slice(start, start + _CHUNK)
        squared = squares[block, None] + squares[None] - 2 * points[block] @ points.T
        near.append(csr_array(squared <= limit**2 + 1e-9))
    count, labels = connected_components(vstack(near), directed=False)
    return [rows[labels == label] for label in range(count)]


def _split_by_constraints(
    embeddings: np.ndarray, rows: list[int], conflicts: dict[int, set[int]], names: Sequence[str]
) -> list[list[int]]:
    """Split a group so that no part has two members who are certainly two people; each joins the nearest such part."""
    inside = set(rows)
    if not any(conflicts[row] & inside for row in rows) and len({names[row] for row in rows} - {""}) < 2:
        return [rows]
    parts: list[list[int]] = []
    # Those who decide come first: with names, then with the most conflicts.
    for row in sorted(rows, key=lambda row: (not names[row], -len(conflicts[row] & inside), row)):
        fitting = [part for part in parts if not (conflicts[row] & set(part)) and _share_name(row, part, names)]
        if fitting:
            away = [float(np.linalg.norm(embeddings[part].mean(axis=0) - embeddings[row])) for part in fitting]
            fitting[int(np.argmin(away))].append(row)
        else:
            parts.append([row])
    return parts


def _share_name(row: int, part: Sequence[int], names: Sequence[str]) -> bool:
    given = {names[other] for other in part} - {""}
    return not names[row] or not given or names[row] in given


def _join_names(people: list[list[int]], names: Sequence[str]) -> list[list[int]]:
    """Parts with one name are one person."""
    joined: dict[str, list[int]] = {}
    others = []
    for rows in people:
        given = next((names[row] for row in rows if names[row]), "")
        if not given:
            others.append(rows)
        else:
            joined.setdefault(given, []).extend(rows)
    return [*joined.values(), *others]


def _make_name(candidate_id: str) -> str:
    return f"person-{hashlib.sha256(candidate_id.encode()).hexdigest()[:12]}"
