"""What the scripts that try every verb share: its undisturbed run, and the loop over verbs."""

import json
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from trials import Command, Tally, benchmark_of, differences, digests, left_over
from verbs import ALWAYS_VARIES, VERBS, Verb, make_material

SERVER = "study serve"
QUICK = ("generate, a picture", "character add", "bench create", "models pull, a server", SERVER)
"""Verbs of a quick run."""
CHEAP_S = 10.0
"""A verb that takes less is tried more often."""


class Counts(NamedTuple):
    """How often each kind of trial is made."""

    cheap: int
    dear: int
    server: int


class VerbTrials:
    """Trials of one verb."""

    def __init__(self, verb: Verb, material: Path, parent: Path) -> None:
        self.verb, self.material = verb, material
        self.folder = parent / verb.name.replace(", ", "_").replace(" ", "_")
        self.temporary = self.folder.with_name(f"{self.folder.name}_temporary")
        self.ignored = (*ALWAYS_VARIES, *verb.varies)
        self.seconds = 0.0
        self.meant: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        """Bytes of its files, its inputs among them."""

    def run_undisturbed(self) -> None:
        """Measure its time and keep the digests of its files; the first of two runs imports and compiles.

        They are kept beside the material, for the other scripts.
        """
        known = self.material / "undisturbed" / f"{self.folder.name}.json"
        if known.is_file():
            found = json.loads(known.read_text())
            self.seconds, self.meant, self.sizes = found["seconds"], found["meant"], found["sizes"]
            return
        for _ in range(2):
            ended = self.start(self.prepare()).end()
            if faults := ended.faults([0]) + left_over(self.folder):
                raise RuntimeError(f"{self.verb.name}, undisturbed: {faults}\n{ended.printed}")
            before, self.meant = self.meant, digests(self.folder, self.ignored)
            self.seconds = ended.seconds
            if before and (changed := differences(self.meant, before)):
                raise RuntimeError(f"{self.verb.name} is not the same twice: {changed}")
        self.sizes = {
            path.relative_to(self.folder).as_posix(): path.stat().st_size
            for path in self.folder.rglob("*")
            if path.is_file()
        }
        known.parent.mkdir(exist_ok=True)
        known.write_text(json.dumps({"seconds": self.seconds, "meant": self.meant, "sizes": self.sizes}))

    def is_repeatable(self, tally: Tally) -> bool:
        """Run it undisturbed; a command that fails then is bad, and is tried no further."""
        try:
            self.run_undisturbed()
        except RuntimeError as error:
            tally.add(f"{self.verb.name}, undisturbed", [str(error)])
            return False
        print(f"  {self.verb.name}: {self.seconds:.1f} s undisturbed", flush=True)
        return True

    def prepare(self) -> Path:
        return self.verb.prepare(self.material, self.folder)

    def start(self, folder: Path, *, environment: Mapping[str, str] | None = None, **options: Any) -> Command:
        options.setdefault("is_new_process", not self.verb.is_forked)
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir()
        variables = {"TMPDIR": str(self.temporary), **self.verb.environment(self.material), **(environment or {})}
        return Command(self.verb.words(self.material), folder, environment=variables, **options)


Trials = TypeVar("Trials", bound=VerbTrials)


def try_all(
    name: str,
    counts: Counts,
    of_verb: Callable[[Verb, Path, Path], Trials],
    try_verb: Callable[[Trials, int, Tally], None],
    try_server: Callable[[int, Path, Path, Tally], None],
) -> int:
    """Try the chosen verbs, and the server of a study; returns how many kinds are bad.

    Args:
        name: Of the script.
        counts: Trials of each kind.
        of_verb: Makes the trials of a verb, from its material and the folder of all trials.
        try_verb: Makes a number of trials of one verb.
        try_server: Makes a number of trials of the server.
    """
    benchmark = benchmark_of(name, [*VERBS, SERVER], has_trials=True)
    arguments = benchmark.arguments()
    random.seed(arguments.seed)
    parent, tally = arguments.output.absolute(), Tally(benchmark)
    chosen = arguments.only or (QUICK if arguments.quick else (*VERBS, SERVER))
    material = make_material(parent / "material", arguments.material, chosen=chosen)

    def number(count: int) -> int:
        return 1 if arguments.quick else max(1, round(count * arguments.factor))

    for verb in chosen:
        if verb == SERVER:
            try_server(number(counts.server), material, parent, tally)
            continue
        trials = of_verb(VERBS[verb], material, parent)
        if trials.is_repeatable(tally):
            try_verb(trials, number(counts.cheap if trials.seconds < CHEAP_S else counts.dear), tally)
    return tally.finish()
