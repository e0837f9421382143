"""`queue ls|show|set|pause|resume`, and where runs stand in queues."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from perdure import Engine, Queue, QueueNotFound, Rate
from perdure.cli import tail
from perdure.reader import StoreReader
from tests.cli import flows
from tests.cli.conftest import Said

Typed = Callable[..., Said]

RUNS = [("a-1", "acme"), ("a-2", "acme"), ("a-3", "acme"), ("b-1", "bolt")]


async def _seed(*queues: Queue, starts: list[tuple[str, str]], queue: str) -> None:
    """Runs that wait for a message, so that one that was admitted keeps its place."""
    async with Engine("perdure.db", workflows=[flows.asks], queues=queues) as engine:
        for run_id, key in starts:
            await engine.start(flows.asks("why"), id=run_id, queue=queue, key=key)
        while await (await engine.get(starts[0][0])).status() != "waiting":  # no event  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
def waiting(here: Typed) -> Typed:
    """A queue with a place for one run, four runs, and a queue without anything."""
    narrow = Queue("openai", concurrency=1, rate=Rate(1_000, 60))
    asyncio.run(_seed(narrow, Queue("mail"), starts=RUNS, queue="openai"))
    return here


@pytest.fixture
def empty(here: Typed) -> Typed:
    """A store with a run and no queue."""

    async def seed() -> None:
        async with Engine("perdure.db", workflows=[flows.hello]) as engine:
            await engine.run(flows.hello("Ada"), id="hello-1")

    asyncio.run(seed())
    return here


def queue(said: Said, name: str) -> dict[str, Any]:
    return next(one for one in said.json if one["name"] == name)


# --- ls -------------------------------------------------------------------------------------------


def test_ls_without_queues_says_how_to_make_one(empty: Typed) -> None:
    said = empty("queue", "ls")
    assert (said.code, said.out) == (0, "")
    assert "perdure queue set NAME --concurrency 10" in said.err
    assert empty("queue", "ls", "--json").json == []


def test_ls_shows_limits_and_counts(waiting: Typed) -> None:
    lines = waiting("queue", "ls").out.splitlines()
    assert lines[0].split() == ["QUEUE", "WAITING", "RUNNING", "STATE", "LIMITS"]
    assert lines[1].split() == ["mail", "0", "0", "no", "limits"]
    assert lines[2].split()[:3] == ["openai", "3", "1"]
    assert "next when one ends" in lines[2]
    assert lines[2].endswith("1 at once, 1,000 per 1 min")


def test_ls_as_json(waiting: Typed) -> None:
    one = queue(waiting("queue", "ls", "--json"), "openai")
    assert (one["concurrency"], one["waiting"], one["running"]) == (1, 3, 1)
    assert (one["per_worker"], one["paused"]) == (None, False)


@pytest.mark.parametrize("columns", ["40", "60", "100"])
def test_ls_fits_the_terminal(waiting: Typed, columns: str) -> None:
    lines = waiting("queue", "ls", COLUMNS=columns).out.splitlines()
    assert max(map(len, lines)) <= max(int(columns), 52)
    assert any("1 at once" in line for line in lines)


# --- show -----------------------------------------------------------------------------------------


def test_show_names_keys_and_runs(waiting: Typed) -> None:
    text = waiting("queue", "show", "openai").out
    assert text.splitlines()[0].startswith("openai  next when one ends")
    assert "1 at once" in text
    blocks = [block.splitlines() for block in text.split("\n\n")]
    heads = [block[0].split()[0] for block in blocks[1:]]
    assert heads == ["KEY", "RUNNING", "WAITING"]
    assert [line.split()[0] for line in blocks[2][1:]] == ["a-1"]
    assert [line.split()[0] for line in blocks[3][1:]] == ["a-2", "b-1", "a-3"]


def test_show_is_bounded(waiting: Typed) -> None:
    text = waiting("queue", "show", "openai", "--limit", "1").out
    assert text.splitlines()[-1] == "2 more"
    found = waiting("queue", "show", "openai", "--limit", "1", "--json").json
    assert [len(found[name]) for name in ("keys", "running", "waiting")] == [1, 1, 1]


def test_show_of_an_unknown_queue_names_those_that_there_are(waiting: Typed) -> None:
    said = waiting("queue", "show", "opena")
    assert said.code == 3
    assert "openai" in said.err
    assert said.out == ""


# --- set ------------------------------------------------------------------------------------------


def test_set_makes_and_changes(empty: Typed) -> None:
    assert empty("queue", "set", "q", "--concurrency", "10", "--rate", "100/60s").err == (
        "Made queue q: 10 at once, 100 per 1 min.\n"
    )
    said = empty("queue", "set", "q", "--rate", "none", "--key-concurrency", "2")
    assert said.err.splitlines() == [
        "Changed queue q: 10 at once, 2 at once per key.",
        "  It was: 10 at once, 100 per 1 min.",
    ]
    one = queue(empty("queue", "ls", "--json"), "q")
    assert (one["concurrency"], one["rate"], one["key_concurrency"]) == (10, None, 2)


def test_what_changes_a_queue_prints_json(empty: Typed) -> None:
    assert empty("queue", "set", "q", "--concurrency", "3", "--json").json["concurrency"] == 3
    assert empty("queue", "pause", "q", "--json").json["paused"] is True
    assert empty("queue", "resume", "q", "--json").json["paused"] is False


def test_set_says_where_nothing_changes(empty: Typed) -> None:
    empty("queue", "set", "q", "--concurrency", "2")
    assert (
        empty("queue", "set", "q", "--concurrency", "2").err == "Queue q is as it was: 2 at once.\n"
    )


def test_a_burst_alone_keeps_the_rate(empty: Typed) -> None:
    empty("queue", "set", "q", "--rate", "100/60s", "--burst", "5")
    assert "100 per 1 min (burst 5)" in empty("queue", "ls").out
    empty("queue", "set", "q", "--burst", "7")
    assert "100 per 1 min (burst 7)" in empty("queue", "ls").out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "nothing to set"),
        (["--concurrency", "0"], "'0' is no limit"),
        (["--concurrency", "-1"], "'-1' is no limit"),
        (["--concurrency", "ten"], "'ten' is no limit"),
        (["--waiting-max", "1.5"], "'1.5' is no limit"),
        (["--rate", "100"], "'100' is no rate"),
        (["--rate", "100/"], "'100/' is no rate"),
        (["--rate", "100/5y"], "'100/5y' is no rate"),
        (["--rate", "0/60s"], ""),
        (["--rate", "5/0s"], ""),
        (["--burst", "3"], "--burst belongs to a rate"),
        (["--key-rate", "none", "--key-burst", "3"], "--key-burst belongs to a rate"),
    ],
)
def test_set_refuses_what_is_no_limit_and_makes_nothing(
    empty: Typed, words: list[str], says: str
) -> None:
    said = empty("queue", "set", "q", *words)
    assert said.code == 2
    assert says in said.err
    assert empty("queue", "ls", "--json").json == []


@pytest.mark.parametrize("name", ["ä ö", "日本", 'it\'s "q"', "-q", "x" * 1_000])
def test_odd_names_are_names(empty: Typed, name: str) -> None:
    assert empty("queue", "set", "--concurrency", "3", "--", name).code == 0
    assert [one["name"] for one in empty("queue", "ls", "--json").json] == [name]
    paused = empty("queue", "pause", "--", name)
    assert paused.code == 0
    said = empty(*shlex.split(paused.err.rpartition("perdure ")[2]))
    assert (said.code, said.err.split(",")[0]) == (0, f"Resumed queue {name}")
    assert empty("queue", "show", "--", name).code == 0


@pytest.mark.parametrize("name", ["", "x" * 1_001, "a\x00b"])
def test_names_that_cannot_be_stored_are_wrong_usage(empty: Typed, name: str) -> None:
    said = empty("queue", "set", name, "--concurrency", "3")
    assert said.code == 2
    assert said.err


def test_the_names_that_there_are_stay_on_their_line() -> None:
    assert r"There are: a, 'b\nc'." in str(QueueNotFound("x", ("a", "b\nc")))


# --- pause, resume --------------------------------------------------------------------------------


def test_a_paused_queue_says_so_everywhere(waiting: Typed) -> None:
    said = waiting("queue", "pause", "openai")
    assert said.code == 0
    assert "3 places waiting" in said.err
    assert "perdure queue resume openai" in said.err
    assert queue(waiting("queue", "ls", "--json"), "openai")["paused"] is True
    assert "paused" in waiting("queue", "ls").out
    assert "the queue is paused" in waiting("show", "a-2").out
    assert "nothing was changed" in waiting("queue", "pause", "openai").err
    assert waiting("queue", "resume", "openai").code == 0
    assert queue(waiting("queue", "ls", "--json"), "openai")["paused"] is False
    assert "not paused" in waiting("queue", "resume", "openai").err


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_queue_that_is_missing_is_not_made(empty: Typed, verb: str) -> None:
    said = empty("queue", verb, "nope")
    assert said.code == 3
    assert "nope" in said.err
    assert empty("queue", "ls", "--json").json == []


@pytest.mark.parametrize(
    "words", [["ls"], ["show", "q"], ["set", "q", "--concurrency", "1"], ["pause", "q"]]
)
def test_a_store_that_is_missing_is_not_made(here: Typed, words: list[str]) -> None:
    assert here("queue", *words).code == 4
    assert here("queue", *words).err.startswith("Error: ")


# --- where a run stands ---------------------------------------------------------------------------


def test_show_and_ls_say_where_a_run_stands(waiting: Typed) -> None:
    assert "2nd in queue openai; all places are taken" in waiting("show", "b-1").out
    text = waiting("show", "a-3").out
    assert "3rd in queue openai" in text
    assert "queue openai, key acme" in text
    lines = {line.split()[0]: line for line in waiting("ls").out.splitlines()[1:]}
    assert "1st in queue openai" in lines["a-2"]
    assert "Waits for a message on answer" in lines["a-1"]


def test_tail_says_where_a_run_stands_until_it_is_admitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = ""

    async def main() -> None:
        nonlocal shown
        path = tmp_path / "p.db"
        async with (
            Engine(path, workflows=[flows.asks], queues=[Queue("q", concurrency=1)]) as engine,
            StoreReader(str(path)) as reader,
        ):
            for run_id in ("first", "second"):
                await engine.start(flows.asks("why"), id=run_id, queue="q")
            following = asyncio.ensure_future(tail.Followed(reader, "second").history())
            while "queue q" not in shown:
                await asyncio.sleep(0.01)
                shown += capsys.readouterr().err
            for run_id in ("first", "second"):
                await engine.send(run_id, "so", channel="answer")
            await following

    asyncio.run(main())
    assert "(1st in queue q; all places are taken" in shown


def test_show_as_json_has_the_place(waiting: Typed) -> None:
    [place] = waiting("show", "a-2", "--json").json["places"]
    assert (place["queue"], place["position"], place["why"]) == ("openai", 1, "concurrency")
    assert waiting("show", "a-1", "--json").json["places"] == []


def test_doctor_names_a_queue_whose_places_are_held_by_runs_that_wait(waiting: Typed) -> None:
    [stuck] = waiting("doctor", "--json").json["stuck_queues"]
    assert stuck["name"] == "openai"
    assert "a-1" in stuck["reason"]
    assert "message on 'answer'" in stuck["reason"]
    waiting("queue", "pause", "openai")
    assert "perdure queue resume openai" in waiting("doctor").out
