"""Reads and writes pictures and videos; the only package that uses Pillow and PyAV.

Arrays are uint8 RGB, height first. `guard` checks every file by its first bytes before it is decoded; a file of
another kind is a `MediaError` that names the kind.
"""

from likeness.media.pictures import MAX_PIXELS, read_image, resize, resize_and_center_crop, write_image
from likeness.media.sheets import contact_sheet
from likeness.media.video import (
    check_video_path,
    is_video,
    read_metadata,
    read_video,
    resample_video,
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
    "resample_video",
    "resize",
    "resize_and_center_crop",
    "sample_video",
    "write_image",
    "write_video",
]
