"""Every parameter of every public verb, given values of wrong types: the answer names the
parameter, says what is right, and nothing
was written."""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import (
    Engine,
    Limits,
    PerdureError,
    Queue,
    Rate,
    Retention,
    Retry,
    RetryAfter,
    SyncEngine,
    Workflow,
    connect,
    continue_as,
    emit,
    expose,
    patched,
    receive,
    receive_request,
    send,
    start,
    step,
    tag,
    workflow,
)

NAIVE = datetime(2030, 1, 1)
VALUES: dict[str, Any] = {
    "None": None,
    "bytes": b"x",
    "True": True,
    "nan": math.nan,
    "inf": math.inf,
    "naive": NAIVE,
    "-1": -1,
    "0": 0,
    "1": 1,
    "1.5": 1.5,
    "huge": 10**30,
    "empty": "",
    "str": "abc",
    "list": ["a"],
    "dict of ints": {1: 2},
    "object": object(),
    "long": "x" * 5_000,
    "surrogate": "\ud800",
    "timedelta": timedelta(-1),
    "function": print,
}
TEXTS, NUMBERS = (
    {"empty", "str", "long", "surrogate"},
    {"-1", "0", "1", "1.5", "huge", "nan", "inf"},
)
TEXT = TEXTS - {"long", "surrogate"}  # right where a name of what is stored is asked for

# What a parameter takes, by which of the values above are no mistake there.
ANY_TEXT, ID, NAME, OPTIONAL_NAME, OPTIONAL_ID = (
    TEXTS,
    {"str"},
    TEXT,
    TEXT | {"None"},
    {"str", "None"},
)
FOUND = TEXTS  # ids of runs: one that there is not is `RunNotFound`, which is not a matter of types
COUNT, COUNT_FROM_0, FLAG = {"1"}, {"0", "1"}, {"True"}
SECONDS, OPTIONAL_SECONDS = {"0", "1", "1.5"}, {"0", "1", "1.5", "None"}
TIMEOUT = {"1", "1.5", "None"}


@workflow
async def plain(n: int) -> int:
    return n


@workflow
async def listen() -> int:
    return await receive("x", int)


def by(verb: Callable[..., Any], name: str, *args: Any, **options: Any) -> Callable[[Any], Any]:
    """A verb as a function of one of its parameters."""
    return lambda value: verb(*args, **options, **{name: value})


class Noted:
    """An engine or a run whose verbs note which of their parameters are given a value
    of the table."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.seen: set[tuple[str, str]] = set()

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self.inner, name)

        def call(*args: Any, **options: Any) -> Any:
            given = inspect.signature(verb).bind(*args, **options).arguments
            given |= given.pop("options", {}) | given.pop("filters", {})
            self.seen |= {
                (name, key)
                for key, value in given.items()
                if any(value is one for one in VALUES.values())
            }
            return verb(*args, **options)

        return call

    def left(self) -> set[tuple[str, str]]:
        """Parameters of verbs that were given none, but for those that take any value."""
        public = [
            name
            for name, one in vars(type(self.inner)).items()
            if not name.startswith("_") and callable(one) and name != "wait"
        ]
        verbs = {name: inspect.signature(getattr(self.inner, name)).parameters for name in public}
        return {
            (name, key)
            for name in public
            for key in verbs[name]
            if key not in ("value", "result", "options", "filters")
        } - self.seen


def verbs(engine: Noted, run: Noted) -> Iterator[tuple[str, Callable[[Any], Any], set[str]]]:
    """Name of the parameter as the answer gives it, the verb with a value for it, and what is no
    mistake.
    """
    untyped: Any = engine
    call = plain(1)
    for begin in (untyped.start, untyped.run):
        yield "the call of a workflow", begin, set()
        yield "run id", by(begin, "id", call), OPTIONAL_ID
        yield "queue", by(begin, "queue", call), OPTIONAL_NAME - {"empty"}
        yield "key", by(begin, "key", call), OPTIONAL_NAME - {"empty"}
        yield "weight", by(begin, "weight", call), {"0", "1", "None"}
        yield "debounce", by(begin, "debounce", call, id="put-off"), TIMEOUT
        yield "debounce", by(begin, "debounce_max", call, id="put-off", debounce=1), TIMEOUT
        yield "priority", by(begin, "priority", call), {"-1", "0", "1"}
        yield "at", by(begin, "at", call), {"None"}
        yield "tag", by(begin, "tags", call), {"None"}
        yield "timeout", by(begin, "timeout", call), TIMEOUT
        yield "durability", by(begin, "durability", call), {"None"}
    for verb in (
        "get",
        "find",
        "cancel",
        "pause",
        "resume",
        "retry",
        "resolve",
        "info",
        "summary",
        "history",
        "progress",
        "blocked",
        "exposed",
        "exposed_values",
        "requests",
        "links",
    ):
        yield "run id", getattr(untyped, verb), FOUND
    yield "run id", lambda v: untyped.send(v, 1, channel="y"), FOUND
    yield "run id", lambda v: untyped.ask(v, 1, channel="y"), FOUND
    yield "run id", lambda v: untyped.answer(v, 1), FOUND
    yield "run id", lambda v: untyped.answer_link(v), FOUND
    yield "token", lambda v: untyped.answer_by_link(v, 1), FOUND
    answers = (
        by(untyped.answer, "sender", "waits", 1),
        by(untyped.answer_link, "recipient", "waits"),
    )
    decisions = (by(verb, "sender", "waits") for verb in (untyped.resolve, untyped.retry))
    for answered in (*answers, *decisions):
        yield "sender", answered, OPTIONAL_NAME - {"empty"}
    yield "channel", by(untyped.answer, "channel", "waits", 1), OPTIONAL_NAME
    yield "seq", by(untyped.answer, "seq", "waits", 1), COUNT | {"None"}
    yield "channel", by(untyped.answer_link, "channel", "waits"), OPTIONAL_NAME
    yield "expires", by(untyped.answer_link, "expires", "waits"), {"1", "1.5"}
    named = functools.partial(untyped.start_by_name, args={"n": 1})
    yield "name of a workflow", named, TEXTS
    yield "args", by(untyped.start_by_name, "args", "plain"), set()
    yield "run id", by(named, "like", "plain"), FOUND | {"None"}
    yield "ids", by(untyped.export, "ids", path="x.json"), FOUND | {"list"}
    yield "path", by(untyped.export, "path", "waits"), TEXTS
    yield "family", by(untyped.export, "family", "waits", "x.json"), FLAG
    yield "secrets", by(untyped.export, "secrets", "waits", "x.json"), FLAG
    yield "path", untyped.import_, TEXTS
    yield "runs", by(untyped.import_, "runs", "x.json"), FOUND | {"list", "None"}
    yield "go_on", by(untyped.import_, "go_on", "x.json"), FLAG
    yield "start=", by(untyped.send, "start", "waits", 1, channel="y"), {"None"}
    yield "start=", by(untyped.ask, "start", "waits", 1, channel="y", timeout=0), {"None"}
    yield "run id", lambda v: untyped.fork(v, 1), FOUND
    yield "run id", lambda v: untyped.entry(v, 1), FOUND
    for to in (untyped, run):
        first = () if to is run else ("waits",)
        yield "channel", by(to.send, "channel", *first, 1), NAME
        yield "message key", by(to.send, "key", *first, 1, channel="y"), OPTIONAL_NAME
        yield "sender", by(to.send, "sender", *first, 1, channel="y"), OPTIONAL_NAME - {"empty"}
        ask = functools.partial(to.ask, *first, 1, timeout=0)
        yield "channel", by(ask, "channel"), NAME
        yield "request key", by(ask, "key", channel="y"), OPTIONAL_NAME - {"empty"}
        yield "sender", by(ask, "sender", channel="y"), OPTIONAL_NAME
        yield "the reply", by(ask, "type", channel="y"), TEXTS | {"None"}
        yield "timeout", by(ask, "timeout", channel="y"), OPTIONAL_SECONDS
        shown = functools.partial(to.exposed, *first)
        yield "exposed value", by(shown, "name", timeout=0), OPTIONAL_NAME
        yield "timeout", by(functools.partial(shown, "y"), "timeout"), OPTIONAL_SECONDS
        yield "after", by(to.history, "after", *first), COUNT_FROM_0 | {"None"}
        yield "limit", by(to.history, "limit", *first), COUNT | {"None"}
        yield "payloads", by(to.history, "payloads", *first), FLAG
    yield "queue", untyped.queue, NAME - {"empty"}
    for limit in ("concurrency", "per_worker", "key_concurrency", "waiting_max"):
        yield limit, by(untyped.queue, limit, "q"), COUNT | {"None"}
    yield "rate", by(untyped.queue, "rate", "q"), {"None"}
    yield "key_rate", by(untyped.queue, "key_rate", "q"), {"None"}
    yield "paused", by(untyped.queue, "paused", "q"), FLAG
    for read in (untyped.queue_keys, by(untyped.queue_places, "name", admitted=True)):
        yield "queue", read, NAME
    yield "limit", by(untyped.queue_keys, "limit", "q"), COUNT
    yield "limit", by(untyped.queue_places, "limit", "q", admitted=True), COUNT
    yield "admitted", by(untyped.queue_places, "admitted", "q"), FLAG
    yield "schedule", untyped.get_schedule, NAME
    yield "name", by(untyped.schedule, "name", when="@daily", call=call), {"str"}
    given = functools.partial(untyped.schedule, "s")
    yield "when", by(given, "when", call=call), set()
    yield "call", by(given, "call", when="@daily"), set()
    on_time = functools.partial(given, "@daily", call)
    yield "tz", by(on_time, "tz"), set()
    yield "overlap", by(on_time, "overlap"), set()
    for duration in ("catch_up", "jitter"):
        yield duration, by(on_time, duration), SECONDS
    yield "catch_up_max", by(on_time, "catch_up_max"), COUNT
    yield "queue", by(on_time, "queue"), OPTIONAL_NAME - {"empty"}
    yield "paused", by(on_time, "paused"), FLAG
    yield "retention", untyped.prune, set()
    keeps = functools.partial(untyped.prune, Retention())
    yield "dry_run", by(keeps, "dry_run"), FLAG
    yield "vacuum", by(keeps, "vacuum"), FLAG
    yield "on_progress", by(keeps, "on_progress", dry_run=True), {"None", "function"}
    yield "run id", untyped.standing, FOUND
    yield "ids", untyped.standings, {"list"}
    yield "run id", untyped.exposed_values, FOUND
    yield "seq", lambda v: untyped.resolve("waits", seq=v), COUNT | {"None"}
    yield "seq", by(untyped.retry, "seq", "waits"), COUNT | {"None"}
    yield "error", lambda v: untyped.resolve("waits", error=v), ANY_TEXT | {"None"}
    yield "retry", lambda v: untyped.resolve("waits", retry=v), FLAG
    yield "at, the number", lambda v: untyped.fork("waits", v), COUNT
    yield "run id", lambda v: untyped.fork("waits", 1, new_id=v), OPTIONAL_ID
    yield "args", lambda v: untyped.fork("waits", 1, args=v), {"None"}
    yield "seq", lambda v: untyped.entry("waits", v), COUNT
    yield "status", lambda v: untyped.runs(status=v), {"None"}
    yield "name of a workflow", lambda v: untyped.runs(workflow=v), OPTIONAL_NAME
    yield "tag", lambda v: untyped.runs(tags=v), {"None"}
    yield "limit", lambda v: untyped.runs(limit=v), COUNT
    yield "run id", lambda v: untyped.runs(after=v), FOUND | {"None"}
    yield "timeout", lambda v: run.result(timeout=v), {"0", "1", "1.5", "None"}
    yield "stream", lambda v: run.stream(v), NAME
    yield "stream", lambda v: run.stream_with_positions(v), NAME
    for read in (run.stream, run.stream_with_positions):
        yield "after", by(read, "after", "s"), COUNT_FROM_0


def constructors() -> Iterator[tuple[str, Callable[[Any], Any], set[str]]]:
    made: Any = Engine
    yield "store", made, {"str", "long", "surrogate"}
    yield "store", connect, TEXTS - {"empty"}
    yield "store", lambda v: perdure.run(plain(1), store=v), TEXTS - {"empty"}
    for name, right in {
        "workflows": set(),
        "durability": set(),
        "replica": TEXTS | {"None"},
        "lease_ttl": {"1", "1.5"},
        "execute": FLAG,
        "create": FLAG,
        "replica_timeout": {"1", "1.5"},
        "limits": {"None"},
        "close_grace": SECONDS,
        "name": OPTIONAL_NAME,
        "queues": set(),
    }.items():
        yield name.replace("name", "name of an engine"), by(made, name, ":memory:"), right
    for name in ("concurrency", "per_worker", "key_concurrency", "waiting_max"):
        yield name, by(Queue, name, "q"), COUNT | {"None"}
    yield "rate", by(Queue, "rate", "q"), {"None"}
    yield "paused", by(Queue, "paused", "q"), FLAG
    yield "queue", Queue, NAME - {"empty"}
    yield "limit", lambda v: Rate(v, 1), COUNT
    yield "per", lambda v: Rate(1, v), {"1", "1.5"}
    yield "burst", lambda v: Rate(1, 1, v), COUNT | {"None"}
    yield "takes seconds, a timedelta", RetryAfter, SECONDS
    for name in ("payload_bytes_max", "history_rows_max", "threads_max"):
        yield name, by(Limits, name), COUNT
    for name, right in {
        "attempts": COUNT,
        "delay": SECONDS,
        "factor": {"1", "1.5"},
        "jitter": FLAG,
        "on": set(),
    }.items():
        yield name, by(Retry, name), right


def definitions() -> Iterator[tuple[str, Callable[[Any], Any], set[str]]]:
    async def work() -> None: ...

    @step
    async def made() -> None: ...

    def decorating(decorator: Any, name: str) -> Callable[[Any], Any]:
        return lambda value: decorator(**{name: value})(work)

    steps: dict[str, set[str]] = {
        "retry": {"None", "1", "True"},
        "timeout": TIMEOUT,
        "readonly": FLAG,
        "on_crash": set(),
        "durability": {"None"},
        "queue": OPTIONAL_NAME - {"empty"},
        "key": (OPTIONAL_NAME - {"empty"}) | {"function"},
        "weight": {"0", "1", "function"},
    }
    decides: dict[str, set[str]] = {
        "timeout": TIMEOUT,
        "queue": OPTIONAL_NAME - {"empty"},
        "durability": {"None"},
        "key": (OPTIONAL_NAME - {"empty"}) | {"function"},
        "weight": {"0", "1", "function"},
    }
    once: Any = step
    decide: Any = workflow
    for name, right in steps.items():
        yield name, decorating(once, name), right
        yield name, by(made.options, name), right
    for name, right in decides.items():
        yield name, decorating(decide, name), right
        yield name, by(plain.options, name), right
    yield "transactional", lambda v: once(transactional=v)(lambda db: None), FLAG
    yield "run id", by(plain.options, "id"), OPTIONAL_ID
    yield "name of a step or a workflow", decorating(once, "name"), OPTIONAL_NAME
    yield "name of a step or a workflow", decorating(decide, "name"), OPTIONAL_NAME


def answers_of(parameter: str, verb: Callable[[Any], Any], right: set[str]) -> Iterator[str]:
    """What is wrong with the answers to wrong values."""
    for what, value in VALUES.items():
        if what in right:
            continue
        try:
            given = verb(value)
        except (PerdureError, TypeError) as error:
            if parameter not in str(error).replace("Retry", "retry") or len(str(error)) > 700:
                yield f"{parameter}={what}: {type(error).__name__}: {error!s:.200}"
        except Exception as error:
            yield f"{parameter}={what}: {type(error).__name__}: {error}"
        else:
            yield f"{parameter}={what} was taken, and gave {given!r:.100}"


def rows(db: str) -> list[tuple[Any, ...]]:
    views = ("perdure_runs", "perdure_events", "perdure_messages")
    return [row for view in views for row in connect(db).execute(f"SELECT * FROM {view}")]


def test_verbs_of_the_engine_and_of_a_run(db: str) -> None:
    with SyncEngine(db, workflows=[plain, listen]) as engine:
        run = engine.start(listen(), id="waits")
        with pytest.raises(TimeoutError):
            run.result(timeout=0)
        while run.status() != "waiting":
            pass
        before = rows(db)
        noted = Noted(engine), Noted(run)
        assert [text for case in verbs(*noted) for text in answers_of(*case)] == []
        assert rows(db) == before
        assert [each.left() for each in noted] == [set(), set()]


@pytest.mark.parametrize("cases", [constructors, definitions], ids=["engines", "decorators"])
def test_options(
    cases: Callable[[], Iterator[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [text for case in cases() for text in answers_of(*case)] == []
    assert list(tmp_path.iterdir()) == []


def in_a_workflow() -> Iterator[tuple[str, Callable[[Any], Any], set[str]]]:
    untyped_start: Any = start
    untyped_send: Any = send
    yield "channel", lambda v: send("waits", 1, channel=v), NAME
    yield "message key", lambda v: send("waits", 1, channel="x", key=v), OPTIONAL_NAME
    yield "run id", lambda v: send(v, 1, channel="x"), FOUND
    yield "start=", by(untyped_send, "start", "waits", 1, channel="x"), {"None"}
    yield "channel", lambda v: receive_request(v, int).send(None), NAME
    takes: Any = receive_request
    yield "the request on", lambda v: takes("x", v).send(None), TEXTS | {"None"}
    yield (
        "exposed value",
        lambda v: expose(**{v: 1}),
        set(VALUES) - {"long", "surrogate"},
    )
    yield "channel", lambda v: receive(v, int).send(None), NAME
    yield "prompt", lambda v: receive("x", int, prompt=v).send(None), TEXTS - {"long"} | {"None"}
    yield "stream", lambda v: emit(v, 1), NAME
    yield "the call of a workflow", untyped_start, set()
    yield "run id", lambda v: untyped_start(plain(1), id=v), OPTIONAL_ID
    yield "tag", lambda v: untyped_start(plain(1), tags=v), {"None"}
    yield (
        "tag",
        lambda v: tag(**{v: 1}),
        set(VALUES) - {"long", "surrogate"},
    )  # the others are Python's to refuse
    yield "change", patched, NAME
    yield "the call of a workflow", continue_as, set()


def test_verbs_in_workflows(db: str) -> None:
    @workflow
    async def tries() -> list[str]:
        return [text for case in in_a_workflow() for text in answers_of(*case)]

    with SyncEngine(db, workflows=[plain, tries]) as engine:
        assert engine.run(tries(), id="t") == []
        assert [event.kind for event in engine.history("t")] == ["start", "finish"]
        assert [info.id for info in engine.runs()] == ["t"]


def test_definitions_as_values_are_named(db: str) -> None:
    flows: Any = plain
    with pytest.raises(
        perdure.DefinitionError, match=r"workflows is a list of workflows, .*not <workflow plain>"
    ):
        Engine(db, workflows=flows)
    assert isinstance(plain, Workflow)
    assert asyncio.run(Engine(":memory:", workflows=(plain,)).__aexit__()) is None
