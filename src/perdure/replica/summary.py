"""Summary of a replicated store: one small object beside its replica, for observers of many stores.

Rules: it is written by the engine that replicates, in the background and from a thread, with
connections of its own; nothing waits for it, and a failure is logged once; every number in it is
bounded, and the whole has at most `BYTES_MAX`. It tells what was true at `at_ms`: an engine that
died, or that can't reach the bucket, leaves an old one (docs/adr/0050).

In a bucket the summaries of all replicas below one prefix lie in one folder there, so that one list
shows which of them changed. Where that is refused, and in a folder on a disk, each lies in its
replica.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
import uuid
from collections.abc import Callable
from contextvars import Context
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import apsw
import msgspec

from perdure.core.lifecycle import COMPLETED
from perdure.errors import BucketUnusable, PerdureError, brief
from perdure.process.periodic import Loop
from perdure.process.threads import in_thread
from perdure.replica.address import Address
from perdure.replica.bucket import Bucket
from perdure.replica.buckets import open_bucket
from perdure.replica.status import Status
from perdure.store import sql
from perdure.store.sqlite import connection

if TYPE_CHECKING:
    from perdure.replica.acquire import Acquired

log = logging.getLogger("perdure")
Q = sql.load("summary.sql", "perdure.replica")

NAME = "summary.json"
FOLDER = ".summaries"
BYTES_MAX = 2_048
COUNT_MAX = 10_000
EVERY_S, AT_REST_S, FIRST_S = 5.0, 60.0, 1.0
WRITE_S_MAX = 5.0
_TEXT_MAX = 120


class Summary(msgspec.Struct, omit_defaults=True):
    """What an observer is told. Times are milliseconds UTC by the engine's clock.

    `counts` are runs by status, each up to `COUNT_MAX`; for those in `more` there are more.
    `blocked` has the ids of some blocked runs and why; `due_ms` is when the next run is due;
    `active_ms` is when the history last grew. `ended` says that the engine has ended in order.
    """

    name: str
    at_ms: int
    host: str
    pid: int
    epoch: int
    txid: int
    rows: int
    size_bytes: int
    state: str
    reason: str = ""
    lag_s: float = 0.0
    counts: dict[str, int] = {}
    more: list[str] = []
    blocked: list[tuple[str, str]] = []
    due_ms: int | None = None
    active_ms: int = 0
    schema: int = 0
    drill_ok: bool | None = None
    drill_ms: int | None = None
    ended: bool = False
    format: int = 1


def decode(data: bytes) -> Summary:
    """The summary in an object. Raises `ValueError` for one that is damaged or newer."""
    found = msgspec.json.decode(data, type=Summary)
    if found.format != 1:
        raise ValueError(f"a summary of format {found.format}")
    return found


def encode(summary: Summary) -> bytes:
    """At most `BYTES_MAX` bytes: what is too much loses its list of blocked runs."""
    data = msgspec.json.encode(summary)
    if len(data) > BYTES_MAX:
        data = msgspec.json.encode(msgspec.structs.replace(summary, blocked=[]))
    return data


def object_of(name: str) -> str:
    """The object of a replica's summary below the folder of summaries.

    >>> object_of("acme")
    'acme.json'
    """
    return quote(name, safe="") + ".json"


def name_in(object_name: str) -> str:
    """The replica that a summary in the folder of summaries is of.

    >>> name_in(".summaries/acme.json")
    'acme'
    """
    return unquote(object_name.rpartition("/")[2].removesuffix(".json"))


def name_of(address: Address) -> str:
    """The last part of an address; "" for a whole bucket.

    >>> from perdure.replica.address import parse
    >>> name_of(parse("s3://agents/prod/acme"))
    'acme'
    """
    return (address.folder or address.prefix).rstrip("/").rpartition("/")[2]


class SummaryWriter:
    """Writes the summary of one replication until `stop`. `status` gives the replica's status."""

    def __init__(self, acquired: Acquired, status: Callable[[], Status]) -> None:
        self._acquired, self._status = acquired, status
        self._loop = Loop("replica-summary", self._tick)
        self._written: Summary | None = None
        self._written_s = 0.0
        self._active_ms = 0
        self._failing = False
        self._place: _Place | None = None
        self._writing: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._acquired.options.summary:
            self._loop.start()

    async def stop(self, *, ended: bool) -> None:
        """Write it a last time, if the replica is still ours."""
        await self._loop.stop()
        if self._writing is not None:  # its request may arrive after a later one's
            await asyncio.wait([self._writing])
        if ended and self._acquired.options.summary:
            await self._write(ended=True)

    async def _tick(self) -> float:
        if self._place is None:
            self._place = _Place(self._acquired.address)
            return FIRST_S
        if not self._acquired.lease.lost.done() and self._is_due():
            self._writing = asyncio.create_task(self._write(), context=Context())
            await asyncio.shield(self._writing)
        return EVERY_S

    def _is_due(self) -> bool:
        """Whether something changed, or the last one is old."""
        last, status = self._written, self._status()
        if last is None or time.monotonic() >= self._written_s + AT_REST_S:
            return True
        now = (status.rows, status.state, status.epoch)
        return now != (last.rows, last.state, last.epoch)

    async def _write(self, *, ended: bool = False) -> None:
        self._place = self._place or _Place(self._acquired.address)
        try:
            async with asyncio.timeout(WRITE_S_MAX):
                summary = await self._summary(ended=ended)
                await self._place.put(encode(summary))
        except (TimeoutError, OSError, PerdureError, apsw.Error) as error:
            if not self._failing:
                why = brief(str(error)) or "it took too long"
                log.warning("the summary for observers can't be written: %s", why)
            self._failing = True
            return
        self._written, self._written_s, self._failing = summary, time.monotonic(), False

    async def _summary(self, *, ended: bool) -> Summary:
        status, path = self._status(), self._acquired.path
        now_ms = time.time_ns() // 1_000_000
        if self._written is None or self._written.rows != status.rows:
            self._active_ms = now_ms
        lease, drill = self._acquired.lease.row, status.drill or {}
        summary = Summary(
            name=name_of(self._acquired.address),
            at_ms=now_ms,
            host=lease.host.partition("/")[0],
            pid=lease.pid,
            epoch=status.epoch,
            txid=status.txid,
            rows=status.rows,
            size_bytes=os.path.getsize(path),
            state="ended" if ended else status.state,
            reason=status.reason[:_TEXT_MAX],
            lag_s=status.lag_s,
            active_ms=self._active_ms,
            drill_ok=drill.get("ok"),
            drill_ms=drill.get("at_ms"),
            ended=ended,
        )
        await in_thread(fill, path, summary)
        return summary


def fill(path: str, summary: Summary) -> None:
    """Count the runs of a store into its summary. Costs some milliseconds, however many there are.

    Raises a `StoreError`.
    """
    with contextlib.closing(connection.open_reader(path)) as db:
        db.execute("BEGIN")
        count(db, summary)


def count(db: apsw.Connection, summary: Summary) -> None:
    """The same on a connection. Raises `apsw.Error` for a file of an early schema."""
    counts = dict(db.execute(Q["open_counts"], (COUNT_MAX + 1,)))
    ((known,),) = db.execute(Q["all_runs"], (COUNT_MAX + 1,))
    if known <= COUNT_MAX:
        counts[COMPLETED] = known - sum(counts.values())
    else:
        ((counts[COMPLETED],),) = db.execute(Q["completed"], (COUNT_MAX + 1,))
    summary.more = [status for status, n in counts.items() if n > COUNT_MAX]
    summary.counts = {status: min(n, COUNT_MAX) for status, n in counts.items() if n}
    blocked = db.execute(Q["blocked_runs"], (_TEXT_MAX, _TEXT_MAX))
    summary.blocked = [(run_id, why or "") for run_id, why in blocked]
    ((summary.due_ms,),) = db.execute(Q["next_due"])
    summary.schema = int(db.pragma("user_version"))


class _Place:
    """Where the summary of a replica is written."""

    def __init__(self, address: Address) -> None:
        self._address, self._name = address, name_of(address)
        self._beside: Bucket | None = None
        self._inside: Bucket | None = None
        if address.folder is None and self._name:
            parent = address.prefix.rpartition("/")[0]
            self._beside = open_bucket(msgspec.structs.replace(address, prefix=parent))

    async def put(self, data: bytes) -> None:
        if self._address.folder is not None:
            await in_thread(_put_file, Path(self._address.folder), data)
            return
        if self._beside is not None:
            try:
                await self._beside.put(f"{FOLDER}/{object_of(self._name)}", data)
                return
            except BucketUnusable:  # the key is for the replica's own prefix
                self._beside = None
        self._inside = self._inside or open_bucket(self._address)
        await self._inside.put(NAME, data)


def _put_file(folder: Path, data: bytes) -> None:
    """Replace it; not synced, because a lost one is written again."""
    draft = folder / f".{uuid.uuid4().hex}"
    try:
        draft.write_bytes(data)
        draft.replace(folder / NAME)
    finally:
        draft.unlink(missing_ok=True)
