"""Benchmark protocols: numbers of people by group, pictures of each, and prompts. TOML files in `prompts/`.

Counts and categories are those of the papers; the prompts in `prompts/lists/` were written for this project. The
protocol's file says how it fills what a paper leaves open.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Annotated, Self

from pydantic import Field, model_validator

from likeness.app.bench.long_prompts import SUFFIX, read_long_prompts
from likeness.config import Settings, read
from likeness.errors import ConfigError
from likeness.generation.loading.presets import require_known
from likeness.identity.prompt import TRIGGER

FOLDER = Path(__file__).parent / "prompts"
MAX_COUNT = 10_000
"""Limit of people, of prompts for each person, and of videos of a set."""
MAX_REFERENCES = 100
UNKNOWN_GROUP = "person"
"""The group of people without a group."""
GROUPS = ("man", "woman", "elderly man", "elderly woman", "boy", "girl", "baby")
_FIELDS = ("who", "Who", "group", "his", "His")
_PRONOUNS = {"man": "his", "elderly man": "his", "boy": "his", "baby": "its", UNKNOWN_GROUP: "their"}


class PromptSet(Settings):
    """Prompts of one list, each assigned to one person."""

    prefix: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
    """Prefix of the names of its videos."""
    list: str
    """File in `prompts/lists/`, or a path."""
    count: int = Field(ge=1, le=MAX_COUNT)
    """Number of its prompts that are used."""


class Protocol(Settings):
    """Rules by which a benchmark is created."""

    title: str
    """Title of the report."""
    source: str
    """The publication that it follows, and its counts."""
    groups: dict[str, Annotated[int, Field(ge=0, le=MAX_COUNT)]] = Field(default_factory=dict)
    """Number of people by group; empty if the protocol has no groups."""
    identities: int = Field(default=0, ge=0, le=MAX_COUNT)
    """Number of people, if the protocol has no groups."""
    max_references: int = Field(ge=1, le=MAX_REFERENCES)
    """Pictures of one person; further ones are ignored."""
    lists: tuple[str, ...] = ()
    """Lists (names or paths) from which each person gets prompts for their group."""
    prompts_per_identity: int = Field(default=0, ge=0, le=MAX_COUNT)
    """Prompts for each person."""
    sets: tuple[PromptSet, ...] = ()
    """Alternative to `lists`: prompts that are each assigned to one person."""
    draws_people: bool = False
    """The people are puppets; no pictures are needed."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        unknown = set(self.groups) - set(GROUPS)
        if unknown:
            raise ValueError(f"unknown groups {', '.join(sorted(unknown))}; known: {', '.join(GROUPS)}")
        if bool(self.groups) == bool(self.identities):
            raise ValueError("either `groups` or `identities` is needed, and not both")
        if bool(self.sets) == bool(self.lists and self.prompts_per_identity):
            raise ValueError("either `sets`, or `lists` and `prompts_per_identity` are needed, and not both")
        return self

    @property
    def num_identities(self) -> int:
        return sum(self.groups.values()) or self.identities


@dataclass(frozen=True, kw_only=True, slots=True)
class ProtocolCase:
    """One video to generate."""

    name: str
    """File name without suffix."""
    identity: str
    prompt: str
    """With the trigger word after the word for the person."""


def protocol_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def read_protocol(name: str) -> Protocol:
    """Read a built-in protocol by name, or a TOML file by path.

    Raises:
        ConfigError: There is neither, or the file is not a protocol.
    """
    if Path(name).suffix == ".toml":
        return read(Protocol, name)
    return read(Protocol, FOLDER / f"{require_known('protocol', name, protocol_names())}.toml")


def replace_prompts(protocol: Protocol, files: Sequence[Path]) -> tuple[Protocol, list[str]]:
    """Replace a protocol's prompts; those for babies stay, because published lists have none.

    Args:
        protocol: A protocol with `lists`, not with `sets`.
        files: Lists in TOML, or text files with one prompt a line.

    Returns:
        The protocol, and for each text file a line about skipped prompts.

    Raises:
        ConfigError: The protocol has `sets`, or a file is not a list of prompts.
    """
    if protocol.sets:
        raise ConfigError(
            "This protocol fixes which prompts are used how often. Use `--prompts` with another one, such as "
            "`magic_mirror`."
        )
    notes = []
    for path in files:
        read_prompts(str(path))
        if path.suffix == SUFFIX:
            long_prompts = read_long_prompts(path)
            line, why = long_prompts.left_out[0] if long_prompts.left_out else (0, "")
            first = f" (first: line {line}, {why})" if long_prompts.left_out else ""
            notes.append(
                f"{path}: {len(long_prompts.templates)} prompts are used, {len(long_prompts.left_out)} left out{first}"
            )
    kept = tuple(name for name in protocol.lists if name == "babies")
    names = ", ".join(path.name for path in files)
    update = {
        "lists": (*map(str, files), *kept),
        "source": f"{protocol.source}; with the prompts of {names}",
    }
    return protocol.model_copy(update=update), notes


class _PromptBlock(Settings):
    """Prompts for the same groups."""

    groups: tuple[str, ...]
    """Groups that they fit; `person` means an unknown group."""
    texts: tuple[str, ...]
    """With `{who}` for the person and `{his}` for the pronoun, `{Who}` and `{His}` at the start of a sentence."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for text in self.texts:
            if not _has_known_fields(text):
                raise ValueError(f"{text!r} has other fields than {{who}}, {{his}}, {{Who}} and {{His}}")
            filled = fill_template(text, UNKNOWN_GROUP)
            if not filled.isprintable():
                raise ValueError(f"{text!r} holds control characters")
            if len(re.findall(rf"\b{TRIGGER}\d*\b", filled)) != 1:
                raise ValueError(f"{text!r} names the person ({{who}}) not exactly once")
        return self


def _has_known_fields(template: str) -> bool:
    """Whether all fields are plain: a width such as `{who:>9999999999}` would fill the memory."""
    try:
        parsed = list(Formatter().parse(template))
    except ValueError:  # A single brace.
        return False
    return all(
        field is None or (field in _FIELDS and not (width or conversion)) for _, field, width, conversion in parsed
    )


class _PromptList(Settings):
    """A file of prompts."""

    prompts: tuple[_PromptBlock, ...]
    """Blocks, in order."""


@cache
def read_prompts(name: str) -> tuple[tuple[str, frozenset[str]], ...]:
    """Read a list, built-in or by path: templates, and the groups that each fits.

    A file is TOML, or text with one prompt a line such as VBench's long prompts (`long_prompts`).

    Raises:
        ConfigError: There is no such list.
    """
    if name.endswith(SUFFIX):
        return read_long_prompts(name).templates
    shipped = tuple(sorted(path.stem for path in (FOLDER / "lists").glob("*.toml")))
    path = Path(name) if name.endswith(".toml") else FOLDER / "lists" / f"{require_known('list', name, shipped)}.toml"
    blocks = read(_PromptList, path).prompts
    return tuple((text, frozenset(block.groups)) for block in blocks for text in block.texts)


def fill_template(template: str, group: str) -> str:
    """Fill a template: "{who} nods {his} head" becomes "an elderly man img nods his head"."""
    article = "an" if group[0] in "aeiou" else "a"
    who, his = f"{article} {group} {TRIGGER}", _PRONOUNS.get(group, "her")
    return template.format(who=who, Who=who.capitalize(), group=group, his=his, His=his.capitalize())


def build_cases(protocol: Protocol, groups: Mapping[str, str]) -> list[ProtocolCase]:
    """Assign prompts to people in turn; no prompt is used twice before all were used once.

    Args:
        protocol: The protocol.
        groups: Group of each person, in order.

    Raises:
        ConfigError: No prompt fits a person's group, or no person fits any prompt.
    """
    return _cases_by_set(protocol, groups) if protocol.sets else _cases_by_identity(protocol, groups)


def _cases_by_identity(protocol: Protocol, groups: Mapping[str, str]) -> list[ProtocolCase]:
    pool = [entry for name in protocol.lists for entry in read_prompts(name)]
    next_prompt: dict[str, int] = {}
    cases = []
    for identity, group in groups.items():
        fitting = [text for text, fits in pool if group in fits]
        if not fitting:
            raise ConfigError(
                f"No prompt of {', '.join(protocol.lists)} is for a {group} (`{identity}`). Remove the person, or move "
                "the pictures into the folder of another group."
            )
        start = next_prompt.get(group, 0)
        next_prompt[group] = start + protocol.prompts_per_identity
        cases += [
            ProtocolCase(
                name=f"{identity}_{number + 1}",
                identity=identity,
                prompt=fill_template(fitting[(start + number) % len(fitting)], group),
            )
            for number in range(protocol.prompts_per_identity)
        ]
    return cases


def _cases_by_set(protocol: Protocol, groups: Mapping[str, str]) -> list[ProtocolCase]:
    uses = dict.fromkeys(groups, 0)
    cases = []
    for prompt_set in protocol.sets:
        for number, (text, fits) in enumerate(read_prompts(prompt_set.list)[: prompt_set.count], start=1):
            # The person used least so far, so that all appear about equally often.
            identity = min((name for name in groups if groups[name] in fits), key=lambda n: uses[n], default=None)
            if identity is None:
                continue  # Missing groups were reported by `choose_people`.
            uses[identity] += 1
            cases.append(
                ProtocolCase(
                    name=f"{prompt_set.prefix}_{number}",
                    identity=identity,
                    prompt=fill_template(text, groups[identity]),
                )
            )
    if not cases:
        raise ConfigError("No person fits any prompt of this protocol. Give pictures of other groups.")
    return cases


def choose_people(protocol: Protocol, groups: Mapping[str, str], *, allow_fewer: bool = False) -> dict[str, str]:
    """Take as many people of each group as the protocol requires, in order.

    Raises:
        ConfigError: There are fewer and `allow_fewer` is not given, or there are none.
    """
    required = protocol.groups or {"": protocol.identities}
    chosen: dict[str, str] = {}
    lacking: list[str] = []
    for group, count in required.items():
        available = [name for name, person_group in groups.items() if not group or person_group == group]
        chosen |= {name: groups[name] for name in available[:count]}
        if len(available) < count:
            lacking.append(f"{len(available)} of {count} {group or 'people'}")
    if lacking and not allow_fewer:
        raise ConfigError(
            f"The protocol requires {protocol.num_identities} people, and there are {len(groups)}: "
            f"{', '.join(lacking)}. Add pictures{_layout(protocol)}, or use `--allow-fewer`; results with fewer "
            "people do not compare with published ones."
        )
    if not chosen:
        raise ConfigError(f"There are no people for this protocol. Add pictures{_layout(protocol)}.")
    return chosen


def _layout(protocol: Protocol) -> str:
    return " as `GROUP/NAME/*.jpg` or `GROUP/NAME.jpg`" if protocol.groups else " as `NAME/*.jpg` or `NAME.jpg`"


def group_of(folder: str, known_groups: Sequence[str] = GROUPS) -> str | None:
    """The group of a folder's name, also written `elderly_man` or `elderly-man`; None if it is no group."""
    name = folder.lower().replace("_", " ").replace("-", " ")
    return name if name in known_groups else None
