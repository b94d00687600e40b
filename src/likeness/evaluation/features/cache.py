"""A cache of features, keyed by the video's bytes and the feature's name and version.

A renamed or copied video is found again. Features depend on neither references nor prompts, so these can change. Files
are written atomically, so a killed evaluation resumes; a damaged file is measured again.
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
    """Size and frame rate of a decoded video."""

    num_frames: int
    fps: float
    width_px: int
    height_px: int


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredVideo:
    """The measured features of one file, or the error that prevented them."""

    sha256: str | None = None
    info: VideoInfo | None = None
    features: Features | None = None
    error: str | None = None

    def is_complete(self, features: Sequence[str]) -> bool:
        """Whether all of these features are there."""
        return self.features is not None and all(feature in self.features for feature in features)


class FeatureCache:
    """A folder of `.npz` files, shared by any number of processes."""

    def __init__(self, folder: Path | None) -> None:
        """`folder` is created on the first write; None disables the cache."""
        self.folder = folder

    def path(self, sha256: str, cache_key: str) -> Path:
        assert self.folder is not None
        return self.folder / sha256[:2] / f"{sha256}-{cache_key}.npz"

    def read(self, sha256: str, cache_key: str) -> tuple[VideoInfo, Arrays] | None:
        """Read the arrays of a file, or None. `cache_key` holds the feature's name and version."""
        if self.folder is None or not (path := self.path(sha256, cache_key)).is_file():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            info = VideoInfo(**json.loads(str(arrays.pop(_INFO))))
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            EOFError,
            RecursionError,
            zipfile.BadZipFile,
            zlib.error,
        ) as error:
            logger.warning("%s is damaged (%r); it will be measured again.", path, error)
            return None
        return info, arrays

    def write(self, sha256: str, cache_key: str, info: VideoInfo, arrays: Arrays) -> None:
        """Write arrays. Several processes may write the same file.

        Raises:
            FileWriteError: the disk refuses.
        """
        if self.folder is None:
            return
        with write_atomically(self.path(sha256, cache_key)) as draft, draft.open("wb") as file:
            np.savez(file, allow_pickle=False, **{_INFO: np.array(json.dumps(asdict(info)))}, **arrays)
