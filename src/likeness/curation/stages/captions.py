"""Gives each candidate a caption and the word in it that names the person.

Captions are given (by a list of sources), or written by a vision-language model. A caption from which the person's
word cannot be decided by rule (`training.files.class_word`) drops the candidate: it is never guessed. Captioning costs
more than all other stages together, so it comes last.
"""

from collections.abc import Sequence
from itertools import count
from typing import Literal

import numpy as np
from pydantic import Field

from likeness.config import Settings
from likeness.curation.stage import Candidate, Needs, SourceView, register
from likeness.curation.stages.frames import sample, with_facts
from likeness.curation.stages.networks.captioners import INSTRUCTION, Captioner, EndpointCaptioner, LocalCaptioner
from likeness.errors import PromptError
from likeness.training.files.class_word import Undecided, find_class_word, locate_class_word


class CaptionSettings(Settings):
    """Where captions come from."""

    captioner: Literal["given", "endpoint", "local"] = "given"
    """`given` uses the fact `caption` of the source, `endpoint` an OpenAI-compatible server, `local` a folder."""
    keep_given: bool = True
    """Whether a given caption is used where there is one, whatever the captioner is."""
    base_url: str = ""
    """Of the endpoint, as `http://localhost:8000/v1`."""
    model: str = ""
    """Name of the model at the endpoint, or the folder of a local one."""
    key_variable: str = "LIKENESS_CAPTION_KEY"
    """Environment variable with the endpoint's key."""
    instruction: str = INSTRUCTION
    """What the model is asked."""
    num_frames: int = Field(default=6, ge=1)
    """Frames that the model sees."""
    side_px: int = Field(default=512, ge=16)
    """Longer side of those frames."""
    max_tokens: int = Field(default=120, ge=1)
    """Longest caption."""


@register("captions")
class Captions:
    """Adds `caption` and `class_word`, or drops the candidate.

    Args:
        settings: See `CaptionSettings`.
        captioner: A captioner, instead of the one that the settings name.
    """

    name = "captions"
    version = 1
    reads = ()
    writes = ("caption", "class_word", "caption_from")
    needs = Needs()
    Settings = CaptionSettings

    def __init__(self, settings: CaptionSettings, captioner: Captioner | None = None) -> None:
        self.settings = settings
        self._captioner = captioner or _build(settings)

    def __call__(self, candidates: list[Candidate], view: SourceView) -> list[Candidate]:
        return [self._caption(candidate, view) for candidate in candidates]

    def _caption(self, candidate: Candidate, view: SourceView) -> Candidate:
        given = str(candidate.facts.get("caption") or "").strip()
        if given and (self.settings.keep_given or self._captioner is None):
            return add_caption(candidate, given, "given", str(candidate.facts.get("class_word") or ""))
        if self._captioner is None:
            return candidate.drop(self.name, "no caption")
        _, frames = sample(candidate, view, self.settings.num_frames, max_side_px=self.settings.side_px)
        return add_caption(candidate, self._captioner(_cropped(frames, candidate, view)), self.settings.model, "")


def add_caption(candidate: Candidate, caption: str, origin: str, class_word: str) -> Candidate:
    """A candidate with a caption and the person's word; dropped if the word is undecided.

    Args:
        candidate: A candidate.
        caption: Its caption.
        origin: `given`, or the name of a model.
        class_word: The word if it is known; `woman:2` is its second occurrence.
    """
    caption = " ".join(caption.split())
    if not caption:
        return candidate.drop("captions", "no caption")
    if class_word:
        try:
            locate_class_word(caption, class_word)
        except PromptError as error:
            return candidate.drop("captions", "class word not in the caption", str(error).splitlines()[0])
    else:
        found = find_class_word(caption)
        if isinstance(found, Undecided):
            return candidate.drop("captions", "caption does not name exactly one person", f"{found.reason}: {caption}")
        class_word = _number(caption, found.word, found.start)
    return with_facts(candidate, caption=caption, class_word=class_word, caption_from=origin)


def _number(caption: str, word: str, start: int) -> str:
    """The word with the number of its occurrence if it is not the first."""
    for number in count(1):
        if locate_class_word(caption, f"{word}:{number}").start >= start:
            return word if number == 1 else f"{word}:{number}"
    raise AssertionError  # `locate_class_word` has raised by then.


def _cropped(frames: np.ndarray, candidate: Candidate, view: SourceView) -> Sequence[np.ndarray]:
    """What is kept of the frames, if `borders` has run: bars must not be described."""
    crop = candidate.facts.get("crop")
    if crop is None:
        return list(frames)
    scale = frames.shape[2] / view.width_px
    left, top, right, bottom = (round(edge * scale) for edge in crop)
    return [frame[top : max(bottom, top + 1), left : max(right, left + 1)] for frame in frames]


def _build(settings: CaptionSettings) -> Captioner | None:
    if settings.captioner == "endpoint":
        return EndpointCaptioner(
            settings.base_url,
            settings.model,
            key_variable=settings.key_variable,
            instruction=settings.instruction,
            max_tokens=settings.max_tokens,
        )
    if settings.captioner == "local":
        return LocalCaptioner(settings.model, instruction=settings.instruction, max_tokens=settings.max_tokens)
    return None
