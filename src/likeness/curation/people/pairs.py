"""Pictures generated of a candidate's person, as references that share nothing with the target but the identity.

Magic Mirror generates them by PhotoMaker-V2 (sets C and D, M14). A generator is an object with `PairGenerator`'s
method; the filter keeps pictures whose face is the person's and drops near copies.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
from pydantic import Field, model_validator

from likeness.config import Settings
from likeness.curation.people.prompt_pool import PromptPool
from likeness.curation.people.views import reference, usable_rows
from likeness.curation.stage import Candidate, Needs, SourceView, register
from likeness.curation.stages.frames import crop_box, with_arrays, with_facts
from likeness.curation.stages.hashes import perceptual_hash
from likeness.errors import ConfigError
from likeness.faces.engines.base import FaceEngine, distances
from likeness.faces.engines.registry import load_engine
from likeness.faces.read import FRAME_DETECTION_PX, find_faces, prominence
from likeness.records import Face

MIN_COSINE = 0.65
"""Of the embeddings of a picture and its reference (Magic Mirror, M14)."""


class PairGenerator(Protocol):
    """Makes pictures of one person."""

    name: str

    def __call__(
        self, references: Sequence[np.ndarray], prompts: Sequence[str], *, seed: int, facts: Mapping[str, Any]
    ) -> list[np.ndarray]:
        """One picture for each prompt, all of the same size.

        Args:
            references: Pictures of the person's head, (height, width, 3) uint8 each.
            prompts: What the pictures show.
            seed: The same inputs give the same pictures.
            facts: Of the candidate.
        """
        ...


class PuppetPairs:
    """Renders the puppet whose seed is the fact `puppet` again, in other clothes, light and pose.

    It is the generator that works offline, for tests and for the tiny model. Prompts are ignored: puppets have scenes
    of their own.
    """

    name = "puppets"

    def __init__(self, size_px: int = 192) -> None:
        self._size_px = size_px

    def __call__(
        self, references: Sequence[np.ndarray], prompts: Sequence[str], *, seed: int, facts: Mapping[str, Any]
    ) -> list[np.ndarray]:
        del references  # The person is known exactly.
        from likeness.puppets import sample_image, sample_person  # Compiles the renderer.

        if "puppet" not in facts:
            raise ConfigError("The candidate has no fact `puppet`, the seed of a puppet. Use another pair generator.")
        person = sample_person(int(facts["puppet"]))
        return [
            sample_image(seed + number, person=person, size_px=self._size_px).frames[0]
            for number in range(len(prompts))
        ]


class PairSettings(Settings):
    """How many pictures are made, and which are kept."""

    num_pictures: int = Field(default=8, ge=1)
    """Pictures that are generated for each candidate."""
    max_kept: int = Field(default=4, ge=1)
    """Most pictures that are kept."""
    min_kept: int = Field(default=1, ge=0)
    """Candidates with fewer are dropped."""
    min_cosine: float = Field(default=MIN_COSINE, ge=-1, le=1)
    """Smallest cosine of the embeddings, for engines that compare by cosine."""
    min_variety: float = Field(default=0.15, ge=0, le=1)
    """Smallest share of bits in which the hashes of two kept pictures differ."""
    pool: PromptPool = PromptPool()
    """What the pictures show."""
    generator: Literal["puppets", "photomaker"] = "puppets"
    """`puppets` needs the fact `puppet` of each file, `photomaker` the two paths below and a GPU."""
    sdxl: Path | None = None
    """A diffusers folder of SDXL."""
    photomaker: Path | None = None
    """PhotoMaker-V2's published file."""
    device: str = "cuda"
    """Where PhotoMaker runs."""

    @model_validator(mode="after")
    def _has_weights(self) -> Self:
        if self.generator == "photomaker" and (self.sdxl is None or self.photomaker is None):
            raise ValueError('generator = "photomaker" needs sdxl, a diffusers folder, and photomaker, a file')
        return self


@register("pairs")
class Pairs:
    """Adds the array `generated`, (pictures, height, width, 3) uint8, and the fact `generated`: prompts and hashes.

    The writer stores them as references of the sample, behind those of `views`. The reference that they are made from
    is a frame of the candidate.

    Args:
        settings: See `PairSettings`.
        generator: The one of the settings if None.
        engine: A face engine; the one that read the candidate's faces if None.
    """

    name = "pairs"
    version = 2
    reads = ("frames", "boxes", "scores", "embeddings", "engine", "metric", "threshold", "width_px", "height_px")
    writes = ("generated",)
    Settings = PairSettings
    limits: ClassVar = {"too few generated pictures of the person": "min_kept"}

    def __init__(
        self, settings: PairSettings, generator: PairGenerator | None = None, engine: FaceEngine | None = None
    ) -> None:
        self.settings = settings
        self.needs = Needs(gpus=1.0 if settings.generator == "photomaker" and settings.device != "cpu" else 0.0)
        self._given = generator
        self._engine = engine

    @cached_property
    def _generator(self) -> PairGenerator:
        """Loaded for the first picture, so that a finished run loads nothing."""
        settings = self.settings
        if self._given is not None:
            return self._given
        if settings.generator == "puppets":
            return PuppetPairs()
        from likeness.curation.people.photomaker_pairs import PhotoMakerPairs

        assert settings.sdxl is not None, "the settings have been checked"
        assert settings.photomaker is not None, "the settings have been checked"
        return PhotoMakerPairs.load(settings.sdxl, settings.photomaker, device=settings.device)

    def __call__(self, candidates: list[Candidate], view: SourceView) -> list[Candidate]:
        return [self._generate(candidate, view) for candidate in candidates]

    def _generate(self, candidate: Candidate, view: SourceView) -> Candidate:
        settings = self.settings
        rows = usable_rows(candidate, 0.0)
        entry = reference(candidate, int(rows[0]))
        head = crop_box(view.frames(entry["frame"], 1)[0], np.array(entry["box"]))
        seed = int(candidate.id[:8], 16)
        class_word = str(candidate.facts.get("class_word") or "person")
        prompts = settings.pool.sample(settings.num_pictures, seed=seed, class_word=class_word)
        pictures = self._generator([head], prompts, seed=seed, facts=candidate.facts)
        engine = self._engine or load_engine(str(candidate.facts["engine"]))
        kept = filter_pairs(
            pictures,
            candidate.arrays["embeddings"][rows].mean(axis=0),
            engine,
            min_cosine=settings.min_cosine,
            min_variety=settings.min_variety,
        )[: settings.max_kept]
        if len(kept) < settings.min_kept:
            return candidate.drop(self.name, "too few generated pictures of the person", len(kept))
        if not kept:
            return with_facts(candidate, generated=[])
        entries = [{"prompt": prompts[number], "sha256": hash_pixels(pictures[number])} for number in kept]
        known = with_facts(candidate, generated=entries)
        return with_arrays(known, generated=np.stack([pictures[number] for number in kept]))


def hash_pixels(picture: np.ndarray) -> str:
    """SHA-256 of the values of a picture."""
    return hashlib.sha256(np.ascontiguousarray(picture).tobytes()).hexdigest()


def filter_pairs(
    pictures: Sequence[np.ndarray],
    embedding: np.ndarray,
    engine: FaceEngine,
    *,
    min_cosine: float = MIN_COSINE,
    min_variety: float = 0.0,
) -> list[int]:
    """Pictures that show the person, the most similar first, without near copies of better ones.

    Args:
        pictures: (height, width, 3) uint8 each.
        embedding: (width,) of the person.
        engine: The engine of the embedding.
        min_cosine: For engines that compare by cosine. With dlib, whose raw cosines are high for any two people, the
            distance must be below its threshold instead.
        min_variety: Smallest share of bits in which the hashes of two pictures differ.

    Returns:
        Numbers of the pictures.
    """
    ranked: list[tuple[float, int]] = []
    for number, picture in enumerate(pictures):
        found = find_faces(picture, engine, enlarge_to_px=FRAME_DETECTION_PX)
        if not found:
            continue
        distance = _distance(max(found, key=prominence), embedding)
        if distance < (np.sqrt(2 - 2 * min_cosine) if engine.metric == "cosine" else engine.threshold):
            ranked.append((distance, number))
    kept: list[int] = []
    hashes: list[np.ndarray] = []
    for _, number in sorted(ranked):
        bits = np.unpackbits(perceptual_hash(pictures[number]))
        if all(float((bits != other).mean()) >= min_variety for other in hashes):
            kept.append(number)
            hashes.append(bits)
    return kept


def _distance(face: Face, embedding: np.ndarray) -> float:
    return float(distances(face.embedding[None], embedding, face.metric)[0])
