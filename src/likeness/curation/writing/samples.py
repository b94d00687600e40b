"""Decides which candidates become training samples, and which media each of them needs."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from likeness.curation.settings import WriteSettings
from likeness.curation.stage import Candidate, Drop
from likeness.curation.writing.media_files import MediaRequest
from likeness.errors import PromptError
from likeness.generation.inputs.prompt_text import check_text
from likeness.training.files.class_word import locate_class_word

logger = logging.getLogger(__name__)

STAGE = "write"
"""Stage of candidates that reach the end but cannot be written."""
TEXTS = ("caption", "person", "class_word", "licence", "source", "consent")
"""Facts that are columns of the manifest of training."""
_GIVEN = ("crop", "references", "generated", "kind", "fps", "width_px", "height_px")
"""Facts that the record of a sample holds in other places."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A picture of the person of a sample."""

    candidate: str
    source: str
    frame: int
    request: MediaRequest
    prompt: str = ""
    """What a generated picture shows; empty for frames of sources."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenSample:
    """A candidate that is written."""

    candidate: Candidate
    media: MediaRequest
    references: tuple[Reference, ...] = ()

    @property
    def files(self) -> list[tuple[str, str, MediaRequest]]:
        """Extension in the shard, source and request of each encoded file: the media, then the references."""
        return [(self.media.suffix, self.candidate.source, self.media)] + [
            (f".reference{number}{one.request.suffix}", one.source, one.request)
            for number, one in enumerate(self.references)
        ]


def choose_samples(candidates: Iterable[Candidate], write: WriteSettings) -> tuple[list[ChosenSample], list[Candidate]]:
    """The samples, and the dropped candidates, each sorted by id.

    What training would refuse (`likeness.training.files.manifest`) is dropped here, because one refused row refuses the
    whole data set.
    """
    ordered = sorted(candidates, key=lambda one: one.id)
    checked = [one if one.dropped is not None else _check(one, write) for one in ordered]
    kept = {one.id: one for one in checked if one.dropped is None}
    samples = [_to_sample(one, kept, write) for one in kept.values()]
    return samples, [one for one in checked if one.dropped is not None]


def _check(candidate: Candidate, write: WriteSettings) -> Candidate:
    facts = candidate.facts
    caption = _text(facts.get("caption"))
    if not caption:
        return candidate.drop(STAGE, "it has no caption")
    try:
        check_text(caption, what="caption", example="a woman waves at the camera")
    except PromptError as error:
        return candidate.drop(STAGE, "its caption is not English text", str(error))
    word = _text(facts.get("class_word"))
    try:
        if word:
            locate_class_word(caption, word)
    except PromptError:
        return candidate.drop(STAGE, "its class word is not in the caption", word)
    if write.licences is not None and facts.get("licence") not in write.licences:
        return candidate.drop(STAGE, "its licence is not allowed", _text(facts.get("licence")) or "none is recorded")
    if write.needs_consent and not _text(facts.get("consent")):
        return candidate.drop(STAGE, "no consent is recorded")
    return replace(candidate, facts={**facts, "caption": caption})


def _to_sample(candidate: Candidate, kept: Mapping[str, Candidate], write: WriteSettings) -> ChosenSample:
    is_video = candidate.facts.get("kind") == "video"
    media = MediaRequest(
        suffix=".mp4" if is_video else ".png",
        first_frame=candidate.first_frame,
        num_frames=candidate.num_frames,
        crop=_box(candidate.facts.get("crop")),
        short_side_px=write.short_side_px,
        fps=write.fps if is_video else None,
        max_frames=write.max_frames if is_video else 1,
    )
    references = [
        found
        for entry in candidate.facts.get("references") or ()
        if (found := _to_reference(entry, candidate, kept, write)) is not None
    ]
    references += [_to_generated(entry, candidate, write) for entry in candidate.facts.get("generated") or ()]
    return ChosenSample(candidate=candidate, media=media, references=tuple(references))


def _to_generated(entry: Mapping[str, Any], candidate: Candidate, write: WriteSettings) -> Reference:
    """A reference that the stage `pairs` generated of the candidate's person."""
    request = MediaRequest(
        suffix=".png",
        first_frame=candidate.first_frame,
        num_frames=1,
        long_side_px=write.reference_side_px,
        generated=entry["sha256"],
    )
    return Reference(
        candidate=candidate.id,
        source=candidate.source,
        frame=candidate.first_frame,
        request=request,
        prompt=entry["prompt"],
    )


def _to_reference(
    entry: Mapping[str, Any], candidate: Candidate, kept: Mapping[str, Candidate], write: WriteSettings
) -> Reference | None:
    """A reference; None if its candidate is not used itself, or shows someone else."""
    other = kept.get(entry["candidate"])
    if other is None or other.facts.get("person") != candidate.facts.get("person"):
        return None
    request = MediaRequest(
        suffix=".png",
        first_frame=int(entry["frame"]),
        num_frames=1,
        crop=_box(entry.get("box")),
        long_side_px=write.reference_side_px,
    )
    return Reference(candidate=other.id, source=other.source, frame=int(entry["frame"]), request=request)


def requests_by_source(samples: Sequence[ChosenSample]) -> dict[str, tuple[MediaRequest, ...]]:
    """What is to be encoded of each source, once each, in a fixed order."""
    found: dict[str, dict[MediaRequest, None]] = {}
    for sample in samples:
        for _, source, request in sample.files:
            found.setdefault(source, {})[request] = None
    return {source: tuple(sorted(requests, key=repr)) for source, requests in sorted(found.items())}


def without_media(
    samples: Sequence[ChosenSample], failed: Mapping[str, str]
) -> tuple[list[ChosenSample], list[Candidate]]:
    """The samples without references to media that could not be encoded, and those without media, dropped."""
    kept, dropped = [], []
    for sample in samples:
        reason = failed.get(sample.candidate.source)
        if reason is None:
            references = tuple(one for one in sample.references if one.source not in failed)
            kept.append(replace(sample, references=references))
        else:
            drop = Drop(stage=STAGE, reason="its media cannot be encoded", value=reason)
            dropped.append(replace(sample.candidate, dropped=drop))
    return kept, dropped


def to_record(sample: ChosenSample, media: Mapping[str, Any], write: WriteSettings) -> dict[str, Any]:
    """What the `.json` of a sample holds.

    Args:
        sample: The sample.
        media: Record of its encoded media: size, number of frames, rate.
        write: Which arrays are written.
    """
    one, facts = sample.candidate, sample.candidate.facts
    texts = {name: _text(facts[name]) for name in TEXTS if _text(facts.get(name))}
    return {
        "id": one.id,
        **texts,
        "media": {name: media[name] for name in ("width_px", "height_px", "num_frames", "fps")},
        "origin": {
            "sha256": one.source,
            "first_frame": one.first_frame,
            "num_frames": one.num_frames,
            **{name: facts[name] for name in ("kind", "fps", "width_px", "height_px", "crop") if name in facts},
        },
        "references": [
            {
                "file": f"{one.id}.reference{number}{reference.request.suffix}",
                "candidate": reference.candidate,
                "source": reference.source,
                "frame": reference.frame,
                **({"prompt": reference.prompt} if reference.prompt else {}),
            }
            for number, reference in enumerate(sample.references)
        ],
        "figures": {name: value for name, value in facts.items() if name not in (*TEXTS, *_GIVEN)},
        **{name: one.arrays[name].tolist() for name in write.arrays if name in one.arrays},
    }


def _box(values: Any) -> tuple[int, int, int, int] | None:
    if values is None:
        return None
    left, top, right, bottom = (round(float(value)) for value in values)
    return left, top, right, bottom


def _text(value: Any) -> str:
    return " ".join(str(value).split()) if value is not None else ""
