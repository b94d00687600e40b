"""The videos of an evaluation, each with its name, system, identity and prompt. Nothing heavy is imported here."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import category

from likeness.errors import ConfigError
from likeness.evaluation.inputs.reference_matching import match_identity, remove_trigger_words


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoItem:
    """One video to be evaluated."""

    path: str | Path
    identity: str | None = None
    """A name in the references; None matches it by the file's name."""
    prompt: str | None = None
    system: str = "videos"
    """The system that made it; systems are compared with each other."""
    name: str | None = None
    """Unique in its system, the same for the same task in all systems; None takes the file's name without suffix."""

    @property
    def resolved_name(self) -> str:
        return self.name if self.name is not None else Path(self.path).stem


def is_text(name: str) -> bool:
    """Whether a name can be encoded as UTF-8: a file name with other bytes and JSON's lone surrogates cannot."""
    return not any(category(letter) == "Cs" for letter in name)


def is_label(name: str) -> bool:
    """Whether a name fits on one line of tables and logs: neither blank nor with control characters or surrogates."""
    return bool(name.strip()) and not any(category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name)


def resolve_items(
    videos: Sequence[str | Path | VideoItem], identities: Collection[str] | None, prompts: Mapping[str, str] | None
) -> list[VideoItem]:
    """Give every video its name, identity and prompt (without the trigger word), sorted by system and name.

    Raises:
        ConfigError: there is no video, a name occurs twice, or a video matches no reference.
    """
    if not videos:
        raise ConfigError("No videos were given; at least one is needed.")
    items: dict[tuple[str, str], VideoItem] = {}
    for video in videos:
        item = video if isinstance(video, VideoItem) else VideoItem(path=video)
        for label in (item.system, item.name, item.identity):
            if label is not None and not is_text(label):  # Results could not be written after all the work.
                raise ConfigError(f"{item.path} has the name {label!r}, which is not UTF-8 text. Rename it.")
        key = (item.system, item.resolved_name)
        if key in items:
            raise ConfigError(
                f"Two videos of the system `{item.system}` are called `{item.resolved_name}`: {items[key].path} and "
                f"{item.path}. Give them different names or systems."
            )
        prompt = item.prompt if item.prompt is not None else (prompts or {}).get(item.resolved_name)
        items[key] = VideoItem(
            path=item.path,
            identity=None if identities is None else _identity_of(item, identities),
            prompt=None if prompt is None else remove_trigger_words(prompt),
            system=item.system,
            name=item.resolved_name,
        )
    return [items[key] for key in sorted(items)]


def _identity_of(item: VideoItem, identities: Collection[str]) -> str:
    if item.identity is not None:
        if item.identity in identities:
            return item.identity
        raise ConfigError(
            f"{item.path} shows `{item.identity}`, who has no reference. "
            f"Known: {', '.join(sorted(identities)) or 'none'}."
        )
    identity = match_identity(item.resolved_name, identities)
    if identity is None:
        raise ConfigError(
            f"{item.path} matches no reference: its name begins with none of {', '.join(sorted(identities))}. "
            "Rename it, or give its identity in a manifest."
        )
    return identity
