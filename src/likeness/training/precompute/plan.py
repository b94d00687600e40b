"""What has to be encoded for a recipe: its samples with prompts, and the key of each encoded item."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from likeness import files
from likeness.errors import ConfigError
from likeness.training.files.class_word import add_triggers, describe_undecided
from likeness.training.files.sample import Sample
from likeness.training.files.samples import read_samples, rows_by_person, split_people
from likeness.training.files.settings import FileDataSettings
from likeness.training.precompute.keys import item_key, media_hash

Split = Literal["train", "validation"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodingSettings:
    """Everything beside the media that encoded items depend on."""

    vae: str
    """Hash of the VAE and its scaling factor."""
    text_encoder: str
    """Hash of the text encoder and its tokenizer."""
    engine: str
    """Name of the face engine."""
    frame_step: int
    """Lengths of clips are 1 + a multiple of this."""
    side_step_px: int
    """Sides of frames are multiples of this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedSample:
    """One sample of the data set."""

    sample: Sample
    prompt: str
    """The caption with the trigger word behind the class word."""
    latents: str
    """Key of its latents."""
    targets: str
    """Key of the faces in its frames."""
    references: tuple[str, ...]
    """Keys of the views of each media file that its references may be taken from."""
    reference_media: tuple[Path, ...]
    """Those media files."""


@dataclass(kw_only=True)
class DataPlan:
    """The samples of both splits."""

    settings: FileDataSettings
    encoding: EncodingSettings
    samples: dict[Split, list[PlannedSample]] = field(default_factory=dict)
    num_captions: int = 0
    """Of both splits, with those that are left out."""
    undecided: list[str] = field(default_factory=list)
    """One line for each caption without a certain class word; left out if the method needs the word."""


def plan_data(settings: FileDataSettings, encoding: EncodingSettings, *, seed: int, needs_class_word: bool) -> DataPlan:
    """List what a recipe needs.

    Args:
        settings: Of the recipe.
        encoding: Of base and engine.
        seed: Selects the people held out for validation.
        needs_class_word: Whether the method writes the person into the prompt.

    Raises:
        ConfigError: The data set cannot be used, or no sample is left.
    """
    samples = read_samples(settings.path, media_root=settings.media_root)
    if settings.validation_path is not None:
        splits = (samples, read_samples(settings.validation_path, media_root=settings.media_root))
    elif settings.validation_people:
        splits = split_people(samples, settings.validation_people, seed=seed)
    else:
        splits = (samples, [])
    plan = DataPlan(settings=settings, encoding=encoding, num_captions=sum(map(len, splits)))
    names: tuple[Split, Split] = ("train", "validation")
    for name, part in zip(names, splits, strict=True):
        plan.samples[name] = _plan_split(plan, part, needs_class_word=needs_class_word)
    if not plan.samples["train"]:
        raise ConfigError(
            f"No sample of {settings.path} is left to train on. {describe_undecided(plan.undecided, plan.num_captions)}"
        )
    return plan


def _plan_split(plan: DataPlan, samples: Sequence[Sample], *, needs_class_word: bool) -> list[PlannedSample]:
    prompts, undecided = add_triggers(samples)
    plan.undecided += [f'{samples[caption.row].media}: {caption.reason}: "{caption.caption}"' for caption in undecided]
    people = rows_by_person(samples)
    hashes: dict[Path, str] = {}

    def hash_of(path: Path) -> str:
        if path not in hashes:
            hashes[path] = media_hash(path)
        return hashes[path]

    planned = []
    for sample, prompt in zip(samples, prompts, strict=True):
        if prompt is None and needs_class_word:
            continue
        media = reference_media(sample, [samples[row] for row in people[sample.person]], plan.settings.references)
        planned.append(
            PlannedSample(
                sample=sample,
                prompt=prompt or sample.caption,
                latents=latent_key(plan, hash_of(sample.media)),
                targets=target_key(plan, hash_of(sample.media)),
                references=tuple(view_key(plan, hash_of(path)) for path in media),
                reference_media=media,
            )
        )
    return planned


def reference_media(sample: Sample, same_person: Sequence[Sample], source: str) -> tuple[Path, ...]:
    """The media files that references of a sample are taken from; see `FileDataSettings.references`."""
    own, others = (sample.media,), tuple(other.media for other in same_person if other.media != sample.media)
    if source in ("same", "views"):
        return own
    if source == "other":
        return others or own
    return sample.references or others or own


def latent_key(plan: DataPlan, media: str) -> str:
    """The key of latents."""
    return item_key("latents", media, plan.encoding.vae, _frame_settings(plan))


def target_key(plan: DataPlan, media: str) -> str:
    """The key of the faces in a target's frames."""
    return item_key("targets", media, plan.encoding.engine, plan.settings.min_face_score, _frame_settings(plan))


def view_key(plan: DataPlan, media: str) -> str:
    """The key of the views of a media file."""
    settings = plan.settings
    return item_key("views", media, plan.encoding.engine, settings.min_face_score, settings.num_views, settings.fps)


def _frame_settings(plan: DataPlan) -> list[Any]:
    settings, encoding = plan.settings, plan.encoding
    size = [settings.resolution_px, settings.height_px, settings.width_px]
    return [*size, settings.num_frames, settings.fps, encoding.frame_step, encoding.side_step_px]


class Records:
    """Small facts about encoded items, one JSON file for each key; written after what they describe."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str) -> dict[str, Any] | None:
        """The record of a key, None if there is none."""
        try:
            record = files.read_json(self._path(key))
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def write(self, key: str, record: dict[str, Any]) -> None:
        files.write_text(self._path(key), json.dumps(record))

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


def text_key(encoding: EncodingSettings, token_ids: Sequence[int]) -> str:
    """The key of the states of a prompt."""
    ids = hashlib.sha256(repr(list(token_ids)).encode()).hexdigest()
    return item_key("text", encoding.text_encoder, ids)
