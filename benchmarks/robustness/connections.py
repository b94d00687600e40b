"""Holds bad connections to the server of a study, and counts requests that are not answered in time.

Kinds: connections that send nothing; half a head; half a body; a byte now and then; a client that reads nothing of a
large video; a request that is not HTTP. Beside them raters ask and answer: every request must be answered within
`LONGEST_S`, and every answer that was acknowledged must be stored. Afterwards the server must close what is idle.
"""

import contextlib
import random
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trials import Tally, benchmark_of
from verbs import make_material

LONGEST_S = 5.0
CONNECTIONS, REQUESTS = 1400, 40
CLOSED_S = 90.0
"""A whole request must arrive within 20 s, and a client must read within 60 s."""
HEAD = b"POST /api/answers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
KINDS: dict[str, bytes] = {
    "silent": b"",
    "half a head": HEAD,
    "half a body": HEAD + b"Content-Length: 90\r\n\r\n{",
    "a byte now and then": b"G",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
    "reads nothing": b"GET /media/v1.mp4 HTTP/1.1\r\nHost: x\r\n\r\n" * 8,
    "an endless head": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 60_000,
}


class Crowd:
    """Many bad connections of one kind."""

    def __init__(self, port: int, data: bytes, number: int) -> None:
        self.port, self.data, self.number = port, data, number
        self.clients: list[socket.socket] = []
        self.is_over = threading.Event()
        self.thread = threading.Thread(target=self._drip)

    def __enter__(self) -> "Crowd":
        for _ in range(self.number):
            with contextlib.suppress(OSError):  # It may be refused; only raters must not be.
                self.clients.append(self._open())
        self.thread.start()
        return self

    def _open(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(self.data)
        return client

    def _drip(self) -> None:
        """Send a byte now and then, and replace what the server closed."""
        while not self.is_over.wait(0.5):
            for index in random.sample(range(len(self.clients)), min(50, len(self.clients))):
                try:
                    if self.data == KINDS["a byte now and then"]:
                        self.clients[index].sendall(b"E")
                    elif random.random() < 0.5:
                        continue
                    self.clients[index].getpeername()
                except OSError:
                    with contextlib.suppress(OSError):
                        self.clients[index].close()
                        self.clients[index] = self._open()

    def stop(self) -> None:
        self.is_over.set()
        self.thread.join()

    def __exit__(self, *_: object) -> None:
        self.stop()
        for client in self.clients:
            client.close()


def open_of(pid: int, port: int) -> int:
    """Connections that a server holds open."""
    inodes = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(str(path.readlink()))
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    established = [row for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "01"]
    return sum(f"socket:[{row[9]}]" in inodes for row in established)


def ask(server: Any, number: int, study: Any, acknowledged: set[tuple[str, str]]) -> list[str]:
    """One rater: the page, a video, an answer."""
    from survey import message

    began_s, rater = time.monotonic(), f"rater-{number:06}"
    one = message(study, rater, study.items[0].id, 3)
    requests: list[Callable[[], tuple]] = [
        lambda: server.ask("GET", "/"),
        lambda: server.ask("GET", "/media/v2.mp4", headers={"Range": "bytes=0-999"}),
        lambda: server.ask("POST", "/api/raters", {"rater": rater, "study": study.key}),
        lambda: server.ask("POST", "/api/answers", one.model_dump()),
    ]
    try:
        replies = [request()[0] for request in requests]
    except OSError as error:
        return [f"a request failed: {error!r}"]
    faults = [] if replies == [200, 206, 200, 200] else [f"answered {replies}"]
    if replies[-1] == 200:
        acknowledged.add((one.rater, one.trial))
    if (seconds := time.monotonic() - began_s) > LONGEST_S:
        faults.append(f"four requests took {seconds:.1f} s")
    return faults


def hold(kind: str, material: Path, parent: Path, tally: Tally, *, number: int, requests: int) -> None:
    from served import Server

    from likeness.app.study.answers import AnswerStore
    from likeness.app.study.manifest import Study

    what = f"requests beside {number} connections, {kind}"
    folder = parent / "served"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(material / "study", folder)
    (folder / "site" / "media" / "v1.mp4").write_bytes(bytes(40_000_000))
    study, log, acknowledged = Study.load(folder), parent / "served.log", set()
    server = Server(folder, log=log)
    try:
        with Crowd(server.port, KINDS[kind], number) as crowd:
            for count in range(requests):
                tally.add(what, ask(server, count, study, acknowledged))
                time.sleep(0.05)
            crowd.stop()
            end_s = time.monotonic() + CLOSED_S
            while (left := open_of(server.process.pid, server.port)) and time.monotonic() < end_s:
                time.sleep(0.5)
            tally.add("idle connections closed", [f"{kind}: {left} are still open"] if left else [])
            tally.add("messages of the server", ["traceback"] if "Traceback" in log.read_text() else [])
        tally.add(what, ask(server, requests, study, acknowledged))
    finally:
        server.kill()
    store = AnswerStore(folder, study)
    stored = {(one.rater, one.trial) for one in store.newest()}
    store.close()
    lost = acknowledged - stored
    tally.add("acknowledged answers", [f"{len(lost)} are lost"] if lost else [], tries=len(acknowledged))
    tally.done(what)


def main() -> int:
    benchmark = benchmark_of("connections", [*KINDS])
    arguments = benchmark.arguments()
    random.seed(arguments.seed)
    parent, tally = arguments.output.absolute(), Tally(benchmark)
    material = make_material(parent / "material", arguments.material, imports=False)
    number, requests = (200, 5) if arguments.quick else (CONNECTIONS, REQUESTS)
    for kind in arguments.only or (["half a head"] if arguments.quick else [*KINDS]):
        hold(kind, material, parent, tally, number=number, requests=requests)
    return tally.finish()


if __name__ == "__main__":
    sys.exit(main())
