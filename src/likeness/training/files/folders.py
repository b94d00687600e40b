"""Media beside captions in folders: `clip.mp4` and `clip.txt`. Used by every layout of `layouts.py`."""

from dataclasses import dataclass
from pathlib import Path

from likeness.training.files.manifest import read_caption
from likeness.training.files.sample import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Problems, Sample

MEDIA_SUFFIXES = (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)

LocatedSamples = list[tuple[str, Sample]]
"""Samples with the place where each was found."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderRules:
    """How media and captions of a folder belong together."""

    caption_suffix: str = ".txt"
    suffixes: tuple[str, ...] = MEDIA_SUFFIXES
    is_recursive: bool = False
    """Whether subfolders are people."""
    skips_uncaptioned: bool = False


def read_captioned_media(folder: Path, rules: FolderRules, problems: Problems) -> LocatedSamples:
    """Samples of a folder; what cannot be used is a problem."""
    if not folder.is_dir():
        problems.add(str(folder), "this is not a folder", "Name a folder of media beside captions.")
        return []
    found: LocatedSamples = []
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    subfolders = [(folder, ""), *((inner, inner.name) for inner in folders if rules.is_recursive)]
    for subfolder, person in subfolders:
        stems: dict[str, Path] = {}
        for path in sorted(path for path in subfolder.iterdir() if not path.name.startswith(".")):
            if path.is_dir():
                if subfolder != folder:
                    problems.warn(folder.name, f"subfolders of people are not read, such as {path}")
                continue
            if path.suffix.lower() not in rules.suffixes:
                _warn_of_unread_file(folder, path, rules, problems)
                continue
            where = path.relative_to(folder.parent).as_posix()
            if (other := stems.setdefault(path.stem, path)) is not path:
                problems.add(where, f"{other.name} has the same caption file", "Rename one of them.")
                continue
            caption = _read_paired_caption(path, rules, problems, where)
            if caption is not None:
                found.append((where, Sample(media=path, caption=caption, person=person)))
    return found


def _read_paired_caption(path: Path, rules: FolderRules, problems: Problems, where: str) -> str | None:
    caption_path = path.with_suffix(rules.caption_suffix)
    if caption_path.is_file():
        return read_caption(read_text(caption_path), problems, where)
    if rules.skips_uncaptioned:
        problems.warn(path.parent.name, f"media without a caption are left out, such as {path.name}")
    else:
        problems.add(
            where, f"there is no caption {caption_path.name}", "Write what the picture or video shows into it."
        )
    return None


def _warn_of_unread_file(folder: Path, path: Path, rules: FolderRules, problems: Problems) -> None:
    """Captions are no media; a file of another kind is named once for each suffix."""
    if path.suffix.lower() not in (rules.caption_suffix.lower(), ".txt", ".json", ".npz", ".safetensors"):
        problems.warn(folder.name, f"files of this kind are not read: {path.suffix or 'without suffix'}")


def warn_of_loose_media(folder: Path, found: LocatedSamples, problems: Problems) -> None:
    """Say that media outside the subfolders belong to nobody else."""
    loose = [sample for _, sample in found if sample.media.parent == folder]
    if len(loose) > 1:
        problems.warn(
            folder.name,
            f"{len(loose)} files are in no person's subfolder, so each counts as a person of its own. Put the files of "
            "a person into one subfolder to use other pictures of the person as references",
        )


def read_text(path: Path) -> str:
    """A text with or without a byte-order mark; bytes that are not UTF-8 are replaced."""
    return path.read_bytes().decode("utf-8-sig", errors="replace")
