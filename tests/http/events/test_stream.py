"""The event stream, over a real server and a real engine: what changes is reported, no more."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from perdure import Engine, continue_as, emit, receive, step, workflow
from perdure.errors import PerdureError
from perdure.http.events import hub as hub_module
from perdure.http.events import stream as stream_module
from perdure.http.events.hub import Hub
from perdure.http.events.stream import EventStream, Followed
from perdure.http.events.topics import LATER_S, BadTopic, parse, topic
from perdure.process.clock import SystemClock
from perdure.reader import StoreReader
from tests.http.support import Serve, Served
from tests.runtime.support import awaited


@step
async def look(n: int) -> int:
    return n


@workflow
async def talks(steps: int) -> None:
    for n in range(steps):
        await look(n)
    while (word := await receive("say", str)) != "end":
        emit("words", word)


@workflow
async def renews(times: int) -> None:
    await look(times)
    emit("words", times)
    await receive("go", bool)
    if times > 1:
        await continue_as(renews(times - 1))


@pytest.fixture(scope="module")
def served(serve: Serve) -> Served:
    return serve(workflows=[talks, renews])


class Events:
    """The events of one connection."""

    def __init__(self, response: httpx.Response) -> None:
        assert response.status_code == 200, response.read()
        self._lines = response.iter_lines()
        self.id = ""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        for line in self._lines:
            if line.startswith("id: "):
                self.id = line[4:]
            if line.startswith("data: "):
                return dict(json.loads(line[6:]))
        raise StopIteration

    def until(self, **fields: Any) -> dict[str, Any]:
        """The next event with these fields."""
        return next(one for one in self if fields.items() <= one.items())


def events(client: httpx.Client, *topics: str, first: str = "yes", id: str | None = None) -> Any:
    headers = {} if id is None else {"last-event-id": id}
    params = {"topic": list(topics), "first": first}
    return client.stream("GET", "/api/v1/events", params=params, headers=headers)


def test_a_list_and_a_run_are_followed_from_nothing_to_the_end(served: Served) -> None:
    one = topic("run", "a/b?c")
    with served.client() as client, events(client, "runs", one, "counts") as response:
        seen = Events(response)
        firsts = {event["topic"] for event in (next(seen), next(seen), next(seen))}
        assert firsts == {"runs", one, "counts"}
        served.do(lambda engine: engine.start(talks(2), id="a/b?c"))
        new: set[str] = set()
        kinds: list[str] = []
        completed = ended = said = False
        for event in seen:  # topics are reported in any order
            new |= set(event.get("new", ())) if event["topic"] == "runs" else set()
            if event["topic"] == "counts":
                completed = event["counts"]["completed"]["number"] > 0
            if event["topic"] == one:
                kinds += [row["kind"] for row in event["new"]]
                ended = event["status"] == "completed"
                if event["status"] == "waiting" and not said:
                    said = True
                    assert event["waiting_for"][0]["message"] == "say"
                    served.do(lambda engine: engine.send("a/b?c", "end", channel="say"))
            if completed and ended:
                break
        assert "a/b?c" in new
        assert kinds == ["start", "step", "completed", "step", "completed", "message", "finish"]


def test_a_client_that_connects_again_gets_what_came_meanwhile(served: Served) -> None:
    words, one = topic("stream", "again", "words"), topic("run", "again")
    served.do(lambda engine: engine.start(talks(0), id="again"))

    def say(*said: str) -> None:
        async def all_of(engine: Engine) -> None:
            for word in said:
                await engine.send("again", word, channel="say")

        served.do(all_of)

    with served.client() as client:
        say("one", "two")
        got: list[str] = []
        with events(client, words, one) as response:
            seen = Events(response)
            while len(got) < 2:
                got += [item["item"] for item in seen.until(topic=words)["items"]]
        say("three", "end")
        with events(client, words, one, id=seen.id) as response:
            later = Events(response)
            ended = False
            while not ended:
                event = later.until(topic=words)
                assert "first" not in event
                got += [item["item"] for item in event["items"]]
                ended = event["ended"]
        assert got == ["one", "two", "three"]


def test_a_run_that_goes_on_under_its_id_is_followed(served: Served) -> None:
    served.do(lambda engine: engine.start(renews(2), id="renewed"))
    one, words = topic("run", "renewed"), topic("stream", "renewed", "words")
    got: list[int] = []
    with served.client() as client, events(client, one, words) as response:
        seen = Events(response)
        rows: list[int] = []
        for event in seen:
            if event["topic"] == words:
                got += [item["item"] for item in event["items"]]
                if event["ended"]:
                    break
            elif event.get("anew"):
                rows = []
            rows += [row["seq"] for row in event.get("new", ())]
            if event.get("status") == "waiting":
                served.do(lambda engine: engine.send("renewed", True, channel="go"))
    assert got == [2, 1]
    assert rows == list(range(1, rows[-1] + 1))


def test_a_store_in_memory_and_other_processes_are_heard(serve: Serve, tmp_path: Path) -> None:
    memory = serve(workflows=[talks], store=":memory:")
    with memory.client() as client, events(client, "runs") as response:
        seen = Events(response)
        assert next(seen)["first"] is True
        memory.do(lambda engine: engine.start(talks(0), id="inside"))
        assert seen.until(topic="runs")["new"] == ["inside"]
    path = str(tmp_path / "a.db")
    alone = serve(store=path, execute=False)
    with alone.client() as client, events(client, "runs") as response:
        seen = Events(response)
        next(seen)
        program = "import asyncio; from perdure import Engine\n"
        program += f"async def main():\n  async with Engine({path!r}, execute=False) as engine:\n"
        program += "    await engine.start_by_name('any', {}, id='outside')\nasyncio.run(main())"
        subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
        assert seen.until(topic="runs")["new"] == ["outside"]


def test_what_is_not_asked_for_is_not_reported(served: Served) -> None:
    served.do(lambda engine: engine.start(talks(0), id="quiet"))
    with served.client() as client:
        one = topic("run", "quiet")
        with events(client, one, "runs?status=failed", first="no") as response:
            seen = Events(response)
            served.do(lambda engine: engine.send("quiet", "end", channel="say"))
            assert next(seen)["topic"] == one


def test_a_page_hears_how_many_rows_there_are_and_gets_none(served: Served) -> None:
    served.do(lambda engine: engine.start(talks(3), id="counted"))
    one = topic("run", "counted", rows="no")
    with served.client() as client, events(client, one) as response:
        seen = Events(response)
        first = seen.until(status="waiting")
        assert (first["rows"], first["new"]) == (7, [])
        served.do(lambda engine: engine.send("counted", "end", channel="say"))
        last = seen.until(status="completed")
        assert (last["rows"], last["new"]) == (9, [])


@awaited
async def test_updates_of_open_pages_are_counted_and_first_looks_are_not(tmp_path):
    async with Engine(str(tmp_path / "a.db")) as engine:
        transport = httpx.ASGITransport(engine.asgi())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/")).status_code == 200
            assert engine.reader() not in hub_module._hubs
            assert (await client.get("/", headers={"hx-request": "true"})).status_code == 200
            assert hub_module._hubs[engine.reader()].cost.spent_s > 0


@pytest.mark.parametrize(
    "query",
    ["", "topic=nothing", "topic=run", "topic=runs%3Fstatus%3Dodd", "topic=stream:a",
     "topic=run:%25ff", "&".join(["topic=inbox"] * 65)],
)  # fmt: skip
def test_topics_that_there_are_not_are_refused(served: Served, query: str) -> None:
    with served.client() as client:
        assert client.get(f"/api/v1/events?{query}").status_code in (400, 422)


@awaited
async def test_equal_topics_are_read_once_and_rest_is_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_module, "PULSE_S", 3_600)
    path = str(tmp_path / "a.db")
    async with Engine(path, workflows=[talks]) as engine, StoreReader(path) as reader:
        hub, reads = Hub(reader), []
        read = reader.runs

        async def counted(asked: Any) -> Any:
            reads.append(asked)
            return await read(asked)

        reader.runs = counted  # type: ignore[method-assign]
        with hub.following(parse("runs")) as event, hub.following():
            await event.wait()  # the first look
            first = hub.number(parse("runs"))
            tabs = [Followed(parse("runs"), "", silent=False) for _ in range(50)]
            assert all([await tab.look(hub) for tab in tabs])
            await engine.start(talks(0), id="new")
            found: dict[int, Any] = {}
            while len(found) < len(tabs):  # other commits of the engine may be reported before
                await event.wait()
                event.clear()
                for place, tab in enumerate(tabs):
                    if (told := await tab.look(hub)) and told["new"]:
                        found[place] = told["new"]
            assert list(found.values()) == [["new"]] * 50
            beat, again = -1, list[Any]()
            while beat != hub.number(parse("runs")):  # until nothing was committed meanwhile
                beat = hub.number(parse("runs"))
                again = [await tab.look(hub) for tab in (*tabs, *tabs)][50:]
            assert not any(again)
            assert 2 <= len(reads) <= 2 * (1 + beat - first)  # a beat may come between two tabs


@awaited
async def test_what_the_time_alone_changes_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(hub_module, "PULSE_S", 0.01)
    path, ahead_ms = str(tmp_path / "a.db"), 0
    async with Engine(path, workflows=[talks]) as engine:
        await engine.start(talks(0), id="left")
        await engine.start(talks(1), id="later", at=datetime.now(UTC) + timedelta(hours=1))
        reader = StoreReader(path, now_ms=lambda: SystemClock().now_ms() + ahead_ms)
        async with reader:
            hub = Hub(reader)
            kinds = (topic("run", "later"), "runs", "workers", "system")
            with hub.following(*map(parse, kinds)) as event:
                tabs = [Followed(parse(kind), "", silent=False) for kind in kinds]

                async def told() -> list[Any]:
                    found: dict[int, Any] = {}
                    while len(found) < len(tabs):
                        await event.wait()
                        event.clear()
                        for place, tab in enumerate(tabs):
                            if (data := await tab.look(hub)) is not None:
                                found[place] = data
                    return [found[place] for place in range(len(tabs))]

                assert "Begins at" in (await told())[0]["why"]
                ahead_ms = 3_600_000 * 2  # no commit: the lease has run out, and a run is due
                run, runs, _, _ = await told()
                assert "No worker is running" in run["why"]
                assert runs["changed"] == ["later"]


@awaited
async def test_a_client_that_reads_nothing_is_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(stream_module, "STALLED_S", 0.05)
    path = str(tmp_path / "a.db")
    async with Engine(path), StoreReader(path) as reader:
        hub, never = Hub(reader), asyncio.Event()

        async def nothing() -> Any:
            await never.wait()

        async def stuck(message: Any) -> None:
            if message["type"] == "http.response.body":
                await never.wait()

        followed = [Followed(parse("runs"), "", silent=False)]
        await EventStream(hub, followed)({"type": "http"}, nothing, stuck)


async def told(reader: StoreReader, followed: Followed, act: Any, end: bytes) -> list[bytes]:
    """What a stream sends until its client has gone, which goes after `end`. `act` is done as soon
    as the answer has begun.
    """
    sent, over = [], asyncio.Event()

    async def gone() -> Any:
        await over.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            await act()
        sent.append(message.get("body", b""))
        if end in sent[-1]:
            over.set()

    await EventStream(Hub(reader), [followed])({"type": "http"}, gone, send)
    return sent


@awaited
async def test_a_change_right_after_the_answer_has_begun_is_reported(tmp_path):
    path = str(tmp_path / "a.db")
    async with Engine(path, workflows=[talks]) as engine, StoreReader(path) as reader:
        followed = Followed(parse("runs"), "", silent=True)
        found = await told(reader, followed, lambda: engine.start(talks(0), id="new"), b"data:")
        assert b'"new":["new"]' in found[-1]


@awaited
async def test_a_look_in_vain_at_what_has_more_stops_nothing_else(tmp_path, monkeypatch):
    path = str(tmp_path / "a.db")
    async with Engine(path, workflows=[talks]) as engine, StoreReader(path) as reader:
        run = await engine.start(talks(60), id="long")
        await engine.send("long", "end", channel="say")
        await run.result()
        outline = reader.outline

        async def damaged(run: str, after: int, limit: int) -> Any:
            if after:
                raise PerdureError("a row can't be read")
            return await outline(run, after, limit)

        async def nothing() -> None:
            pass

        monkeypatch.setattr(reader, "outline", damaged)
        followed = Followed(parse("run:long"), "0-", silent=False)
        found = await told(reader, followed, nothing, b"a row can't be read")
        assert b'"seq":100' in b"".join(found[:-1])


@awaited
async def test_a_commit_during_a_look_in_vain_is_looked_at(tmp_path, monkeypatch):
    path = str(tmp_path / "a.db")
    async with Engine(path), StoreReader(path) as reader:
        hub, runs, read = Hub(reader), Followed(parse("runs"), "", silent=False), reader.runs

        async def in_vain(_: Any) -> Any:
            hub._beats[LATER_S]._beat()
            raise PerdureError("it takes too long")

        monkeypatch.setattr(reader, "runs", in_vain)
        with pytest.raises(PerdureError, match="too long"):
            await runs.look(hub)
        monkeypatch.setattr(reader, "runs", read)
        assert await runs.look(hub) is not None
        assert await runs.look(hub) is None


@awaited
async def test_a_stream_ends_with_its_reader(tmp_path):
    path = str(tmp_path / "a.db")
    async with Engine(path):
        reader = StoreReader(path)
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)
            if b"data:" in message.get("body", b""):
                await asyncio.to_thread(reader.close)

        async def nothing() -> Any:
            await asyncio.Event().wait()

        followed = [Followed(parse("runs"), "", silent=False)]
        await EventStream(Hub(reader), followed)({"type": "http"}, nothing, send)
        assert sent[-1] == {"type": "http.response.body", "body": b""}


def test_topics_are_written_as_they_are_read():
    for parts in [("run", "a:b?c/d é"), ("stream", "x", "to:kens"), ("inbox",)]:
        made = topic(*parts)
        assert [parse(made).kind, *parse(made).parts] == list(parts)
    with pytest.raises(BadTopic, match="there are runs"):
        parse("task:1")
