"""A local hub, and a home of our own for what it gives."""

from http.server import ThreadingHTTPServer
from threading import Thread

import pytest
from local_hub import Hub, handler_of


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Files go to a temporary home."""
    from huggingface_hub import constants

    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("LIKENESS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # What has arrived is kept in whole chunks; the real ones are larger than these files.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()
