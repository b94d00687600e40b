"""Create a benchmark from a folder of pictures or from puppets (rendered synthetic people)."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from likeness.app.bench.manifest import MANIFEST, REFERENCES, Bench, BenchCase, BenchIdentity
from likeness.app.bench.protocols import UNKNOWN_GROUP, Protocol, build_cases, choose_people, group_of
from likeness.app.folders import fill_folder
from likeness.errors import ConfigError, FaceError, LikenessError
from likeness.evaluation.inputs.folders import PICTURES
from likeness.faces import find_faces, read_face
from likeness.identity.face_shape import load_source
from likeness.identity.face_shape.beside import SUFFIXES, find_vertices
from likeness.media import write_image
from likeness.puppets import sample_image, sample_person
from likeness.weights import sha256_of

PUPPET_SEED = 600_000_000
"""Outside of the training seeds, so models have not seen the puppets of a benchmark."""
PUPPET_PX = 256
_MAX_ATTEMPTS = 40
_MAX_LISTED = 8


def create_bench(
    folder: Path,
    name: str,
    protocol: Protocol,
    pictures: Path | None,
    *,
    seed: int = 0,
    allow_fewer: bool = False,
    skip_bad: bool = False,
) -> Bench:
    """Write a benchmark to `folder`.

    Args:
        folder: Must not hold a benchmark.
        name: Name of the protocol, for the manifest.
        protocol: The protocol.
        pictures: `NAME/*.jpg` or `NAME.jpg`, below folders named after groups if the protocol has groups; None
            if the protocol draws people. Vertices beside a picture (`a.ply` beside `a.jpg`) belong to its face.
        seed: Of the videos' noise, and of puppets.
        allow_fewer: Accept fewer people than the protocol requires.
        skip_bad: Skip pictures without a usable face.

    Raises:
        ConfigError: The folder holds a benchmark or references, or pictures or people are missing.
        FaceError: Pictures show no usable face; all of them are listed.
    """
    if protocol.draws_people != (pictures is None):
        need = "draws its own people; leave `--pictures` out" if protocol.draws_people else "needs `--pictures FOLDER`"
        raise ConfigError(f"The protocol `{name}` {need}.")
    with fill_folder(folder, REFERENCES, manifest=MANIFEST) as draft:
        target = draft / REFERENCES
        if pictures is None:
            groups = draw_people(target, protocol, seed)
        else:
            people = find_pictures(pictures, has_groups=bool(protocol.groups))
            usable = filter_usable(people, protocol.max_references, skip_bad=skip_bad)
            groups = choose_people(
                protocol, {who: group for who, (group, _) in usable.items()}, allow_fewer=allow_fewer
            )
            for who in groups:
                for number, path in enumerate(usable[who][1], start=1):
                    _copy_picture(path, target / who, number)
            _check_shapes(usable, groups)
        bench = Bench(
            protocol=name,
            title=protocol.title,
            source=protocol.source,
            is_complete=len(groups) == protocol.num_identities,
            identities=tuple(_describe(target / who, group) for who, group in groups.items()),
            cases=tuple(
                BenchCase(name=case.name, identity=case.identity, prompt=case.prompt, seed=seed + number)
                for number, case in enumerate(build_cases(protocol, groups))
            ),
        )
        bench.save(draft)
    return bench


def _copy_picture(path: Path, folder: Path, number: int) -> None:
    """Copy a picture, and the vertices of its face if there are any: `a.ply` beside `a.jpg`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, folder / f"{number}{path.suffix.lower()}")
    found = [path.with_suffix(suffix) for suffix in SUFFIXES if path.with_suffix(suffix).is_file()]
    if len(found) > 1:
        raise ConfigError(
            f"{found[0]} and {found[1]} both lie beside {path.name}; only one file of vertices is allowed. Remove one."
        )
    for shape in found:
        load_source(f"flame:{shape}")  # Checked now, not when the videos are generated.
        shutil.copyfile(shape, folder / f"{number}{shape.suffix}")


def _check_shapes(usable: Mapping[str, tuple[str, Sequence[Path]]], chosen: Iterable[str]) -> None:
    """Refuse vertices of some people only: results with measured and with assumed heads do not compare."""
    has_shape = {name: any(find_vertices(path) for path in usable[name][1]) for name in chosen}
    without_shape = [name for name, is_there in has_shape.items() if not is_there]
    if without_shape and len(without_shape) < len(has_shape):
        raise ConfigError(
            f"{len(has_shape) - len(without_shape)} people have vertices beside a picture, {len(without_shape)} have "
            f"none (first: {without_shape[0]}). Give vertices for all people or for none."
        )


def find_pictures(folder: Path, *, has_groups: bool) -> dict[str, tuple[str, Sequence[Path]]]:
    """Find people: each folder of pictures is a person, and so is each single picture.

    Returns:
        Group and pictures of each person, by name.

    Raises:
        ConfigError: There is no picture, or a name occurs twice.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder. Name the folder of your pictures.")
    people: dict[str, tuple[str, Sequence[Path]]] = {}
    grouped = [(group_of(inner.name), inner) for inner in sorted(folder.iterdir()) if inner.is_dir()]
    subfolders = [(group, inner) for group, inner in grouped if group is not None]
    for group, subfolder in subfolders or [(UNKNOWN_GROUP, folder)]:
        for path in sorted(subfolder.iterdir()):
            pictures = _pictures_in(path)
            name = path.stem if path.is_file() else path.name
            if not pictures:
                continue
            if name in people:
                raise ConfigError(
                    f"Two people are called `{name}` ({people[name][1][0]} and {pictures[0]}). Rename one."
                )
            people[name] = (group, pictures)
    if not people:
        wanted = "GROUP/NAME/*.jpg" if has_groups else "NAME/*.jpg or NAME.jpg"
        raise ConfigError(f"{folder} holds no pictures of people. Put them there as {wanted}.")
    if has_groups and not subfolders:
        raise ConfigError(
            f"This protocol needs groups, and {folder} has no folder named after one. Put the people into folders "
            "such as `man`, `elderly_woman`, `baby`."
        )
    return people


def filter_usable(
    people: Mapping[str, tuple[str, Sequence[Path]]], max_pictures: int, *, skip_bad: bool
) -> dict[str, tuple[str, list[Path]]]:
    """Read every picture as a reference; keep up to `max_pictures` usable ones of each person.

    Raises:
        FaceError: Some are unusable and `skip_bad` is not given; each is listed with its reason.
    """
    usable: dict[str, tuple[str, list[Path]]] = {}
    problems: list[str] = []
    for name, (group, pictures) in people.items():
        kept: list[Path] = []
        for path in pictures:
            if len(kept) == max_pictures:
                break
            try:
                read_face(path)
            except LikenessError as error:
                problems.append(str(error).splitlines()[0])
                continue
            kept.append(path)
        if kept:
            usable[name] = (group, kept)
    if problems and not skip_bad:
        listed = "\n".join(f"  {reason}" for reason in problems[:_MAX_LISTED])
        more = f"\n  and {len(problems) - _MAX_LISTED} more" if len(problems) > _MAX_LISTED else ""
        raise FaceError(
            f"{len(problems)} pictures cannot be references:\n{listed}{more}\n"
            "Replace them, or skip them with `--skip-bad`."
        )
    return usable


def draw_people(folder: Path, protocol: Protocol, seed: int) -> dict[str, str]:
    """Draw all people of the protocol, with pictures in which dlib finds exactly one face.

    People without enough such pictures are replaced by others.
    """
    groups: dict[str, str] = {}
    number = PUPPET_SEED + 10_000 * seed
    for group, count in protocol.groups.items():
        for index in range(1, count + 1):
            name = f"{group.replace(' ', '_')}_{index}"
            for _ in range(_MAX_ATTEMPTS):
                number += 1
                portraits = _draw_portraits(number, group, protocol.max_references)
                if len(portraits) == protocol.max_references:
                    break
            else:
                raise AssertionError(f"no face found in {_MAX_ATTEMPTS} puppets of the group {group}")
            for picture_number, picture in enumerate(portraits, start=1):
                write_image(folder / name / f"{picture_number}.png", picture)
            groups[name] = group
    return groups


def _draw_portraits(number: int, group: str, count: int) -> list:
    person = sample_person(number, group)
    candidates = (
        sample_image(number + 1_000_000 * index, person=person, size_px=PUPPET_PX, max_yaw_deg=12).frames[0]
        for index in range(2 * count)
    )
    return [picture for picture in candidates if len(find_faces(picture)) == 1][:count]


def _pictures_in(path: Path) -> list[Path]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    # macOS writes `._anna.jpg` beside `anna.jpg`.
    return [file for file in files if file.suffix.lower() in PICTURES and not file.name.startswith(".")]


def _describe(folder: Path, group: str) -> BenchIdentity:
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    try:
        return BenchIdentity(
            name=folder.name,
            group=group,
            references={name: digest for name, digest in files.items() if Path(name).suffix not in SUFFIXES},
            shapes={name: digest for name, digest in files.items() if Path(name).suffix in SUFFIXES},
        )
    except ValidationError as error:
        raise ConfigError(
            f"A person cannot be called {folder.name!r}: {error.errors()[0]['msg']}. Rename the pictures."
        ) from error
