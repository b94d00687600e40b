"""Reads frames of a video by their numbers, without decoding the rest more often than needed."""

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from av.video.frame import VideoFrame

from likeness.errors import MediaError
from likeness.media.decoding import (
    check_complete,
    check_pixels,
    damage_message,
    frame_rate,
    header_fps,
    media_errors,
    open_container,
    to_rgb,
    video_stream,
)


class VideoFrames:
    """An opened video. Opening reads all packets, but decodes only the first frame.

    Frames are counted in the order in which they are shown. Reading forwards goes on where the decoder is; reading
    backwards starts at the last key frame before.

    Raises:
        MediaError: As `read_video`.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._stack = ExitStack()
        try:
            with media_errors(self._path):
                self._read_packets()
                self._start(0)
                height, width = self._next(0).shape[:2]
        except BaseException:
            self._stack.close()
            raise
        self.width_px, self.height_px = width, height

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stack.close()

    @property
    def num_frames(self) -> int:
        """Frames that are shown."""
        return len(self._times)

    def read(self, first: int, count: int, step: int = 1) -> Iterator[np.ndarray]:
        """Frames first, first + step, ... up to first + count - 1.

        Yields:
            (height, width, 3) uint8 RGB, upright.

        Raises:
            MediaError: A frame is damaged or missing, or has another size.
        """
        with media_errors(self._path):
            for number in range(first, first + count, step):
                frame = self._seek(number)
                if frame.shape != (self.height_px, self.width_px, 3):
                    raise MediaError(
                        f"{self._path} changes its size: frame {number + 1} has {frame.shape[1]} x {frame.shape[0]} "
                        f"pixels, the first {self.width_px} x {self.height_px}. Convert it to one size."
                    )
                yield frame

    def _read_packets(self) -> None:
        """Find the times of all frames, and which of them are key frames."""
        with open_container(self._path) as container:
            stream = video_stream(self._path, container)
            check_pixels(self._path, stream.width, stream.height)
            times: list[tuple[int, bool]] = []
            unknown = 0
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    if packet.pts is None:
                        unknown += 1
                    else:
                        times.append((packet.pts, bool(packet.is_keyframe)))
            times.sort()
            self._base_s = float(stream.time_base or 0)
            seconds: list[float | None] = [pts * self._base_s for pts, _ in times]
            if unknown or len({pts for pts, _ in times}) < len(times) or not self._base_s:
                # Without distinct times frames can only be counted, in the order of decoding.
                times = [(number, number == 0) for number in range(len(times) + unknown)]
                seconds = [None for _ in times]
                self._is_counted = True
            else:
                self._is_counted = False
            if not times:
                raise MediaError(f"{self._path} holds no video frames. Use another video.")
            self.fps = frame_rate(seconds, header_fps(stream))
            if self.fps <= 0:
                raise MediaError(f"{self._path} has no frame rate. Convert it to mp4.")
            check_complete(self._path, container, stream, seconds)
        self._times = [pts for pts, _ in times]
        self._keys = [number for number, (_, is_key) in enumerate(times) if is_key] or [0]

    def _start(self, number: int) -> None:
        """Open the decoder at the last key frame before a frame."""
        self._stack.close()
        container = self._stack.enter_context(open_container(self._path))
        self._stream = video_stream(self._path, container)
        self._stream.codec_context.thread_count = 1
        key = self._keys[max(bisect_right(self._keys, number) - 1, 0)]
        if key and not self._is_counted:
            container.seek(self._times[key], stream=self._stream, backward=True)
        self._decoder = container.decode(self._stream)
        self._count = -1
        self._number = -1

    def _seek(self, number: int) -> np.ndarray:
        key = self._keys[max(bisect_right(self._keys, number) - 1, 0)]
        # A key frame that lies ahead of the decoder is faster to reach by a seek, unless it is near.
        if number <= self._number or (not self._is_counted and key > self._number + 64):
            self._start(number)
        return self._next(number)

    def _next(self, number: int) -> np.ndarray:
        """Decode up to a frame, which lies ahead."""
        for frame in self._decoder:
            self._count += 1
            self._number = self._number_of(frame)
            if self._number == number:
                return to_rgb(self._path, frame, number + 1)
            if self._number > number:
                break
        raise MediaError(damage_message(self._path, f"frame {number + 1} of {len(self._times)} cannot be decoded"))

    def _number_of(self, frame: VideoFrame) -> int:
        if self._is_counted:
            return self._count
        if frame.pts is None:
            return self._number + 1
        return bisect_right(self._times, frame.pts) - 1
