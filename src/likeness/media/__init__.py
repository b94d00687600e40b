"""Pictures and video in and out: the only door to Pillow and PyAV, and the guard on it.

Everything inside is uint8 RGB, height first. Whatever comes from a user passes the guard: a file that is not what
it should be is a `MediaError` that says what it is instead, before anything large is decoded.
"""

from likeness.media.pictures import MAX_PIXELS, read_image, resize, write_image
from likeness.media.sheets import contact_sheet
from likeness.media.video import (
    check_video_path,
    is_video,
    read_metadata,
    read_video,
    sample_video,
    write_video,
)

__all__ = [
    "MAX_PIXELS",
    "check_video_path",
    "contact_sheet",
    "is_video",
    "read_image",
    "read_metadata",
    "read_video",
    "resize",
    "sample_video",
    "write_image",
    "write_video",
]
