"""Contact sheets: rows of small pictures, each row with a label."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from likeness.errors import MediaError
from likeness.media.pictures import resize

_LABEL_FONT_PX = 14
_WHITE = 255


def contact_sheet(
    rows: Sequence[Sequence[np.ndarray]],
    labels: Sequence[str] | None = None,
    *,
    cell_px: int = 128,
    gap_px: int = 4,
    label_px: int = 150,
) -> np.ndarray:
    """Arrange pictures in rows, each fitted into a square cell.

    Args:
        rows: uint8 RGB pictures of any size; rows may differ in length.
        labels: one text per row, drawn in a column at the left.
        cell_px: side of a cell.
        gap_px: white space around cells.
        label_px: width of the label column.

    Returns:
        (height, width, 3) uint8.
    """
    if not rows or not any(len(row) for row in rows):
        raise MediaError("A contact sheet was asked for without pictures. Give at least one row with one picture.")
    if labels is not None and len(labels) != len(rows):
        raise MediaError(f"{len(labels)} labels were given for {len(rows)} rows. Give one for each.")
    left = label_px if labels is not None else 0
    columns = max(len(row) for row in rows)
    pitch = cell_px + gap_px
    sheet = np.full((len(rows) * pitch + gap_px, left + columns * pitch + gap_px, 3), _WHITE, np.uint8)
    for row_index, row in enumerate(rows):
        for column, picture in enumerate(row):
            top, start = gap_px + row_index * pitch, left + gap_px + column * pitch
            fitted = _fit(picture, cell_px)
            height, width = fitted.shape[:2]
            top, start = top + (cell_px - height) // 2, start + (cell_px - width) // 2
            sheet[top : top + height, start : start + width] = fitted
    return sheet if labels is None else _draw_labels(sheet, labels, pitch, gap_px, label_px)


def _fit(picture: np.ndarray, cell_px: int) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = cell_px / max(height, width)
    return resize(picture, max(1, round(width * scale)), max(1, round(height * scale)))


def _draw_labels(sheet: np.ndarray, labels: Sequence[str], pitch: int, gap_px: int, label_px: int) -> np.ndarray:
    image = Image.fromarray(sheet)
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=_LABEL_FONT_PX)
    for row_index, label in enumerate(labels):
        text = _wrap(label, font, label_px - 2 * gap_px)
        pen.multiline_text((gap_px, gap_px + row_index * pitch), text, fill="black", font=font)
    return np.asarray(image).copy()


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width_px: int) -> str:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width_px:
            lines.append(word)
        else:
            lines[-1] = longer
    return "\n".join(lines)
