"""Says which setting or missing text rejected most of the data, and how to change that."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from likeness.curation.settings import StageEntry
from likeness.curation.stage import registered

MAX_REJECTED_SHARE = 0.9
"""Advice is given where a larger share was rejected."""
MOST_CAUSES = 3
"""Causes that are named where nothing is left; otherwise one."""
CAPTIONS_NEEDED = (
    "Every file needs a caption: write it into NAME.txt beside NAME.mp4 or NAME.png, into a column `caption` of a list "
    '(`read.lists`), or let a model write it (`captioner = "endpoint"` of the stage `captions`).'
)
_CLASS_WORD = (
    'Say in NAME.json beside the file which word of the caption names the person, {"class_word": "woman"}, or reword '
    "the caption so that it names one person."
)
_REMEDIES = {
    ("read", "not a picture or a video"): "Convert them to png, jpg or mp4, or leave them out.",
    ("read", "the file cannot be read"): "Copy or download them again.",
    ("read", "its licence is not allowed"): "`write.licences` lists those that are; correct it, or the files' facts.",
    ("read", "no consent is recorded"): "Record it, or allow files without: --set write.needs_consent=false",
    ("tracks", "no face"): "Use pictures with larger faces, or another engine: --set {stage}.engine=open",
    ("borders", "black"): "The files show nothing. Look at them.",
    ("duplicates", "copy of another"): "For stricter copies: --set {stage}.max_difference=0.1",
    ("identities", "no other picture of the person"): "Keep them: --set {stage}.single=keep",
    ("captions", "caption does not name exactly one person"): _CLASS_WORD,
    ("captions", "class word not in the caption"): _CLASS_WORD,
    ("write", "its class word is not in the caption"): _CLASS_WORD,
    ("write", "its caption is not English text"): "Translate the captions.",
    ("write", "it has no caption"): CAPTIONS_NEEDED,
}
_ENDPOINT = (
    " At an endpoint: --set {stage}.captioner=endpoint --set {stage}.base_url=http://localhost:8000/v1 --set "
    "{stage}.model=NAME"
)
_REMEDIES["captions", "no caption"] = CAPTIONS_NEEDED + _ENDPOINT


@dataclass(kw_only=True, slots=True)
class _Cause:
    count: int = 0
    values: list[float] = field(default_factory=list)


def advise(manifest: Mapping[str, Any], dropped: Iterable[Mapping[str, Any]]) -> list[str]:
    """What to change, a line for each cause, the most frequent first; empty if enough was kept.

    Args:
        manifest: `manifest.json`, whose stages have been imported.
        dropped: Rows of `dropped.jsonl`; not read if enough was kept.
    """
    counts = manifest["counts"]
    if not counts["sources"]:
        return ["No file was found. Name folders or lists of photographs and videos in `[read]` of the recipe."]
    total = counts["samples"] + counts["dropped"]
    if counts["dropped"] <= MAX_REJECTED_SHARE * total:
        return []
    causes: dict[tuple[str, str], _Cause] = {}
    for row in dropped:
        cause = causes.setdefault((row["stage"], row["reason"]), _Cause())
        cause.count += 1
        if isinstance(row["value"], int | float):
            cause.values.append(float(row["value"]))
    ordered = sorted(causes.items(), key=lambda item: (-item[1].count, item[0]))
    stages = [StageEntry.model_validate(entry) for entry in manifest["recipe"]["stages"]]
    return [
        f"{stage} rejected {cause.count:,} of {total:,} ({reason}). {_remedy(stages, stage, reason, cause)}".strip()
        for (stage, reason), cause in ordered[: 1 if counts["samples"] else MOST_CAUSES]
    ]


def _remedy(stages: Sequence[StageEntry], name: str, reason: str, cause: _Cause) -> str:
    number = next((number for number, entry in enumerate(stages) if entry.name == name), None)
    path = f"stages.{number}"
    if (remedy := _REMEDIES.get((name, reason))) is not None:
        return remedy.format(stage=path) if "{stage}" in remedy else remedy
    kind = registered().get(name)
    if kind is None or number is None or not cause.values or (setting := kind.limits.get(reason)) is None:
        return ""
    typical = median(cause.values)
    limit = getattr(kind.settings.model_validate(stages[number].values), setting)
    better = _round(typical, up=typical > limit, is_whole=isinstance(limit, int))
    return (
        f"`{setting}` is {limit:,}, and the median of the rejected is {_show(typical)}. To keep half of them: "
        f"--set {path}.{setting}={better}"
    )


def _round(value: float, *, up: bool, is_whole: bool) -> str:
    """Two digits, to the side on which the value itself is kept."""
    step = 10.0 ** (math.floor(math.log10(abs(value))) - 1) if value else 1.0
    step = max(step, 1.0) if is_whole else step
    count = math.ceil(value / step - 1e-9) if up else math.floor(value / step + 1e-9)
    return f"{count * step:.12g}"


def _show(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
