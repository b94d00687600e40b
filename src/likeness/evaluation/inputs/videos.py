"""What is evaluated: videos, whose they are, and the references of each identity."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from likeness.errors import ConfigError, FaceError, ManyFacesError, MediaError
from likeness.evaluation.features.base import comparable
from likeness.evaluation.features.cache import FeatureCache, VideoInfo
from likeness.evaluation.features.landmarks import landmarks_of_reference
from likeness.evaluation.features.registry import FEATURES
from likeness.evaluation.inputs.engines import Engines, choose_engines
from likeness.evaluation.inputs.reference_matching import match_person, plain
from likeness.evaluation.inputs.video_item import VideoItem
from likeness.evaluation.metrics.inputs import ReferenceSet
from likeness.faces import read_face
from likeness.media import read_image
from likeness.records import Face
from likeness.weights import sha256_of

ReferencePicture = str | Path | np.ndarray | Face
References = Mapping[str, Sequence[ReferencePicture]]
"""Pictures of each identity, by its name."""
_REFERENCE_VERSION = 2


def resolve_items(
    videos: Sequence[str | Path | VideoItem], references: References | None, prompts: Mapping[str, str] | None
) -> list[VideoItem]:
    """Give every video its name, identity and prompt (without the trigger word), sorted by system and name.

    Raises:
        ConfigError: there is no video, a name stands twice, or a video belongs to nobody or to nobody known.
    """
    if not videos:
        raise ConfigError("No videos were given; at least one is needed.")
    items: dict[tuple[str, str], VideoItem] = {}
    for video in videos:
        item = video if isinstance(video, VideoItem) else VideoItem(path=video)
        key = (item.system, item.title)
        if key in items:
            raise ConfigError(
                f"Two videos of the system `{item.system}` are called `{item.title}`: {items[key].path} and "
                f"{item.path}. Give them names or systems of their own."
            )
        prompt = item.prompt if item.prompt is not None else (prompts or {}).get(item.title)
        items[key] = VideoItem(
            path=item.path,
            identity=None if references is None else _identity_of(item, references),
            prompt=None if prompt is None else plain(prompt),
            system=item.system,
            name=item.title,
        )
    return [items[key] for key in sorted(items)]


def read_references(
    references: References,
    features: Sequence[str],
    cache: FeatureCache,
    *,
    engines: Engines | None = None,
    pick: int | None = None,
) -> dict[str, ReferenceSet]:
    """Read all references, each picture once.

    Args:
        references: Pictures of each identity.
        features: Those that metrics need; networks among them read the pictures too.
        cache: Keeps what was read of files.
        engines: Whose embeddings and landmarks; the default engine's where None.
        pick: Which face, counted from the left from 1, where a picture shows several.

    Raises:
        ConfigError: an identity has no picture.
        FaceError: a picture shows no usable face, or its `Face` was read by another engine.
        MediaError: a file is no readable picture.
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
                if FEATURES[feature].of_reference is not None
            },
        )
    return sets


def _identity_of(item: VideoItem, references: References) -> str:
    if item.identity is not None:
        if item.identity in references:
            return item.identity
        raise ConfigError(
            f"{item.path} shows `{item.identity}`, of whom there is no reference. "
            f"Known: {', '.join(sorted(references)) or 'nobody'}."
        )
    identity = match_person(item.title, references)
    if identity is None:
        raise ConfigError(
            f"{item.path} belongs to nobody: its name begins with none of {', '.join(sorted(references))}. "
            "Rename it, or name the identity in a manifest."
        )
    return identity


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
    networks = [name for name in features if FEATURES[name].of_reference is not None]
    kinds = [FEATURES[name].kind(engines) for name in ("faces", *sorted(networks))]
    if engines.are_separate:
        kinds.append(FEATURES["landmarks"].kind(engines))
    if pick is not None:
        kinds.append(f"pick{pick}")
    kind = ".".join((f"reference-{_REFERENCE_VERSION}-{kinds[0]}", *kinds[1:]))
    sha256 = _content_of(path)
    kept = cache.read(sha256, kind)
    if kept is not None:
        return dict(kept[1])
    try:
        face = read_face(path, pick=pick, engine=engine)
    except ManyFacesError as error:
        raise FaceError(
            f"{error} `--pick N` is meant for all references with several faces; crop the picture where they differ."
        ) from error
    pixels = read_image(path)
    arrays = _describe(face, pixels, networks, engines)
    info = VideoInfo(num_frames=1, fps=0.0, width_px=pixels.shape[1], height_px=pixels.shape[0])
    cache.write(sha256, kind, info, arrays)
    return arrays


def _content_of(path: Path) -> str:
    if not path.is_file():
        raise MediaError(f"The reference {path} is not there, or is no regular file. Check the path.")
    try:
        return sha256_of(path)
    except OSError as error:
        raise MediaError(f"The reference {path} cannot be opened: {error.strerror}. Make it readable.") from error


def _describe(
    face: Face, pixels: np.ndarray, features: Sequence[str], engines: Engines, *, is_crop: bool = False
) -> dict[str, np.ndarray]:
    """Embedding, landmarks and what networks see. In a crop the face lies elsewhere than in the picture it came from."""
    engine = engines.identity_engine
    if face.engine != engine.name:
        raise FaceError(
            f"{face.source} was read by `{face.engine}`, but frames are read by `{engine.name}`, and embeddings of different "
            f"engines do not compare. Read the reference with `{engine.name}`."
        )
    networks = [(name, read) for name in features if (read := FEATURES[name].of_reference) is not None]
    seen = read_face(pixels, engine=engine) if is_crop and (networks or engines.are_separate) else face
    size_px = (np.nan, np.nan) if is_crop else (pixels.shape[1], pixels.shape[0])
    arrays = {
        "embedding": comparable(face.embedding, face.metric),
        "landmarks": landmarks_of_reference(pixels, seen, engines),
        "size_px": np.array(size_px, dtype=np.float64),
    }
    return arrays | {name: read(pixels, seen) for name, read in networks}
