"""Imports: runs of another store under new keys, or nothing; secrets apart from what is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perdure.api.secret import MARK
from perdure.errors import RunExists, SecretsMissing
from perdure.store.base import Store
from perdure.store.export_json import ExportJson
from perdure.store.import_plan import Survey, families_of, parcels
from perdure.store.import_writes import ImportedRuns, ImportRuns
from perdure.store.rows import RunFilter, RunHead
from perdure.store.writes import Finish, Turn
from tests.store.conformance.support import message, one, owned, queue, start

SCHEMA = 13


def run(number: int, id: str, status: str = "waiting", **more: Any) -> dict[str, Any]:
    return {
        "run": number, "id": id, "workflow": "flow", "status": status, "args": {}, "crashes": 2,
        "priority": 0, "seed": 1, "created_ms": 1, "started_ms": 1, "unread": 0, "weight": 1,
    } | more  # fmt: skip


def event(run: int, seq: int, kind: str, **more: Any) -> dict[str, Any]:
    return {"run": run, "seq": seq, "kind": kind, "at_ms": 1} | more


def source(**tables: list[dict[str, Any]]) -> ExportJson:
    text = json.dumps({"perdure_export": 1, "schema": SCHEMA, "tables": tables})
    return ExportJson(text.encode(), "a.json", SCHEMA)


def imports(go_on: bool, **tables: list[dict[str, Any]]) -> ImportRuns:
    """The write for these tables: all of it in one parcel."""
    given = source(**tables)
    families = families_of(given.heads())
    survey = Survey(given, given.heads())
    (parcel,) = parcels(given, families)
    return ImportRuns("a.json", parcel, go_on, 500, frozenset(survey.without_secrets))


FAMILY = {
    "run": [
        run(7, "a~1", "completed", successor=9, started_ms=1, ended_ms=2),
        run(9, "a", chain=7, tags={"of": "me"}, queue="q", started_ms=1),
        run(11, "b", parent=9, parent_seq=2, root=9, queue="q", started_ms=None, due_ms=900),
    ],
    "event": [event(9, 1, "start"), event(9, 2, "child", name="flow", data={"text": "x" * 3_000})],
    "request": [
        {"request": 4, "run": 7, "key": "k", "channel": "c", "sender": "me", "digest": "",
         "at_ms": 1, "state": "open"},
    ],
    "message": [
        {"run": 9, "kind": "request", "name": "c", "ref": 4, "data": {"value": 1}, "at_ms": 1},
        {"run": 9, "kind": "message", "name": "m", "key": "once", "chain": 7, "data": 1,
         "at_ms": 1},
    ],
}  # fmt: skip


@pytest.mark.parametrize("go_on", [False, True])
def test_runs_get_new_keys_and_keep_their_relations(store: Store, go_on: bool) -> None:
    start(store, "other")
    queue(store)
    done = one(store, imports(go_on, **FAMILY))
    assert done == ImportedRuns(["a~1", "a", "b"], 2, [])
    first, run_, child = (store.run_key(run_id) for run_id in ("a~1", "a", "b"))
    row, below = store.run_row(run_), store.run_row(child)
    assert (below.parent, below.parent_seq, below.parent_id, below.root) == (run_, 2, "a", run_)
    assert store.first_generation(run_) == first
    assert store.status("a~1") == "completed"
    state = ("pending", 500, None, 0) if go_on else ("paused", None, None, 0)
    assert (row.status, row.due_ms, row.queue, row.crashes) == state
    assert (below.due_ms, below.queue) == (900, "q")
    assert [(one.seq, one.kind) for one in store.history(run_)] == [(1, "start"), (2, "child")]
    (page,) = store.history_page(run_, 1, 1)
    assert isinstance(page.data, bytes)
    assert json.loads(page.data) == {"text": "x" * 3_000}
    assert [one.kind for one in store.inbox(run_, 0)] == ["request", "message"]
    assert [one.key for one in store.open_requests(run_, 9)] == ["k"]
    one(store, message("a", key="once"))
    assert len(store.inbox(run_, 0)) == 2  # it has arrived before
    rows = store.run_rows(RunFilter(tags={"of": "me"}, limit=9))
    assert [one.id for one in rows] == ["a"]


def test_a_second_import_leaves_what_is_here(store: Store) -> None:
    one(store, imports(False, **FAMILY))
    before = [(row.run, row.status) for row in heads(store)]
    more = {**FAMILY, "run": [*FAMILY["run"], run(13, "c")]}
    done = one(store, imports(True, **more))
    assert done == ImportedRuns(["c"], 1, ["a~1", "a", "b"])
    assert [(row.run, row.status) for row in heads(store)][1:] == before


def heads(store: Store) -> list[RunHead]:
    return store.run_heads(RunFilter(limit=99))


GONE_ON = {**FAMILY, "event": [*FAMILY["event"], event(9, 3, "timer")]}
OTHERWISE = {**FAMILY, "event": [event(9, 1, "start"), event(9, 2, "timer")]}
WITH_A_CHILD = {"run": [run(1, "new"), run(2, "b", parent=1, created_ms=1)]}


@pytest.mark.parametrize(
    ("tables", "text"),
    [
        ({"run": [run(1, "a", seed=2)]}, "another run of this id"),
        ({"run": [run(1, "a", workflow="other")]}, "another run of this id"),
        (GONE_ON, "gone on to row 3"),
        (OTHERWISE, "gone on otherwise"),
        (WITH_A_CHILD, "together with 'new', which is not here"),
    ],
)
def test_an_id_that_is_taken_is_refused_and_nothing_written(
    store: Store, tables: Any, text: str
) -> None:
    one(store, imports(False, **FAMILY))
    before = heads(store)
    refusal = one(store, imports(False, **tables))
    assert isinstance(refusal, RunExists)
    assert text in str(refusal)
    assert heads(store) == before
    late = imports(False, **tables)
    late.before = 3
    assert "3 runs that come before it in 'a.json' were imported" in str(one(store, late))


def test_a_run_without_its_secrets_is_blocked(store: Store) -> None:
    tables = {"run": [run(1, "a", args={"key": "•••"})]}
    one(store, imports(False, **tables))
    row = store.run_row(store.run_key("a"))
    assert (row.status, row.blocked_by) == ("blocked", "secrets")
    assert json.loads(row.args) == {"key": "•••"}
    with pytest.raises(SecretsMissing):
        store.run_row(row.run, true=True)


def test_secrets_are_apart_from_what_is_shown(store: Store) -> None:
    true = json.dumps({"key": f"{MARK}sk", "n": 1}, ensure_ascii=False).encode()
    shown = '{"key": "•••", "n": 1}'.encode()
    run_, worker = owned(store, "a", args=true)
    one(store, message("a", data=true))
    assert store.run_row(run_).args == store.arguments(run_) == shown
    assert store.run_row(run_, true=True).args == store.arguments(run_, true=True) == true
    assert [one.data for one in store.inbox(run_, 0)] == [true]
    one(store, Turn(run_, worker, [], 1, finish=Finish("completed", result=true)))
    assert store.outcome(run_).result == shown
    assert store.outcome(run_, true=True).result == true
