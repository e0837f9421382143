"""Traces of runs for OpenTelemetry: one trace for each run, whichever processes execute it.

Rules: the ids of traces and of the spans of runs and steps are derived from the run, so that
processes agree on them without asking each other; a span is made when it ends, of what its process
knows; what a replay repeats is not reported again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)

from perdure import __version__
from perdure.core import lifecycle
from perdure.errors import DefinitionError
from perdure.runtime.observer import ObservedRun, Observer

RUNS_MAX = 20_000
"""Runs that are remembered; those that were parked for the longest are forgotten first."""
MS = 1_000_000
"""Nanoseconds."""


class Tracing(Observer):
    """An observer that makes spans of runs, their steps and the attempts of these.

    A run is a trace: its id is derived from the run's id and `namespace`, so that it is the same
    after a restart and on another machine; give stores namespaces of their own where they have runs
    of the same ids. In it are a span of the run, from its start to its end, one of each step, and
    below that one of each attempt, which is the current span of the step's code: what libraries
    record there is below it. A child is a trace of its own, with links from one to the other.
    Spans come from `provider`, or the global one; a sampler decides once for a whole run.

    Attributes: `perdure.run.id`, `perdure.workflow`, `perdure.step`, `perdure.seq`,
    `perdure.attempt`, `perdure.run.status`, `perdure.queue`, `perdure.scheduled_ms`. Arguments and
    results are not in it. Raises `DefinitionError` for a provider or a namespace that is none.

    >>> from perdure import Engine
    >>> engine = Engine("agents.db", observer=Tracing())
    """

    def __init__(
        self, provider: trace.TracerProvider | None = None, *, namespace: str = ""
    ) -> None:
        if provider is not None and not isinstance(provider, trace.TracerProvider):
            raise DefinitionError(
                f"provider is a TracerProvider of OpenTelemetry, not {provider!r:.200}."
            )
        if not isinstance(namespace, str):
            raise DefinitionError(f"namespace is a text, not {namespace!r:.200}.")
        self._provider, self._namespace = provider, namespace
        self._tracer: Any = None
        self._ids = ChosenIds(None)
        self._runs: OrderedDict[str, _Run] = OrderedDict()

    # --- runs -------------------------------------------------------------------------------------

    def run_loaded(self, run: ObservedRun) -> None:
        before = self._runs.pop(run.id, None)
        known = before is not None and before.facts.created_ms == run.created_ms
        made = before if known and before is not None else _Run(run, *self._contexts(run))
        self._runs[run.id] = made
        while len(self._runs) > RUNS_MAX:
            self._runs.popitem(last=False)

    def run_ended(self, run_id: str, workflow: str, status: str) -> None:
        run = self._runs.get(run_id)
        if run is None:
            return
        if status == lifecycle.BLOCKED:  # it goes on when a person has decided
            self._span(run, f"{workflow} blocked", None, failed="it needs a person")
            return
        del self._runs[run_id]
        facts = run.facts
        parent = None if facts.parent is None else self._runs.get(facts.parent)
        links = [] if facts.parent is None else [Link(self._parent_of(facts, parent))]
        if facts.forked_from is not None:
            links.append(Link(self._root(facts.forked_from, None, sampled=run.sampled)))
        failed = None if status == lifecycle.COMPLETED else status
        about = self._about(run) | {"perdure.run.status": status}
        begin = facts.started_ms * MS
        self._root_span(run, workflow, begin, about, links, failed)
        if parent is not None:
            self._span(
                parent, f"child {workflow}", None, begin=begin, failed=failed,
                about={"perdure.seq": facts.parent_seq or 0, "perdure.run.status": status},
                links=[Link(run.root)],
            )  # fmt: skip

    def _parent_of(self, facts: ObservedRun, parent: _Run | None) -> SpanContext:
        if parent is not None:
            return parent.root
        return self._root(facts.parent or "", None, sampled=True)

    # --- steps ------------------------------------------------------------------------------------

    def attempt_started(self, run_id: str, seq: int, step: str, attempt: int) -> None:
        run = self._runs.get(run_id)
        if run is None:
            return
        above = self._context(run, self._span_id(run, seq))
        about = self._about(run) | {
            "perdure.step": step, "perdure.seq": seq, "perdure.attempt": attempt,
        }  # fmt: skip
        name = f"{step} attempt {attempt}"
        span = self._tracer.start_span(name, _beneath(above), attributes=about)
        began = run.steps.setdefault(seq, _Step(_begin_of(span)))
        began.attempts[attempt] = span
        contexts.attach(trace.set_span_in_context(span))  # in the context of the attempt alone

    def attempt_ended(
        self,
        run_id: str,
        seq: int,
        step: str,
        attempt: int,
        took_ms: int,
        error: BaseException | None,
        again_ms: int | None,
    ) -> None:
        run = self._runs.get(run_id)
        began = None if run is None else run.steps.get(seq)
        if run is None or began is None:
            return
        span = began.attempts.pop(attempt, None)
        if span is not None:
            _end(span, error)
        if again_ms is None:
            del run.steps[seq]
            about = {"perdure.step": step, "perdure.seq": seq, "perdure.attempts": attempt}
            failed = None if error is None else type(error).__name__
            span_id = self._span_id(run, seq)
            self._span(run, step, span_id, begin=began.begin, about=about, failed=failed)

    # --- spans ------------------------------------------------------------------------------------

    def _span(
        self,
        run: _Run,
        name: str,
        span_id: int | None,
        *,
        begin: int | None = None,
        about: dict[str, Any] | None = None,
        links: Sequence[Link] = (),
        failed: str | None = None,
    ) -> None:
        """A span below that of the run, until now."""
        with_run = self._about(run) | (about or {})
        self._ids.span_id = span_id
        try:
            span = self._tracer.start_span(
                name, _beneath(run.root), attributes=with_run, links=links, start_time=begin
            )
        finally:
            self._ids.span_id = None
        if failed is not None:
            span.set_status(Status(StatusCode.ERROR, failed))
        span.end()

    def _root_span(
        self,
        run: _Run,
        name: str,
        begin: int,
        about: dict[str, Any],
        links: list[Link],
        failed: str | None,
    ) -> None:
        """The span of a run, which has no parent."""
        self._ids.trace_id, self._ids.span_id = run.root.trace_id, run.root.span_id
        above = contexts.Context() if self._ids.used else _beneath(run.root)
        try:
            span = self._tracer.start_span(
                name, above, kind=SpanKind.CONSUMER, attributes=about, links=links,
                start_time=begin,
            )  # fmt: skip
        finally:
            self._ids.trace_id = self._ids.span_id = None
        if failed is not None:
            span.set_status(Status(StatusCode.ERROR, failed))
        span.end()

    def _about(self, run: _Run) -> dict[str, Any]:
        facts = run.facts
        found: dict[str, Any] = {"perdure.run.id": facts.id, "perdure.workflow": facts.workflow}
        if facts.queue is not None:
            found["perdure.queue"] = facts.queue
        if facts.scheduled_ms is not None:
            found["perdure.scheduled_ms"] = facts.scheduled_ms
        return found

    # --- ids --------------------------------------------------------------------------------------

    def _contexts(self, run: ObservedRun) -> tuple[SpanContext, bool]:
        """The context of a run's span, and whether its trace is sampled."""
        if self._tracer is None:
            self._tracer, self._ids = _tracer_of(self._provider)
        root = self._root(run.id, run.created_ms, sampled=True)
        sampler = getattr(self._tracer, "sampler", None)
        if sampler is None:
            return root, True
        result = sampler.should_sample(
            contexts.Context(), root.trace_id, run.workflow, SpanKind.CONSUMER, {}, ()
        )
        sampled = bool(result.decision.is_sampled())
        return self._root(run.id, run.created_ms, sampled=sampled), sampled

    def _root(self, run_id: str, created_ms: int | None, *, sampled: bool) -> SpanContext:
        trace_id = _number(16, self._namespace, run_id)
        span_id = _number(8, self._namespace, run_id, created_ms)
        return _context(trace_id, span_id, sampled=sampled)

    def _span_id(self, run: _Run, seq: int) -> int:
        return _number(8, self._namespace, run.facts.id, run.facts.created_ms, seq)

    def _context(self, run: _Run, span_id: int) -> SpanContext:
        return _context(run.root.trace_id, span_id, sampled=run.sampled)


class ChosenIds:
    """The generator of ids of our tracer: that of its provider, but for ids that were chosen."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.used = inner is not None
        """Whether a tracer asks for ids here."""
        self.trace_id: int | None = None
        self.span_id: int | None = None

    def generate_span_id(self) -> int:
        return int(self._inner.generate_span_id()) if self.span_id is None else self.span_id

    def generate_trace_id(self) -> int:
        return int(self._inner.generate_trace_id()) if self.trace_id is None else self.trace_id

    def is_trace_id_random(self) -> bool:
        """Derived ids are as evenly spread as random ones, but W3C's flag is for random ones."""
        return False


class _Step(msgspec.Struct):
    """A step under way: when its first attempt here began, and the spans of its attempts."""

    begin: int | None
    attempts: dict[int, Any] = {}


class _Run(msgspec.Struct):
    """A run in memory: its facts, the context of its span, its steps by row."""

    facts: ObservedRun
    root: SpanContext
    sampled: bool
    steps: dict[int, _Step] = {}


def _tracer_of(provider: trace.TracerProvider | None) -> tuple[Any, ChosenIds]:
    """Our tracer of a provider, and its generator of ids, which no other tracer has."""
    found = provider or trace.get_tracer_provider()
    tracer: Any = found.get_tracer("perdure", __version__)
    ids = getattr(tracer, "id_generator", None)
    if isinstance(ids, ChosenIds):
        return tracer, ids
    chosen = ChosenIds(ids)
    if ids is not None:
        tracer.id_generator = chosen
    return tracer, chosen


def _number(size_bytes: int, *parts: object) -> int:
    """An id that is derived from these parts; never zero, which is no id."""
    text = "\n".join(map(str, parts)).encode()
    return int.from_bytes(blake2b(text, digest_size=size_bytes).digest(), "big") or 1


def _context(trace_id: int, span_id: int, *, sampled: bool) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)


def _beneath(above: SpanContext) -> contexts.Context:
    return trace.set_span_in_context(NonRecordingSpan(above), contexts.Context())


def _begin_of(span: Any) -> int | None:
    return getattr(span, "start_time", None)


def _end(span: Any, error: BaseException | None) -> None:
    if error is not None:
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
    span.end()
