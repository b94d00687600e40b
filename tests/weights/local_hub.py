"""A local hub: files, their listing, range requests, and connections that break on demand.

`python local_hub.py FOLDER SECONDS_PER_MIB` serves the files of a folder and prints the address.
"""

import hashlib
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What the server holds and how it behaves."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.large: set[str] = set()
        self.cut_after_bytes: list[int] = []
        self.is_down = False
        self.ignores_ranges = False
        self.seconds_per_mib = 0.0
        self.asked: list[tuple[str, str | None]] = []
        self.url = ""

    def siblings(self) -> list[dict[str, Any]]:
        rows = []
        for path, content in self.files.items():
            header = f"blob {len(content)}\0".encode()
            row: dict[str, Any] = {
                "rfilename": path,
                "size": len(content),
                "blobId": hashlib.sha1(header + content).hexdigest(),
            }
            if path in self.large:
                sha256 = hashlib.sha256(content).hexdigest()
                row["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 100}
            rows.append(row)
        return rows


def handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.split("?")[0].lstrip("/")
            asked_range = self.headers.get("Range")
            hub.asked.append((path, asked_range))
            if hub.is_down:
                return self.answer(503, b"")
            if path.startswith("api/models/"):
                name = "/".join(path.split("/")[2:4])
                body = {"id": name, "sha": COMMIT, "siblings": hub.siblings()}
                return self.answer(200, json.dumps(body).encode(), kind="application/json")
            name = path.split(f"/resolve/{COMMIT}/")[-1].removeprefix("files/")
            if name not in hub.files:
                return self.answer(404, b"")
            content, start = hub.files[name], 0
            if asked_range and not hub.ignores_ranges:
                start = int(asked_range.removeprefix("bytes=").split("-")[0])
            if start >= len(content):
                return self.answer(416, b"")
            return self.send(content, start)

        def send(self, content: bytes, start: int) -> None:
            rest = content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            if hub.cut_after_bytes:
                self.wfile.write(rest[: hub.cut_after_bytes.pop(0)])
                hub.is_down = not hub.cut_after_bytes
                self.close_connection = True
                return
            for first in range(0, len(rest), 1 << 20):
                time.sleep(hub.seconds_per_mib)
                self.wfile.write(rest[first : first + (1 << 20)])

        def answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def serve(folder: Path, seconds_per_mib: float) -> None:
    """Serve the files of a folder until the process is ended; prints the address."""
    hub = Hub()
    hub.files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.large = {name for name in hub.files if name.endswith(".safetensors")}
    hub.seconds_per_mib = seconds_per_mib
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), float(sys.argv[2]))
