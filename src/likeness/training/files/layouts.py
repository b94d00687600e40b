"""Reads folders of media beside captions, and the data set files of other trainers, unmodified.

- A folder: `clip.mp4` beside `clip.txt`; media in subfolders belong to the person that the subfolder is named after.
- musubi-tuner (`docs/dataset_config.md`): TOML or JSON with `[[datasets]]`, each a folder or a JSON Lines file.
- diffusion-pipe (`examples/dataset.toml`): TOML with `[[directory]]`; `captions.json` and tar files in the folders.
- finetrainers (`docs/dataset/README.md`): JSON with `datasets`; folders with `metadata.csv`, `.jsonl` or `.json`, or
  with lists (`prompts.txt` beside `videos.txt`), or with media beside captions.

Sizes, lengths and batches are settings of a recipe here: those of other trainers are named in a warning.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from likeness.config import parse_toml
from likeness.errors import ConfigError
from likeness.training.files import tar
from likeness.training.files.folders import (
    MEDIA_SUFFIXES,
    FolderRules,
    LocatedSamples,
    read_captioned_media,
    read_text,
    warn_of_loose_media,
)
from likeness.training.files.manifest import read_caption, read_rows
from likeness.training.files.sample import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Problems,
    Sample,
    check_suffix,
    finish,
    resolve_media_path,
)

CONFIG_SUFFIXES = (".toml", ".json")
_CAPTION_LISTS = ("prompt.txt", "prompts.txt", "caption.txt", "captions.txt")
_MEDIA_LISTS = ("video.txt", "videos.txt", "image.txt", "images.txt")
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.json")
_EQUIVALENT_SETTINGS = {
    "resolution": "resolution_px",
    "resolutions": "resolution_px",
    "size_buckets": "resolution_px",
    "image_resolution_buckets": "resolution_px",
    "video_resolution_buckets": "resolution_px and num_frames",
    "target_frames": "num_frames",
    "max_frames": "num_frames",
    "frame_buckets": "num_frames",
    "source_fps": "fps",
    "batch_size": "batch_size of a stage",
    "cache_directory": "the folder of `likeness train precompute`",
}
"""Settings of other trainers, and what a recipe of this project has instead."""
_SUBJECTS = ("video", "clip", "image", "picture")
_VERBS = ("shows", "depicts", "features", "captures", "highlights", "introduces", "presents")
_PREFIXES = (
    *("In the video,", "In this video,", "In this video clip,", "In the clip,", "Caption:"),
    *(f"{word} {subject} {verb}" for word in ("This", "The") for subject in _SUBJECTS for verb in _VERBS),
    *(f"The animation {verb}" for verb in _VERBS),
)
"""Beginnings that finetrainers removes with `remove_common_llm_caption_prefixes`."""


def read_folder(folder: Path) -> list[Sample]:
    """Read a folder of media beside captions, or one in a layout of finetrainers.

    Raises:
        ConfigError: Captions are missing or empty, or there are no media; all problems are listed.
    """
    problems = Problems(subject=str(folder))
    found = _read_finetrainers_folder(folder, problems)
    if found is None:
        found = read_captioned_media(folder, FolderRules(is_recursive=True), problems)
        warn_of_loose_media(folder, found, problems)
    return _finish_samples(found, folder, folder.name, problems)


def read_config(path: Path) -> list[Sample]:
    """Read the data set file of another trainer; which one is told by its keys.

    Raises:
        ConfigError: It is of no known trainer, or something in it cannot be used; all problems are listed.
    """
    values = _read_values(path)
    problems = Problems(subject=str(path))
    entries = values.get("datasets", values.get("directory"))
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(
            f"{path} is the data set file of no known trainer: it has neither `[[datasets]]` (musubi-tuner, "
            "finetrainers) nor `[[directory]]` (diffusion-pipe). Name the data set file, not the training file."
        )
    if "directory" in values:
        read = _read_diffusion_pipe
    elif any("data_root" in entry for entry in entries):
        read = _read_finetrainers
    else:
        read = _read_musubi
    found = read(path, values, problems)
    return _finish_samples(_merge(found, problems), path.parent, path.name, problems)


def _read_values(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
        values = parse_toml(text) if path.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as {path.suffix[1:].upper()}: {error}. Correct it.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}, not settings. Name a data set file.")
    return values


def _finish_samples(found: LocatedSamples, root: Path, name: str, problems: Problems) -> list[Sample]:
    if not found and not problems.entries:
        problems.add(
            name,
            f"there are no pictures or videos ({', '.join(MEDIA_SUFFIXES)}) with captions",
            "Put a caption beside each, as in `clip.mp4` and `clip.txt`.",
        )
    return finish(found, problems, root=root)


def _merge(found: LocatedSamples, problems: Problems) -> LocatedSamples:
    """One sample for media that several entries list, as they do there to train at several sizes."""
    kept: dict[tuple[Path, str], tuple[str, Sample]] = {}
    for where, sample in found:
        first, other = kept.setdefault((sample.media, sample.caption), (where, sample))
        if other is not sample:
            problems.warn(where, f"media that {first.split(' ')[0]} already lists are read once")
    return list(kept.values())


def _warn_unused(name: str, tables: Iterable[Mapping[str, Any]], used: Iterable[str], problems: Problems) -> None:
    """Name every setting that has no effect here."""
    unused = dict.fromkeys(key for table in tables for key in table if key not in set(used))
    if unused:
        listed = [
            f"`{key}`" + (f" (set {_EQUIVALENT_SETTINGS[key]})" if key in _EQUIVALENT_SETTINGS else "")
            for key in unused
        ]
        problems.warn(name, f"these settings have no effect here: {', '.join(listed)}")


def _resolve_config_path(text: Any, folder: Path, problems: Problems, where: str, *, advice: str = "") -> Path | None:
    """A path in a data set file: from the working folder as in its trainer, or else from the file's own folder."""
    if not isinstance(text, str) or not text.strip():
        problems.add(where, f"the path is {text!r}", "Name a folder or file.")
        return None
    from_cwd, from_config = Path.cwd() / text, folder / text
    if from_cwd.exists() and from_config.exists() and not from_cwd.samefile(from_config):
        problems.warn(where, f"`{text}` is in the working folder and beside the file; {from_cwd} is used")
    found = Path(os.path.normpath(from_cwd if from_cwd.exists() else from_config))
    if not found.exists():
        remedy = f"Correct the path; it starts from {Path.cwd()} or {folder}.{advice}"
        problems.add(where, f"`{text}` does not exist", remedy)
        return None
    return found


# musubi-tuner


def _read_musubi(path: Path, values: Mapping[str, Any], problems: Problems) -> LocatedSamples:
    general = values.get("general")
    entries = [{**(general if isinstance(general, dict) else {}), **entry} for entry in values["datasets"]]
    sources = ("image_directory", "video_directory", "image_jsonl_file", "video_jsonl_file")
    used = [*sources, "caption_extension", "num_repeats"]
    # The beginning of each video is what is used here, too.
    if {entry.get("frame_extraction") for entry in entries} <= {None, "head"}:
        used.append("frame_extraction")
    _warn_unused(path.name, entries, used, problems)
    found: LocatedSamples = []
    for number, entry in enumerate(entries, start=1):
        where = f"{path.name} [[datasets]] {number}"
        named = [key for key in sources if key in entry]
        if len(named) != 1:
            problems.add(where, f"it names {len(named)} sources", f"Use one of {', '.join(sources)}.")
            continue
        source = _resolve_config_path(entry[named[0]], path.parent, problems, where)
        if source is None:
            continue
        repeats = _read_repeats(entry.get("num_repeats", 1), problems, where)
        kind = named[0].split("_")[0]
        if named[0].endswith("_jsonl_file"):
            samples = _read_musubi_rows(source, kind, problems)
        else:
            suffixes = VIDEO_SUFFIXES if kind == "video" else IMAGE_SUFFIXES
            suffix = str(entry.get("caption_extension") or ".txt")
            rules = FolderRules(caption_suffix=suffix if suffix.startswith(".") else f".{suffix}", suffixes=suffixes)
            samples = read_captioned_media(source, rules, problems)
        found += [(at, replace(sample, repeats=repeats)) for at, sample in samples]
    return found


def _read_musubi_rows(path: Path, kind: str, problems: Problems) -> LocatedSamples:
    rows = list(read_rows(path, problems))
    _warn_unused(path.name, (row for _, row in rows), (f"{kind}_path", "caption"), problems)
    found: LocatedSamples = []
    for where, row in rows:
        media = _resolve_config_path(row.get(f"{kind}_path"), path.parent, problems, where)
        if media is not None and media.is_dir():
            problems.add(where, f"`{media.name}` is a folder of frames", "Write the frames as one mp4 file.")
            continue
        caption = read_caption(row.get("caption"), problems, where)
        if media is not None and caption is not None and check_suffix(media, problems, where):
            found.append((where, Sample(media=media, caption=caption, person="")))
    return found


# diffusion-pipe


def _read_diffusion_pipe(path: Path, values: Mapping[str, Any], problems: Problems) -> LocatedSamples:
    general = {key: value for key, value in values.items() if key != "directory"}
    entries = [{**general, **entry} for entry in values["directory"]]
    _warn_unused(path.name, entries, ("path", "num_repeats", "caption_prefix", "skip_empty_caption"), problems)
    found: LocatedSamples = []
    for number, entry in enumerate(entries, start=1):
        where = f"{path.name} [[directory]] {number}"
        folder = _resolve_config_path(entry.get("path"), path.parent, problems, where)
        if folder is None or not folder.is_dir():
            if folder is not None:
                problems.add(where, f"{folder} is not a folder", "Name the folder of the media.")
            continue
        repeats = _read_repeats(entry.get("num_repeats", 1), problems, where)
        prefix = str(entry.get("caption_prefix", ""))
        captions = folder / "captions.json"
        if captions.is_file():
            samples = _read_captions_json(folder, captions, problems)
        else:
            rules = FolderRules(skips_uncaptioned=bool(entry.get("skip_empty_caption", True)))
            samples = read_captioned_media(folder, rules, problems)
        found += [(at, replace(sample, repeats=repeats, caption=f"{prefix}{sample.caption}")) for at, sample in samples]
    return found


def _read_captions_json(folder: Path, path: Path, problems: Problems) -> LocatedSamples:
    """Captions of a folder in one file: {"name.mp4": ["a caption", ...]}; names may be members of tar files."""
    captions = _read_values(path)
    found: LocatedSamples = []
    for media in _media_with_members(folder):
        name = media.name if media.parent == folder else tar.split_member(media)[1]  # pyright: ignore[reportOptionalSubscript]
        where = f"{path.name} {name}"
        texts = captions.get(name)
        if not isinstance(texts, list) or not texts:
            problems.warn(path.name, f"media without an entry are left out, such as {name}")
            continue
        if len(texts) > 1:
            problems.warn(path.name, "of several captions the first is used")
        caption = read_caption(texts[0], problems, where)
        if caption is not None:
            found.append((where, Sample(media=media, caption=caption, person="")))
    return found


def _media_with_members(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.suffix == tar.SHARD_SUFFIX and path.is_file():
            yield from (path / name for name in tar.members(path) if Path(name).suffix.lower() in MEDIA_SUFFIXES)
        elif path.suffix.lower() in MEDIA_SUFFIXES and path.is_file():
            yield path


# finetrainers


def _read_finetrainers(path: Path, values: Mapping[str, Any], problems: Problems) -> LocatedSamples:
    entries = values["datasets"]
    used = ["data_root", "dataset_type", "remove_common_llm_caption_prefixes"]
    if {entry.get("reshape_mode") for entry in entries} <= {None, "bicubic"}:
        used.append("reshape_mode")  # What is done here, too.
    _warn_unused(path.name, entries, used, problems)
    found: LocatedSamples = []
    for number, entry in enumerate(entries, start=1):
        where = f"{path.name} datasets[{number - 1}]"
        advice = " A data set of a hub must be downloaded first."
        root = _resolve_config_path(entry.get("data_root"), path.parent, problems, where, advice=advice)
        if root is None:
            continue
        suffixes = {"image": IMAGE_SUFFIXES, "video": VIDEO_SUFFIXES}.get(
            str(entry.get("dataset_type")), MEDIA_SUFFIXES
        )
        samples = _read_finetrainers_folder(root, problems)
        if samples is None:
            samples = read_captioned_media(root, FolderRules(suffixes=suffixes), problems)
        samples = [(at, sample) for at, sample in samples if sample.media.suffix.lower() in suffixes]
        if entry.get("remove_common_llm_caption_prefixes"):
            samples = [(at, replace(sample, caption=_without_prefix(sample.caption))) for at, sample in samples]
        found += samples
    return found


def _read_finetrainers_folder(root: Path, problems: Problems) -> LocatedSamples | None:
    """A folder with metadata or with lists; None for other folders."""
    if not root.is_dir():
        return None
    names = {entry.name for entry in root.iterdir()}
    metadata = [name for name in _METADATA if name in names]
    captions = [name for name in _CAPTION_LISTS if name in names]
    media = [name for name in _MEDIA_LISTS if name in names]
    for candidates in (metadata, captions if media else [], media if captions else []):
        if len(candidates) > 1:
            problems.add(root.name, f"there are {' and '.join(candidates)}", "Keep one of them.")
            return []
    if metadata:
        return _read_metadata(root, root / metadata[0], problems)
    if captions and media:
        return _read_lists(root, root / captions[0], root / media[0], problems)
    return None


def _read_metadata(root: Path, path: Path, problems: Problems) -> LocatedSamples:
    rows = list(read_rows(path, problems))
    _warn_unused(path.name, (row for _, row in rows), ("file_name", "caption", "person", "class_word"), problems)
    found: LocatedSamples = []
    for where, row in rows:
        media = resolve_media_path(str(row.get("file_name") or ""), root, problems, where)
        caption = read_caption(row.get("caption"), problems, where)
        if media is not None and caption is not None and check_suffix(media, problems, where):
            person = str(row.get("person") or "").strip()
            word = str(row.get("class_word") or "").strip() or None
            found.append((where, Sample(media=media, caption=caption, person=person, class_word=word)))
    return found


def _read_lists(root: Path, captions: Path, media: Path, problems: Problems) -> LocatedSamples:
    """Captions and paths in two files, line by line."""
    texts, names = read_text(captions).splitlines(), read_text(media).splitlines()
    if len(texts) != len(names):
        problems.add(
            f"{captions.name}:{min(len(texts), len(names)) + 1}",
            f"there are {len(texts)} captions, but {len(names)} paths in {media.name}",
            "Write one caption on one line for each path.",
        )
        return []
    found: LocatedSamples = []
    for number, (text, name) in enumerate(zip(texts, names, strict=True), start=1):
        path = resolve_media_path(name, root, problems, f"{media.name}:{number}")
        caption = read_caption(text, problems, f"{captions.name}:{number}")
        if path is not None and caption is not None and check_suffix(path, problems, f"{media.name}:{number}"):
            found.append((f"{media.name}:{number}", Sample(media=path, caption=caption, person="")))
    return found


def _without_prefix(caption: str) -> str:
    prefix = next((prefix for prefix in _PREFIXES if caption.startswith(prefix)), "")
    return caption.removeprefix(prefix).strip()


def _read_repeats(value: Any, problems: Problems, where: str) -> int:
    if not isinstance(value, int | float) or isinstance(value, bool) or value <= 0:
        problems.add(where, f"`num_repeats` is {value!r}", "Use a whole number from 1 on.")
        return 1
    if value != int(value):
        problems.warn(where, f"`num_repeats` is {value}; {max(1, round(value))} is used")
    return max(1, round(value))
