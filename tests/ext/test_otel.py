"""Traces of runs, by OpenTelemetry's own SDK."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, TraceIdRatioBased

from perdure import DefinitionError, Engine, Retry, RunFailed, receive, step, workflow
from perdure.ext.otel import Tracing
from tests.runtime.support import awaited, reached

tries: list[int] = []


def inner(name: str) -> None:
    """What a library does that a step calls."""
    with trace.get_tracer("library", tracer_provider=current[0]).start_as_current_span(name):
        pass


current: list[TracerProvider] = []


@step(retry=Retry(attempts=3, delay=0))
async def flaky() -> str:
    tries.append(1)
    inner("call of a model")
    if len(tries) % 2:
        raise ConnectionError("no answer")
    return "done"


@step
def in_thread() -> str:
    inner("query")
    return "done"


@workflow
async def agent() -> str:
    await flaky()
    await receive("go")
    return await in_thread()


@workflow
async def parent() -> str:
    return await below()


@workflow
async def below() -> str:
    raise ValueError("no")


class Traced:
    """A provider of tracers with what it has exported."""

    def __init__(self, **options: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**options)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        current[:] = [self.provider]

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def tree(spans: Sequence[ReadableSpan], above: int | None = None) -> list[Any]:
    """The names of spans below one, in order, each with those below it."""
    here = [one for one in spans if (one.parent.span_id if one.parent else None) == above]
    here.sort(key=lambda one: one.start_time or 0)
    return [(one.name, *tree(spans, id_of(one))) for one in here]


@awaited
async def test_a_run_is_one_trace_over_restarts(db: str) -> None:
    tries.clear()
    first, second = Traced(), Traced()
    current[:] = [first.provider]
    async with Engine(db, workflows=[agent], observer=Tracing(first.provider)) as engine:
        await reached(await engine.start(agent(), id="a"), "waiting")
    current[:] = [second.provider]
    async with Engine(db, workflows=[agent], observer=Tracing(second.provider)) as engine:
        await engine.send("a", None, channel="go")
        await (await engine.get("a")).result()
    spans = [*first.spans, *second.spans]
    assert len({one.context.trace_id for one in spans if one.context}) == 1
    assert [one.name for one in second.spans].count("flaky") == 0  # what is replayed is not told
    assert tree(spans) == [
        (
            "agent",
            (
                "flaky",
                ("flaky attempt 1", ("call of a model",)),
                ("flaky attempt 2", ("call of a model",)),
            ),
            ("in_thread", ("in_thread attempt 1", ("query",))),
        )
    ]
    failed = next(one for one in spans if one.name == "flaky attempt 1")
    assert failed.events[0].attributes is not None
    assert failed.events[0].attributes["exception.message"] == "no answer"
    root = next(one for one in spans if one.parent is None)
    assert root.attributes is not None
    assert dict(root.attributes) == {
        "perdure.run.id": "a", "perdure.workflow": "agent", "perdure.run.status": "completed",
    }  # fmt: skip
    assert root.start_time is not None
    assert all(root.start_time <= (one.start_time or 0) for one in spans if one is not root)


@awaited
async def test_children_have_traces_of_their_own_with_links(db: str) -> None:
    traced = Traced()
    async with Engine(db, workflows=[parent], observer=Tracing(traced.provider)) as engine:
        run = await engine.start(parent(), id="p")
        with pytest.raises(RunFailed):
            await run.result()
    assert [one[0] for one in tree(traced.spans)] == ["parent", "below"]
    up, down = (next(s for s in traced.spans if s.name == name) for name in ("parent", "below"))
    beneath = next(one for one in traced.spans if one.name == "child below")
    assert beneath.parent is not None
    assert beneath.parent.span_id == id_of(up)
    assert [link.context.span_id for link in down.links] == [id_of(up)]
    assert [link.context.span_id for link in beneath.links] == [id_of(down)]
    assert not up.status.is_ok
    assert up.status.description == "failed"


@awaited
async def test_a_retry_is_in_the_same_trace(db: str) -> None:
    traced = Traced()
    async with Engine(db, workflows=[below], observer=Tracing(traced.provider)) as engine:
        run = await engine.start(below(), id="p")
        with pytest.raises(RunFailed):
            await run.result()
        await engine.retry("p")
        with pytest.raises(RunFailed):
            await run.result()
    assert [one[0] for one in tree(traced.spans)] == ["below", "below"]
    assert len({id_of(one) for one in traced.spans}) == 2
    assert len({one.context.trace_id for one in traced.spans if one.context}) == 1


@pytest.mark.parametrize(
    ("sampler", "kept"), [(ALWAYS_OFF, 0), (ParentBased(TraceIdRatioBased(0.5)), 2)]
)
def test_a_sampler_decides_for_whole_runs(db: str, sampler: Any, kept: int) -> None:
    traced = Traced(sampler=sampler)

    @awaited
    async def runs() -> None:
        async with Engine(db, workflows=[agent], observer=Tracing(traced.provider)) as engine:
            for n in range(6):
                run = await engine.start(agent(), id=f"run-{n}")
                await engine.send(run.id, None, channel="go")
                await run.result()

    runs()
    roots = [one for one in traced.spans if one.parent is None]
    traces = {one.context.trace_id for one in traced.spans if one.context}
    assert len(roots) == len(traces)
    assert 0 <= len(roots) - kept <= 3


def test_a_namespace_tells_stores_apart() -> None:
    ids = {Tracing(namespace=name)._root("a", 1, sampled=True).trace_id for name in ("", "x")}
    assert len(ids) == 2


@pytest.mark.parametrize("wrong", [{"provider": 3}, {"namespace": None}])
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError):
        Tracing(**wrong)


WITHOUT = """
import asyncio, sys
from perdure import Engine, step, workflow
from perdure.ext.otel import Tracing
@step
def one() -> int: return 1
@workflow
async def w() -> int: return await one()
async def main():
    async with Engine(":memory:", workflows=[w], observer=Tracing()) as engine:
        print(await engine.run(w()), "opentelemetry.sdk" in sys.modules)
asyncio.run(main())
"""


def test_without_an_sdk_nothing_happens(tmp_path: Path) -> None:
    path = tmp_path / "w.py"
    path.write_text(WITHOUT)
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1 False\n", "")
