"""The page of a run over HTTP: what it says, its fragments, its data, its verbs."""

from __future__ import annotations

import asyncio
import logging

import pytest

from perdure import (
    Engine,
    Queue,
    Retry,
    RunFailed,
    current_step,
    emit,
    expose,
    receive,
    step,
    workflow,
)
from perdure.core import lifecycle
from perdure.http.app import application
from perdure.http.pages import run, run_views
from perdure.http.pages.run import offered
from perdure.http.site import Site
from perdure.reader.store_reader import BARS_MAX
from tests.http.support import CSRF, Serve, Served

TRIES = Retry(attempts=2, delay=0.001, jitter=False)


@step(retry=TRIES)
async def price(article: str) -> int:
    if article == "ham":
        raise ValueError(f"no price for <{article}>")
    return 7


@step
async def think(messages: list[dict[str, str]]) -> dict[str, str]:
    emit("tokens", "rain ")
    emit("tokens", "<b>")
    return {"role": "assistant", "content": "It will rain."}


@workflow
async def order(article: str) -> int:
    expose(stage="pricing")
    return await price(article)


@workflow
async def agent(question: str) -> str:
    reply = await think([{"role": "user", "content": question}])
    approved = await receive("approval", bool, prompt="Publish it?")
    return reply["content"] if approved else ""


@workflow
async def pack(articles: list[str]) -> int:
    return sum(await asyncio.gather(*map(order, articles)))


async def filled(engine: Engine) -> None:
    await engine.run(order("eggs"), id="order/1 %")
    with pytest.raises(RunFailed):
        await engine.run(order("ham"), id="ham")
    await engine.run(pack(["eggs", "tea"]), id="pack.json")
    await engine.run(writer(), id="writer")
    run = await engine.start(agent("Weather?"), id="agent", tags={"customer": "acme"})
    while await run.status() != lifecycle.WAITING:  # noqa: ASYNC110
        await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
def site(serve: Serve) -> Served:
    served = serve(workflows=[order, agent, pack, writer])
    served.do(filled)
    return served


def test_an_id_may_hold_anything(site: Served) -> None:
    with site.client() as client:
        page = client.get("/runs/order%2F1%20%25")
        assert page.status_code == 200
        assert "order/1 %" in page.text
        assert "/runs/order%2F1%20%25/waterfall.json" in page.text
        assert client.get("/runs/order%2F1%20%25/waterfall.json").json()["status"] == "completed"
        assert client.get("/runs/nobody").status_code == 404
        assert client.get("/runs/..%2F..%2Fetc").status_code == 404


def test_the_data_of_the_page_is_its_twin(site: Served) -> None:
    with site.client() as client:
        twin = client.get("/runs/agent.json").json()
        assert (twin["run"]["id"], twin["run"]["status"]) == ("agent", "waiting")
        assert twin["waterfall"]["names"] == ["think"]
        assert [row["kind"] for row in client.get("/runs/agent.json?step=2").json()["step"]] == [
            "step", "completed",
        ]  # fmt: skip
        assert client.get("/runs/agent.json?view=stream").json()["stream"]["name"] == "tokens"
        assert "<h1" in client.get("/runs/pack.json").text  # an id that ends so is an id first
        assert client.get("/runs/pack.json.json").json()["run"]["workflow"] == "pack"


def test_a_failure_is_on_top_with_its_traceback(site: Served) -> None:
    with site.client() as client:
        page = client.get("/runs/ham").text
        assert "Step price failed after 2 attempts: ValueError: no price for &lt;ham&gt;" in page
        assert "in price" in page
        panel = client.get("/runs/ham/side?step=3").text
        assert panel.count("no price for &lt;ham&gt;") >= 3  # the error, and each attempt
        assert "idempotency key" in panel
        assert "rows 1 to" in client.get("/runs/ham/side?step=99").text


def test_a_waiting_run_says_what_it_asks(site: Served) -> None:
    with site.client() as client:
        head = client.get("/runs/agent/head").text
        assert "Publish it?" in head
        assert "Waits for a message on approval" in head
        assert "/inbox/agent" in head
        assert "customer=acme" in head


def test_messages_are_a_conversation_and_streams_are_text(site: Served) -> None:
    with site.client() as client:
        assert "It will rain." in client.get("/runs/agent?view=chat").text
        stream = client.get("/runs/agent?view=stream").text
        assert "rain " in stream
        assert "&lt;b&gt;" in stream
        items = client.get("/runs/agent/streams/tokens.json").json()["items"]
        first, second = (one["position"] for one in items)
        after = client.get(f"/runs/agent/streams/tokens.json?after={first}").json()["items"]
        assert [one["position"] for one in after] == [second]


@step(retry=TRIES)
async def write() -> str:
    attempt = current_step().attempt
    for text in ("Fi", "ne", " wea", "ther"):
        emit("tokens", {"attempt": attempt, "text": text})
    if attempt == 1:
        raise ConnectionError("503")
    return "Fine weather"


@workflow
async def writer() -> str:
    text = await write()
    emit("tokens", {"done": True})
    return text


def test_items_with_a_text_are_read_as_text_and_attempts_are_apart(site: Served) -> None:
    with site.client() as client:
        text = client.get("/runs/writer?view=stream").text
        whole = "<span>Fi</span><span>ne</span><span> wea</span><span>ther</span>"
        assert f'{whole}<div class="again">attempt 2</div>{whole}<code>' in text
        assert "attempt&#34;" not in text
        each = client.get("/runs/writer?view=stream&as=items").text
        assert each.count("<code>{&#34;attempt&#34;:1,") == 4
        assert "<span>Fi" not in each
        streams = "/runs/writer/streams/tokens.json"
        items = client.get(streams).json()["items"]
        rest = client.get(f"{streams}?after={items[3]['position']}&attempt=1").json()["items"]
        assert [one["again"] for one in rest] == [True, False, False, False, False]
        assert [one["text"] for one in rest] == ["Fi", "ne", " wea", "ther", None]


def test_every_view_is_an_address_and_rubbish_is_the_first(site: Served) -> None:
    with site.client() as client:
        for view in ("waterfall", "log", "chat", "stream", "tree", "source", "table"):
            assert client.get(f"/runs/pack.json?view={view}").status_code == 200
        for rubbish in ("view=%00", "step=-1", "step=9e9", "after=99999999999999999999&view=log"):
            assert client.get(f"/runs/ham?{rubbish}").status_code == 200
        assert client.get("/runs/pack.json?view=tree").text.count(">child<") == 2
        assert "async def pack" in client.get("/runs/pack.json?view=source").text
        assert "article=" in client.get("/runs/ham?view=table").text
        slow = client.get("/runs/ham?view=table&sort=slow&only=errors").text
        assert "failed" in slow
        assert client.get("/runs/ham/view/nonsense").status_code == 404


def test_columns_grow_by_what_is_behind_a_row(site: Served) -> None:
    with site.client() as client:
        whole = client.get("/runs/ham/waterfall.json").json()["bars"]
        more = client.get("/runs/ham/waterfall.json?after=3").json()["bars"]
        assert (whole["status"], more["seq"]) == (["", "failed"], [])
        assert [(seq, status) for seq, status, *_ in more["ends"]] == [(3, "failed")]
        assert [len(tries) for tries in more["tries"].values()] == [1]


def test_columns_come_in_parts_until_there_are_all_rows(
    site: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "COLUMNS_ROWS", 2)
    with site.client() as client:
        whole = client.get("/runs/ham/waterfall.json").json()
        last = whole["bars"]["last"]
        assert (last, whole["rows"] > last) == (2, True)
        while last < whole["rows"]:
            more = client.get(f"/runs/ham/waterfall.json?after={last}").json()["bars"]
            assert last < more["last"] <= last + 2
            last = more["last"]


def test_a_table_has_all_rows_or_says_where_it_ends(
    site: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It once ended at row 100,000 of a history, and said nothing."""
    assert run_views.TABLE_HISTORY_ROWS > BARS_MAX
    monkeypatch.setattr(run_views, "TABLE_ROWS", 1)
    with site.client() as client:
        first = client.get("/runs/pack.json.json?view=table").json()["table"]
        assert (first["number"], first["more"], first["cut_at"]) == (2, True, None)
        far = client.get("/runs/pack.json.json?view=table&page=999").json()["table"]
        assert (far["page_number"], far["bars"], far["more"]) == (2, [1], False)
        monkeypatch.setattr(run_views, "TABLE_HISTORY_ROWS", 2)
        text = client.get("/runs/pack.json?view=table").text
        assert "Up to row 2 of " in text
        assert "view=log&amp;after=2" in text


def test_a_retry_of_what_is_no_row_is_refused(site: Served) -> None:
    """It once was a retry of all steps that wait."""
    with site.client(**CSRF) as client:
        for text in ("x", "-1", "\u0663", "9" * 16):
            answer = client.post("/runs/agent/retry", data={"seq": text})
            assert answer.status_code == 400
            assert "not the number of a row" in answer.text


def test_a_verb_is_one_form(site: Served, serve: Serve) -> None:
    site.do(lambda engine: engine.start(agent("again"), id="paused"))
    with site.client(**CSRF) as client:
        answer = client.post("/runs/paused/pause")
        assert (answer.status_code, answer.headers["location"]) == (303, "/runs/paused")
        assert "paused" in client.get("/runs/paused/head").text
        assert client.post("/runs/paused/cancel").status_code == 303
        assert client.post("/runs/ham/pause").status_code == 409
    with site.client() as client:
        assert client.post("/runs/ham/retry").status_code == 403


@pytest.mark.parametrize(
    ("status", "verbs"),
    [
        ("running", ["pause", "cancel"]),
        ("waiting", ["pause", "cancel"]),
        ("paused", ["resume", "cancel"]),
        ("blocked", ["pause", "retry", "cancel"]),
        ("failed", ["retry"]),
        ("cancelled", ["retry"]),
        ("completed", []),
    ],
)
def test_buttons_are_those_of_the_life_cycle(status: str, verbs: list[str]) -> None:
    assert [one.verb for one in offered(status)] == verbs


def test_a_large_value_is_cut_where_a_page_can_not_bear_it(site: Served) -> None:
    long = "x" * 50_000
    site.do(lambda engine: engine.run(order(long), id="long"))
    with site.client() as client:
        page = client.get("/runs/long").text
        assert "characters)" in page
        assert len(page) < 40_000
        assert client.get("/runs/long.json").json()["run"]["args"] == {"article": long}


@step(queue="model")
async def ask(number: int) -> int:
    await asyncio.get_running_loop().create_future()
    return number


@workflow
async def batch() -> int:
    return len(await asyncio.gather(*map(ask, range(3))))


def test_steps_that_wait_in_a_queue_say_so(serve: Serve) -> None:
    served = serve(workflows=[batch], queues=[Queue("model", concurrency=1)])
    served.do(lambda engine: engine.start(batch(), id="batch"))
    with served.client() as client:
        for _ in range(1_000):
            columns = client.get("/runs/batch/waterfall.json").json()
            if len(columns["queued"]) == 2:
                break
        assert columns["queued"]["3"].startswith("1st in queue model")
        assert "2 steps wait in queue model: all places are taken." in (
            client.get("/runs/batch/head").text
        )


def test_a_site_that_is_only_looked_at_has_no_buttons(site: Served, serve: Serve) -> None:
    looked_at = serve(
        store=site.engine.path,
        execute=False,
        app=lambda engine: application(Site("copy", engine.reader())),
    )
    with looked_at.client() as client:
        for view in ("waterfall", "source", "table"):
            page = client.get(f"/runs/agent?view={view}&step=2").text
            assert "<form" not in page
            assert "/fork" not in page
            assert "/inbox/agent" not in page.replace('data-inbox="/inbox/agent"', "")
        assert client.post("/runs/agent/cancel", headers=CSRF).status_code == 403


def test_a_fork_leads_to_its_source(site: Served) -> None:
    site.do(lambda engine: engine.fork("order/1 %", at=3, new_id="forked"))
    with site.client() as client:
        page = client.get("/runs/forked").text
        assert 'href="/runs/order%2F1%20%25"' in page
        assert "/compare?a=order%2F1+%25&amp;b=forked" in page
        panel = client.get("/runs/forked/side?step=2").text
        assert client.get("/compare?a=order%2F1+%25&b=forked").status_code == 200
        assert "idempotency key" not in panel


@step(retry=TRIES)
async def speaks() -> None:
    log = logging.getLogger("tests.pages")
    log.setLevel(logging.INFO)
    for n in range(70):
        log.info("<script>%d</script>", n)
    if current_step().attempt == 1:
        raise ValueError("again")


@workflow
async def spoken() -> None:
    await speaks()
    await price("eggs")


def test_the_panel_and_the_api_have_what_a_step_has_logged(serve: Serve) -> None:
    site = serve(workflows=[spoken])
    site.do(lambda engine: engine.run(spoken(), id="s"))
    with site.client() as client:
        panel = client.get("/runs/s/side?step=2").text
        assert "The last 100 lines." in panel
        assert "&lt;script&gt;69&lt;/script&gt;" in panel
        logged = panel[panel.index("Logs</h3>") :]
        assert logged[: logged.index("</ol>")].count("<time ") == 100
        assert "<script>6" not in panel
        assert [f"attempt {n}</li>" in panel for n in (1, 2, 3)] == [True, True, False]
        assert "Logs</h3>" not in client.get("/runs/s/side?step=5").text
        page = client.get("/api/v1/runs/s/logs?step=2&attempt=2&limit=2").json()
        assert [one["message"] for one in page["lines"]] == [
            "<script>0</script>", "<script>1</script>",
        ]  # fmt: skip
        assert page["lines"][0].keys() == {
            "position", "seq", "attempt", "at", "level", "logger", "message", "traceback",
            "left_out", "dropped",
        }  # fmt: skip
        rest = client.get(f"/api/v1/runs/s/logs?limit=1000&after={page['next']}").json()["lines"]
        assert len(rest) == 68
        last = client.get("/api/v1/runs/s/logs?limit=1&newest=true").json()
        assert last["lines"][0]["message"] == "<script>69</script>"
        assert client.get("/api/v1/runs/none/logs").status_code == 404
        assert client.get("/api/v1/runs/s/streams").json() == []
