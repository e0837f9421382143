"""Litestream as a part of ours: started, listened to, started again when it ends, asked to sync, stopped.

Rules: it dies with us; its control socket and its configuration stand in private folders; its words are kept and become one of a
few states with a reason; nobody else checkpoints the file while it runs (docs/adr/0012).
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import logging
import os
import shutil
import socket
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from perdure.errors import ReplicaUnavailable
from perdure.replica import program, sockets
from perdure.replica.address import Address

log = logging.getLogger("perdure")

LINES_KEPT = 200
START_S_MAX = 10.0
STOP_S_MAX = 5.0
SYNC_S_MIN, BYTES_A_SECOND_MIN = 10.0, 1_000_000
RESTART_S_MIN, RESTART_S_MAX = 0.05, 5.0


class Position(msgspec.Struct, frozen=True):
    """The last transaction that Litestream has read from the file, and the last one that is in the replica."""

    txid: int
    replicated: int


class Litestream:
    """One Litestream process for one file. `state` is starting, replicating, behind, failing or stopped; `reason` says why."""

    def __init__(self, path: str, address: Address, side: Path, name: str) -> None:
        self._path, self._address, self._side, self._program = os.path.abspath(path), address, side, name
        self.state, self.reason = "stopped", ""
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self.restarts = 0
        self.pid: int | None = None
        self._folder = ""
        self._listening = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="perdure-replica")
        self._control: _OverSocket | None = None
        self._copied = False  # whether there is a whole copy already

    # --- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin anew, with a snapshot of the whole file, and come back when it listens. Raises `ReplicaUnavailable`."""
        await asyncio.to_thread(self._end_leftover)
        shutil.rmtree(self._side / "litestream", ignore_errors=True)
        self._folder = os.path.dirname(sockets.place("control"))
        (self._side / "socket").write_text(self._folder)
        config = self._side / "litestream.yml"
        config.write_bytes(msgspec.json.format(msgspec.json.encode(self._configuration())))  # JSON is YAML
        self._say("starting", "")
        self._task = asyncio.get_running_loop().create_task(self._keep_running(str(config)), name="perdure-litestream")
        try:
            async with asyncio.timeout(START_S_MAX):
                await self._listening.wait()
        except TimeoutError:
            reason = self.reason or "it has not begun to listen"
            await self.stop()
            raise ReplicaUnavailable(str(self._address), f"litestream does not start: {reason}") from None

    def _end_leftover(self) -> None:
        """Of an engine that was killed where no system ends a child with its parent: two on one file would lose what they copy."""
        try:
            folder = (self._side / "socket").read_text()
        except OSError:
            return
        with contextlib.suppress(OSError, http.client.HTTPException, msgspec.DecodeError, KeyError):
            while True:  # until nobody answers there any more
                with contextlib.closing(_OverSocket(os.path.join(folder, "control"), 2)) as control:
                    control.request("GET", "/info")
                    pid = msgspec.json.decode(control.getresponse().read())["pid"]
                log.warning("a litestream that was left over from another engine is ended: pid %s", pid)
                os.kill(pid, 9)
                time.sleep(0.02)
        sockets.remove(os.path.join(folder, "control"))

    async def stop(self, *, at_once: bool = False) -> None:
        """End the process; what it has not copied by then stays local. Without a bucket it does not end by itself: then `at_once`."""
        if self._stopping:
            return
        self._stopping = True
        if self._task is not None:
            self._terminate()
            _, late = await asyncio.wait([self._task], timeout=0 if at_once else STOP_S_MAX)
            if late:
                self.kill()
                self._task.cancel()  # it may be in its pause before another start
                await asyncio.wait([self._task])
        self._say("stopped", "")
        self._thread.submit(self._hang_up)
        self._thread.shutdown(wait=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _terminate(self) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, 15)

    def kill(self) -> None:
        """End it at once; it is started again unless it was to stop."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, 9)

    def _configuration(self) -> dict[str, Any]:
        return {
            "logging": {"level": "info", "type": "json", "stderr": True},
            "socket": {"enabled": True, "path": self._socket, "permissions": 0o600},
            "snapshot": {"interval": "24h", "retention": "168h"},
            "dbs": [
                {
                    "path": self._path,
                    "meta-path": str(self._side / "litestream"),
                    "shutdown-sync-timeout": "0s",  # whoever stops it has asked for the last sync
                    "replica": {**program.replica_settings(self._address), "sync-interval": "1m"},  # we ask for each sync
                }
            ],
        }

    @property
    def _socket(self) -> str:
        return os.path.join(self._folder, "control")

    async def _keep_running(self, config: str) -> None:
        wait_s = RESTART_S_MIN
        while not self._stopping:
            began_s = asyncio.get_running_loop().time()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._socket)
            try:
                await self._run_once(config)
            except OSError as error:
                self._say("failing", f"litestream can't be started: {error}")
            self._listening.clear()
            if self._stopping:
                return
            self._thread.submit(self._hang_up)  # whoever comes next speaks to the next one
            if asyncio.get_running_loop().time() - began_s > RESTART_S_MAX:
                wait_s = RESTART_S_MIN
            self.restarts += 1
            self._say("failing", f"litestream ended; it is started again in {wait_s:g} s" + (f" ({self.reason})" if self.reason else ""))
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RESTART_S_MAX)

    async def _run_once(self, config: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *program.leashed(self._program, "replicate", "-no-expand-env", "-config", config), env=program.environment(),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self.pid = process.pid
        if self._stopping:
            self._terminate()
        try:
            assert process.stderr is not None
            while line := await process.stderr.readline():
                self._hear(line.decode(errors="replace").strip())
            await process.wait()
        finally:
            self.pid = None
            if process.returncode is None:
                process.kill()

    # --- what it says -----------------------------------------------------------------------------

    def _hear(self, line: str) -> None:
        self.lines.append(line)
        try:
            said = msgspec.json.decode(line)
        except msgspec.DecodeError:
            said = {"level": "ERROR", "msg": line}  # a panic, or the launcher
        if said.get("msg") == "control socket listening":
            self._listening.set()
        if said.get("level") in ("WARN", "ERROR"):
            reason = ": ".join(str(said[key]) for key in ("msg", "error") if said.get(key))
            log.info("litestream: %s", reason)
            self._say("failing" if said["level"] == "ERROR" else self.state, reason)

    def _say(self, state: str, reason: str) -> None:
        if state == "failing" != self.state:
            log.warning("replica %s: %s", self._address, reason)
        elif state == "replicating" and self.state == "failing":
            log.warning("replica %s is up to date again", self._address)
        self.state, self.reason = state, reason

    # --- what it is asked -------------------------------------------------------------------------

    async def sync(self) -> Position:
        """Copy what is committed by now. Raises `ReplicaUnavailable`; what was committed is not lost for that."""
        try:
            async with asyncio.timeout(START_S_MAX):
                await self._listening.wait()
        except TimeoutError:
            raise self._unavailable(self.reason or "litestream does not run") from None
        try:
            status, answer = await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, self._patience_s())
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            if isinstance(error, TimeoutError):
                self.kill()  # it hangs, which it can do for a minute after a connection was cut; a new one goes on at once
            raise self._unavailable(f"litestream does not answer: {error!r}") from error
        if status != 200:
            raise self._unavailable(str(answer.get("error", answer)))
        position = Position(answer["txid"], answer["replicated_txid"])
        self._copied = self._copied or position.replicated > 0
        self._say("replicating" if position.replicated >= position.txid else "behind", "")
        return position

    def _unavailable(self, reason: str) -> ReplicaUnavailable:
        self._say("failing", reason)
        return ReplicaUnavailable(str(self._address), reason)

    def _patience_s(self) -> int:
        """Long enough to copy what there is over a slow line: a sync that is given up begins again from nothing."""
        waiting = sum(_size(self._path + side) for side in (("-wal",) if self._copied else ("", "-wal")))
        return round(SYNC_S_MIN + waiting / BYTES_A_SECOND_MIN)

    def _ask(self, patience_s: int) -> tuple[int, Any]:
        """One request; on a thread, because waiting for a bucket must not hold up the event loop."""
        try:
            if self._control is None:
                self._control = _OverSocket(self._socket, patience_s + SYNC_S_MIN)
            body = msgspec.json.encode({"path": self._path, "wait": True, "timeout": patience_s})
            self._control.request("POST", "/sync", body, {"Content-Type": "application/json"})
            response = self._control.getresponse()
            return response.status, msgspec.json.decode(response.read())
        except BaseException:
            self._hang_up()
            raise

    def _hang_up(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control = None


class _OverSocket(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)  # from here on `close` closes it, also when nobody listens
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
