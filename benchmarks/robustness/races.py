"""Starts every command that writes twice at once on one target.

Both must end: with success, or refused with a message. At least one must succeed, and the files must be those of an
undisturbed run, without temporary files. Two servers of one study must keep every answer that either acknowledged.
"""

import random
import shutil
import sys
import threading
import time
from pathlib import Path

from trials import REFUSED, Tally, damaged, differences, digests, left_over
from verb_trials import SERVER, Counts, VerbTrials, try_all

COUNTS = Counts(cheap=8, dear=3, server=3)


def race(trials: VerbTrials, tally: Tally) -> None:
    """Two at once; the second starts within a third of the run."""
    folder = trials.prepare()
    logs = [folder.with_name(f"{folder.name}_{number}.log") for number in (1, 2)]
    first = trials.start(folder, log=logs[0])
    time.sleep(random.uniform(0, trials.seconds / 3) if random.random() < 0.5 else 0)
    second = trials.start(folder, log=logs[1])
    ended = [first.end(), second.end()]
    faults = [fault for one in ended for fault in one.faults([0, *REFUSED])]
    if not any(one.code == 0 for one in ended):
        faults.append(f"none has succeeded: {' / '.join(one.last_line for one in ended)}")
    faults += damaged(folder) + differences(digests(folder, trials.ignored), trials.meant) + left_over(folder)
    succeeded = sum(one.code == 0 for one in ended)
    tally.add(f"two of {trials.verb.name}", faults, outcome="both done" if succeeded == 2 else "one refused")


def serve_twice(material: Path, parent: Path, tally: Tally) -> None:
    """Two servers of one study, and raters that send to both."""
    from served import Server
    from survey import message

    from likeness.app.study.answers import AnswerStore
    from likeness.app.study.manifest import Study

    folder = parent / "served"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(material / "study", folder)
    study, faults, sent = Study.load(folder), [], {}
    logs = [parent / f"served_{number}.log" for number in (1, 2)]
    servers = [Server(folder, log=log, waits=False) for log in logs]
    try:
        for server in servers:
            server.wait()
    except AssertionError as error:
        told = " / ".join(log.read_text()[-200:] for log in logs)
        tally.add("two of study serve", [f"{error}: {told}"], outcome="one stopped")
        for server in servers:
            server.kill()
        return

    def rate(number: int) -> None:
        rater = f"rater-{number:04}"
        plan = [server.insist("/api/raters", {"rater": rater, "study": study.key})["plan"] for server in servers]
        if plan[0] != plan[1]:
            faults.append(f"{rater} has two plans")
        for position, trial in enumerate(study.plans[plan[0]]):
            one = message(study, rater, trial, 1 + position % 5, position=position)
            for server in random.sample(servers, 1 + position % 2):
                server.insist("/api/answers", one.model_dump())
            sent[one.key] = one

    raters = [threading.Thread(target=rate, args=(number,)) for number in range(20)]
    for rater in raters:
        rater.start()
    for rater in raters:
        rater.join()
    for server in servers:
        server.kill()
    store = AnswerStore(folder, study)
    if store.count() != (20, len(sent)) or len(store.newest()) != len(sent):
        faults.append(f"{len(sent)} answers were sent, {store.count()[1]} are stored")
    store.close()
    faults += ["traceback" for log in logs if "Traceback" in log.read_text()]
    tally.add("two of study serve", faults, outcome="both serve")


def race_verb(trials: VerbTrials, number: int, tally: Tally) -> None:
    for _ in range(number):
        race(trials, tally)
    tally.done(f"two of {trials.verb.name}")


def race_servers(number: int, material: Path, parent: Path, tally: Tally) -> None:
    for _ in range(number):
        serve_twice(material, parent, tally)
    tally.done(f"two of {SERVER}")


if __name__ == "__main__":
    sys.exit(try_all("races", COUNTS, VerbTrials, race_verb, race_servers))
