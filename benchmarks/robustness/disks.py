"""Runs every command that writes on a disk that is full, read-only, or limits the size of files.

- full: a disk in memory with random room, less than the command needs. It must end with a message that names the
  cause, every file must be readable, and with more room the same command must give the files of an undisturbed run.
- size limit: the same by the limit of the system on the size of a file (RLIMIT_FSIZE).
- read-only: it must be refused, and nothing may change.

The server of a study must acknowledge no answer that it cannot store. Mounting needs root, as in a container.
"""

import random
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trials import REFUSED, Command, Ended, Tally, damaged, differences, digests, left_over, remount, small_disk
from verb_trials import Counts, VerbTrials, try_all

COUNTS, READ_ONLY_TRIALS = Counts(cheap=5, dear=2, server=3), 1
CAUSES = (
    "check that it is writable",
    "No space left",
    "cannot be written",
    "Nothing can be written",
    "File too large",
    "Read-only",
    "disk",
)
PAGE_BYTES = 4096
LEAST_LIMIT_BYTES = 6000
"""The messages of a command go to a file as well."""
LARGE = "size=200m"


class OnDisk(VerbTrials):
    """Trials of one command."""

    def run_undisturbed(self) -> None:
        super().run_undisturbed()
        self.disk = self.folder.with_name(f"{self.folder.name}_disk")
        self.spare = self.folder.with_name(f"{self.folder.name}_spare")
        self.needed_bytes = sum(-(-size // PAGE_BYTES) * PAGE_BYTES for size in self.sizes.values())
        self.largest_bytes = max(self.sizes.values())
        self.prepare()
        self.input_bytes = size_of(self.folder)

    def fill(self, tally: Tally) -> None:
        room_bytes = round(random.uniform(0, 1.02) * (self.needed_bytes - self.input_bytes))
        size_bytes = self.input_bytes + room_bytes + 4 * PAGE_BYTES
        with small_disk(self.disk, size_bytes):
            folder = self.verb.prepare(self.material, self.disk / "place")
            first = self.start(folder, log=self.log, environment=self.elsewhere).end()
            remount(self.disk, LARGE)
            self._compare(first, folder, f"{self.verb.name}, full disk", tally)

    def limit(self, tally: Tally) -> None:
        limit_bytes = round(random.uniform(LEAST_LIMIT_BYTES, max(LEAST_LIMIT_BYTES, self.largest_bytes)))

        def setup() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, resource.RLIM_INFINITY))

        folder = self.prepare()
        first = self.start(folder, log=self.log, setup=setup, environment=self.elsewhere).end()
        self._compare(first, folder, f"{self.verb.name}, limited files", tally)

    def refuse(self, tally: Tally) -> None:
        with small_disk(self.disk, self.needed_bytes * 2 + 50_000_000):
            folder = self.verb.prepare(self.material, self.disk / "place")
            before = digests(folder)
            remount(self.disk, "ro")
            ended = self.start(folder, log=self.log, environment=self.elsewhere).end()
            faults = ended.faults(REFUSED) + cause_of(ended)
            faults += differences(digests(folder), before)
            tally.add(f"{self.verb.name}, read-only disk", faults)

    @property
    def log(self) -> Path:
        return self.folder.with_suffix(".log")

    @property
    def elsewhere(self) -> dict[str, str]:
        """Where clips go that cannot be saved."""
        self.spare.mkdir(exist_ok=True)
        return {"TMPDIR": str(self.spare), "HOME": str(self.spare)}

    def _compare(self, first: Ended, folder: Path, what: str, tally: Tally) -> None:
        faults = first.faults([0, *REFUSED]) + damaged(folder) + self.verb.check(folder)
        if first.code != 0:
            faults += cause_of(first)
        again = self.start(folder, log=self.log).end()
        done_before = self.verb.refuses_again and "already holds" in again.printed
        faults += [f"afterwards: {fault}" for fault in again.faults([2] if done_before else [0]) + damaged(folder)]
        faults += differences(digests(folder, (*self.ignored, "*.????????.*")), self.meant)
        faults += [] if done_before else left_over(folder)
        shutil.rmtree(self.spare, ignore_errors=True)
        tally.add(what, faults, outcome="enough" if first.code == 0 else "refused")


def cause_of(ended: Ended) -> list[str]:
    return [] if any(cause in ended.printed for cause in CAUSES) else [f"names no cause: {ended.last_line}"]


def size_of(folder: Path) -> int:
    """Bytes of a folder on a disk of whole pages."""
    return sum(
        PAGE_BYTES if path.is_dir() else -(-path.stat().st_size // PAGE_BYTES) * PAGE_BYTES
        for path in folder.rglob("*")
    )


@contextmanager
def served(folder: Path, log: Path) -> Iterator:
    from served import Server

    server = Server(folder, log=log)
    try:
        yield server
    finally:
        server.kill()


def fill_server(material: Path, parent: Path, tally: Tally) -> None:
    """Answers until the disk is full; with more room the rest must be stored, and each once."""
    from survey import message

    from likeness.app.study.answers import AnswerStore
    from likeness.app.study.manifest import Study

    disk, what = parent / "served_disk", "study serve, full disk"
    with small_disk(disk, size_of(material / "study") + random.randint(16, 80) * PAGE_BYTES):
        folder = shutil.copytree(material / "study", disk / "study")
        study, log = Study.load(folder), parent / "served.log"
        faults, sent, status, reply = [], {}, 200, b""
        one = message(study, "rater-9999", study.items[0].id, 3)
        with served(folder, log) as server:
            for number in range(3000):
                one = message(study, f"rater-{number:04}", study.items[0].id, 3)
                status, reply, _ = server.ask("POST", "/api/raters", {"rater": one.rater, "study": study.key})
                if status == 200:
                    status, reply, _ = server.ask("POST", "/api/answers", one.model_dump())
                if status != 200:
                    break
                sent[one.rater] = one
            faults += [] if status == 503 else [f"status {status} on a full disk: {reply[:100]!r}"]
            remount(disk, LARGE)
            server.insist("/api/raters", {"rater": one.rater, "study": study.key})
            server.insist("/api/answers", one.model_dump())
            sent[one.rater] = one
        store = AnswerStore(folder, study)
        stored = {answer.rater for answer in store.newest()}
        faults += [] if stored == sent.keys() else [f"{len(sent.keys() - stored)} answers are lost"]
        faults += [] if store.count()[1] == len(sent) else ["an answer is stored twice"]
        store.close()
        faults += ["traceback"] if "Traceback" in log.read_text() else []
        tally.add(what, faults, outcome="filled")


def refuse_server(material: Path, parent: Path, tally: Tally) -> None:
    with small_disk(parent / "served_disk", 50_000_000):
        folder = shutil.copytree(material / "study", parent / "served_disk" / "study")
        remount(parent / "served_disk", "ro")
        words = ["study", "serve", "study", "--port", "8123"]
        ended = Command(words, folder.parent, log=parent / "served.log").end(60)
        tally.add("study serve, read-only disk", ended.faults(REFUSED) + cause_of(ended))


def try_verb(trials: OnDisk, number: int, tally: Tally) -> None:
    for kind, count in ((trials.fill, number), (trials.limit, number), (trials.refuse, READ_ONLY_TRIALS)):
        for _ in range(count):
            kind(tally)
    for kind in ("full disk", "limited files", "read-only disk"):
        tally.done(f"{trials.verb.name}, {kind}")


def try_server(number: int, material: Path, parent: Path, tally: Tally) -> None:
    for _ in range(number):
        fill_server(material, parent, tally)
    refuse_server(material, parent, tally)


if __name__ == "__main__":
    sys.exit(try_all("disks", COUNTS, OnDisk, try_verb, try_server))
