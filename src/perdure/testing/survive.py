"""`assert_survives_every_crash`: a workflow runs undisturbed, then once for each place to die.

Rules: every trial has a file of its own, the real engine and virtual time. A place is a commit, and
the process dies right before it (what was done is not recorded) or right after it (what is recorded
was not reported). A failure names the place and says how to repeat it alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import operator
import os
import random
import re
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count, takewhile
from typing import Any

from perdure.api.definitions import Call, Workflow
from perdure.api.queues import Queue, checked_queues
from perdure.core import events as ev
from perdure.core import lifecycle
from perdure.core.events import Event
from perdure.core.lifecycle import FINAL
from perdure.errors import (
    DefinitionError,
    RequestRefused,
    RequestUnanswered,
    RunBlocked,
    RunCancelled,
    RunExists,
    RunFailed,
    RunFinished,
)
from perdure.runtime.engine import Engine
from perdure.runtime.run_handle import Run
from perdure.testing import invariants, recording
from perdure.testing.crash import IN_A_LOOP, CrashHarness, NotReached, When
from perdure.testing.invariants import InvariantViolated
from perdure.testing.recording import Recording
from perdure.testing.virtual_time import NothingLeftToWaitFor

RUN_ID = "run"
RUNS_MAX = 1_000_000
_WHENS: tuple[When, ...] = ("before", "after")
_SECONDS = (0.0, 0.003, 0.029, 0.547)
Outcome = tuple[str, Any]


@dataclass(frozen=True, slots=True)
class Survived:
    """What was tried: the number of crashes, of seeds, and of other processes that replayed it."""

    crashes: int
    seeds: int
    elsewhere: int


def assert_survives_every_crash(
    call: Call[Any],
    *,
    workflows: Iterable[Workflow[..., Any]] = (),
    queues: Iterable[Queue] = (),
    messages: Sequence[tuple[Any, ...]] = (),
    requests: Sequence[tuple[str, Any]] = (),
    cancel_after: float | None = None,
    timeout: float | None = None,
    once: list[Any] | Callable[[], Iterable[Any]] | None = None,
    before_each: Callable[[], object] | None = None,
    same: Callable[[Any, Any], bool] = operator.eq,
    seeds: Iterable[int] = (0,),
    hash_seeds: Sequence[int] = (1, 2),
    only: tuple[When, int] | None = None,
) -> Survived:
    """Kill a run of `call` before and after every commit. It has to end as it does undisturbed,
    with a history that keeps the invariants.

    `workflows` are those that its code does not name, `queues` those that its steps wait in.
    `messages` are (channel, value), or (channel, value, seconds after the start); a fourth part
    names another run as receiver: an id, or a workflow, of which every child gets it. `requests`
    are (channel, value): each is asked at the start and again after a crash, and gets the reply
    that it gets undisturbed. `cancel_after` and `timeout` are seconds. `once` is a list to which
    your steps add their effects, or a function that returns one: every effect must be in it as
    often as undisturbed. A list is emptied before each trial, and `before_each` is called. `same`
    compares results. Each of `seeds` is another order of steps, and other random numbers; with 0 a
    step takes no time. Processes with each of `hash_seeds` replay the history, if they can import
    the workflow. `only` repeats one place: ("before", 3) is the third commit.

    Raises `InvariantViolated`, an AssertionError. Raises `DefinitionError` inside a running event
    loop: in an async test write `await asyncio.to_thread(assert_survives_every_crash, call)`.

    >>> from perdure import step, workflow
    >>> @step
    ... async def double(n: int) -> int:
    ...     return 2 * n
    >>> @workflow
    ... async def doubles(n: int) -> list[int]:
    ...     return [await double(i) for i in range(n)]
    >>> assert_survives_every_crash(doubles(2)).crashes
    8
    """
    if asyncio._get_running_loop() is not None:
        raise DefinitionError(IN_A_LOOP)
    if not isinstance(call, Call) or not isinstance(call.definition, Workflow):
        raise DefinitionError(
            f"This takes the call of a workflow, such as order('a'), not {call!r}."
        )
    _check(tried := list(seeds), messages, requests)
    known = [call.definition, *workflows]
    given = (messages, requests, cancel_after, timeout, once, before_each, same)
    lines = checked_queues(queues)
    trials = [_Trial(call, known, *given, seed, lines) for seed in tried]
    crashes = sum(trial.survives(only) for trial in trials)
    elsewhere = list(hash_seeds) if recording.can_be_found(trials[0].known) else []
    for hash_seed in elsewhere:
        trials[0].replays_elsewhere(hash_seed)
    return Survived(crashes, len(tried), len(elsewhere))


def _check(seeds: list[int], messages: Sequence[Any], requests: Sequence[Any]) -> None:
    """Raise `DefinitionError` for what no trial can be made of."""
    if not seeds or not all(isinstance(seed, int) for seed in seeds):
        raise DefinitionError(f"seeds are one or more whole numbers, not {seeds!r}.")
    if not all(isinstance(one, tuple | list) and 2 <= len(one) <= 4 for one in messages):
        right = "tuples of two to four parts, as (channel, value, seconds)"
        raise DefinitionError(f"messages are {right}, not {messages!r}.")
    if not all(isinstance(one, tuple | list) and len(one) == 2 for one in requests):
        raise DefinitionError(f"requests are pairs of channel and value, not {requests!r}.")


@dataclass
class _Trial:
    """One call under one seed. `calm` is its undisturbed outcome, `effects` what it did outside."""

    call: Call[Any]
    known: list[Workflow[..., Any]]
    messages: Sequence[tuple[Any, ...]]
    requests: Sequence[tuple[str, Any]]
    cancel_after: float | None
    timeout: float | None
    once: list[Any] | Callable[[], Iterable[Any]] | None
    before_each: Callable[[], object] | None
    same: Callable[[Any, Any], bool]
    seed: int
    queues: tuple[Queue, ...] = ()
    calm: Outcome = ("", None)
    effects: Counter[str] = field(default_factory=Counter)
    recordings: list[Recording] = field(default_factory=list)
    # By this engine: messages by number, with the ids of their receivers.
    sent: set[tuple[int, str]] = field(default_factory=set)
    # To the requests, in their order: of this engine, and undisturbed.
    replies: list[tuple[str, Any]] = field(default_factory=list)
    calm_replies: list[tuple[str, Any]] = field(default_factory=list)

    def survives(self, only: tuple[When, int] | None) -> int:
        """The number of crashes that it has survived."""
        self._undisturbed()
        if only is not None and (only[0] not in _WHENS or not self._crash(*only)):
            raise DefinitionError(
                f"only={only!r} is no place of this run; one is ('before', 3), its third commit."
            )
        if only is not None:
            return 1
        return sum(
            sum(takewhile(bool, (self._crash(when, number) for number in count(1))))
            for when in _WHENS
        )

    def _undisturbed(self) -> None:
        with self._harness() as harness:
            self.calm = harness.run(self._drive(harness))
            self._check_sent()
            self.calm_replies = self.replies
            self.recordings = recording.recordings(harness.path)
            self.effects = self._effects(self.recordings)
        with self._blaming(None):
            if self.calm[0] == lifecycle.BLOCKED:
                raise InvariantViolated(f"It is {_shown(self.calm)}")
            for one in self.recordings:
                _obeys(one)
                recording.replay_recorded(one, self.known, every_prefix=True)

    def _check_sent(self) -> None:
        for number, (channel, _, *after) in enumerate(self.messages):
            if len(after) > 1 and number not in {sent for sent, _ in self.sent}:
                raise DefinitionError(
                    f"Message {number} on channel {channel!r} is for {after[1]!r}, and "
                    f"there was no such run."
                )

    def _crash(self, when: When, number: int) -> bool:
        """Die at one place, go on in a new engine, compare. False if the run has no such place."""
        with self._harness() as harness:
            try:
                with harness.crash_after(number, when):
                    harness.run(self._drive(harness))
            except NotReached:
                return False
            held = recording.recordings(harness.path)
            with self._blaming((when, number), held):
                invariants.commit_before_effect(harness.begun, {one.key: one.rows for one in held})
                outcome = harness.run(self._drive(harness))
                self._compare(outcome, held, recording.recordings(harness.path))
        return True

    def _compare(self, outcome: Outcome, held: list[Recording], found: list[Recording]) -> None:
        if outcome[0] != self.calm[0] or not self.same(outcome[1], self.calm[1]):
            raise InvariantViolated(
                f"  It is {_shown(outcome)}\n  undisturbed it is {_shown(self.calm)}"
            )
        if self.replies != self.calm_replies:
            raise InvariantViolated(
                f"  Its replies are {self.replies}\n  undisturbed they are {self.calm_replies}"
            )
        after = {one.key: one for one in found}
        for one in held:
            invariants.only_grown(one.rows, after[one.key].rows)
            if one.status in FINAL and after[one.key].status != one.status:
                raise InvariantViolated(
                    f"run {one.id} had ended as {one.status} and is now {after[one.key].status}"
                )
        for one in found:
            _obeys(one)
            recording.replay_recorded(one, self.known)
        done = self._effects(found)
        if done != self.effects:
            changes = (done - self.effects, self.effects - done)
            more, less = (
                ", ".join(f"{effect} ({times} ×)" for effect, times in change.items())
                for change in changes
            )
            raise InvariantViolated(
                f"What it does outside is not done once: {more or 'nothing'} too often, "
                f"{less or 'nothing'} too rarely"
            )

    def replays_elsewhere(self, hash_seed: int) -> None:
        """Replay the history in a process that walks sets in another order."""
        try:
            recording.replay_elsewhere(self.recordings, self.known, hash_seed)
        except InvariantViolated as error:
            raise InvariantViolated(
                f"{self._name()} can't be replayed in another process, with "
                f"PYTHONHASHSEED={hash_seed}.\n{error}"
            ) from error

    # --- one trial --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _harness(self) -> Iterator[CrashHarness]:
        """A new file, and a world outside without effects."""
        if isinstance(self.once, list):
            self.once.clear()
        if self.before_each is not None:
            self.before_each()
        with tempfile.TemporaryDirectory(prefix="perdure-") as folder:
            yield CrashHarness(os.path.join(folder, "perdure.db"), seed=self.seed)

    async def _drive(self, harness: CrashHarness) -> Outcome:
        """Start the run and send it all it gets. After a crash all is sent again; keys make it
        arrive once.
        """
        async with harness.engine(workflows=self.known, queues=self.queues) as engine:
            try:
                run = await self._ask(
                    "start", engine.start, self.call, id=RUN_ID, timeout=self.timeout
                )
            except RunExists:  # it has continued as another call
                run = await engine.get(RUN_ID)
            self.sent.clear()
            others = [
                asyncio.create_task(self._send_to_others(engine, number))
                for number, one in enumerate(self.messages)
                if len(one) > 3
            ]
            asked = [
                asyncio.create_task(self._reply_of(run, number))
                for number in range(len(self.requests))
            ]
            await self._send_and_cancel(engine, run)
            outcome = await self._outcome(run)
            self.replies = list(await asyncio.gather(*asked))
            for task in others:
                task.cancel()
            for sent in await asyncio.gather(*others, return_exceptions=True):
                if isinstance(sent, Exception):
                    raise sent
            return outcome

    async def _send_and_cancel(self, engine: Engine, run: Run[Any]) -> None:
        dice = random.Random(self.seed)
        with contextlib.suppress(RunFinished):
            for number, (channel, value, *after) in enumerate(self.messages):
                if len(after) < 2:
                    await _until(after[0] if after else dice.choice(_SECONDS) if self.seed else 0)
                    await self._ask(
                        f"message {number}",
                        run.send,
                        value,
                        channel=channel,
                        key=f"message {number}",
                    )
            if self.cancel_after is not None:
                await _until(self.cancel_after)
                if not await _cancel_arrived(engine, run):
                    await self._ask("cancel", run.cancel)

    async def _reply_of(self, run: Run[Any], number: int) -> tuple[str, Any]:
        """What became of a request: a run that has ended replies to what it was asked before."""
        channel, value = self.requests[number]
        key = f"request {number}"
        try:
            return "reply", await self._ask(key, run.ask, value, channel=channel, key=key)
        except RequestRefused as error:
            return "refused", error.reason
        except (RequestUnanswered, RunFinished, RunBlocked):
            return "none", None

    async def _send_to_others(self, engine: Engine, number: int) -> None:
        """Send a message to each of its receivers, as soon as there is one."""
        channel, value, after_s, to = self.messages[number]
        key = f"message {number}"
        committed, unsubscribe = engine._scheduler.waiters.subscribe()
        try:
            await _until(after_s)
            while True:
                committed.clear()
                for one in await engine.runs(limit=RUNS_MAX):
                    if (
                        to in (one.id, engine.workflows.get(one.workflow))
                        and (number, one.id) not in self.sent
                    ):
                        self.sent.add((number, one.id))
                        with contextlib.suppress(RunFinished):
                            await self._ask(
                                f"{key} to {one.id}",
                                engine.send,
                                one.id,
                                value,
                                channel=channel,
                                key=key,
                            )
                await committed.wait()
        finally:
            unsubscribe()

    async def _outcome(self, run: Run[Any]) -> Outcome:
        try:
            return "completed", await self._ask("result", run.result)
        except RunFailed as error:
            return "failed", error.error
        except RunCancelled:
            return lifecycle.CANCELLED, None
        except RunBlocked as error:
            return lifecycle.BLOCKED, error.reason

    async def _ask(
        self, what: str, verb: Callable[..., Awaitable[Any]], *args: Any, **options: Any
    ) -> Any:
        """One verb of the engine; a campaign with a failing disk overrides this."""
        return await verb(*args, **options)

    def _effects(self, recordings: Sequence[Recording]) -> Counter[str]:
        """What was done outside. Ids of children and idempotency keys hold row numbers, which a
        crash moves, so each is replaced by the step or child that it means.
        """
        found = self.once() if callable(self.once) else self.once
        meant = {
            f"{one.id}{between}{one.key}{dot}{row.seq}": f"{what} {row.name} {_text(row)}"
            for one in recordings
            for row in one.rows
            for kind, between, dot, what in (
                (ev.STEP, "/", "/", "key of step"),
                (ev.CHILD, ".", ".", "id of child"),
            )
            if row.kind == kind
        }
        pattern = re.compile(
            "|".join(rf"\b{re.escape(name)}\b" for name in sorted(meant, key=len, reverse=True))
            or r"\Z."
        )
        return Counter(pattern.sub(lambda name: meant[name[0]], repr(one)) for one in found or ())

    # --- failures ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _blaming(
        self, place: tuple[When, int] | None, held: Sequence[Recording] = ()
    ) -> Iterator[None]:
        """Errors in the block name the place of the crash, and how to repeat it."""
        try:
            yield
        except (InvariantViolated, NothingLeftToWaitFor) as error:
            if place is None:
                raise InvariantViolated(
                    f"{self._name()} can't be replayed, even without any crash.\n{error}"
                ) from error
            rows = (
                "\n".join(
                    f"    {_row(row)}" for one in held if one.id == RUN_ID for row in one.rows[-5:]
                )
                or "    nothing"
            )
            raise InvariantViolated(
                f"{self._name()} does not survive a crash {place[0]} commit {place[1]} (seed "
                f"{self.seed}).\n{error}\n"
                f"  The last rows of its history on disk were then\n{rows}\n"
                f"  Repeat it with assert_survives_every_crash(..., seeds=[{self.seed}], "
                f"only={place!r})"
            ) from error

    def _name(self) -> str:
        given = ", ".join(
            [
                *map(repr, self.call.args),
                *(f"{name}={value!r}" for name, value in self.call.kwargs.items()),
            ]
        )
        return f"{self.call.definition.name}({given})"


def _obeys(one: Recording) -> None:
    invariants.in_order(one.rows)
    invariants.recorded_once(one.rows)
    invariants.replied_once(one.rows)


async def _until(seconds: float) -> None:
    """Sleep until so long after the beginning of the first engine."""
    await asyncio.sleep(max(0.0, seconds - asyncio.get_running_loop().time()))


async def _cancel_arrived(engine: Engine, run: Run[Any]) -> bool:
    """Whether the cancel was delivered before the crash; unlike a message it has no key."""
    store = engine._store
    key = store.run_key(run.id)
    return ev.CANCEL in {row.kind for row in store.history(key)} or "cancel" in {
        row.kind for row in store.inbox(key, 0)
    }


def _shown(outcome: Outcome) -> str:
    return outcome[0] if outcome[0] == lifecycle.CANCELLED else f"{outcome[0]}: {outcome[1]!r}"


def _row(row: Event) -> str:
    return " ".join(
        str(part)
        for part in (row.seq, row.kind, row.name, row.ref and f"of row {row.ref}", _text(row)[:100])
        if part
    )


def _text(row: Event) -> str:
    return row.data.decode() if isinstance(row.data, bytes) else ""
