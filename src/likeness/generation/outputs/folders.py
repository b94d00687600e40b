"""Folders of results, of a story and of the demo: which files they hold, and whether those may be written."""

import json
from pathlib import Path

from likeness.errors import ConfigError
from likeness.generation.outputs.destinations import MAX_RECORD_BYTES, check_folder, check_output

STORY_RECORD = "story.json"
STORY_PAGES = ("story.mp4", "contact_sheet.png", "similarity.png", "report.html")
DEMO_PAGES = ("contact_sheet.png", "similarity.png", "report.html")
DEMO_VIDEOS = {"a_drawn_man": 3, "a_photographed_woman": 2}
"""Number of videos of each person of the demo."""


def check_story_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder in which a story would replace what is not its own.

    A folder with the record of a story is gone on with: its finished shots are kept, and its pages made again.

    Raises:
        ConfigError: A file of the story's names is there and `overwrite` is False, or `story.json` is no story's record.
        MediaError: A folder has one of the names.
        FileWriteError: Nothing can be written there.
    """
    record = folder / STORY_RECORD
    if record.is_file():
        if not is_story_record(record):
            raise ConfigError(
                f"{record} would be replaced by the record of a story, and holds something else. Choose another `--output`."
            )
        overwrite = True
    check_folder(folder, (*STORY_PAGES, STORY_RECORD), overwrite=overwrite)


def is_story_record(path: Path) -> bool:
    """Whether a file is what a story notes of its finished shots."""
    try:
        record = json.loads(path.read_bytes()) if path.stat().st_size <= MAX_RECORD_BYTES else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(record, dict) and isinstance(record.get("finished"), list)


def check_demo_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder in which the demo would replace files.

    Raises:
        ConfigError: A file of the demo's names is there and `overwrite` is False, or a JSON file is not its record.
        MediaError: A folder has one of the names.
        FileWriteError: Nothing can be written there.
    """
    pictures = [f"{person}_reference.png" for person in DEMO_VIDEOS]
    check_folder(folder, (*DEMO_PAGES, *pictures), overwrite=overwrite)
    for person, count in DEMO_VIDEOS.items():
        for number in range(1, count + 1):
            check_output(folder / f"{person}_{number}.mp4", 2, overwrite=overwrite)
