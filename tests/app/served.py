"""A real server of a study in a process of its own, that can be killed, and clients that do not give up."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

START_S = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, folder: Path, *, log: Path | None = None, waits: bool = True) -> None:
        """`log` gets the messages of each start."""
        self.folder, self.port, self.log = folder, free_port(), log
        self.start(waits=waits)

    def start(self, *, waits: bool = True) -> None:
        words = [
            sys.executable,
            "-m",
            "likeness",
            "study",
            "serve",
            str(self.folder),
            "--port",
            str(self.port),
        ]
        with Path(self.log or os.devnull).open("wb") as messages:
            self.process = subprocess.Popen(
                words, stdout=messages, stderr=messages if self.log else None, start_new_session=True
            )
        if waits:
            self.wait()

    def wait(self) -> None:
        """Wait until it answers."""
        end = time.monotonic() + START_S
        while True:
            try:
                assert self.ask("GET", "/api/health")[0] == 200
                return
            except (OSError, http.client.HTTPException):
                assert self.process.poll() is None, "the server stopped"
                assert time.monotonic() < end, "the server did not answer in time"
                time.sleep(0.05)

    def kill(self) -> None:
        """As `kill -9`."""
        self.process.kill()
        self.process.wait()

    def ask(self, method, path, body=None, headers=None) -> tuple[int, bytes, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            text = json.dumps(body) if isinstance(body, dict) else body
            connection.request(method, path, text, {"Content-Type": "application/json"} | (headers or {}))
            reply = connection.getresponse()
            return reply.status, reply.read(), dict(reply.getheaders())
        finally:
            connection.close()

    def insist(self, path, body, is_over: threading.Event | None = None) -> dict:
        """Send until a reply comes, as the survey's page does; nothing is returned once `is_over` is set."""
        while is_over is None or not is_over.is_set():
            try:
                status, reply, _ = self.ask("POST", path, body)
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)
                continue
            assert status == 200, reply
            return json.loads(reply)
        return {}


class InProcess(Server):
    """The same in a thread of this process, where tests can change what it uses."""

    def start(self, *, waits: bool = True) -> None:
        import uvicorn

        from likeness.app.study.server import build_app, build_config

        config = build_config(build_app(self.folder), host="127.0.0.1", port=self.port, log_level="error")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        end = time.monotonic() + START_S
        while waits and not self.server.started:
            assert self.thread.is_alive(), "the server stopped"
            assert time.monotonic() < end, "the server did not start in time"
            time.sleep(0.02)

    def __enter__(self) -> "InProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()
