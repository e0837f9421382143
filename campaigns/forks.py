"""The campaign `forks`: retry and fork at every row, by docs/explain/retry-and-fork.md.

Rules: a program is a tree of asyncio's verbs made from a seed, in which every leaf has a number of
its own and is reached once; what happened outside (attempts and their keys, messages, runs) is kept
in a `World`, so that whatever happens twice is seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import random as rng
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import msgspec

from campaigns.corpus import CASES, Case
from campaigns.main import Count
from campaigns.random_workflows import program
from perdure import (
    Engine,
    PerdureError,
    RequestRefused,
    RequestTimeout,
    RequestUnanswered,
    Retry,
    RunBlocked,
    RunFinished,
    current_run,
    current_step,
    emit,
    receive,
    send,
    start,
    step,
    tag,
    workflow,
)
from perdure.core import events as ev
from perdure.core.events import Event
from perdure.runtime.kernels import kernel_of
from perdure.runtime.naming import cut_of
from perdure.testing import invariants
from perdure.testing.crash import Crashed, CrashHarness
from perdure.testing.invariants import InvariantViolated

DEPTH_MAX = 3
CHILD = 1_000  # what a child adds to its number for its second step
RETRIES_MAX = 40
_WORK = frozenset({"work", "careful", "stubborn", "ahead"})
_LEAVES = (
    "work",
    "work",
    *sorted(_WORK),
    "child",
    "named",
    "child",
    "send",
    "spawn",
    "emit",
    "tag",
    "sleep",
    "self",
    "message",
    "bug",
)
_BRANCHES = ("seq", "seq", "gather", "group", "finally", "reraise", "limit")


@dataclass
class World:
    """What is wrong outside and in the code, and what has been done there."""

    broken: dict[int, str] = field(default_factory=dict)
    """Leaves that go wrong, by number: "fail" or "slow" for a step, "bug" for workflow code."""
    attempts: list[tuple[int, str]] = field(default_factory=list)
    crashes: bool = False
    """Whether engines die, so that a careful step would have to be asked about."""


_world = World()


@step(retry=None)
async def work(n: int) -> int:
    _world.attempts.append((n, current_step().idempotency_key))
    match _world.broken.get(n):
        case "fail":
            raise ConnectionError(f"{n} is down")
        case "slow":
            await asyncio.sleep(1000)
    return 2 * n


@workflow
async def part(n: int) -> int:
    return await work(n) + await deeper(n)


@workflow
async def deeper(n: int) -> int:
    try:
        return await work(n + CHILD)
    finally:
        await work(n + 2 * CHILD)


@workflow
async def sink() -> None:
    while True:
        await receive("x", int)


@workflow
async def tree(node: list[Any]) -> Any:
    return await _walk(node)


async def _walk(node: list[Any]) -> Any:
    kind, *rest = node
    if kind in _WORK:
        return await _work(kind, rest[0])
    if kind in _BRANCHES:
        return await _branch(kind, rest)
    return await _leaf(kind, rest[0])


async def _work(kind: str, n: int) -> int:
    match kind:
        case "careful":
            return await work.options(on_crash="retry" if _world.crashes else "ask")(n)
        case "stubborn":
            return await work.options(retry=Retry(attempts=2, delay=0.5, jitter=False))(n)
        case "ahead":
            return await work.options(readonly=True)(n)
        case _:
            return await work(n)


async def _leaf(kind: str, n: int) -> Any:
    match kind:
        case "child":
            return await part(n)
        case "named":
            return await part.options(id=f"{current_run().id}-{n}")(n)
        case "send":
            return await send("sink", n, channel="x")
        case "spawn":
            return await start(part(n)) and "started"
        case "emit":
            emit("items", n)
            return "emitted"
        case "tag":
            tag(last=n)
            return "tagged"
        case "sleep":
            return await asyncio.sleep(n % 7)
        case "self":
            return await send(current_run().id, n, channel="self")
        case "message":
            return await receive("a", int) and "received"
        case "bug" if n in _world.broken:
            raise KeyError(f"a bug in {n}")
        case _:
            return "right"


async def _branch(kind: str, nodes: list[Any]) -> Any:
    match kind:
        case "seq":
            return [await _walk(node) for node in nodes]
        case "gather":
            return list(await asyncio.gather(*map(_walk, nodes)))
        case "group":
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_walk(node)) for node in nodes]
            return [task.result() for task in tasks]
        case "finally":
            try:
                return await _walk(nodes[0])
            finally:
                await _walk(nodes[1])
        case "reraise":
            try:
                return await _walk(nodes[0])
            except Exception:
                await _walk(nodes[1])
                raise
        case _:
            async with asyncio.timeout(500):
                return await _walk(nodes[0])


def grown(seed: int) -> tuple[list[Any], list[tuple[str, int]]]:
    """The tree of a seed, and its leaves as (kind, number)."""
    dice, numbers = rng.Random(f"tree {seed}"), count(1)
    leaves: list[tuple[str, int]] = []

    def node(depth: int) -> list[Any]:
        if depth >= DEPTH_MAX or (depth and dice.random() < 0.35):
            leaves.append((dice.choice(_LEAVES), next(numbers)))
            return list(leaves[-1])
        kind = dice.choice(_BRANCHES)
        size = {"finally": 2, "reraise": 2, "limit": 1}.get(kind, dice.randint(1, 4))
        return [kind, *(node(depth + 1) for _ in range(size))]

    return node(0), leaves


def _wrong(leaves: list[tuple[str, int]], dice: rng.Random) -> dict[int, str]:
    """Up to four leaves that go wrong: in the code, or outside."""
    found = {}
    bugs = dice.random() < 0.3
    for kind, n in [one for one in dice.sample(leaves, len(leaves)) if (one[0] == "bug") is bugs][
        :4
    ]:
        match kind:
            case "child" | "named":
                found[n + dice.choice([0, CHILD, 2 * CHILD])] = "fail"
            case _ if kind in _WORK:
                found[n] = dice.choice(["fail", "fail", "slow"])
            case "bug":
                found[n] = "bug"
    return found


# --- engines --------------------------------------------------------------------------------------


class _Stage:
    """One store on which programs are run; a new one for each invariant."""

    def __init__(self, folder: str, seed: int) -> None:
        self.harness = CrashHarness(f"{folder}/{seed}.db", seed=seed)
        self.retries = self.messages = 0
        self.wait_s = 0.0
        self.crashed = False

    def engine(self, **options: Any) -> Any:
        return self.harness.engine(workflows=[tree, part, deeper, sink], **options)

    async def begin(self, engine: Engine, node: list[Any], messages: int) -> None:
        await engine.start(sink(), id="sink")
        await engine.start(tree(node), id="r")
        await self.tell(engine, messages)

    async def tell(self, engine: Engine, messages: int) -> None:
        """Send all that the run has to be sent; what has arrived before does not arrive again."""
        self.messages = messages
        with contextlib.suppress(RunFinished):
            for n in range(messages):
                await engine.send("r", n + 1, channel="a", key=f"message {n}")


async def outcome(engine: Engine, run_id: str) -> Any:
    """What a run has given, or its status; raises `InvariantViolated` where it is blocked."""
    try:
        return await (await engine.get(run_id)).result()
    except RunBlocked as error:
        raise InvariantViolated(f"{run_id} is blocked: {error.reason}") from error
    except PerdureError:
        return await (await engine.get(run_id)).status()


def retries_repair(seed: int, *, crash: bool = False, client: bool = False) -> int:
    """Leaf after leaf is put right and the run retried: it ends as if nothing had ever been wrong,
    and does nothing twice.
    """
    dice = rng.Random(f"retries {seed}")
    node, leaves = grown(seed)
    messages = sum(kind == "message" for kind, _ in leaves)
    with tempfile.TemporaryDirectory() as folder:
        _world.broken, _world.attempts, _world.crashes = {}, [], crash
        calm = _Stage(folder, 2 * seed)
        expected = calm.harness.run(_to_the_end(calm, node, messages, None))
        _world.broken, _world.attempts = _wrong(leaves, dice), []
        if client:
            _world.broken = {n: how for n, how in _world.broken.items() if how != "bug"}
        stage = _Stage(folder, 2 * seed + 1)
        hidden = len(_world.broken) - 1
        cancel_after = dice.choice([None, None, 0.5, 3.0])
        found = stage.harness.run(_to_the_end(stage, node, messages, cancel_after))
        while found in ("failed", "cancelled"):
            stage.retries += 1
            if stage.retries > RETRIES_MAX:
                raise InvariantViolated(
                    f"after {RETRIES_MAX} retries it is still {found}, and {_world.broken} is wrong"
                )
            if found == "failed" and not _world.broken and not client and not stage.crashed:
                # Python forgets the context of an error that is caught in a handler which awaits
                hidden -= 1
                if hidden < 0:
                    raise InvariantViolated("all is right, and a retry gave the failure again")
            if found == "failed" and dice.random() < 0.5:
                _world.broken.clear()
            elif found == "failed" and _world.broken:
                del _world.broken[dice.choice(sorted(_world.broken))]
            stage.crashed, stage.wait_s = False, dice.choice([0, 2000])
            crash_after = dice.randint(1, 6) if crash else None
            cancel_after = (
                dice.choice([None, None, None, 0.5]) if stage.retries < RETRIES_MAX // 2 else None
            )
            found = _retried(stage, crash_after, client, cancel_after)
        if found != expected:
            raise InvariantViolated(
                f"after {stage.retries} retries it gave {found}, undisturbed {expected}"
            )
        stage.harness.run(_nothing_twice(stage))
    return stage.retries


async def _to_the_end(
    stage: _Stage, node: list[Any], messages: int, cancel_after: float | None
) -> Any:
    async with stage.engine() as engine:
        await stage.begin(engine, node, messages)
        await _cancel(engine, cancel_after)
        return await outcome(engine, "r")


async def _cancel(engine: Engine, after: float | None) -> None:
    if after is not None:
        await asyncio.sleep(after)
        if await (await engine.get("r")).status() not in ("completed", "failed"):
            await engine.cancel("r")


def _retried(
    stage: _Stage, crash_after: int | None, client: bool, cancel_after: float | None
) -> Any:
    async def retry() -> None:
        async with stage.engine(execute=not client) as engine:
            await asyncio.sleep(stage.wait_s)
            await engine.retry("r")
            await stage.tell(engine, stage.messages)
            if not client:
                await _cancel(engine, cancel_after)
                await outcome(engine, "r")

    async def end() -> Any:
        async with stage.engine() as engine:
            await stage.tell(engine, stage.messages)
            await _cancel(engine, cancel_after)
            return await outcome(engine, "r")

    if crash_after is not None:
        stage.harness.crash, stage.harness.commits = ("after", crash_after), 0
    try:
        stage.harness.run(retry())
    except Crashed:  # before the retry was committed, or behind it
        stage.crashed = True
    stage.harness.crash = None
    return stage.harness.run(end())


async def _nothing_twice(stage: _Stage) -> None:
    """Each message and each run arrived once; each leaf has one key; histories are sound and
    replay.
    """
    async with stage.engine() as engine:
        sent = Counter(
            event.data for event in await engine.history("sink") if event.kind == ev.MESSAGE
        )
        _once(sent, "messages")
        parts = [
            row
            for name in ("part", "deeper")
            for row in await engine.runs(workflow=name, limit=1_000)
        ]
        runs = [row for row in parts if "~" not in row.id]
        _once(Counter(f"{row.workflow} {row.args}" for row in runs), "starts")
        keys: dict[int, set[str]] = {}
        for n, key in _world.attempts:
            keys.setdefault(n, set()).add(key)
        _once(Counter({n: len(found) for n, found in keys.items()}), "keys of the step with number")
        _once(Counter(key for found in keys.values() for key in found), "steps with the key")
        for row in [*runs, await engine.info("r")]:
            sound(engine, row.id)


def _once(found: Counter[Any], what: str) -> None:
    if twice := {one: times for one, times in found.items() if times > 1}:
        raise InvariantViolated(f"{what} that are there more than once: {twice}")


def sound(engine: Engine, run_id: str) -> list[Event]:
    """The history of a run, which is in order, has one answer to each command, and replays."""
    row = engine._store.run_row(engine._store.run_key(run_id))
    rows = engine._store.history(row.run)
    invariants.in_order(rows)
    invariants.recorded_once(rows)
    definition = engine.workflows[row.workflow]
    found: list[BaseException] = []

    def replay() -> None:
        try:
            invariants.replay(lambda: kernel_of(row, definition, engine._codec), rows)
        except BaseException as error:
            found.append(error)

    asyncio.get_running_loop().call_soon(replay)
    return rows


# --- forks ----------------------------------------------------------------------------------------


def forks_of_tree(seed: int) -> int:
    """A tree of `grown` in which something went wrong, forked at every row of every history,
    children included.
    """
    node, leaves = grown(seed)
    messages = sum(kind == "message" for kind, _ in leaves)
    _world.broken, _world.attempts = _wrong(leaves, rng.Random(f"forks {seed}")), []
    with tempfile.TemporaryDirectory() as folder:
        stage = _Stage(folder, seed)
        return int(stage.harness.run(_fork_all(stage, node, messages)))


async def _fork_all(stage: _Stage, node: list[Any], messages: int) -> int:
    async with stage.engine() as engine:
        await stage.begin(engine, node, messages)
        await outcome(engine, "r")
        _world.broken = {
            n: how for n, how in _world.broken.items() if how == "bug"
        }  # the code stays as it is
        tried = 0
        children = [
            row.id
            for name in ("part", "deeper")
            for row in await engine.runs(workflow=name, limit=5)
        ]
        for source in ["r", *children]:
            await outcome(engine, source)  # one that was started may be at work yet
            rows = sound(engine, source)
            for at in range(1, len(rows) + 1):
                before = await _arrived(engine)
                attempts = len(_world.attempts)
                fork = await engine.fork(source, at, new_id=f"f{tried}")
                kept = _kept(engine, fork.id)
                received = sum((row.kind, row.name) == (ev.MESSAGE, "a") for row in kept)
                with contextlib.suppress(RunFinished):
                    for n in range(received, messages if source == "r" else 0):
                        await fork.send(n + 1, channel="a")
                await outcome(engine, fork.id)
                _forked_well(rows, kept, sound(engine, fork.id), at)
                _sent_once(rows, kept, at, await _arrived(engine) - before)
                if strangers := {key for _, key in _world.attempts[attempts:]} & {
                    key for _, key in _world.attempts[:attempts]
                }:
                    raise InvariantViolated(
                        f"The fork at row {at} of {source} has used keys of others again: "
                        f"{strangers}"
                    )
                tried += 1
        return tried


def _kept(engine: Engine, fork_id: str) -> list[Event]:
    rows = engine._store.history(engine._store.run_key(fork_id))
    note = next((row.seq for row in rows if row.name and cut_of(row) is not None), 1)
    return [row for row in rows if row.seq < note]


async def _arrived(engine: Engine) -> Counter[Any]:
    await asyncio.sleep(0.1)  # virtual time: until all that is on its way has arrived
    return Counter(event.data for event in await engine.history("sink") if event.kind == ev.MESSAGE)


def _forked_well(rows: list[Event], kept: list[Event], now: list[Event], at: int) -> None:
    for one, two, row in zip(
        invariants.facts(rows[: len(kept)]), invariants.facts(now[: len(kept)]), now, strict=False
    ):
        if one != two and not row.edited:
            raise InvariantViolated(
                f"A fork at row {at} was given row {row.seq} as\n  {two}\nwhich is\n  {one}"
            )


def _sent_once(rows: list[Event], kept: list[Event], at: int, arrived: Counter[Any]) -> None:
    """What the source has sent before the cut does not arrive again."""
    before = [row for row in rows if row.kind == ev.SEND and row.seq <= len(kept) and row.seq != at]
    sent = {msgspec.json.decode(invariants._payload(row))["value"] for row in before}
    if again := {value for value in arrived if value in sent}:
        raise InvariantViolated(f"A fork at row {at} has sent again what was sent before: {again}")


def forks_of_case(case: Case, seed: int) -> int:
    """A workflow of the corpus or a random program, forked at every row: none is blocked, none
    breaks a constraint.
    """
    with tempfile.TemporaryDirectory() as folder:
        return int(
            CrashHarness(f"{folder}/f.db", seed=seed).run(
                _fork_case(CrashHarness(f"{folder}/g.db", seed=seed), case)
            )
        )


async def _fork_case(harness: CrashHarness, case: Case) -> int:
    async with harness.engine() as engine:
        timeout = None if case.timeout_ms is None else case.timeout_ms / 1000
        run = await engine.start(case.call, id="r", timeout=timeout)
        await _tell(run, case)
        await outcome(engine, "r")
        rows = sound(engine, "r")
        for at in range(1, len(rows) + 1):
            fork = await engine.fork("r", at, new_id=f"f{at}")
            kept = _kept(engine, fork.id)
            await _tell(fork, case, *(
                sum(row.kind == kind for row in kept) for kind in (ev.MESSAGE, ev.REQUEST)
            ))  # fmt: skip
            await outcome(engine, fork.id)
            _forked_well(rows, kept, sound(engine, fork.id), at)
            if await fork.status() in ("failed", "cancelled"):
                await engine.retry(fork.id)
                await outcome(engine, fork.id)
                sound(engine, fork.id)
        return len(rows)


async def _tell(run: Any, case: Case, first: int = 0, first_request: int = 0) -> None:
    with contextlib.suppress(RunFinished):
        for channel, data in case.messages[first:]:
            await run.send(msgspec.json.decode(data), channel=channel)
        for channel, data in case.requests[first_request:]:
            with contextlib.suppress(RequestTimeout, RequestRefused, RequestUnanswered):
                await run.ask(msgspec.json.decode(data), channel=channel, timeout=0)
    if case.cancelled:
        await asyncio.sleep(0.03)
        if await run.status() not in ("completed", "failed", "cancelled"):
            await run.cancel()


# --- the campaign ---------------------------------------------------------------------------------

INVARIANTS = {
    "retries": retries_repair,
    "retries with crashes": lambda seed: retries_repair(seed, crash=True),
    "retries by a client": lambda seed: retries_repair(seed, client=True),
    "forks of trees": forks_of_tree,
    "forks of programs": lambda seed: forks_of_case(program(seed), seed),
}


def forks(seeds: range) -> Iterator[Count]:
    """Retry and fork at every row: nothing is blocked, lost, or done twice, and what is repaired
    ends as if it had been right.
    """
    for seed in seeds:
        for name, invariant in INVARIANTS.items():
            yield _tried(
                f"{name}, seed {seed}", lambda invariant=invariant, seed=seed: invariant(seed)
            )
        for case in CASES:
            yield _tried(
                f"forks of {case.name}, seed {seed}",
                lambda case=case, seed=seed: forks_of_case(case, seed),
            )


def _tried(what: str, invariant: Any) -> Count:
    found = Count(what)
    try:
        found.checks = invariant()
    except Exception as error:
        found.broken = f"{type(error).__name__}: {error}"
    return found
