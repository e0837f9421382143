"""Restate: its server with its defaults, which sync the log, and a Python service served as its
documentation says.

Starts both as children of this process, which is the client over the server's unix socket. The
client's own CPU does not count. The settings are in `benchmarks/README.md`; telemetry is off.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from answering import HOLDS, SLOW_SYNC_US, System, begun, serve

HERE = Path(__file__).resolve().parent
HYPERCORN = """bind = "127.0.0.1:{port}"
h2_max_concurrent_streams = 2147483647
keep_alive_max_requests = 2147483647
keep_alive_timeout = 2147483647
workers = {workers}
"""


class Http:
    """HTTP/1.1 over a unix socket with kept connections: as little client as will do."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, verb: str, path: str, body: Any = None) -> Any:
        reader, writer = (
            self._idle.pop() if self._idle else await asyncio.open_unix_connection(str(self._path))
        )
        data = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else "content-type: application/json\r\n"
        writer.write(
            (
                f"{verb} {path} HTTP/1.1\r\nhost: x\r\naccept: "
                f"application/json\r\n{kind}content-length: {len(data)}\r\n\r\n"
            ).encode()
            + data
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        if "transfer-encoding: chunked" in head:
            answer = b""
            while size := int(await reader.readline(), 16):
                answer += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readexactly(2)
        else:
            length = head.partition("content-length:")[2].partition("\r\n")[0]
            answer = await reader.readexactly(int(length or 0))
        self._idle.append((reader, writer))
        status = int(head.split()[1])
        if status >= 400:
            raise RuntimeError(f"{verb} {path}: {status} {answer.decode()}")
        return json.loads(answer) if answer else None


class Restate(System):
    """A server and a service of its own, in the folder."""

    async def open(self) -> None:
        self._data = self.folder / "data"
        sockets = self._data / "bench"  # named after the node
        port = self._port()
        config = self.folder / "hypercorn.toml"
        config.write_text(HYPERCORN.format(port=port, workers=os.cpu_count() or 1))
        # The service must not be slowed twice, and the server, which is linked statically, knows no
        # LD_PRELOAD.
        service = [
            sys.executable,
            "-m",
            "hypercorn",
            "--config",
            str(config),
            "--log-level",
            "ERROR",
            "restate_service:application",
        ]
        environment = {
            **os.environ,
            "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}",
            "RESTATE_LOGGING": "ERROR",
        }
        self._service = subprocess.Popen(service, env=environment, stdout=2)
        server = [
            *self._slowed(),
            os.environ["BENCH_RESTATE_SERVER"],
            "--no-logo",
            "--base-dir",
            str(self._data),
            "--listen-mode",
            "unix",
        ]
        settings = {
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_LOG_FILTER": "error,octocrab=off",
            "RESTATE_NODE_NAME": "bench",
        }
        if HOLDS in os.environ:
            settings["RESTATE_WORKER__INVOKER__CONCURRENT_INVOCATIONS_LIMIT"] = "50000"
        self._server = subprocess.Popen(server, env={**os.environ, **settings}, stdout=2)
        self._ingress, admin = Http(sockets / "ingress.sock"), Http(sockets / "admin.sock")
        for http, path in ((admin, "/health"), (self._ingress, "/restate/health")):
            await self._until_up(http, path)
        await self._until_listening(port)
        await admin.ask("POST", "/deployments", {"uri": f"http://127.0.0.1:{port}"})

    def _slowed(self) -> list[str]:
        if SLOW_SYNC_US not in os.environ:
            return []
        delay = f"inject=fsync,fdatasync:delay_exit={os.environ[SLOW_SYNC_US]}"
        return [
            "strace",
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-o",
            os.devnull,
            "-e",
            "trace=fsync,fdatasync",
            "-e",
            delay,
        ]

    def _port(self) -> int:
        """A free port, the same one in the next process on this folder: the server has written it
        down.
        """
        file = self.folder / "port"
        if not file.exists():
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                file.write_text(str(free.getsockname()[1]))
        return int(file.read_text())

    async def _until_up(self, http: Http, path: str) -> None:
        while True:
            if self._server.poll() is not None:
                raise RuntimeError(f"the server ended with exit code {self._server.returncode}")
            try:
                await http.ask("GET", path)
            except (OSError, RuntimeError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.01)
            else:
                return

    async def _until_listening(self, port: int) -> None:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return

    async def close(self) -> None:
        for process in (self._server, self._service):
            process.send_signal(signal.SIGTERM)
        for process in (self._server, self._service):
            process.wait()

    def pids(self) -> list[int]:
        return [self._server.pid, self._service.pid] if hasattr(self, "_server") else []

    async def crowd(self, runs: int, steps: int) -> None:
        await asyncio.gather(
            *(self._ingress.ask("POST", "/Sequence/run", steps) for _ in range(runs))
        )

    async def hold(self, runs: int) -> None:
        await self._each(runs, lambda n: self._ingress.ask("POST", f"/Hold/hold-{n}/run/send", n))
        await begun(runs)

    async def released(self, runs: int) -> None:
        await self._each(
            runs, lambda n: self._ingress.ask("GET", f"/restate/workflow/Hold/hold-{n}/attach")
        )

    async def park(self, runs: int, steps: int) -> None:
        await self._each(
            runs, lambda n: self._ingress.ask("POST", f"/Park/park-{n}/run/send", steps)
        )
        await begun(runs)

    async def wake(self, run: int) -> None:
        await self._ingress.ask("POST", f"/Park/park-{run}/wake", "now")
        await self._ingress.ask("GET", f"/restate/workflow/Park/park-{run}/attach")

    async def _each(self, runs: int, ask: Any) -> None:
        for first in range(0, runs, 500):
            await asyncio.gather(*(ask(n) for n in range(first, min(runs, first + 500))))


if __name__ == "__main__":
    serve(Restate)
