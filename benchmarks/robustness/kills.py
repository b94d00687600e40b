"""Ends every command that writes at random moments, by SIGKILL, Ctrl-C and SIGTERM, and starts it again.

The moment is uniform over the time of an undisturbed run, in new interpreters with their imports. After every signal
all files must be readable. The command is started again in the same folder until it has ended by itself; then its files
must be those of an undisturbed run, byte for byte, without temporary files. Of a training with two processes a peer is
killed as well, and half of all signals arrive while both join their group. The server of a study is ended while raters
send answers: every answer that was acknowledged must be stored, once.
"""

import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trials import (
    INTERRUPTED,
    LONGEST_END_S,
    TERMINATED,
    Command,
    Ended,
    Tally,
    damaged,
    differences,
    digests,
    left_over,
    session_of,
)
from verb_trials import CHEAP_S, SERVER, Counts, VerbTrials, try_all

PEER = "SIGKILL of a peer"
KINDS = {"SIGKILL": signal.SIGKILL, "Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM, PEER: signal.SIGKILL}
ENDED_BY = {"SIGKILL": (-signal.SIGKILL,), "Ctrl-C": INTERRUPTED, "SIGTERM": TERMINATED, PEER: (4,)}
COUNTS = Counts(cheap=7, dear=4, server=20)
"""Signals of each kind."""
REPORTED = ("Ctrl-C", "SIGTERM")
"""What a command ends by itself after. Of a verb that is cheap, one each is sent to a new interpreter as well."""
JOIN_S = 0.4
"""Time in which two processes join their group, from the moment at which the peer is ready."""


class Killed(VerbTrials):
    """Trials of one verb."""

    imports_s = 0.0
    """Time in which a new interpreter imports, measured once."""

    def disturb(
        self, kinds: Sequence[str], tally: Tally, *, longest_s: float, is_at_join: bool = False, **options: Any
    ) -> None:
        """Send signals in random order. What one left stays for the next, until the command has finished."""
        named = {kind: f"{kind} of {self.verb.name}{', while they join' if is_at_join else ''}" for kind in kinds}
        self.prepare()
        for sent, kind in enumerate(random.sample(kinds, len(kinds)), start=1):
            command = self.start(self.folder, **options)
            if is_at_join:
                self._wait_for_join(command)
            after_s = random.uniform(0, JOIN_S if is_at_join else longest_s)
            ended = command.disturb(after_s, KINDS[kind], is_of_peer=kind == PEER)
            faults, is_done = self._judge(ended, [0, *ENDED_BY[kind]])
            if sent == len(kinds) and not is_done and not faults:
                faults, _ = self._judge(self.start(self.folder).end(), [0])
                faults = [f"afterwards: {fault}" for fault in faults]
            tally.add(named[kind], faults, outcome="finished" if is_done else "ended")
            if faults or is_done:
                self.prepare()
        for what in named.values():
            tally.done(what)

    def _wait_for_join(self, command: Command) -> None:
        while command.poll() is None and not any(self.temporary.glob("likeness-processes-*/ready_1")):
            time.sleep(0.002)

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

    what = f"{kind} of {SERVER}"
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
        tally.add(what, ended.faults([*ENDED_BY[kind], *([0] if kind in REPORTED else [])]), outcome=f"exit {code}")
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
    tally.done(what)
    tally.done(f"acknowledged answers, {what}")


def end_verb(trials: Killed, number: int, tally: Tally) -> None:
    if trials.verb.has_peer:
        for is_at_join in (True, False):
            trials.disturb([*KINDS] * -(-number // 2), tally, longest_s=trials.seconds, is_at_join=is_at_join)
        return
    trials.disturb(["SIGKILL", *REPORTED] * number, tally, longest_s=trials.seconds)
    if trials.verb.is_forked and trials.seconds < CHEAP_S:
        if not Killed.imports_s:
            alone = trials.start(trials.prepare(), is_new_process=True).end()
            Killed.imports_s = max(0.5, alone.seconds - trials.seconds)
        trials.disturb(REPORTED, tally, longest_s=Killed.imports_s + trials.seconds, is_new_process=True)


def end_server(number: int, material: Path, parent: Path, tally: Tally) -> None:
    for kind in ("SIGKILL", *REPORTED):
        end_servers(number, kind, material, parent, tally)


if __name__ == "__main__":
    sys.exit(try_all("kills", COUNTS, Killed, end_verb, end_server))
