"""Litestream as a part of ours: started, listened to, started again when it ends or hangs, asked to
sync, stopped.

Rules: it dies with us; its control socket and its configuration stand in private folders; its words
are kept, cut to a bound, and become one of a few states with a reason; nothing that it does or says
ends the task that looks after it; nobody else checkpoints the file while it runs (docs/adr/0012),
and where somebody did, nothing is confirmed any more (docs/adr/0020).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import logging
import os
import shutil
import socket
import time
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from perdure.errors import ReplicaUnavailable, brief
from perdure.process.periodic import Loop
from perdure.process.threads import in_thread
from perdure.replica import litestream_binary, sockets
from perdure.replica.address import Address
from perdure.replica.transaction_files import Chain
from perdure.replica.wal_hold import Hold

log = logging.getLogger("perdure")

LINES_KEPT, LINE_KEPT_CHARS = 200, 2_000
LINE_BYTES_MAX = 65_536  # an error may hold the whole page of a proxy
START_S_MAX = 10.0
STOP_S_MAX = 5.0
KILL_S_MAX = 1.0
SYNC_S_MIN, BYTES_A_SECOND_MIN = 10.0, 1_000_000
RESTART_S_MIN, RESTART_S_MAX = 0.05, 5.0
PROBE_EVERY_S, PROBE_S_MAX, MISSES_MAX = (
    1.0,
    1.5,
    2,
)  # twice: a machine that has slept answers the second time
_OUT_OF_MEANS = {
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENOBUFS,
    errno.EAGAIN,
}  # says something about us, not about it
_NO_ROOM = ("no space left", "disk quota exceeded", "disk is full", "disk full")


class Position(msgspec.Struct, frozen=True):
    """The last transaction that Litestream has read from the file, and the last one that is in the
    replica.
    """

    txid: int
    replicated: int


class Said(msgspec.Struct):
    """A line of its log."""

    level: Any = ""  # some lines have a second one, a number
    msg: Any = ""
    error: Any = None


class Litestream:
    """One Litestream process for one file. `state` is starting, replicating, behind, failing or
    stopped; `reason` says why.

    `refusals` counts the syncs since the last good one that it has answered with an error; `broken`
    says why what it copies can't be restored, if so: then only a new epoch helps. With `after` it
    goes on from the local state that another engine has left.
    """

    def __init__(self, path: str, address: Address, side: Path, name: str, after: int = 0) -> None:
        self._path, self._address, self._side, self._program = (
            os.path.abspath(path),
            address,
            side,
            name,
        )
        self.state, self.reason = "stopped", ""
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self.restarts = self.refusals = 0
        self.broken, self.ended_by_itself = "", False
        self.pid: int | None = None
        self._folder, self._last_words = "", ""
        self._listening = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="perdure-replica")
        self._control: _OverSocket | None = None
        self._copied = False  # whether there is a whole copy already
        self._chain, self._held = Chain(side / "litestream", after), Hold(self._path)
        self._after, self._asking = after, 0
        self._probes, self._misses, self._born_s = Loop("litestream", self._probe), 0, 0.0

    # --- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin anew, with a snapshot of the whole file, or go on after `after`; come back when it
        listens. Raises `ReplicaUnavailable`.
        """
        await in_thread(self._end_leftover)
        if not self._after:
            clear(self._side / "litestream")
        self._say("starting", "")
        self._task = asyncio.get_running_loop().create_task(
            self._keep_running(), name="perdure-litestream"
        )
        self._probes.start()
        try:
            async with asyncio.timeout(START_S_MAX):
                await self._listening.wait()
        except TimeoutError:
            reason = self.reason or "it has not begun to listen"
            await self.stop()
            raise ReplicaUnavailable(
                str(self._address), f"litestream does not start: {reason}"
            ) from None

    def _prepare(self) -> str:
        """A private folder for its socket, and its configuration; gives the path of that."""
        self._remove_socket()
        self._folder = os.path.dirname(sockets.place("control", beside=self._side))
        (self._side / "socket").write_text(self._folder)
        config = self._side / "litestream.yml"
        config.write_bytes(
            msgspec.json.format(msgspec.json.encode(self._configuration()))
        )  # JSON is YAML
        self._chain.litestream_begins()
        return str(config)

    def _end_leftover(self) -> None:
        """Of an engine that was killed where no system ends a child with its parent: two on one
        file would lose what they copy.
        """
        try:
            folder = (self._side / "socket").read_text()
        except OSError:
            return
        with contextlib.suppress(OSError, http.client.HTTPException, msgspec.DecodeError, KeyError):
            while True:  # until nobody answers there any more
                with contextlib.closing(_OverSocket(os.path.join(folder, "control"), 2)) as control:
                    control.request("GET", "/info")
                    pid = msgspec.json.decode(control.getresponse().read())["pid"]
                log.warning(
                    "a litestream that was left over from another engine is ended: pid %s", pid
                )
                os.kill(pid, 9)
                time.sleep(0.02)
        sockets.remove(os.path.join(folder, "control"))

    async def stop(self, *, at_once: bool = False) -> None:
        """End the process; what it has not copied by then stays local. Without a bucket it does not
        end by itself: then `at_once`.
        """
        if self._stopping:
            return
        self._stopping = True
        await self._probes.stop()
        if self._task is not None:
            self._terminate()
            _, late = await asyncio.wait([self._task], timeout=0 if at_once else STOP_S_MAX)
            if late:
                self.kill()
                self._task.cancel()  # it may be in its pause before another start
                await asyncio.wait([self._task])
            self.ended_by_itself = not late
        self._say("stopped", "")
        self._thread.submit(self._hang_up)
        released = asyncio.wrap_future(
            self._thread.submit(self._held.release)
        )  # before anybody folds the WAL
        self._thread.shutdown(wait=False)
        await released
        self._remove_socket()

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
                    "replica": {
                        **litestream_binary.replica_settings(self._address),
                        "sync-interval": "1m",
                    },  # we ask for each sync
                }
            ],
        }

    def _remove_socket(self) -> None:
        if self._folder:
            sockets.remove(self._socket)

    @property
    def _socket(self) -> str:
        return os.path.join(self._folder, "control")

    async def _keep_running(self) -> None:
        wait_s = RESTART_S_MIN
        while not self._stopping:
            self._born_s, self._last_words = asyncio.get_running_loop().time(), ""
            try:
                await self._run_once()
            except OSError as error:
                self._last_words = str(error)
            except Exception as error:  # whatever it was, somebody has to start the next one
                log.exception("litestream could not be looked after", exc_info=error)
                self._last_words = repr(error)
            self._listening.clear()
            if self._stopping:
                return
            self._thread.submit(self._hold)
            if asyncio.get_running_loop().time() - self._born_s > RESTART_S_MAX:
                wait_s = RESTART_S_MIN
            self.restarts += 1
            why = f" ({brief(self._last_words)})" if self._last_words else ""
            self._say("failing", f"litestream ended; it is started again in {wait_s:g} s{why}")
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RESTART_S_MAX)

    def _hold(self) -> None:
        """It has ended: what it has not read of the WAL must stay there until the next one has."""
        self._hang_up()  # whatever comes next speaks to the next one
        if not self._held.take() and self._copied:
            self.broken = (
                self.broken or "another program has checkpointed the file while litestream was away"
            )

    async def _run_once(self) -> None:
        config = await asyncio.get_running_loop().run_in_executor(self._thread, self._prepare)
        process = await asyncio.create_subprocess_exec(
            *litestream_binary.leashed(
                self._program, "replicate", "-no-expand-env", "-config", config
            ),
            env=litestream_binary.environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        self.pid = process.pid
        if self._stopping:
            self._terminate()
        try:
            assert process.stderr is not None
            async for line in _lines(process.stderr):
                self._hear(line)
            await process.wait()
        finally:
            self.pid = None
            if process.returncode is None:
                process.kill()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(KILL_S_MAX):
                        await process.wait()  # else its pipe is left open

    async def _probe(self) -> float:
        """Whether it is alive, however long a sync may take: one that is frozen is replaced."""
        now_s = asyncio.get_running_loop().time()
        if self.pid is None:
            self._misses = 0
        elif not self._listening.is_set():
            if now_s - self._born_s > START_S_MAX:
                self._replace("it has not begun to listen")
        elif await self._answers():
            self._misses = 0
        else:
            self._misses += 1
            if self._misses >= MISSES_MAX:
                self._replace("it does not answer on its control socket; it is stopped, or hangs")
        return PROBE_EVERY_S

    async def _answers(self) -> bool:
        try:
            async with asyncio.timeout(PROBE_S_MAX):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    writer.write(b"GET /info HTTP/1.0\r\n\r\n")
                    return bool(await reader.read(1))
                finally:
                    writer.close()
        except OSError as error:  # a timeout is one
            return error.errno in _OUT_OF_MEANS

    def _replace(self, why: str) -> None:
        log.warning("litestream is started anew: %s", why)
        self._last_words, self._misses = why, 0
        self.kill()

    # --- what it says -----------------------------------------------------------------------------

    def _hear(self, line: str) -> None:
        self.lines.append(line[:LINE_KEPT_CHARS])
        try:
            said = msgspec.json.decode(line, type=Said)
        except msgspec.DecodeError:
            said = Said("ERROR", line)  # a panic, the launcher, or one that was cut
        if said.msg == "control socket listening":
            self._listening.set()
        if said.level in ("WARN", "ERROR"):
            self._last_words = brief(f"{said.msg}: {said.error}" if said.error else str(said.msg))
            log.info("litestream: %s", self._last_words)
            self._say("failing" if said.level == "ERROR" else self.state, self._last_words)

    def _say(self, state: str, reason: str) -> None:
        if state == "failing" != self.state:
            log.warning("replica %s: %s", self._address, reason)
        elif state == "replicating" and self.state == "failing":
            log.warning("replica %s is up to date again", self._address)
        self.state, self.reason = state, reason

    # --- what it is asked -------------------------------------------------------------------------

    async def sync(self) -> Position:
        """Copy what is committed by now. Raises `ReplicaUnavailable`; what was committed is not
        lost for that.
        """
        if self.broken:
            raise self._unavailable(self.broken)
        try:
            async with asyncio.timeout(START_S_MAX):
                await self._listening.wait()
        except TimeoutError:
            raise self._unavailable(self.reason or "litestream does not run") from None
        self._asking += 1
        try:
            status, answer = await asyncio.get_running_loop().run_in_executor(
                self._thread, self._ask, self._patience_s()
            )
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            if isinstance(error, TimeoutError | FileNotFoundError):
                # It hangs, which it can do for a minute after a connection was cut, or its socket
                # is gone; a new one goes on at once.
                self._replace(f"it does not answer: {error!r}")
            raise self._unavailable(f"litestream does not answer: {error!r}") from error
        finally:
            self._asking -= 1
        if status != 200:
            self.refusals += 1
            raise self._unavailable(
                str(answer.get("error", answer) if isinstance(answer, dict) else answer)
            )
        if self.broken:
            raise self._unavailable(self.broken)
        position = Position(answer["txid"], answer["replicated_txid"])
        self.refusals = 0
        self._copied = self._copied or position.replicated > 0
        self._say("replicating" if position.replicated >= position.txid else "behind", "")
        return position

    @property
    def copying(self) -> bool:
        """Whether it runs, and has a sync to answer."""
        return self._asking > 0 and self._listening.is_set()

    @property
    def lacks_room(self) -> bool:
        """Whether its last trouble was a full disk."""
        return self.state == "failing" and tells_of_a_full_disk(self.reason)

    def _unavailable(self, reason: str) -> ReplicaUnavailable:
        self._say("failing", brief(reason))
        return ReplicaUnavailable(str(self._address), reason)

    def _patience_s(self) -> int:
        """Long enough to copy what there is over a slow line: a sync that is given up begins again
        from nothing.
        """
        waiting = sum(
            _size(self._path + side) for side in (("-wal",) if self._copied else ("", "-wal"))
        )
        return round(SYNC_S_MIN + waiting / BYTES_A_SECOND_MIN)

    def _ask(self, patience_s: int) -> tuple[int, Any]:
        """One request; on a thread, because waiting for a bucket must not hold up the
        event loop.
        """
        try:
            if self._control is None:
                self._control = _OverSocket(self._socket, patience_s + SYNC_S_MIN)
            body = msgspec.json.encode({"path": self._path, "wait": True, "timeout": patience_s})
            self._control.request("POST", "/sync", body, {"Content-Type": "application/json"})
            response = self._control.getresponse()
            status, answer = response.status, msgspec.json.decode(response.read())
            if status == 200:
                self.broken = self.broken or self._chain.broken_before(answer["txid"]) or ""
                self._held.release()
            return status, answer
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
        self.sock = socket.socket(
            socket.AF_UNIX
        )  # from here on `close` closes it, also when nobody listens
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """What a program says, line by line; one that is too long loses its end."""
    rest = b""
    while piece := await stream.read(LINE_BYTES_MAX):
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line[:LINE_BYTES_MAX].decode(errors="replace").strip()
        rest = rest[:LINE_BYTES_MAX]
    if rest:
        yield rest.decode(errors="replace").strip()


def tells_of_a_full_disk(text: str) -> bool:
    """Whether this is what Litestream says where it has no room to write to.

    >>> tells_of_a_full_disk("write page 432: write copy.db.tmp: no space left on device")
    True
    """
    return any(words in text for words in _NO_ROOM)


def clear(folder: Path) -> None:
    """Remove a folder of Litestream's, or whatever is in its place."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.unlink()


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0
