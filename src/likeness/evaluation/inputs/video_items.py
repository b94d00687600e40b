"""The videos of an evaluation, each with its name, system, identity and prompt. Nothing heavy is imported here."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from likeness.errors import ConfigError
from likeness.evaluation.inputs.reference_matching import match_person, plain


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


def resolve_items(
    videos: Sequence[str | Path | VideoItem], identities: Collection[str] | None, prompts: Mapping[str, str] | None
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
            identity=None if identities is None else _identity_of(item, identities),
            prompt=None if prompt is None else plain(prompt),
            system=item.system,
            name=item.title,
        )
    return [items[key] for key in sorted(items)]


def _identity_of(item: VideoItem, identities: Collection[str]) -> str:
    if item.identity is not None:
        if item.identity in identities:
            return item.identity
        raise ConfigError(
            f"{item.path} shows `{item.identity}`, of whom there is no reference. "
            f"Known: {', '.join(sorted(identities)) or 'nobody'}."
        )
    identity = match_person(item.title, identities)
    if identity is None:
        raise ConfigError(
            f"{item.path} belongs to nobody: its name begins with none of {', '.join(sorted(identities))}. "
            "Rename it, or name the identity in a manifest."
        )
    return identity
