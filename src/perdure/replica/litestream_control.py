"""Litestream's control socket: HTTP over a Unix socket, asked from a thread.

Rules: every call blocks; after an error the next request begins with a new connection.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
from typing import Any

import msgspec

CALL_S = 10.0  # what an answer may take beyond the time that Litestream was given
ERRORS = (OSError, http.client.HTTPException, msgspec.DecodeError)
"""What a request may raise; a `TimeoutError` is an `OSError`."""


class ControlSocket:
    """Requests for one store, over one connection that is kept."""

    def __init__(self, store: str) -> None:
        self._store = store
        self._connection: _OverSocket | None = None

    def sync(self, path: str, patience_s: int) -> tuple[int, Any]:
        """Have all that is committed copied; the HTTP status and the answer.

        Raises one of `ERRORS`.
        """
        try:
            if self._connection is None:
                self._connection = _OverSocket(path, patience_s + CALL_S)
            body = msgspec.json.encode({"path": self._store, "wait": True, "timeout": patience_s})
            json = {"Content-Type": "application/json"}
            self._connection.request("POST", "/sync", body, json)
            response = self._connection.getresponse()
            return response.status, msgspec.json.decode(response.read())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None


def pid_at(path: str) -> int:
    """The process that answers at a control socket. Raises one of `ERRORS`, or `KeyError`."""
    with contextlib.closing(_OverSocket(path, 2)) as connection:
        connection.request("GET", "/info")
        return int(msgspec.json.decode(connection.getresponse().read())["pid"])


class _OverSocket(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        # From here on `close` closes it, also when no process listens.
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
