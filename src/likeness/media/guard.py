"""What a file is, by its first bytes: names lie, and decoders should never see what they were not asked for."""

from pathlib import Path

from likeness.errors import MediaError

_PICTURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"GIF8": "GIF",
}
_VIDEOS = {
    b"\x1a\x45\xdf\xa3": "Matroska",
    b"FLV": "FLV",
    b"\x00\x00\x01\xba": "MPEG",
    b"\x00\x00\x01\xb3": "MPEG",
    b"OggS": "Ogg",
    b"\x30\x26\xb2\x75": "WMV",
}
_PHONE_PICTURES = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis")


def inspect(path: Path, *, expected: str) -> tuple[str, str]:
    """Look at the first bytes of `path`.

    Returns:
        What it is (`picture`, `video` or `other`) and the name of the format (may be empty).

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
            head = file.read(32)
    except OSError as error:
        raise MediaError(f"{path} cannot be opened: {error.strerror}. Make it readable.") from error
    if not head:
        raise MediaError(f"{path} holds zero bytes. Copy or download it again.")
    return _classify(head)


def _classify(head: bytes) -> tuple[str, str]:
    if head[4:8] == b"ftyp":
        return ("other", "HEIF") if head[8:12] in _PHONE_PICTURES else ("video", "MP4")
    if head[:4] == b"RIFF":
        return {b"WEBP": ("picture", "WEBP"), b"AVI ": ("video", "AVI")}.get(head[8:12], ("other", "RIFF"))
    for kind, table in (("picture", _PICTURES), ("video", _VIDEOS)):
        for magic, name in table.items():
            if head.startswith(magic):
                return kind, name
    return "other", ""
