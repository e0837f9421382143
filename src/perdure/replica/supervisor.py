"""Supervises a Litestream child process: starts it, reads its log, restarts it when it ends or
hangs, asks it to sync, stops it.

Rules: it ends with this process; its control socket and its configuration lie in private folders;
its messages are kept, cut to a bound, and become one of a few states with a reason; nothing that it
does or prints ends the task that supervises it. No other program checkpoints the file while it runs
(docs/adr/0012); where one did, nothing is confirmed any more (docs/adr/0020).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import shutil
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
from perdure.replica import litestream_binary, litestream_control, sockets
from perdure.replica.address import Address
from perdure.replica.litestream_control import ControlSocket
from perdure.replica.transaction_files import Chain
from perdure.replica.wal_hold import WalHold
from perdure.store.sqlite import files

log = logging.getLogger("perdure")

LINES_KEPT, LINE_KEPT_CHARS = 200, 2_000
LINE_BYTES_MAX = 65_536  # an error may hold the whole page of a proxy
START_S_MAX = 10.0
STOP_S_MAX = 5.0
KILL_S_MAX = 1.0
SYNC_S_MIN, BYTES_A_SECOND_MIN = 10.0, 1_000_000
RESTART_S_MIN, RESTART_S_MAX = 0.05, 5.0
PROBE_EVERY_S, PROBE_S_MAX = 1.0, 1.5
MISSES_MAX = 2  # a machine that has slept answers the second time
# Errors that say something about this process, and not about Litestream.
_OUT_OF_MEANS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN}
_NO_ROOM = ("no space left", "disk quota exceeded", "disk is full", "disk full")


class Position(msgspec.Struct, frozen=True):
    """Two transactions: the last that Litestream has read, and the last in the replica."""

    txid: int
    replicated: int


class LogLine(msgspec.Struct):
    """A line of its log."""

    level: Any = ""  # some lines have a second one, a number
    msg: Any = ""
    error: Any = None


class Litestream:
    """One Litestream process for the store at `path`, which copies it to `address`.

    `side` is the folder beside the store, `binary` the program. With `after` it continues from
    the local state that another engine has left, up to that transaction.

    `state` is starting, replicating, behind, failing or stopped; `reason` says why. `refusals`
    counts the syncs since the last good one that were answered with an error. `broken` says why
    what it copies can't be restored: then only a new epoch helps.
    """

    def __init__(
        self, path: str, address: Address, side: Path, binary: str, after: int = 0
    ) -> None:
        self._path, self._address = os.path.abspath(path), address
        self._side, self._binary = side, binary
        self.state, self.reason = "stopped", ""
        self.lines: deque[str] = deque(maxlen=LINES_KEPT)
        self.restarts = self.refusals = 0
        self.broken, self.ended_by_itself = "", False
        self.pid: int | None = None
        self._folder, self._last_message = "", ""
        self._listening = asyncio.Event()
        self._stopping = False
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="perdure-replica")
        self._control = ControlSocket(self._path)
        self._copied = False  # whether there is a whole copy already
        self._chain, self._wal_hold = Chain(side / "litestream", after), WalHold(self._path)
        self._after, self._asking = after, 0
        self._probes, self._misses, self._born_s = Loop("litestream", self._probe), 0, 0.0

    # --- life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin with a snapshot of the whole file, or continue after `after`; done when it listens.

        Raises `ReplicaUnavailable`.
        """
        await in_thread(self._end_leftover)
        if not self._after:
            clear(self._side / "litestream")
        self._set("starting", "")
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
            detail = f"litestream does not start: {reason}"
            raise ReplicaUnavailable(str(self._address), detail) from None

    def _prepare(self) -> str:
        """Make a private folder for its socket, and its configuration; returns that file's path."""
        self._remove_socket()
        self._folder = os.path.dirname(sockets.place("control", beside=self._side))
        (self._side / "socket").write_text(self._folder)
        config = self._side / "litestream.yml"
        configuration = msgspec.json.encode(self._configuration())  # JSON is YAML
        config.write_bytes(msgspec.json.format(configuration))
        self._chain.litestream_begins()
        return str(config)

    def _end_leftover(self) -> None:
        """End one that a killed engine has left, where no system ends a child with its parent.

        Two on one file would lose what they copy.
        """
        try:
            path = os.path.join((self._side / "socket").read_text(), "control")
        except OSError:
            return
        with contextlib.suppress(*litestream_control.ERRORS, KeyError):
            while True:  # until no process answers there any more
                pid = litestream_control.pid_at(path)
                log.warning("a litestream that a killed engine has left is ended: pid %s", pid)
                os.kill(pid, 9)
                time.sleep(0.02)
        sockets.remove(path)

    async def stop(self, *, at_once: bool = False) -> None:
        """End the process; what it has not copied by then stays local.

        Without a bucket it does not end by itself: then `at_once`.
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
        self._set("stopped", "")
        self._thread.submit(self._control.close)
        released = self._thread.submit(self._wal_hold.release)
        self._thread.shutdown(wait=False)
        await asyncio.wrap_future(released)  # else the WAL can't be folded
        self._remove_socket()

    def _terminate(self) -> None:
        self._send(15)

    def kill(self) -> None:
        """End it at once; it is started again unless it was to stop."""
        self._send(9)

    def _send(self, signal: int) -> None:
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal)

    def _configuration(self) -> dict[str, Any]:
        return {
            "logging": {"level": "info", "type": "json", "stderr": True},
            "socket": {"enabled": True, "path": self._socket, "permissions": 0o600},
            "snapshot": {"interval": "24h", "retention": "168h"},
            "dbs": [
                {
                    "path": self._path,
                    "meta-path": str(self._side / "litestream"),
                    "shutdown-sync-timeout": "0s",  # the last sync is asked for before
                    "replica": {
                        **litestream_binary.replica_settings(self._address),
                        "sync-interval": "1m",  # each sync is asked for
                    },
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
            self._born_s, self._last_message = asyncio.get_running_loop().time(), ""
            try:
                await self._run_once()
            except OSError as error:
                self._last_message = str(error)
            except Exception as error:  # whatever it was, the next one has to be started
                log.exception("litestream could not be supervised", exc_info=error)
                self._last_message = repr(error)
            self._listening.clear()
            if self._stopping:
                return
            self._thread.submit(self._hold)
            if asyncio.get_running_loop().time() - self._born_s > RESTART_S_MAX:
                wait_s = RESTART_S_MIN
            self.restarts += 1
            why = f" ({brief(self._last_message)})" if self._last_message else ""
            self._set("failing", f"litestream ended; it is started again in {wait_s:g} s{why}")
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RESTART_S_MAX)

    def _hold(self) -> None:
        """It has ended: what it has not read of the WAL must stay there until the next one has."""
        self._control.close()  # the next request goes to the next one
        if not self._wal_hold.take() and self._copied:
            moved = "another program has checkpointed the file while litestream did not run"
            self.broken = self.broken or moved

    async def _run_once(self) -> None:
        config = await asyncio.get_running_loop().run_in_executor(self._thread, self._prepare)
        options = ["-no-expand-env", "-config", config]
        process = await asyncio.create_subprocess_exec(
            *litestream_binary.tied(self._binary, "replicate", *options),
            env=litestream_binary.environment(), stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self.pid = process.pid
        if self._stopping:
            self._terminate()
        try:
            assert process.stderr is not None
            async for line in _lines(process.stderr):
                self._read_line(line)
            await process.wait()
        finally:
            self.pid = None
            if process.returncode is None:
                process.kill()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(KILL_S_MAX):
                        await process.wait()  # else its pipe is left open

    async def _probe(self) -> float:
        """Look whether it is alive, however long a sync may take; a frozen one is replaced."""
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
        self._last_message, self._misses = why, 0
        self.kill()

    # --- its log ----------------------------------------------------------------------------------

    def _read_line(self, line: str) -> None:
        self.lines.append(line[:LINE_KEPT_CHARS])
        try:
            parsed = msgspec.json.decode(line, type=LogLine)
        except msgspec.DecodeError:
            parsed = LogLine("ERROR", line)  # a panic, the launcher, or one that was cut
        if parsed.msg == "control socket listening":
            self._listening.set()
        if parsed.level in ("WARN", "ERROR"):
            text = f"{parsed.msg}: {parsed.error}" if parsed.error else str(parsed.msg)
            self._last_message = brief(text)
            log.info("litestream: %s", self._last_message)
            self._set("failing" if parsed.level == "ERROR" else self.state, self._last_message)

    def _set(self, state: str, reason: str) -> None:
        if state == "failing" != self.state:
            log.warning("replica %s: %s", self._address, reason)
        elif state == "replicating" and self.state == "failing":
            log.warning("replica %s is up to date again", self._address)
        self.state, self.reason = state, reason

    # --- syncs ------------------------------------------------------------------------------------

    async def sync(self) -> Position:
        """Copy what is committed by now.

        Raises `ReplicaUnavailable`; what was committed is not lost for that.
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
        except litestream_control.ERRORS as error:
            if isinstance(error, TimeoutError | FileNotFoundError):
                # Its socket is gone, or it hangs, for up to a minute after a connection was cut.
                self._replace(f"it does not answer: {error!r}")
            raise self._unavailable(f"litestream does not answer: {error!r}") from error
        finally:
            self._asking -= 1
        if status != 200:
            self.refusals += 1
            reason = answer.get("error", answer) if isinstance(answer, dict) else answer
            raise self._unavailable(str(reason))
        if self.broken:
            raise self._unavailable(self.broken)
        position = Position(answer["txid"], answer["replicated_txid"])
        self.refusals = 0
        self._copied = self._copied or position.replicated > 0
        self._set("replicating" if position.replicated >= position.txid else "behind", "")
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
        self._set("failing", brief(reason))
        return ReplicaUnavailable(str(self._address), reason)

    def _patience_s(self) -> int:
        """Long enough for a slow line: a sync that is given up begins again from nothing."""
        sides = ("-wal",) if self._copied else ("", "-wal")
        waiting_bytes = sum(files.size(self._path + side) for side in sides)
        return round(SYNC_S_MIN + waiting_bytes / BYTES_A_SECOND_MIN)

    def _ask(self, patience_s: int) -> tuple[int, Any]:
        """One request; on a thread, because a bucket must not hold up the event loop."""
        status, answer = self._control.sync(self._socket, patience_s)
        if status == 200:
            self.broken = self.broken or self._chain.broken_before(answer["txid"])
            self._wal_hold.release()
        return status, answer


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """The output of a program, line by line; one that is too long loses its end."""
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
