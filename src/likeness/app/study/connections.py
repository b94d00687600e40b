"""Limits on connections to the study's server, so that slow clients do not use up its file handles.

uvicorn closes a connection that stays silent after an answer, but it waits without limit for a request that never ends
and for a client that reads nothing. Here a request must arrive within `REQUEST_TIMEOUT_S` seconds and a client must
read something within `STALL_TIMEOUT_S`. At `max_connections()` a new connection replaces the one that has been idle, or
else busy, the longest, so that a client that sends its request at once is always answered.
"""

import asyncio
import socket
import time

from uvicorn.protocols.http.h11_impl import H11Protocol

try:
    import resource
except ModuleNotFoundError:  # Windows has no such limit.
    resource = None

REQUEST_TIMEOUT_S = 20.0
"""Seconds for one whole request, headers and body, counted from the connection or from the answer before."""
STALL_TIMEOUT_S = 60.0
"""Seconds after which a client that reads nothing of its answer is disconnected."""
MAX_CONNECTIONS = 800
"""Connections at once; fewer where the system allows this process fewer files."""
SEND_BUFFER_BYTES = 262_144
"""The system's buffer of a connection. By default it grows to megabytes, even for a client that reads nothing."""
_RESERVED_FILE_HANDLES = 200
"""File handles reserved for answers and the interpreter."""


def max_connections() -> int:
    """The limit of simultaneous connections. Each may hold two file handles: its socket and a video."""
    allowed = 2 * MAX_CONNECTIONS + _RESERVED_FILE_HANDLES
    if resource is not None:
        allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(8, min(MAX_CONNECTIONS, (allowed - _RESERVED_FILE_HANDLES) // 2))


class LimitedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 connection with a time-out for requests and for readers, and a limit on their number."""

    request_timer: asyncio.TimerHandle | None = None
    stall_timer: asyncio.TimerHandle | None = None
    waiting_since_s = 0.0
    stalled_since_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        if (connection := transport.get_extra_info("socket")) is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._await_request()
        if len(self.connections) > max_connections():
            self._replace_idle()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            self._await_request()
            self._stop_waiting()  # The client may have sent its next request already.

    def connection_lost(self, exc: Exception | None) -> None:
        self.request_timer = _cancel(self.request_timer)
        self.stall_timer = _cancel(self.stall_timer)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stalled_since_s = time.monotonic()
        self.stall_timer = self.loop.call_later(STALL_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.stall_timer = _cancel(self.stall_timer)

    def idle_since_s(self) -> float | None:
        """Time since which this connection waits for a request or for its client to read; None if it is busy."""
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            return self.waiting_since_s
        return self.stalled_since_s if self.stall_timer is not None else None

    def _await_request(self) -> None:
        self.waiting_since_s = time.monotonic()
        _cancel(self.request_timer)
        self.request_timer = self.loop.call_later(REQUEST_TIMEOUT_S, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self.cycle is not None and not (self.cycle.response_complete or self.cycle.more_body):
            self.request_timer = _cancel(self.request_timer)

    def _replace_idle(self) -> None:
        """Close the connection that has been idle the longest; if all are busy, the one that began the longest ago.

        Clients that fetch large videos and read slowly are busy until the buffers of the system are full.
        """
        others = [
            connection
            for connection in self.connections
            if isinstance(connection, LimitedProtocol) and connection is not self
        ]
        idle = {connection: since for connection in others if (since := connection.idle_since_s()) is not None}
        longest_idle = min(idle or others, key=lambda connection: idle.get(connection, connection.waiting_since_s))
        self.connections.discard(longest_idle)  # At once, so that the next new connection does not choose it again.
        longest_idle.transport.abort()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
