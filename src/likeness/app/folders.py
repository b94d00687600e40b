"""Check and create output folders and files without replacing files of the user."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated
from unicodedata import category

from pydantic import AfterValidator

from likeness.errors import ConfigError
from likeness.files import check_writable, lock, read_json, write_atomically, write_bytes, write_text
from likeness.weights import sha256_of

HTML_SUFFIXES = (".html", ".htm")
MAX_NAME_BYTES = 200
"""Systems allow 255; suffixes are added."""
_LOCK = ".create.lock"
_UNFINISHED = ".unfinished.json"
"""Hashes of the files that a run moves to their place; deleted when the run has finished."""


@contextmanager
def fill_folder(parent: Path, folder: str, *, manifest: str) -> Iterator[Path]:
    """Fill a folder, and write files beside it, that appear in `parent` when all of them are complete.

    The block gets a temporary folder that contains the empty `folder`. At its end `folder` is moved to `parent`,
    then the files beside it, `manifest` last: `parent` is complete if it has the manifest. A killed run leaves a
    list of the files that it moved, and the next run removes exactly those. A lock excludes a second process.

    Raises:
        ConfigError: `parent` holds such a manifest or folder already, or what a killed run left was changed since.
        LockedError: Another process fills `parent` now.
        FileWriteError: It cannot be written.
    """
    prepare_folder(parent)
    with lock(parent / _LOCK, busy=f"{parent} is being filled by {{owner}}. Wait for it, or stop it first."):
        if (parent / manifest).exists():
            (parent / _UNFINISHED).unlink(missing_ok=True)  # Of a run that was killed when all was complete.
            raise ConfigError(
                f"{parent} already holds a {manifest}, which would be overwritten. Choose another `--output`."
            )
        _remove_unfinished(parent)
        if (parent / folder).exists() or (parent / folder).is_symlink():
            raise ConfigError(
                f"{parent / folder} exists and would be overwritten. Choose another `--output`, or move it away."
            )
        with write_atomically(parent / folder) as draft:
            draft.mkdir()
            yield draft.parent
            files = {path.name: path.read_bytes() for path in sorted(draft.parent.iterdir()) if path != draft}
            for name in files:
                if (parent / name).exists():
                    raise ConfigError(
                        f"{parent / name} exists and would be overwritten. Choose another `--output`, or move it away."
                    )
            moved = {f"{folder}/{name}": digest for name, digest in _file_hashes(draft).items()}
            moved |= {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
            write_text(parent / _UNFINISHED, json.dumps(moved, indent=1))
        for name in sorted(files, key=lambda name: name == manifest):
            write_bytes(parent / name, files[name])
        (parent / _UNFINISHED).unlink()


def _remove_unfinished(parent: Path) -> None:
    """Remove the files that a killed run moved to `parent`, if they are unchanged and there are no others."""
    record = parent / _UNFINISHED
    try:
        moved: dict[str, str] = read_json(record)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise ConfigError(f"{record} cannot be read ({error}). Choose another `--output`.") from error
    top_paths = {parent / Path(name).parts[0] for name in moved if is_plain_name(Path(name).parts[0])}
    present = {name: digest for top_path in top_paths for name, digest in _file_hashes(top_path, parent).items()}
    changed = sorted(name for name, digest in present.items() if moved.get(name) != digest)
    if changed:
        raise ConfigError(
            f"{parent} was left unfinished by a run that was killed, and {parent / changed[0]} was added or changed "
            "since. Move it away, or choose another `--output`."
        )
    for top_path in top_paths:
        if top_path.is_dir() and not top_path.is_symlink():
            shutil.rmtree(top_path)
        else:
            top_path.unlink(missing_ok=True)
    record.unlink()


def _file_hashes(top: Path, parent: Path | None = None) -> dict[str, str]:
    """SHA-256 by path of the files in a folder, or of the file itself; links are never written by us."""
    inside = sorted(top.rglob("*")) if top.is_dir() and not top.is_symlink() else [top]
    return {
        path.relative_to(parent or top).as_posix(): "link" if path.is_symlink() else sha256_of(path)
        for path in inside
        if path.is_symlink() or path.is_file()
    }


def is_plain_name(name: str) -> bool:
    """Whether a name is a valid file name on every system: no path, not hidden, no control character."""
    return (
        0 < len(name.encode("utf-8", "replace")) <= MAX_NAME_BYTES
        and name[0] != "."
        and name == name.strip()
        and not any(letter in "/\\:" or category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name)
    )


def check_name(name: str) -> str:
    """Refuse what is no plain name; for fields of files, before they become parts of paths.

    Raises:
        ValueError: It is none.
    """
    if not is_plain_name(name):
        raise ValueError(
            f"{name!r} becomes the name of a file: it may not be empty, longer than {MAX_NAME_BYTES} bytes, begin with "
            "a dot, or hold `/`, `\\`, `:` or control characters"
        )
    return name


FileName = Annotated[str, AfterValidator(check_name)]
"""A field that becomes the name of a file or folder."""


def prepare_folder(folder: Path, *, files: Iterable[str] = (), folders: Iterable[str] = ()) -> None:
    """Make a folder for files and folders of these names, before anything is computed for them.

    Raises:
        ConfigError: A folder has the name of a needed file, or a file that of a needed folder.
        FileWriteError: It cannot be written to.
    """
    check_writable(folder)
    wrong = [(folder / name, "folder", "file") for name in files if (folder / name).is_dir()]
    wrong += [(folder / name, "file", "folder") for name in folders if (folder / name).is_file()]
    for path, there, needed in wrong:
        raise ConfigError(
            f"{path} is a {there}, a {needed} is to be written there. Move it, or choose another `--output`."
        )


def check_report_path(page: Path, *, root: Path, reserved_names: Iterable[str]) -> Path:
    """Check where a page goes and, beside it, its numbers as `.json`, before anything is computed.

    Args:
        page: The page.
        root: What it reports on. Its folders hold what must not be overwritten.
        reserved_names: Names of files in `root` that must not be overwritten either.

    Returns:
        Where the numbers go.

    Raises:
        ConfigError: The page is no `.html`, or it or its numbers would overwrite its own input.
        FileWriteError: Nothing can be written there.
    """
    if page.suffix.lower() not in HTML_SUFFIXES:
        raise ConfigError(f"`--output {page}` is the page. Give it a name that ends in {HTML_SUFFIXES[0]}.")
    json_path, page_folder = page.with_suffix(".json"), page.parent.resolve()
    is_inside = page_folder != root.resolve() and page_folder.is_relative_to(root.resolve())
    is_reserved = page_folder == root.resolve() and json_path.name.lower() in {name.lower() for name in reserved_names}
    if is_inside or is_reserved:
        raise ConfigError(
            f"{page} or its numbers in {json_path} would overwrite what they report on. Name a page outside of {root}, "
            f"or {root / 'report.html'}."
        )
    prepare_folder(page.parent, files=[page.name, json_path.name])
    return json_path
