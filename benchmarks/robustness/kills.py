"""Ends every command that writes at random moments, by SIGKILL and by Ctrl-C, and starts it again.

The moment is uniform over the time of an undisturbed run. After every signal all files must be readable. The command is
started again in the same folder until it has ended by itself; then its files must be those of an undisturbed run, byte
for byte, without temporary files. The server of a study is ended while raters send answers: every answer that was
acknowledged must be stored, once.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from trials import (
    INTERRUPTED,
    LONGEST_END_S,
    Command,
    Ended,
    Tally,
    benchmark_of,
    damaged,
    differences,
    digests,
    left_over,
    session_of,
)
from verbs import ALWAYS_VARIES, VERBS, Verb, make_material

KINDS = {"SIGKILL": signal.SIGKILL, "Ctrl-C": signal.SIGINT}
ENDED_BY = {"SIGKILL": (-signal.SIGKILL,), "Ctrl-C": INTERRUPTED}
TRIALS, CHEAP_TRIALS, NEW_PROCESSES, SERVER_TRIALS = 5, 10, 1, 20
"""Trials of each command and kind; of commands that take about a second; in new interpreters; of the server."""


class Disturbed:
    """Trials of one command."""

    def __init__(self, verb: Verb, material: Path, parent: Path) -> None:
        self.verb, self.material = verb, material
        self.folder = parent / verb.name.replace(", ", "_").replace(" ", "_")
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
            ended = self.start(self.verb.prepare(self.material, self.folder)).end()
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
        return True

    def start(self, folder: Path, **options: Any) -> Command:
        options.setdefault("is_new_process", not self.verb.is_forked)
        return Command(self.words, folder, **options)

    @property
    def words(self) -> list[str]:
        return self.verb.words(self.material)

    def measure_start(self) -> float:
        """Seconds of a new interpreter."""
        return self.start(self.verb.prepare(self.material, self.folder), is_new_process=True).end().seconds

    def disturb(self, number: int, kind: str, tally: Tally, *, longest_s: float, **options: Any) -> None:
        """Send `number` signals. What a signal left stays there for the next one, until the command has finished."""
        self.verb.prepare(self.material, self.folder)
        for sent in range(1, number + 1):
            ended = self.start(self.folder, **options).disturb(random.uniform(0, longest_s), KINDS[kind])
            faults, is_done = self._judge(ended, [0, *ENDED_BY[kind]])
            if sent == number and not is_done and not faults:
                faults, _ = self._judge(self.start(self.folder).end(), [0])
                faults = [f"afterwards: {fault}" for fault in faults]
            tally.add(f"{kind} of {self.verb.name}", faults, outcome="finished" if is_done else "ended")
            if faults or is_done:
                self.verb.prepare(self.material, self.folder)

    def _judge(self, ended: Ended, expected: list[int]) -> tuple[list[str], bool]:
        """Faults, and whether all is done; if so, the files must be those of an undisturbed run."""
        was_done = self.verb.refuses_again and "already holds" in ended.printed  # The signal before came after the end.
        faults = ended.faults([*expected, *([2] if was_done else [])])
        faults += damaged(self.folder) + self.verb.check(self.folder)
        if is_done := ended.code == 0 or was_done:
            faults += differences(digests(self.folder, self.ignored), self.meant)
            faults += [] if was_done else left_over(self.folder)
        return faults, is_done


def end_servers(number: int, kind: str, material: Path, parent: Path, tally: Tally) -> None:
    """End and start the server of a study while raters send answers."""
    from served import Server
    from survey import message

    from likeness.app.study.answers import AnswerStore
    from likeness.app.study.manifest import Study

    what = f"{kind} of study serve"
    folder = parent / "served"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(material / "study", folder)
    study, log = Study.load(folder), parent / "served.log"
    server, acknowledged, is_over = Server(folder, log=log), {}, threading.Event()

    def rate(name: str) -> None:
        for turn in range(100_000):
            rater = f"{name}-{turn}"
            begun = server.insist("/api/raters", {"rater": rater, "study": study.key}, is_over)
            for position, trial in enumerate(study.plans[begun["plan"]] if begun else ()):
                one = message(study, rater, trial, 1 + position % 5, position=position)
                if not server.insist("/api/answers", one.model_dump(), is_over):
                    return
                acknowledged[one.key] = one
            if not begun:
                return
            if is_over.is_set():
                return

    raters = [threading.Thread(target=rate, args=(f"rater-{number}",)) for number in range(4)]
    for rater in raters:
        rater.start()
    for _ in range(number):
        pid = server.process.pid
        time.sleep(random.uniform(0, 1.5))
        server.process.send_signal(KINDS[kind])
        began_s = time.monotonic()
        try:
            code = server.process.wait(LONGEST_END_S)
        except subprocess.TimeoutExpired:
            code = None
            server.kill()
        ended = Ended(code, log.read_text(errors="replace"), time.monotonic() - began_s, len(session_of(pid)))
        tally.add(what, ended.faults([*ENDED_BY[kind], *([0] if kind == "Ctrl-C" else [])]), outcome=f"exit {code}")
        server.start(waits=random.random() < 0.5)
    time.sleep(2)
    is_over.set()
    for rater in raters:
        rater.join()
    server.kill()
    store = AnswerStore(folder, study)
    stored = [(one.rater, one.trial, frozenset(one.ratings.items())) for one in store.newest()]
    num_stored = store.count()[1]
    store.close()
    sent = {(one.rater, one.trial, frozenset(one.ratings.items())) for one in acknowledged.values()}
    faults = [f"{len(sent - set(stored))} acknowledged answers are lost"] if sent - set(stored) else []
    if num_stored != len(set(stored)):
        faults.append(f"{num_stored - len(set(stored))} answers are stored twice")
    tally.add(f"acknowledged answers, {what}", faults, tries=len(sent))


def main() -> int:
    benchmark = benchmark_of("kills", [*VERBS, "study serve"], has_trials=True)
    arguments = benchmark.arguments()
    random.seed(arguments.seed)
    parent, tally = arguments.output.absolute(), Tally(benchmark)
    material = make_material(parent / "material", arguments.material)
    chosen = arguments.only or [*VERBS, "study serve"]
    imports_s = 0.0
    for name in chosen:
        if name == "study serve":
            number = 2 if arguments.quick else round(SERVER_TRIALS * arguments.factor)
            for kind in KINDS:
                end_servers(number, kind, material, parent, tally)
                tally.done(f"{kind} of study serve")
                tally.done(f"acknowledged answers, {kind} of study serve")
            continue
        trials = Disturbed(VERBS[name], material, parent)
        if not trials.is_repeatable(tally):
            continue
        print(f"  {name}: {trials.seconds:.1f} s undisturbed", flush=True)
        number = (
            1
            if arguments.quick
            else max(1, round((CHEAP_TRIALS if VERBS[name].is_cheap else TRIALS) * arguments.factor))
        )
        for kind in KINDS:
            trials.disturb(number, kind, tally, longest_s=trials.seconds)
            tally.done(f"{kind} of {name}")
        if VERBS[name].is_forked and not arguments.quick:
            imports_s = imports_s or max(0.0, trials.measure_start() - trials.seconds)
            longest_s = imports_s + trials.seconds
            trials.disturb(NEW_PROCESSES, "Ctrl-C", tally, longest_s=longest_s, is_new_process=True)
            tally.done(f"Ctrl-C of {name}")
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
