"""Folders and files that a command writes, without touching what a user has there."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from likeness.errors import ConfigError

PAGES = (".html", ".htm")


@contextmanager
def new_folder(parent: Path, name: str) -> Iterator[Path]:
    """Fill a folder that becomes `parent / name` when it is whole, and is gone again where filling it fails.

    What a killed run left of it is removed; whatever has the name itself is never touched.

    Raises:
        ConfigError: There is something of that name already, or nothing can be written there.
    """
    if (parent / name).exists():
        raise ConfigError(
            f"{parent / name} exists and would be overwritten. Choose another `--output`, or move it away."
        )
    partial = parent / f".{name}.partial"
    check_folder(parent, files=[partial.name])
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
    except OSError as error:
        raise ConfigError(
            f"{partial} cannot be made ({error}). Move it away, or choose another `--output`."
        ) from error
    try:
        yield partial
        partial.rename(parent / name)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def check_folder(folder: Path, *, files: Iterable[str] = (), folders: Iterable[str] = ()) -> None:
    """Make a folder for files and folders of these names, before anything is computed for them.

    Raises:
        ConfigError: It cannot be written to, or a name is that of a folder where a file is needed, or the other way round.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written to ({error}). Choose another `--output`.") from error
    wrong = [(folder / name, "folder", "file") for name in files if (folder / name).is_dir()]
    wrong += [(folder / name, "file", "folder") for name in folders if (folder / name).is_file()]
    for path, there, needed in wrong:
        raise ConfigError(
            f"{path} is a {there}, a {needed} is to be written there. Move it, or choose another `--output`."
        )


def check_page(page: Path, *, root: Path, own: Iterable[str]) -> Path:
    """Check where a page goes and, beside it, its numbers as `.json`, before anything is computed.

    Args:
        page: The page.
        root: What it reports on. Its folders hold what must not be overwritten.
        own: Names of files in `root` that must not be overwritten either.

    Returns:
        Where the numbers go.

    Raises:
        ConfigError: The page is no `.html`, it or its numbers would overwrite what is reported on, or it cannot be written.
    """
    if page.suffix.lower() not in PAGES:
        raise ConfigError(f"`--output {page}` is the page. Give it a name that ends in {PAGES[0]}.")
    numbers, place = page.with_suffix(".json"), page.parent.resolve()
    is_inside = place != root.resolve() and place.is_relative_to(root.resolve())
    is_own = place == root.resolve() and numbers.name.lower() in {name.lower() for name in own}
    if is_inside or is_own:
        raise ConfigError(
            f"{page} or its numbers in {numbers} would overwrite what they report on. Name a page outside of {root}, or "
            f"{root / 'report.html'}."
        )
    check_folder(page.parent, files=[page.name, numbers.name])
    return numbers
