"""Page of the system: the file, the replica, what is due, versions, and what stands still."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from perdure.core.lifecycle import STATUSES
from perdure.http.activity import last_hour
from perdure.http.site import Site, site_of, url
from perdure.http.templating import page
from perdure.replica.status import Status
from perdure.runtime.info import instant

CHECK = "check"
LISTS = ("stuck", "stuck_queues", "stuck_schedules", "unanswered")
STATES = {"replicating": "good", "starting": "info", "behind": "warn"}
"""How a state of a replica is shown; any other is bad."""


async def system(request: Request) -> Response:
    """The store at this moment; with `check`, what `perdure doctor` says."""
    site = site_of(request)
    checks = CHECK in request.query_params
    facts, activity, checked = await asyncio.gather(
        site.reader.system(), last_hour(site.reader), _doctor(site) if checks else _nothing()
    )
    replica = _replica(site)
    return page(
        request, "system.html", area="system", facts=facts, statuses=STATUSES, replica=replica,
        replica_kind="" if replica is None else STATES.get(replica.state, "bad"), checked=checked,
        spark=[[one.completed + one.cancelled, one.failed] for one in activity.buckets],
        started=sum(one.started for one in activity.buckets),
        ended=sum(one.completed + one.cancelled + one.failed for one in activity.buckets),
        failed=sum(one.failed for one in activity.buckets), partial=activity.partial,
        commits=_commits(site), drill=_drill(replica), json=url(request, "api", "v1", "system"),
    )  # fmt: skip


def _replica(site: Site) -> Status | None:
    """What the engine of this process knows of its replica."""
    replication = None if site.engine is None else site.engine.replica
    return None if replication is None else replication.status()


class Drill(msgspec.Struct, frozen=True):
    """The last restore that was tried: when, and the error where it failed."""

    at: datetime
    error: str | None
    took_ms: int


def _drill(replica: Status | None) -> Drill | None:
    if replica is None or replica.drill is None:
        return None
    found = replica.drill
    error = None if found.get("ok") else str(found.get("error") or "it failed")
    return Drill(instant(found["at_ms"]), error, found.get("took_ms", 0))


class Commits(msgspec.Struct, frozen=True):
    """What the writer of this process has done in the last minute; `writes` are for each commit,
    `commit_ms` since it began.
    """

    each_second: list[list[int]]
    a_second: float
    writes: float
    commit_ms: float


def _commits(site: Site) -> Commits | None:
    counters = site.counters
    if counters is None:
        return None
    recent = counters.recent()
    commits = sum(recent.commits)
    return Commits(
        [[number] for number in recent.commits],
        commits / max(len(recent.commits), 1),
        sum(recent.writes) / max(commits, 1),
        counters.commit_ms / max(counters.commits, 1),
    )


class Checked(msgspec.Struct, frozen=True):
    """What a check of the whole file found."""

    integrity: str
    lists: list[tuple[str, list[dict[str, Any]]]]


async def _doctor(site: Site) -> Checked:
    facts = await site.reader.doctor()
    integrity = facts.get("integrity", "ok")
    text = integrity if isinstance(integrity, str) else "; ".join(map(str, integrity))
    found = [(name.replace("_", " "), facts.get(name) or []) for name in LISTS]
    return Checked(text, [(name, entries) for name, entries in found if entries])


async def _nothing() -> None:
    return None


ROUTES = [Route("/system", system, name="system")]
