"""Reads pictures of any common format as upright uint8 RGB, and writes them."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from likeness.errors import MediaError
from likeness.files import write_bytes
from likeness.media.guard import check_media_file

logger = logging.getLogger(__name__)

MAX_PIXELS = 110_000_000
"""Largest picture that is decoded: phones have 48, 50 or 108 megapixels. As RGB it takes 330 MB."""
MAX_COMMENT_BYTES = 65_533
"""Largest comment of a JPEG."""
_JPEG = (".jpg", ".jpeg")
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "TIFF", "GIF")
_HEIF = "HEIF"
_STRIP_PX = 256
"""Rows converted at a time, because the conversion needs several times the memory of the rows."""


def read_image(path: str | Path) -> np.ndarray:
    """Read a picture as upright RGB.

    EXIF orientation is applied, color profiles are converted to sRGB, transparency is composited over white, and of
    an animation the first frame is read.

    Returns:
        (height, width, 3) uint8.

    Raises:
        MediaError: the file is missing, empty, a folder, a video, not a picture, damaged, too large, or a HEIC picture
            without pillow-heif installed.
    """
    path = Path(path)
    with _opened(path) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise MediaError(_too_large(path, f"{width} x {height} pixels"))
        try:
            image.load()
        except Exception as error:  # Decoders have no common error class.
            raise MediaError(_damaged(path, image.format or "")) from error
        _turn_upright(image, path)
        return _to_rgb(image)


def read_image_size(path: str | Path) -> tuple[int, int]:
    """Width and height in pixels by the header of a picture, without decoding it and before it is turned upright.

    Raises:
        MediaError: As `read_image`, but no picture is too large.
    """
    with _opened(Path(path)) as image:
        return image.size


def write_image(path: str | Path, picture: np.ndarray, metadata: dict[str, Any] | None = None) -> None:
    """Write (height, width, 3) uint8 atomically in the format of the suffix of `path`. Parent folders are created.

    `metadata` is stored as JSON in the comment of a PNG, or of a JPEG if it is shorter than `MAX_COMMENT_BYTES`;
    other formats are written without it.

    Raises:
        MediaError: Pillow does not know the suffix.
        FileWriteError: The file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    settings: dict[str, Any] = {"quality": 92} if suffix in {*_JPEG, ".webp"} else {}
    if metadata is not None:
        text = json.dumps(metadata, sort_keys=True)
        if suffix == ".png":
            settings["pnginfo"] = PngInfo()
            settings["pnginfo"].add_text("comment", text)
        elif suffix in _JPEG and len(text) < MAX_COMMENT_BYTES:
            settings["comment"] = text.encode("ascii")
    image, encoded = Image.fromarray(np.ascontiguousarray(picture)), io.BytesIO()
    if (image_format := Image.registered_extensions().get(suffix)) is None:
        raise MediaError(f"{path} cannot be written as a picture. Let its name end in .png or .jpg.")
    try:
        # In memory first: on a full disk Pillow leaves a truncated JPEG without an error.
        image.save(encoded, image_format, **settings)
    except (ValueError, OSError) as error:
        raise MediaError(f"{path} cannot be written: {error}. Let its name end in .png or .jpg.") from error
    write_bytes(path, encoded.getvalue())


def resize(picture: np.ndarray, width_px: int, height_px: int, *, is_quick: bool = False) -> np.ndarray:
    """Resize uint8 RGB with an antialiased bicubic filter.

    `is_quick` averages whole blocks first if the picture shrinks sixfold or more. The result looks the same and takes
    a fifth of the time for 39 megapixels.
    """
    if picture.shape[:2] == (height_px, width_px):
        return picture
    image = Image.fromarray(np.ascontiguousarray(picture))
    gap = 3.0 if is_quick else None
    return np.asarray(image.resize((width_px, height_px), Image.Resampling.BICUBIC, reducing_gap=gap))


def resize_and_center_crop(picture: np.ndarray, side_px: int) -> np.ndarray:
    """Resize the shorter side to `side_px` and cut out the center square, as transformers' `CLIPImageProcessor` does.

    Shapes:
        picture: (height, width, 3) uint8
        returns: (side_px, side_px, 3) uint8
    """
    height, width = picture.shape[:2]
    shorter = min(height, width)
    height, width = int(side_px * height / shorter), int(side_px * width / shorter)
    top, left = (height - side_px) // 2, (width - side_px) // 2
    return resize(picture, width, height)[top : top + side_px, left : left + side_px]


def to_image(picture: np.ndarray) -> Any:
    """A Pillow image of (height, width, 3) uint8, for pipelines that accept no arrays or resize them differently."""
    return Image.fromarray(np.ascontiguousarray(picture))


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture; nothing is decoded yet."""
    kind, name = check_media_file(path, expected="a picture")
    if kind == "video":
        raise MediaError(f"{path} is a video ({name}), a picture is needed. Save one frame of it as JPEG or PNG.")
    if kind != "picture":
        raise MediaError(f"{path} is not a picture. Use one of {', '.join((*_FORMATS, _HEIF))}.")
    if name == _HEIF:
        _register_heif(path)
    with warnings.catch_warnings():
        # The size check of readers is stricter than Pillow's warning, and warnings about odd metadata do not matter.
        warnings.simplefilter("ignore")
        with _open(path, name) as image:
            yield image


def _open(path: Path, name: str) -> Image.Image:
    """Open a picture that was detected as the format `name`."""
    try:
        return Image.open(path, formats=(*_FORMATS, _HEIF) if name == _HEIF else _FORMATS)
    except Image.DecompressionBombError as error:
        raise MediaError(_too_large(path, str(error))) from error
    except Exception as error:  # Plug-ins have no common error class.
        raise MediaError(_damaged(path, name)) from error


def _register_heif(path: Path) -> None:
    """Register pillow-heif, an optional dependency, as Pillow's reader of HEIC and HEIF."""
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MediaError(
            f"{path} is a HEIC picture, and pillow-heif, which reads them, is not installed. "
            "Run `pip install likeness[heic]`, or save the picture as JPEG or PNG."
        ) from error
    pillow_heif.register_heif_opener()


def _turn_upright(image: Image.Image, path: Path) -> None:
    """Apply the EXIF orientation in place; damaged EXIF data give a warning only."""
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception as error:  # The EXIF parser has no common error class.
        logger.warning("The EXIF data of %s are damaged (%s) and may be ignored.", path, error)


def _to_rgb(image: Image.Image) -> np.ndarray:
    image = _to_eight_bits(image)
    if image.mode in ("LA", "PA", "La", "RGBa", "RGBA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        icc_profile = image.info.get("icc_profile")
        image = Image.alpha_composite(white, layer).convert("RGB")
        image.info["icc_profile"] = icc_profile
    image = _to_srgb(image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale single-channel pictures of 16 or 32 bits to 8; Pillow's conversion would clip them."""
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    values = np.asarray(image)
    highest = float(np.nanmax(values, initial=0.0))
    if image.mode == "F":
        white_level = 1.0 if highest <= 1.0 else max(highest, 255.0)
    else:
        white_level = 255.0 if image.mode == "I" and highest <= 255 else max(65535.0, highest)
    eight_bits = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _STRIP_PX):
        strip = np.nan_to_num(values[top : top + _STRIP_PX].astype(np.float64))
        eight_bits[top : top + _STRIP_PX] = np.clip(strip / white_level * 255 + 0.5, 0, 255)
    return Image.fromarray(eight_bits)


def _to_srgb(image: Image.Image) -> Image.Image:
    """Convert a wide-gamut or CMYK profile to sRGB, so that skin has its true color."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK"):
        return image
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        logger.warning("The color profile cannot be read (%s); colors are taken as sRGB.", error)
        return image
    return image if converted is None else converted


def _too_large(path: Path, size: str) -> str:
    return f"{path} is too large ({size}); at most {MAX_PIXELS // 1_000_000} megapixels are read. Scale it down."


def _damaged(path: Path, name: str) -> str:
    return f"{path} starts as a {name} picture but is truncated or damaged. Copy or download it again."
