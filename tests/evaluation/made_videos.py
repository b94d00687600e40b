"""Small videos of every kind that people have, written with PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np


def frames_of(count=4, height=48, width=64) -> np.ndarray:
    """Noise that drifts, so that frames differ and compress badly."""
    random = np.random.default_rng(count * height * width)
    picture = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.stack([np.roll(picture, 2 * number, axis=1) for number in range(count)])


def texture(shift_x=0, size=96):
    """A soft random picture, moved to the right by whole pixels."""
    noise = np.random.default_rng(0).uniform(0, 255, (size + 40, size + 40)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 3)
    soft = (soft - soft.min()) / (soft.max() - soft.min()) * 255
    gray = soft[20 : 20 + size, 20 - shift_x : 20 - shift_x + size].astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)


def write(
    path: Path,
    frames: np.ndarray,
    codec="libx264",
    pixels="yuv420p",
    fps=8,
    times: list[int] | None = None,
    movflags="",
) -> Path:
    """Write frames; `times` are their places in thousandths of a second where the rate varies."""
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """Write half a second of silence, and nothing to see."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        stream.layout = "mono"
        samples = np.zeros((1, 8000), dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
