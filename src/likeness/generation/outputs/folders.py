"""The files in the folders of a story and of the demo, and whether they may be written."""

from pathlib import Path

from likeness.errors import ConfigError
from likeness.files import read_json
from likeness.generation.outputs.destinations import MAX_RECORD_BYTES, check_output, check_output_folder

STORY_RECORD = "story.json"
STORY_PAGES = ("story.mp4", "contact_sheet.png", "similarity.png", "report.html")
DEMO_PAGES = ("contact_sheet.png", "similarity.png", "report.html")
DEMO_VIDEOS = {"a_drawn_man": 3, "a_photographed_woman": 2}
"""Number of videos of each person of the demo."""


def check_story_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder in which a story would replace files that are not its own.

    In a folder with the record of a story, finished shots are kept and pages are made again.

    Raises:
        ConfigError: A file of such a name exists and `overwrite` is False, or `story.json` is no story record.
        MediaError: A folder has one of the names.
        FileWriteError: Nothing can be written there.
    """
    record = folder / STORY_RECORD
    if record.is_file():
        if not is_story_record(record):
            raise ConfigError(
                f"{record} would be replaced by the record of a story, and holds something else. Choose another "
                "`--output`."
            )
        overwrite = True
    check_output_folder(folder, (*STORY_PAGES, STORY_RECORD), overwrite=overwrite)


def is_story_record(path: Path) -> bool:
    """Whether a file is the record of a story."""
    try:
        record = read_json(path) if path.stat().st_size <= MAX_RECORD_BYTES else None
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and isinstance(record.get("finished"), list)


def check_demo_folder(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder in which the demo would replace files.

    Raises:
        ConfigError: A file of such a name exists and `overwrite` is False, or a JSON file is not its record.
        MediaError: A folder has one of the names.
        FileWriteError: Nothing can be written there.
    """
    pictures = [f"{person}_reference.png" for person in DEMO_VIDEOS]
    check_output_folder(folder, (*DEMO_PAGES, *pictures), overwrite=overwrite)
    for person, count in DEMO_VIDEOS.items():
        for number in range(1, count + 1):
            check_output(folder / f"{person}_{number}.mp4", 2, overwrite=overwrite)
