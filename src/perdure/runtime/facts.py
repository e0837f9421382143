"""Facts about a store for its operators, and about what an engine leaves to others.

Rules: nothing here writes; what is counted has a limit, so that a look at a file with a million
runs stays cheap.
"""

from __future__ import annotations

from typing import Any

from perdure.core import lifecycle
from perdure.runtime import stuck, workers
from perdure.store.base import Store
from perdure.store.sqlite import files
from perdure.store.sqlite.driver import SqliteStore

DUE_RUNS_MAX = 1_000


def of_store(store: SqliteStore, path: str, now_ms: int) -> dict[str, Any]:
    """What `doctor` reports of an open store."""
    facts = store.facts(now_ms)
    there = store.workers()
    at_work = workers.take_what_is_due(there, now_ms)
    for run in facts["stuck"]:
        run["reason"] = _stuck_reason(run, "" if at_work else f". {workers.NO_WORKER}")
    facts["stuck_queues"] = stuck.queues(store, now_ms)
    facts["stuck_schedules"] = stuck.schedules(store, now_ms)
    facts["unanswered"] = stuck.requests(store, now_ms)
    facts["path"] = path
    facts["file_bytes"] = files.size(path) or facts["pages"] * facts["page_bytes"]
    facts["wal_bytes"] = files.size(path + "-wal")
    if (checksum := store.checksum()) is not None:
        facts["replica"] = {
            "address": checksum.address,
            "epoch": checksum.epoch,
            "history_rows": checksum.rows,
        }
    if done := retention(store):
        facts["retention"] = done
    facts["workers"] = [
        {"worker": w.worker, "name": w.name, "pid": w.pid, "lease_left_ms": w.lease_ms - now_ms}
        for w in there
    ]
    facts["no_worker"] = None if at_work else workers.NO_WORKER
    return facts


def retention(store: Store) -> dict[str, Any]:
    """What retention has done, as far as there is something to say."""
    state = store.pruning()
    found = {
        "pruned_runs": state.runs, "pruned_last_ms": state.at_ms, "being_deleted": state.left,
        "archive": state.archive, "archived_last_ms": state.archived_ms,
        "archive_error": state.error, "failing_since_ms": state.error_ms,
    }  # fmt: skip
    return {name: fact for name, fact in found.items() if fact}


def _stuck_reason(run: dict[str, Any], no_worker: str) -> str:
    """Why a run does not go on, and what to do about it."""
    match run["status"]:
        case lifecycle.RUNNING:
            return f"its process has gone: another worker takes it over{no_worker}"
        case lifecycle.PENDING if no_worker:
            return f"it is due{no_worker}"
        case lifecycle.PENDING:
            return (
                "it is due, but no worker has taken it: is there one that runs, and knows "
                f"workflow {run['workflow']}?"
            )
        case lifecycle.PAUSED:
            return f"it was paused: perdure resume {run['id']}"
        case _:
            return run["reason"] or ""


def left_to_workers(
    store: Store, owner: int, at_work: int, workflows: tuple[str, ...], now_ms: int
) -> int:
    """How many runs of these workflows are due and not executed by any other worker than `owner`,
    up to `DUE_RUNS_MAX` + 1.

    The `at_work` runs that are executed here count as well: they are due when this engine has
    closed.
    """
    if any(not row.asked and row.worker != owner for row in store.workers()):
        return 0  # it takes them, or other workflows; `doctor` shows what stays
    due = store.due_count(workflows, now_ms, DUE_RUNS_MAX + 1)
    return min(at_work + due, DUE_RUNS_MAX + 1)
