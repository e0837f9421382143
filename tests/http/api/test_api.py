"""The API as a client uses it: each thing that it does, and each way in which it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from perdure import Token
from tests.http.api.conftest import agent
from tests.http.support import Serve, Served

API = "/api/v1"
DEEP = '{"workflow": "agent", "args": {"goal": ' + "[" * 9_000 + "]" * 9_000 + "}}"


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with served.client() as client:
        yield client


def told(answer: httpx.Response, status: int = 200) -> Any:
    """The JSON of an answer, which has this status."""
    assert answer.status_code == status, answer.text
    return answer.json()


def started(client: httpx.Client, id: str, workflow: str = "agent", **args: Any) -> str:
    """Start a run, wait until it is parked, and return its address."""
    given = {"goal": id, **args} if workflow == "agent" else args
    body = {"workflow": workflow, "args": given, "id": id, "tags": {"of": "me"}}
    at = told(client.post(f"{API}/runs", json=body), 201)
    assert at == {"id": id, "workflow": workflow}
    where = f"{API}/runs/{quote(id, safe='')}"
    while told(client.get(where))["status"] not in ("waiting", "failed", "completed"):
        pass
    return where


def test_a_run_from_its_start_to_its_result(client: httpx.Client) -> None:
    run = started(client, "a/b ü", steps=3)
    assert told(client.get(f"{API}/runs", params={"tag": "of=me", "q": "a/b"}))["runs"][0][
        "id"
    ] == ("a/b ü")
    assert "waits for a message" in told(client.get(f"{run}/why"))["why"].lower()
    page = told(client.get(f"{run}/history", params={"limit": 2}))
    rest = told(client.get(f"{run}/history", params={"after": page["next"]}))
    assert [event["seq"] for event in page["events"] + rest["events"]] == list(
        range(1, rest["events"][-1]["seq"] + 1)
    )
    assert rest["next"] is None
    assert [row["kind"] for row in told(client.get(f"{run}/history/2"))] == ["step", "completed"]
    assert told(client.get(f"{run}/waterfall"))["names"][0] == "look"
    assert {one["name"]: one["value"] for one in told(client.get(f"{run}/exposed"))} == {
        "stage": "asks", "steps": 3,
    }  # fmt: skip
    assert [one["name"] for one in told(client.get(f"{run}/streams"))] == ["words"]
    words = told(client.get(f"{run}/streams/words", params={"limit": 2}))
    more = told(client.get(f"{run}/streams/words", params={"after": words["next"]}))
    assert [one["item"] for one in words["items"] + more["items"]] == [
        "a/b ü 0", "a/b ü 2", "a/b ü 4",
    ]  # fmt: skip
    assert told(client.get(f"{run}/moment", params={"at": 2}))["pending"][0]["name"] == "look"
    assert told(client.get(f"{run}/result"), 202)["ended"] is False
    (item,) = [one for one in told(client.get(f"{API}/inbox"))["items"] if one["run"] == "a/b ü"]
    assert item["prompt"] == "Publish a/b ü?"
    answer = {"value": True, "seq": item["seq"]}
    assert told(client.post(f"{run}/answers", json=answer))["sender"] == "local"
    assert told(client.get(f"{run}/result", params={"wait": 30})) == {
        "id": "a/b ü", "status": "completed", "ended": True, "result": "a/b ü", "error": None,
        "reason": None,
    }  # fmt: skip
    assert told(client.post(f"{run}/answers", json=answer), 409)["error"] == "NotAwaited"
    assert told(client.post(f"{run}/cancel"), 409)["error"] == "RunFinished"


def test_the_same_key_is_the_same_request(client: httpx.Client) -> None:
    key = {"Idempotency-Key": "order 7"}
    body = {"workflow": "agent", "args": {"goal": "once"}}
    first, again = (client.post(f"{API}/runs", json=body, headers=key) for _ in range(2))
    assert told(first, 201) == told(again, 201)
    assert client.get(first.headers["location"]).status_code == 200
    other = {"workflow": "agent", "args": {"goal": "twice"}}
    assert told(client.post(f"{API}/runs", json=other, headers=key), 409)["error"] == "RunExists"
    run = f"{API}/runs/{told(first, 201)['id']}"
    fork = {"at": 1, "args": {"goal": "forked"}}
    made = told(client.post(f"{run}/forks", json=fork, headers=key), 201)
    assert told(client.post(f"{run}/forks", json=fork, headers=key)) == made
    sums = started(client, "sums", "sums")
    ask = {"channel": "add", "value": 2}
    assert [
        told(client.post(f"{sums}/requests", json=ask, headers=key))["reply"] for _ in range(2)
    ] == [2, 2]
    for _ in range(2):
        send = {"channel": "later", "value": 1}
        assert told(client.post(f"{sums}/messages", json=send, headers=key))["key"] == "order 7"
    assert client.post(f"{API}/runs", json=body, headers={"Idempotency-Key": ""}).status_code == 400


def test_verbs_and_one_verb_for_many(client: httpx.Client) -> None:
    runs = [started(client, f"many-{n}") for n in range(3)]
    assert told(client.post(f"{runs[0]}/pause"))["status"] == "paused"
    assert told(client.post(f"{runs[0]}/resume"))["before"] == "paused"
    which = {"verb": "cancel", "filter": {"q": "many-", "in": ["id"], "workflow": "agent"}}
    plan = told(client.post(f"{API}/bulk", json=which))
    assert (plan["dry_run"], plan["done"], len(plan["acts"])) == (True, 0, 3)
    done = told(client.post(f"{API}/bulk", json=which | {"dry_run": False}))
    assert (done["done"], done["failed"]) == (3, [])
    for run in runs:
        assert told(client.get(f"{run}/result", params={"wait": 30}))["status"] == "cancelled"
    assert told(client.post(f"{runs[1]}/retry"))["before"] == "cancelled"
    bad = [
        {"verb": "cancel"},
        {"verb": "burn", "ids": []},
        {"verb": "cancel", "filter": {"limit": "x"}},
    ]
    assert {client.post(f"{API}/bulk", json=one).status_code for one in bad} == {422}


def test_queues_and_schedules(client: httpx.Client) -> None:
    queue, nightly = f"{API}/queues/llm", f"{API}/schedules/nightly"
    rate = {"limit": 5, "per": 60, "burst": 5}
    assert told(client.put(queue, json={"concurrency": 3, "rate": rate}))["rate"] == rate
    assert told(client.put(queue, json={"rate": None}))["rate"] is None
    assert told(client.get(queue))["queue"]["concurrency"] == 3
    assert told(client.get(f"{nightly}/ticks", params={"count": 2}))[1]["at"] > "2026"
    days = {"start": "2026-11-01T00:00:00Z", "end": "2026-11-03T00:00:00Z"}
    ids = told(client.post(f"{nightly}/backfill", json=days | {"dry_run": True}))["runs"]
    assert ids == [f"nightly@2026-11-0{day}T03:00:00+01:00" for day in (1, 2)]
    assert told(client.post(f"{nightly}/backfill", json=days))["runs"] == ids
    assert told(client.post(f"{nightly}/pause"))["status"] == "paused"
    assert told(client.post(f"{nightly}/trigger"), 201)["id"].endswith("-trigger")
    made = {"when": "@every 15m", "workflow": "agent", "args": {"goal": "x"}, "jitter": 1.5}
    assert told(client.put(f"{API}/schedules/own", json=made))["when"] == "@every 15m"
    assert {one["name"] for one in told(client.get(f"{API}/schedules"))} >= {"nightly", "own"}
    assert told(client.delete(f"{API}/schedules/own"))["removed"] is True
    assert told(client.get(f"{API}/schedules/own"), 404)["error"] == "ScheduleNotFound"
    bad = made | {"when": "every now and then"}
    assert told(client.put(f"{API}/schedules/own", json=bad), 422)["error"] == "BadSchedule"


def test_the_store_and_its_workflows(client: httpx.Client) -> None:
    info = told(client.get(f"{API}/workflows/agent"))
    assert info["inputs"]["required"] == ["goal"]
    assert info["description"] == "Looks a few times, then waits for a person."
    assert {one["name"] for one in told(client.get(f"{API}/workflows"))} >= {"agent", "fails"}
    assert told(client.get(f"{API}/sql", params={"q": "select 1 as one"}))["rows"] == [[1]]
    assert told(client.get(f"{API}/sql", params={"q": "delete from run"}), 422)["detail"]
    assert told(client.get(f"{API}/system"))["file_bytes"] > 0
    assert told(client.get(f"{API}/doctor"))["integrity"] == "ok"
    assert len(told(client.get(f"{API}/workers"))) == 1
    assert told(client.post(f"{API}/prune", json={}))["dry_run"] is True
    assert told(client.get(f"{API}/counts"))["failed"] == {"number": 0, "more": False}
    assert len(told(client.get(f"{API}/activity", params={"buckets": 5}))["buckets"]) == 5


def test_runs_go_from_one_store_to_another(client: httpx.Client, serve: Serve) -> None:
    started(client, "carried")
    other = serve(workflows=[agent])
    with other.client() as there:
        for kind, already in (("json", []), ("db", ["carried"])):
            query = {"id": ["carried"], "format": kind}
            file = client.get(f"{API}/export", params=query)
            assert f"runs.{kind}" in file.headers["content-disposition"]
            said = told(there.post(f"{API}/import", content=file.content), 201)
            assert said["already"] == already
        assert told(there.get(f"{API}/runs/carried"))["status"] == "paused"
        for rubbish in (b"", b"{}", b"no file", file.content[:3_000]):
            assert there.post(f"{API}/import", content=rubbish).status_code in (400, 422)
    assert told(client.get(f"{API}/export", params={"id": "none"}), 404)["error"] == "RunNotFound"


def test_a_client_of_a_store_checks_what_its_workers_declared(serve: Serve, tmp_path: Path) -> None:
    path = str(tmp_path / "shared.db")
    serve(store=path, workflows=[agent])
    with serve(store=path, execute=False).client() as client:
        assert told(client.get(f"{API}/workflows/agent"))["known"] is False
        body = {"workflow": "agent", "id": "far", "args": {"goal": 7, "color": "red"}}
        refused = told(client.post(f"{API}/runs", json=body), 422)["detail"]
        assert "goal" in refused
        assert "color" in refused
        told(client.post(f"{API}/runs", json=body | {"args": {"goal": "far"}}), 201)
        assert told(client.post(f"{API}/runs", json={"workflow": "none"}), 404)
        unchecked = {"workflow": "none", "unknown": True, "id": "later"}
        assert told(client.post(f"{API}/runs", json=unchecked), 201)["id"] == "later"


def test_rights_and_a_prefix(serve: Serve) -> None:
    tokens = [Token(name="ops", secret="o" * 20), Token(name="guest", secret="g" * 20, role="view")]
    guarded = serve(workflows=[agent], token=tokens, prefix="/durable")
    start = {"workflow": "agent", "args": {"goal": "x"}, "id": "mine"}
    with guarded.client() as nobody:
        assert told(nobody.get(f"{API}/runs"), 401)["status"] == 401
    with guarded.client(authorization="Bearer " + "g" * 20) as guest:
        assert told(guest.get(f"{API}/runs"))["runs"] == []
        assert told(guest.post(f"{API}/runs", json=start), 403)["status"] == 403
    with guarded.client(authorization="Bearer " + "o" * 20) as ops:
        made = ops.post(f"{API}/runs", json=start)
        assert made.headers["location"] == "/durable/api/v1/runs/mine"
        assert told(ops.get(f"{API}/openapi.json"))["servers"] == [{"url": "/durable"}]
        while told(ops.get(f"{API}/runs/mine"))["status"] != "waiting":
            pass
        assert told(ops.post(f"{API}/runs/mine/answers", json={"value": True}))["sender"] == "ops"


def test_what_was_seen_is_not_sent_again_and_integers_are_exact(client: httpx.Client) -> None:
    seen = client.get(f"{API}/workflows/agent")
    again = client.get(
        f"{API}/workflows/agent", headers={"If-None-Match": f'"x", {seen.headers["etag"]}'}
    )
    assert (again.status_code, again.content) == (304, b"")
    query = {"q": f"select {2**60 + 1} as n, 'x' as t, 5 as small"}
    assert str(2**60 + 1) in client.get(f"{API}/sql", params=query).text
    exact = told(client.get(f"{API}/sql", params=query | {"integers": "text"}))
    assert exact["rows"] == [[str(2**60 + 1), "x", 5]]


@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "/runs/none", {}, 404),
        ("GET", "/runs/none/history", {}, 404),
        ("GET", "/runs/%ff%00", {}, 404),
        ("GET", "/runs?limit=0", {}, 422),
        ("GET", "/runs?status=odd", {}, 422),
        ("GET", "/runs?after=odd", {}, 422),
        ("GET", "/runs?colour=red", {}, 422),
        ("GET", "/runs?workflow=a&workflow=b", {}, 422),
        ("GET", "/nothing", {}, 404),
        ("PATCH", "/runs", {}, 405),
        ("POST", "/runs", {"json": {"workflow": "none"}}, 404),
        ("POST", "/runs", {"json": {"workflow": "agent"}}, 422),
        ("POST", "/runs", {"json": {"workflow": "agent", "args": {"goal": 7}}}, 422),
        ("POST", "/runs", {"json": {"workflow": "agent", "args": {"goal": "x"}, "id": "a~b"}}, 422),
        ("POST", "/runs", {"json": {"workflow": "agent", "argz": {}}}, 422),
        ("POST", "/runs", {"json": []}, 422),
        ("POST", "/runs", {"content": "{", "headers": {"content-type": "application/json"}}, 400),
        ("POST", "/runs", {"content": DEEP, "headers": {"content-type": "application/json"}}, 400),
        ("POST", "/runs", {"data": {"workflow": "agent"}}, 415),
        ("POST", "/runs/none/cancel", {}, 404),
        ("POST", "/runs/none/forks", {"json": {"at": 1}}, 404),
        ("POST", "/runs/none/resolve", {"json": {"retry": True, "error": "x"}}, 422),
        ("PUT", "/queues/llm", {"json": {"concurrency": 0}}, 422),
    ],
)  # fmt: skip
def test_what_can_not_be_is_a_problem(
    client: httpx.Client, method: str, path: str, options: Any, status: int
) -> None:
    answer = client.request(method, API + path, **options)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], len(problem["detail"]) > 10) == (status, True)
