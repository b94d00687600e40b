"""Clients that send half a request, or read no answer, and a study that is served after it was created again."""

import shutil
import socket
import time
from contextlib import ExitStack

import pytest
from served import InProcess
from survey import make_study, message

from likeness.app.study.manifest import Study

pytest.importorskip("fastapi", reason="the web framework is not installed: pip install 'likeness[app]'")
from likeness.app.study import connections

HALF = b"GET /api/health HTTP/1.1\r\nHost: x\r\n"
HALF_BODY = b"POST /api/answers HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{"


@pytest.fixture
def folder(shared_study, tmp_path):
    return shutil.copytree(shared_study, tmp_path / "study")


def open_half(server, stack, data):
    client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
    client.sendall(data)
    return client


@pytest.mark.parametrize("data", [b"", HALF, HALF_BODY])
def test_half_requests_deny_nobody(folder, monkeypatch, data):
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    with InProcess(folder) as server, ExitStack() as stack:
        for _ in range(60):
            open_half(server, stack, data)
            assert len(server.server.server_state.connections) <= 21
        for _ in range(5):
            started = time.monotonic()
            assert server.ask("GET", "/api/health")[0] == 200
            assert server.ask("GET", "/media/v1.mp4")[0] == 200
            assert time.monotonic() - started < 5
        assert len(server.server.server_state.connections) <= 20


def test_busy_downloads_deny_nobody(folder, monkeypatch):
    """A download is busy, not idle, until the buffers of the system are full."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    monkeypatch.setattr(connections.LimitedProtocol, "idle_since_s", lambda self: None if self.cycle else 0.0)
    (folder / "site" / "media" / "v1.mp4").write_bytes(bytes(40_000_000))
    with InProcess(folder) as server, ExitStack() as stack:
        for _ in range(30):
            open_half(server, stack, b"GET /media/v1.mp4 HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(5):
            assert server.ask("GET", "/api/health")[0] == 200


def test_every_connection_may_hold_a_video(monkeypatch):
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (1024, 1024))
    assert 2 * connections.max_connections() < 1024 - 150
    monkeypatch.setattr(connections.resource, "getrlimit", lambda _: (100_000, 100_000))
    assert connections.max_connections() == connections.MAX_CONNECTIONS


@pytest.mark.parametrize("data", [b"", HALF, HALF_BODY])
def test_a_request_must_arrive_in_time(folder, monkeypatch, data):
    monkeypatch.setattr(connections, "REQUEST_TIMEOUT_S", 0.3)
    with InProcess(folder) as server, ExitStack() as stack:
        client = open_half(server, stack, data)
        started = time.monotonic()
        with pytest.raises(ConnectionResetError):  # noqa: PT012
            while client.recv(100):  # A byte now and then does not buy time.
                pass
            raise ConnectionResetError
        assert 0.1 < time.monotonic() - started < 5


def test_a_client_that_reads_nothing_is_disconnected_and_a_slow_one_is_not(folder, monkeypatch):
    (folder / "site" / "media" / "v1.mp4").write_bytes(bytes(40_000_000))
    monkeypatch.setattr(connections, "STALL_TIMEOUT_S", 0.5)
    with InProcess(folder) as server, ExitStack() as stack:
        client = open_half(server, stack, b"GET /media/v1.mp4 HTTP/1.1\r\nHost: x\r\n\r\n")
        slow = open_half(server, stack, b"GET /media/v1.mp4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        received = 0
        while part := slow.recv(4_000_000):
            received += len(part)
            time.sleep(0.02)
        assert received > 40_000_000
        end = time.monotonic() + 10
        while server.server.server_state.connections and time.monotonic() < end:
            time.sleep(0.05)
        assert not server.server.server_state.connections
        del client


def test_a_study_created_again_is_not_answered_by_an_old_page(folder, material, tmp_path):
    """The new files have the size and the date of the old ones, as files of one size have on many hosts."""
    old = Study.load(folder)
    body = message(old, "rater-0001", old.items[0].id).model_dump()
    tags = {}
    with InProcess(folder) as server:
        server.insist("/api/raters", {"rater": "rater-0001", "study": old.key})
        for path in ("/", "/data.js", "/media/v1.mp4"):
            _, _, headers = server.ask("GET", path)
            tags[path] = headers["etag"]
            assert "last-modified" not in headers
            assert server.ask("GET", path, headers={"If-None-Match": tags[path]})[0] == 304
    again = tmp_path / "again"
    new = make_study(material, again, seed=4)
    for path in (again / "site").rglob("*"):
        if path.is_file():
            before = folder / path.relative_to(again)
            content = path.read_bytes().ljust(before.stat().st_size)
            path.write_bytes(content[::-1] if path.suffix == ".mp4" else content)
            shutil.copystat(before, path)
    assert new.key != old.key
    with InProcess(again) as server:
        for path, tag in tags.items():
            since = {"If-None-Match": tag, "If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}
            assert server.ask("GET", path, headers=since)[0] == 200, path
        assert new.key.encode() in server.ask("GET", "/")[1]
        for path, sent in (
            ("/api/raters", {"rater": "rater-0001", "study": old.key}),
            ("/api/answers", body),
        ):
            status, reply, _ = server.ask("POST", path, sent)
            assert status == 409
            assert b"was created again" in reply
            assert b"Reload the page" in reply
        status, reply, _ = server.ask("POST", "/api/answers", body | {"study": ""})
        assert status == 409
