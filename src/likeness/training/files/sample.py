"""One sample of a data set, and the list of problems found while a data set is read."""

import difflib
import logging
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PureWindowsPath

from likeness.errors import ConfigError, PromptError
from likeness.identity.prompt import TRIGGER, split_prompt
from likeness.training.files.class_word import locate_class_word
from likeness.training.files.tar import SHARD_SUFFIX, is_media_file

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".heic", ".heif")
VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm")
MAX_LISTED = 20
"""Problems that an error lists; the rest is counted."""
_MAX_COMPARED = 2000
"""Largest folder in which the file that was probably meant is searched by similarity."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A photograph or a video of one person, with what is known of it."""

    media: Path
    """The target of training. A member of a tar file is named like a file in a folder: `00000.tar/0001.mp4`."""
    caption: str
    """What the media shows, in English, without a trigger word."""
    person: str
    """Who is shown. Samples of one person share it; references are taken among them."""
    references: tuple[Path, ...] = ()
    """Pictures or videos of the same person; empty if they are to be chosen by the recipe."""
    class_word: str | None = None
    """The word of the caption that names the person; None if the caption decides (`class_word.py`)."""
    source: str | None = None
    """Where the media came from."""
    licence: str | None = None
    """Licence of the media."""
    consent: str | None = None
    """Where the person's consent is recorded."""
    repeats: int = 1
    """How often the sample is drawn in an epoch."""

    @property
    def is_video(self) -> bool:
        """Whether the media is a video, by its suffix."""
        return self.media.suffix.lower() in VIDEO_SUFFIXES


@dataclass(kw_only=True, slots=True)
class Problems:
    """Everything that is wrong with a data set, so that one error can list it, and what is merely odd."""

    subject: str
    """What is read, for messages."""
    entries: list[tuple[str, str]] = field(default_factory=list)
    """Place and message of each."""
    warnings: dict[str, None] = field(default_factory=dict)

    def add(self, where: str, problem: str, remedy: str) -> None:
        """Record a problem: its place, what is wrong, and what to do."""
        self.entries.append((where, f"{problem}. {remedy}".strip()))

    def warn(self, where: str, problem: str) -> None:
        """Record something that does not stop training; equal ones are logged once."""
        self.warnings[f"{where}: {problem}"] = None

    def report(self) -> None:
        """Log the warnings, and raise if there are problems.

        Raises:
            ConfigError: There are; the first are listed and the rest is counted.
        """
        for warning in self.warnings:
            logger.warning(warning)
        self.warnings.clear()
        if not self.entries:
            return
        # By file and line; numbers in names are compared as numbers.
        ordered = sorted(self.entries, key=lambda problem: _natural_order(problem[0]))
        listed = "\n".join(f"  {where}: {problem}" for where, problem in ordered[:MAX_LISTED])
        rest = len(self.entries) - MAX_LISTED
        count = "1 problem" if len(self.entries) == 1 else f"{len(self.entries)} problems"
        more = f"\n  and {rest} more; correct these first." if rest > 0 else ""
        raise ConfigError(f"{self.subject} has {count}:\n{listed}{more}")


def resolve_media_path(text: str, root: Path, problems: Problems, where: str) -> Path | None:
    """The file that a data set names; None, with a problem, if it cannot be used.

    Backslashes separate folders as they do on Windows, unless a file has such a name.

    Args:
        text: The path as it is written.
        root: Folder that relative paths start from.
        problems: Where problems are recorded.
        where: Place of the path, for messages.
    """
    text = text.strip()
    if re.match(r"[A-Za-z]:", text) and os.name != "nt":
        name = PureWindowsPath(text).name
        problems.add(where, f"`{text}` is a path of another system", f"Write it relative to {root}, as in `{name}`.")
        return None
    is_from_windows = "\\" in text and not is_media_file(root / text)
    path = Path(os.path.normpath(root / (text.replace("\\", "/") if is_from_windows else text)))
    if not path.is_relative_to(os.path.normpath(root)):
        problems.add(
            where,
            f"`{text}` lies outside {root}",
            "Copy the file there, or name the folder that holds all media as `media_root`.",
        )
        return None
    if not is_media_file(path):
        # Searching for the file that was meant takes time; beyond the problems that are listed nobody reads it.
        proposal = _suggest_path(path) if len(problems.entries) < MAX_LISTED else ""
        problems.add(where, f"`{text}` does not exist{proposal}", "Correct the path, or copy the file there.")
        return None
    return path


def check_suffix(path: Path, problems: Problems, where: str) -> bool:
    """Whether a file is a picture or a video by its suffix; a problem if not."""
    if path.suffix.lower() in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
        return True
    advice = "Save it as mp4 or png." if path.suffix.lower() == ".gif" else "Convert it to png, jpg or mp4."
    problems.add(where, f"`{path.name}` is neither a picture nor a video that is read here", advice)
    return False


def finish(found: Sequence[tuple[str, Sample]], problems: Problems, *, root: Path) -> list[Sample]:
    """Complete samples, and check them against each other.

    A sample without a person gets one of its own, named after its file; a trigger that a caption already has is taken
    out, and tells the class word.

    Args:
        found: The place of each sample, and the sample.
        problems: Those found so far.
        root: Folder that names of people without a name are relative to.

    Raises:
        ConfigError: There are problems.
    """
    complete = [(where, _strip_trigger(_with_person(sample, root), problems, where)) for where, sample in found]
    for where, sample in complete:
        if sample.class_word is not None:
            try:
                locate_class_word(sample.caption, sample.class_word)
            except PromptError as error:
                problems.add(where, str(error).rstrip("."), "")
    _check_pairs(complete, problems)
    problems.report()
    return [sample for _, sample in complete]


def _with_person(sample: Sample, root: Path) -> Sample:
    if sample.person:
        return sample
    inside = sample.media.relative_to(root) if sample.media.is_relative_to(root) else sample.media
    return replace(sample, person=inside.as_posix())


def _strip_trigger(sample: Sample, problems: Problems, where: str) -> Sample:
    if TRIGGER not in re.findall(r"\w+", sample.caption.lower()):
        return sample
    try:
        before, word, after = split_prompt(sample.caption)
    except PromptError as error:
        problems.add(where, str(error).rstrip("."), "Or leave the trigger out: it is put in by itself.")
        return sample
    if sample.class_word is not None and sample.class_word.split(":")[0] != word:
        problems.add(
            where,
            f"`class_word` is `{sample.class_word}`, but the trigger stands behind `{word}`",
            "Remove one of them.",
        )
    number = len(re.findall(rf"(?<![\w-]){re.escape(word)}(?![\w-])", before, flags=re.IGNORECASE)) + 1
    caption = f"{before} {word}{after}".strip()
    return replace(sample, caption=caption, class_word=word if number == 1 else f"{word}:{number}")


def _check_pairs(samples: Sequence[tuple[str, Sample]], problems: Problems) -> None:
    """Find problems between samples: repeated media, and references that belong to someone else."""
    media: dict[Path, tuple[str, Sample]] = {}
    for where, sample in samples:
        first, other = media.setdefault(sample.media, (where, sample))
        if other is sample:
            continue
        if other.caption == sample.caption and other.person == sample.person:
            problems.add(where, f"`{sample.media.name}` repeats {first}", "Remove one, or set `repeats` on it.")
        elif other.person != sample.person:
            problems.add(
                where,
                f"`{sample.media.name}` shows `{sample.person}`, but `{other.person}` at {first}",
                "Give both rows one person, or crop the media to one person each.",
            )
    owners = {path: (where, sample.person) for path, (where, sample) in media.items()}
    for where, sample in samples:
        for path in sample.references:
            first, owner = owners.setdefault(path, (where, sample.person))
            if owner != sample.person:
                problems.add(
                    where,
                    f"the reference `{path.name}` of `{sample.person}` belongs to `{owner}` by {first}",
                    "Use a picture of the same person, or correct `person`.",
                )


def describe_unknown(name: str, known: Iterable[str]) -> str:
    """`name` with the nearest known one, for messages."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"`{name}`" + (f" (did you mean `{close[0]}`?)" if close else "")


def _natural_order(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", text)]


def _suggest_path(path: Path) -> str:
    """The file that was probably meant: another spelling, or another suffix."""
    folder = path.parent
    if not folder.is_dir():
        inside = next((part for part in path.parents if part.suffix == SHARD_SUFFIX), None)
        return f" in {inside}" if inside is not None and inside.is_file() else f": there is no folder {folder}"
    names = [entry.name for entry in os.scandir(folder)]
    lower = {name.lower(): name for name in names}
    similar = difflib.get_close_matches(path.name, names, n=1) if len(names) <= _MAX_COMPARED else []
    close = lower.get(path.name.lower()) or next(iter(similar), None)
    return f" (did you mean `{close}`?)" if close else ""
