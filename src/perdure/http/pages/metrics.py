"""Metrics in the text format of Prometheus: of the store, and of the engine of this process.

Rules: no library; what the store says is bounded as everywhere, and a metric says where a count
stopped at its bound; names and units follow the conventions of the format.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from perdure.core import lifecycle
from perdure.http.counters import Counters
from perdure.http.site import Site, site_of
from perdure.reader.values import Bounded, SystemFacts
from perdure.runtime.info import QueueInfo

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Samples = Iterable[tuple[Mapping[str, str], float]]
_NONE: Mapping[str, str] = {}


async def metrics(request: Request) -> Response:
    """All metrics of a site."""
    site = site_of(request)
    facts, queues = await site.reader.system(), await site.reader.queues()
    inbox = await site.reader.inbox_count()
    lines = [*of_store(facts, inbox, datetime.now(UTC)), *of_queues(queues), *_of_replica(site)]
    if site.counters is not None:
        lines += of_engine(site.counters)
    return Response("\n".join([*lines, ""]), media_type=CONTENT_TYPE)


def of_store(facts: SystemFacts, inbox: Bounded, now: datetime) -> Iterator[str]:
    """Metrics that the file has, whichever processes execute it."""
    due_s = 0.0 if facts.oldest_due_at is None else (now - facts.oldest_due_at).total_seconds()
    free = facts.free_pages * facts.page_bytes
    yield from metric("info", "gauge", "Versions of what answers.", [(facts.versions, 1)])
    yield from metric(
        "runs", "gauge", "Runs by status, counted to a bound.",
        [({"status": status}, count.number) for status, count in facts.runs.items()],
    )  # fmt: skip
    yield from metric(
        "runs_bounded", "gauge", "1 where the count of runs stopped at its bound.",
        [({"status": status}, count.more) for status, count in facts.runs.items()],
    )  # fmt: skip
    yield from one("due_runs", "Runs that are due and have no owner.", facts.due_now.number)
    yield from one("oldest_due_seconds", "Since when the oldest of them is due.", max(0.0, due_s))
    yield from one("inbox_items", "What waits for a person.", inbox.number)
    yield from one("workers", "Workers whose lease holds.", facts.workers)
    yield from metric(
        "store_bytes", "gauge", "Bytes on disk.",
        [({"file": "main"}, facts.file_bytes), ({"file": "wal"}, facts.wal_bytes)],
    )  # fmt: skip
    yield from one("store_free_bytes", "Bytes inside the file that are free.", free)
    yield from one("store_schema_version", "Schema version of the file.", facts.schema_version)


def of_queues(queues: Iterable[QueueInfo]) -> Iterator[str]:
    """Metrics of queues."""
    rows = [({"queue": queue.name}, queue) for queue in queues]
    for name, text in (
        (lifecycle.WAITING, "What waits in a queue."),
        (lifecycle.RUNNING, "What a queue has admitted."),
        ("paused", "1 where a queue admits nothing."),
    ):
        samples = [(labels, getattr(queue, name)) for labels, queue in rows]
        yield from metric(f"queue_{name}", "gauge", text, samples)


def of_engine(counters: Counters) -> Iterator[str]:
    """Metrics of the engine of this process, since it was entered."""
    yield from one("commits_total", "Transactions that are durable.", counters.commits)
    yield from one("writes_total", "Writes in these transactions.", counters.writes)
    yield from one(
        "commit_seconds_total", "Time that the database took for them.", counters.commit_ms / 1000
    )
    yield from one("confirmations_total", "Confirmations of the replica.", counters.confirmations)
    yield from one("confirm_seconds_total", "Time that these took.", counters.confirm_ms / 1000)
    yield from one("attempts_running", "Attempts of steps under way.", counters.running)
    yield from metric(
        "attempts_total", "counter", "Attempts of steps that have ended.",
        [({"step": s, "outcome": how}, n) for (s, how), n in sorted(counters.attempts.items())],
    )  # fmt: skip
    yield from metric(
        "attempt_seconds_total", "counter", "Time that attempts took.",
        [({"step": step}, ms / 1000) for step, ms in sorted(counters.attempt_ms.items())],
    )  # fmt: skip
    yield from metric(
        "runs_started_total", "counter", "Runs that began in this process.",
        [({"workflow": name}, number) for name, number in sorted(counters.started.items())],
    )  # fmt: skip
    yield from metric(
        "runs_ended_total", "counter", "Runs that ended or were blocked in this process.",
        [({"workflow": w, "status": how}, n) for (w, how), n in sorted(counters.ended.items())],
    )  # fmt: skip


def _of_replica(site: Site) -> Iterator[str]:
    replication = None if site.engine is None else site.engine.replica
    if replication is None:
        return
    status = replication.status()
    yield from metric("replica_state", "gauge", "State.", [({"state": status.state}, 1)])
    yield from one("replica_lag_seconds", "What a loss would cost now.", status.lag_s)
    yield from one("replica_lag_transactions", "Not in the replica yet.", status.lag_transactions)
    yield from one("replica_lag_bytes", "Not in the replica yet.", status.lag_bytes)
    yield from one("replica_lease_seconds", "Lease that is left.", status.lease_left_ms / 1000)


def one(name: str, text: str, value: float) -> Iterator[str]:
    """A metric with one sample."""
    yield from metric(
        name, "counter" if name.endswith("_total") else "gauge", text, [(_NONE, value)]
    )


def metric(name: str, kind: str, text: str, samples: Samples) -> Iterator[str]:
    """The lines of a metric; none where it has no sample.

    >>> list(metric("queue_waiting", "gauge", "What waits.", [({"queue": 'a"b'}, 2)]))[-1]
    'perdure_queue_waiting{queue="a\\\\"b"} 2'
    """
    found = list(samples)
    if not found:
        return
    yield f"# HELP perdure_{name} {text}"
    yield f"# TYPE perdure_{name} {kind}"
    for labels, value in found:
        shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"perdure_{name}{f'{{{shown}}}' if shown else ''} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(round(value, 6))


ROUTES = [Route("/metrics", metrics, name="metrics")]
