"""Detects file formats by their first bytes, so that decoders only get files of the expected kind."""

import os
from pathlib import Path
from typing import BinaryIO

from likeness.errors import MediaError

_PICTURE_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"GIF8": "GIF",
}
_VIDEO_SIGNATURES = {
    b"\x1a\x45\xdf\xa3": "Matroska",
    b"FLV": "FLV",
    b"\x00\x00\x01\xba": "MPEG",
    b"\x00\x00\x01\xb3": "MPEG",
    b"OggS": "Ogg",
    b"\x30\x26\xb2\x75": "WMV",
}
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


def check_media_file(path: Path, *, expected: str) -> tuple[str, str]:
    """Detect the format of `path` from its first bytes.

    Returns:
        The kind (`picture`, `video` or `other`) and the name of the format (may be empty).

    Raises:
        MediaError: there is no regular file with at least one byte.
    """
    if path.is_dir():
        raise MediaError(f"{path} is a folder, not {expected}. Name one file inside it.")
    if not path.exists():
        raise MediaError(f"{path} does not exist. Check the path; {expected} is needed.")
    if not path.is_file():
        raise MediaError(f"{path} is not a regular file. Copy {expected} to disk and name that.")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise MediaError(f"{path} cannot be opened: {error.strerror}. Make it readable.") from error
    if not head:
        raise MediaError(f"{path} holds zero bytes. Copy or download it again.")
    return _classify(head)


def matroska_bytes(path: Path) -> int | None:
    """Size of a Matroska or WebM file by its own header; None for other files, and for live recordings without a size.

    The file is two elements, header and segment, each with an identifier of four bytes, a size, and as many bytes.
    """
    with path.open("rb") as file:
        for identifier in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):
            if file.read(4) != identifier:
                return None
            size = _read_size(file)
            if size is None:
                return None
            end = file.seek(size, os.SEEK_CUR)
    return end


def is_gif_truncated(path: Path) -> bool:
    """Whether a GIF ends before its trailer (GIF89a, sections 18 to 27); False for other files.

    Header and color table are followed by blocks (extensions and images), each with a fixed part and sub-blocks with
    their length, until the trailer. Bytes after the trailer are ignored.
    """
    with path.open("rb") as file:
        head = file.read(13)
        if head[:4] != b"GIF8":
            return False
        _skip_colors(file, head[10:11])
        while block_type := file.read(1):
            if block_type == b"\x3b":
                return False
            if block_type == b"\x21":
                file.read(1)  # The label.
            elif block_type == b"\x2c":
                _skip_colors(file, file.read(9)[8:9])
                file.read(1)  # The least code size.
            else:
                return True
            while (length := file.read(1)) and length[0]:
                if len(file.read(length[0])) < length[0]:
                    return True
    return True


def _skip_colors(file: BinaryIO, flags: bytes) -> None:
    """Skip a color table: the highest flag bit says whether there is one, the lowest three bits give its size."""
    if flags and flags[0] & 0x80:
        file.read(3 << ((flags[0] & 7) + 1))


def _read_size(file: BinaryIO) -> int | None:
    """A size in EBML: leading zero bits give its length; all ones mean unknown (RFC 8794, section 4)."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    length = 9 - first[0].bit_length()
    value = int.from_bytes(first + file.read(length - 1)) & ((1 << 7 * length) - 1)
    return None if value == (1 << 7 * length) - 1 else value


def _classify(head: bytes) -> tuple[str, str]:
    if head[4:8] == b"ftyp":
        return _classify_brands(head)
    if head[:4] == b"RIFF":
        return {b"WEBP": ("picture", "WEBP"), b"AVI ": ("video", "AVI")}.get(head[8:12], ("other", "RIFF"))
    for kind, table in (("picture", _PICTURE_SIGNATURES), ("video", _VIDEO_SIGNATURES)):
        for magic, name in table.items():
            if head.startswith(magic):
                return kind, name
    return "other", ""


def _classify_brands(head: bytes) -> tuple[str, str]:
    """Distinguish files of ISO 14496-12: a major brand, a version, then compatible brands, four bytes each."""
    major = head[8:12]
    end = min(int.from_bytes(head[:4]), len(head))
    brands = {major, *(head[start : start + 4] for start in range(16, end, 4))}
    if major in _AVIF_BRANDS or (major in _HEIF_BRANDS and brands & _AVIF_BRANDS):
        return "picture", "AVIF"
    return ("picture", "HEIF") if major in _HEIF_BRANDS else ("video", "MP4")
