"""What was measured once is kept by content: the bytes of the video, and the feature's name and version.

A renamed or copied video is found again, an altered one is not. Because features know neither references nor prompts,
new references, prompts and formulas read what is here. Files appear only whole, so that an evaluation that was killed
goes on where it stopped; a file that cannot be read is measured again.
"""

import json
import logging
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from likeness.evaluation.features.base import Arrays, Features
from likeness.files import write_atomically

logger = logging.getLogger(__name__)

_INFO = "info"


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoInfo:
    """What decoding a video told."""

    num_frames: int
    fps: float
    width_px: int
    height_px: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """What is known of the pixels of one file: features, or why there are none."""

    sha256: str | None = None
    info: VideoInfo | None = None
    features: Features | None = None
    error: str | None = None

    def is_whole(self, features: Sequence[str]) -> bool:
        """Whether nothing is left to measure."""
        return self.features is not None and all(feature in self.features for feature in features)


class FeatureCache:
    """A folder of `.npz` files, shared by any number of processes."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` is made when something is kept; None keeps nothing."""
        self.folder = folder

    def path(self, sha256: str, kind: str) -> Path:
        assert self.folder is not None
        return self.folder / sha256[:2] / f"{sha256}-{kind}.npz"

    def read(self, sha256: str, kind: str) -> tuple[VideoInfo, Arrays] | None:
        """What is known of a file, or None. `kind` names what was measured, and the version of it."""
        if self.folder is None or not (path := self.path(sha256, kind)).is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            info = VideoInfo(**json.loads(str(arrays.pop(_INFO))))
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            logger.warning("%s is damaged (%r); it is measured again.", path, error)
            return None
        return info, arrays

    def write(self, sha256: str, kind: str, info: VideoInfo, arrays: Arrays) -> None:
        """Keep arrays. Several processes may write the same.

        Raises:
            FileWriteError: the disk refuses.
        """
        if self.folder is None:
            return
        with write_atomically(self.path(sha256, kind)) as draft, draft.open("wb") as file:
            np.savez(file, allow_pickle=False, **{_INFO: np.array(json.dumps(asdict(info)))}, **arrays)
