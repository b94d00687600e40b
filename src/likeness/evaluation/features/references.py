"""Reference pictures of each identity: embeddings, landmarks and network features, each picture read once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from likeness.errors import ConfigError, FaceError, ManyFacesError, MediaError
from likeness.evaluation.features.base import normalize_embeddings
from likeness.evaluation.features.cache import FeatureCache, VideoInfo
from likeness.evaluation.features.engines import Engines, choose_engines
from likeness.evaluation.features.landmarks import landmarks_of_reference
from likeness.evaluation.features.registry import FEATURES
from likeness.faces import read_face
from likeness.media import read_image
from likeness.records import EmbeddingMetric, Face
from likeness.weights import sha256_of

ReferencePicture = str | Path | np.ndarray | Face
References = Mapping[str, Sequence[ReferencePicture]]
"""Pictures of each identity, by its name."""
_REFERENCE_VERSION = 2


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ReferenceSet:
    """The reference images of one identity.

    Shapes:
        embeddings: (references, embedding_width), normalized by `normalize_embeddings`
        landmarks: (references, 5, 2) px
    """

    embeddings: np.ndarray
    landmarks: np.ndarray
    arrays: Mapping[str, np.ndarray]
    """Features of other networks by feature name, one row for each reference."""
    metric: EmbeddingMetric = "distance"
    """How the engine compares embeddings."""
    sizes_px: np.ndarray | None = None
    """(references, 2): width and height of each picture, NaN where unknown."""

    @property
    def mean(self) -> np.ndarray:
        """(embedding_width,): the mean embedding, normalized again."""
        return normalize_embeddings(self.embeddings.mean(axis=0, dtype=np.float64), self.metric)


def read_references(
    references: References,
    features: Sequence[str],
    cache: FeatureCache,
    *,
    engines: Engines | None = None,
    pick: int | None = None,
) -> dict[str, ReferenceSet]:
    """Read all reference images, each once.

    Args:
        references: Pictures of each identity.
        features: Features that metrics need; network features are computed for references as well.
        cache: Caches the arrays of files.
        engines: Face engines; None is the default engine.
        pick: Which face, counted from the left from 1, where a picture shows several.

    Raises:
        ConfigError: an identity has no picture.
        FaceError: a picture shows no usable face, or its `Face` was read by another engine.
        MediaError: a file is not a readable picture.
    """
    engines = engines or choose_engines()
    sets = {}
    for name, pictures in references.items():
        if not pictures:
            raise ConfigError(f"The identity `{name}` has no reference picture; at least one is needed.")
        rows = [_read_reference(picture, features, cache, engines, pick) for picture in pictures]
        sets[name] = ReferenceSet(
            embeddings=np.stack([row["embedding"] for row in rows]),
            landmarks=np.stack([row["landmarks"] for row in rows]),
            metric=engines.identity_engine.metric,
            sizes_px=np.stack([row["size_px"] for row in rows]),
            arrays={
                feature: np.stack([row[feature] for row in rows])
                for feature in features
                if FEATURES[feature].compute_for_reference is not None
            },
        )
    return sets


def _read_reference(
    picture: ReferencePicture,
    features: Sequence[str],
    cache: FeatureCache,
    engines: Engines,
    pick: int | None,
) -> dict[str, np.ndarray]:
    engine = engines.identity_engine
    if isinstance(picture, Face):
        return _describe(picture, picture.crop, features, engines, is_crop=True)
    if isinstance(picture, np.ndarray):
        return _describe(read_face(picture, pick=pick, engine=engine), picture, features, engines)
    path = Path(picture)
    networks = [name for name in features if FEATURES[name].compute_for_reference is not None]
    kinds = [FEATURES[name].cache_key(engines) for name in ("faces", *sorted(networks))]
    if engines.are_separate:
        kinds.append(FEATURES["landmarks"].cache_key(engines))
    if pick is not None:
        kinds.append(f"pick{pick}")
    cache_key = ".".join((f"reference-{_REFERENCE_VERSION}-{kinds[0]}", *kinds[1:]))
    sha256 = _content_of(path)
    kept = cache.read(sha256, cache_key)
    if kept is not None:
        return dict(kept[1])
    try:
        face = read_face(path, pick=pick, engine=engine)
    except ManyFacesError as error:
        raise FaceError(
            f"{error} `--pick N` applies to all references with several faces; crop this one if it needs another N."
        ) from error
    pixels = read_image(path)
    arrays = _describe(face, pixels, networks, engines)
    info = VideoInfo(num_frames=1, fps=0.0, width_px=pixels.shape[1], height_px=pixels.shape[0])
    cache.write(sha256, cache_key, info, arrays)
    return arrays


def _content_of(path: Path) -> str:
    if not path.is_file():
        raise MediaError(f"The reference {path} does not exist or is not a regular file. Check the path.")
    try:
        return sha256_of(path)
    except OSError as error:
        raise MediaError(f"The reference {path} cannot be opened: {error.strerror}. Make it readable.") from error


def _describe(
    face: Face, pixels: np.ndarray, features: Sequence[str], engines: Engines, *, is_crop: bool = False
) -> dict[str, np.ndarray]:
    """Embedding, landmarks and network features. In a crop, landmarks are detected again in its own coordinates."""
    engine = engines.identity_engine
    if face.engine != engine.name:
        raise FaceError(
            f"{face.source} was read by `{face.engine}`, but frames are read by `{engine.name}`, and embeddings of "
            f"different engines do not compare. Read the reference with `{engine.name}`."
        )
    networks = [(name, read) for name in features if (read := FEATURES[name].compute_for_reference) is not None]
    seen = read_face(pixels, engine=engine) if is_crop and (networks or engines.are_separate) else face
    size_px = (np.nan, np.nan) if is_crop else (pixels.shape[1], pixels.shape[0])
    arrays = {
        "embedding": normalize_embeddings(face.embedding, face.metric),
        "landmarks": landmarks_of_reference(pixels, seen, engines),
        "size_px": np.array(size_px, dtype=np.float64),
    }
    return arrays | {name: read(pixels, seen) for name, read in networks}
