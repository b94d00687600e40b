"""Drawn pictures and videos: a gradient with a bright dot, no faces."""

from pathlib import Path

import numpy as np

from likeness.media import write_image, write_video


def draw(height_px: int = 48, width_px: int = 64, *, number: int = 0) -> np.ndarray:
    """(height, width, 3) uint8; the number moves a white square."""
    picture = np.zeros((height_px, width_px, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 200, width_px)
    picture[..., 1] = np.linspace(0, 200, height_px)[:, None]
    left = 2 * number % max(1, width_px - 8)
    picture[4:12, left : left + 8] = 255
    return picture


class Folder:
    """Writes media and texts into a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def text(self, name: str, text: str | bytes) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    def image(self, name: str, height_px: int = 48, width_px: int = 64, *, caption: str | None = None) -> Path:
        write_image(self.path / name, draw(height_px, width_px))
        return self._caption(name, caption)

    def video(
        self,
        name: str,
        frames: int = 9,
        fps: float = 8,
        height_px: int = 48,
        width_px: int = 64,
        *,
        caption: str | None = None,
    ) -> Path:
        clip = np.stack([draw(height_px, width_px, number=number) for number in range(frames)])
        write_video(self.path / name, clip, fps)
        return self._caption(name, caption)

    def _caption(self, name: str, caption: str | None) -> Path:
        path = self.path / name
        if caption is not None:
            path.with_suffix(".txt").write_text(caption)
        return path
