"""A step that waits for its next attempt, tried at once: by page, by API, and for many runs."""

from __future__ import annotations

import asyncio

import pytest

from perdure import Engine, Retry, step, workflow
from tests.http.support import CSRF, Serve, Served

LATER = Retry(attempts=3, delay=3_600, max_delay=3_600)
up: set[str] = set()


@step(retry=LATER)
async def charge(card: str) -> str:
    if card not in up:
        raise ConnectionError("503")
    return card


@workflow
async def order(*cards: str) -> list[str]:
    return list(await asyncio.gather(*map(charge, cards)))


@pytest.fixture
def site(serve: Serve) -> Served:
    up.clear()
    return serve(workflows=[order])


def waiting(site: Served, id: str, *cards: str) -> None:
    """Start a run, and wait until each of its steps has failed once."""

    async def start(engine: Engine) -> None:
        run = await engine.start(order(*cards), id=id)
        while await run.status() != "waiting":  # noqa: ASYNC110
            await asyncio.sleep(0.003)

    site.do(start)


def ended(site: Served, id: str) -> object:
    async def result(engine: Engine) -> object:
        return await (await engine.get(id)).result()

    return site.do(result)


BUTTON = ">Retry now<"


def test_the_page_offers_it_where_the_run_says_why_and_in_the_panel(site: Served) -> None:
    waiting(site, "o", "a", "b")
    with site.client(**CSRF) as client:
        assert BUTTON in client.get("/runs/o/head").text
        assert BUTTON not in client.get("/runs/o/side?step=1").text
        assert 'name="seq" value="3"' in client.get("/runs/o/side?step=3").text
        up.update("ab")
        one = client.post("/runs/o/retry", data={"seq": "3"})
        assert (one.status_code, one.headers["location"]) == (303, "/runs/o?step=3")
        assert client.post("/runs/o/retry", data={"seq": "3"}).status_code == 303, "nothing new"
        every = client.post("/runs/o/retry")
        assert (every.status_code, every.headers["location"]) == (303, "/runs/o")
        assert ended(site, "o") == ["a", "b"]
        assert BUTTON not in client.get("/runs/o").text
        row = client.get("/runs/o/side?step=3").text
        assert "attempt 2 began early, as asked for by local" in row
        lately = client.get("/inbox").text
        assert ">attempt 2 at once<" in lately
        assert "&#34;began&#34;" not in lately


def test_the_api_says_which_steps(site: Served) -> None:
    waiting(site, "o", "a", "b")
    with site.client(**CSRF) as client:
        address = "/api/v1/runs/o/retry"
        up.add("a")
        first = client.post(address, json={"seq": 2}).json()
        assert (first["steps"], first["before"]) == ([2], "waiting")
        up.add("b")
        assert client.post(f"{address}", json={"seq": 9}).json()["error"] == "StepNotWaiting"
        assert client.post(address).json()["steps"] in ([3], [2, 3]), "without a body: all"
        assert ended(site, "o") == ["a", "b"]
        late = client.post(address, json={"seq": 2})
        assert (late.status_code, late.json()["error"]) == (409, "StepNotWaiting")
        assert client.post(address, json={"seq": "x"}).status_code == 422


def test_runs_of_a_list_are_tried_where_they_wait_for_an_attempt(site: Served) -> None:
    for id in ("o-1", "o-2"):
        waiting(site, id, "a")
    up.add("a")
    with site.client(**CSRF) as client:
        asked = {"verb": "retry", "filter": {"workflow": "order"}, "dry_run": False}
        done = client.post("/api/v1/bulk", json=asked).json()
        assert (len(done["acts"]), done["leaves"], done["failed"]) == (2, [], [])
        assert [ended(site, id) for id in ("o-1", "o-2")] == [["a"], ["a"]]
