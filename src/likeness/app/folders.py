"""Folders and files that a command writes, without touching what a user has there."""

import shutil
from pathlib import Path
from tempfile import TemporaryFile

from likeness.errors import ConfigError


def partial_folder(parent: Path, name: str) -> Path:
    """Make an empty folder that is to be renamed to `parent / name` when it is whole.

    What an interrupted run left of it is removed; a folder of the name itself is never touched.

    Raises:
        ConfigError: There is something of that name already, or nothing can be written there.
    """
    if (parent / name).exists():
        raise ConfigError(
            f"{parent / name} exists and would be overwritten. Choose another `--output`, or move it away."
        )
    check_folder(parent)
    partial = parent / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    return partial


def check_folder(folder: Path, *names: str) -> None:
    """Make a folder for files of these names, before anything is computed for them.

    Raises:
        ConfigError: It cannot be written to, or a folder has the name of a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written to ({error}). Choose another `--output`.") from error
    taken = [str(folder / name) for name in names if (folder / name).is_dir()]
    if taken:
        raise ConfigError(
            f"{', '.join(taken)}: a folder stands where a file is to be written. Move it, or choose another `--output`."
        )


def check_page(page: Path, *, kept: Path) -> Path:
    """Check where a page goes and, beside it, its numbers as `.json`, before anything is computed.

    Args:
        page: The page.
        kept: The file of settings that must never be overwritten.

    Returns:
        Where the numbers go.

    Raises:
        ConfigError: The page is called `.json`, would overwrite the settings, or cannot be written.
    """
    numbers = page.with_suffix(".json")
    if page.suffix.lower() == ".json" or kept.resolve() in (page.resolve(), numbers.resolve()):
        raise ConfigError(
            f"`--output {page}` is the page, and its numbers go to {numbers}: that would overwrite "
            f"{'the page' if page.suffix.lower() == '.json' else kept}. Name another page, such as {page.with_name('report.html')}."
        )
    check_folder(page.parent, page.name, numbers.name)
    return numbers
