"""What is evaluated: videos, whose they are, and the references of each identity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from likeness.errors import ConfigError, FaceError
from likeness.evaluation.cache import FeatureCache, VideoInfo
from likeness.evaluation.feature import comparable
from likeness.evaluation.features import FEATURES
from likeness.evaluation.people import match_person, plain
from likeness.evaluation.view import ReferenceSet
from likeness.faces import default_engine, read_face
from likeness.media import read_picture
from likeness.records import Face
from likeness.weights import sha256_of

ReferencePicture = str | Path | np.ndarray | Face
References = Mapping[str, Sequence[ReferencePicture]]
"""Pictures of each identity, by its name."""
_REFERENCE_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoItem:
    """One video to be evaluated."""

    path: str | Path
    identity: str | None = None
    """A name in the references; None finds it by the file's name."""
    prompt: str | None = None
    system: str = "videos"
    """What made it; systems are compared with each other."""
    name: str | None = None
    """Unique in its system, the same for the same task in all systems; None takes the file's name without suffix."""

    @property
    def title(self) -> str:
        return self.name if self.name is not None else Path(self.path).stem


def settle(
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
    references: References, features: Sequence[str], cache: FeatureCache
) -> dict[str, ReferenceSet]:
    """Read all references, each picture once.

    Args:
        references: Pictures of each identity.
        features: Those that metrics need; networks among them read the pictures too.
        cache: Keeps what was read of files.

    Raises:
        ConfigError: an identity has no picture.
        FaceError: a picture shows no usable face, or its `Face` was read by another engine.
        MediaError: a file is no readable picture.
    """
    sets = {}
    for name, pictures in references.items():
        if not pictures:
            raise ConfigError(f"The identity `{name}` has no reference picture; at least one is needed.")
        rows = [_read_reference(picture, features, cache) for picture in pictures]
        sets[name] = ReferenceSet(
            embeddings=np.stack([row["embedding"] for row in rows]),
            landmarks=np.stack([row["landmarks"] for row in rows]),
            metric=default_engine().metric,
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
    picture: ReferencePicture, features: Sequence[str], cache: FeatureCache
) -> dict[str, np.ndarray]:
    if isinstance(picture, Face):
        return _describe(picture, picture.crop, features, is_crop=True)
    if isinstance(picture, np.ndarray):
        return _describe(read_face(picture), picture, features)
    path = Path(picture)
    networks = [name for name in features if FEATURES[name].of_reference is not None]
    kinds = ".".join(FEATURES[name].kind for name in ("faces", *sorted(networks)))
    kind = f"reference-{_REFERENCE_VERSION}-{kinds}"
    kept = cache.read(sha256_of(path), kind) if path.is_file() else None
    if kept is not None:
        return dict(kept[1])
    face, pixels = read_face(path), read_picture(path)
    arrays = _describe(face, pixels, networks)
    info = VideoInfo(num_frames=1, fps=0.0, width_px=pixels.shape[1], height_px=pixels.shape[0])
    cache.write(sha256_of(path), kind, info, arrays)
    return arrays


def _describe(
    face: Face, pixels: np.ndarray, features: Sequence[str], *, is_crop: bool = False
) -> dict[str, np.ndarray]:
    """Embedding, landmarks and what networks see. In a crop the face lies elsewhere than in the picture it came from."""
    name = default_engine().name
    if face.engine != name:
        raise FaceError(
            f"{face.source} was read by `{face.engine}`, but frames are read by `{name}`, and embeddings of different "
            f"engines do not compare. Read the reference with `{name}`."
        )
    arrays = {"embedding": comparable(face.embedding, face.metric), "landmarks": face.landmarks}
    networks = [(name, read) for name in features if (read := FEATURES[name].of_reference) is not None]
    seen = read_face(pixels) if is_crop and networks else face
    return arrays | {name: read(pixels, seen) for name, read in networks}
