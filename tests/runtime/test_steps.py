"""An attempt: whose context variables it sees, and what a retry policy that fails makes of it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import threading
import weakref
from typing import Any

import pytest

from perdure import Engine, Retry, RunFailed, StepFailed, current_step, receive, step, workflow
from tests.runtime.support import awaited

tenant = contextvars.ContextVar("tenant", default="nobody")


@step(retry=Retry(attempts=2, delay=0))
async def look() -> str:
    found = tenant.get()
    tenant.set("an attempt before")
    if current_step().attempt == 1:
        raise ConnectionError("once more")
    return found


@step(retry=Retry(attempts=2, delay=0))
def look_in_a_thread() -> str:
    found = tenant.get()
    tenant.set("an attempt before")
    if current_step().attempt == 1:
        raise ConnectionError("once more")
    return found


@step(retry=Retry(attempts=2, delay=0.001), transactional=True)
def look_in_a_transaction(db: Any) -> str:
    found = tenant.get()
    tenant.set("an attempt before")
    if current_step().attempt == 1:
        raise ConnectionError("once more")
    return found


@step(readonly=True)
async def look_ahead() -> str:
    return tenant.get()


STEPS = (look, look_in_a_thread, look_in_a_transaction, look_ahead)


@workflow
async def plain() -> list[str]:
    found = [await one() for one in STEPS]
    await receive("go", bool)
    found += [await one() for one in STEPS]
    await asyncio.sleep(0.001)
    return found + [await one() for one in STEPS]


@workflow
async def sets_its_own(name: str) -> list[str]:
    tenant.set(name)

    async def inner() -> list[str]:
        tenant.set(name + " inside")
        return [await one() for one in STEPS]

    found = await asyncio.create_task(inner())
    await receive("go", bool)
    return found + [await one() for one in STEPS]


async def as_a_request(engine: Engine, name: str) -> None:
    tenant.set(name)
    await engine.start(plain(), id=f"plain-{name}")
    await engine.start(sets_its_own(name), id=f"own-{name}")
    for run_id in (f"plain-{name}", f"own-{name}"):
        await engine.send(run_id, True, channel="go")


@awaited
async def test_steps_see_what_their_workflow_code_has_set_and_nothing_of_any_caller(
    db: str,
) -> None:
    tenant.set("the engine's opener")
    async with Engine(db, workflows=[plain, sets_its_own]) as engine:
        await asyncio.gather(
            *(asyncio.create_task(as_a_request(engine, name)) for name in ("ada", "bob"))
        )
        for name in ("ada", "bob"):
            assert await (await engine.get(f"plain-{name}")).result() == ["nobody"] * 12
            assert (
                await (await engine.get(f"own-{name}")).result()
                == [f"{name} inside"] * 4 + [name] * 4
            )


@awaited
async def test_after_a_restart_too(db: str) -> None:
    async with Engine(db, workflows=[sets_its_own]) as engine:
        run = await engine.start(sets_its_own("ada"), id="r")
        while (await run.info()).status != "waiting" or "message" not in (  # noqa: ASYNC110
            await run.info()
        ).waiting_for[0]:
            await asyncio.sleep(0.003)
    tenant.set("another life")
    async with Engine(db, workflows=[sets_its_own]) as engine:
        await engine.send("r", True, channel="go")
        assert await (await engine.get("r")).result() == ["ada inside"] * 4 + ["ada"] * 4


class Request:
    """What a web framework keeps in a context variable."""


request: contextvars.ContextVar[Request] = contextvars.ContextVar("request")


@awaited
async def test_an_engine_keeps_nobodys_variables_alive(db: str) -> None:
    @workflow
    async def waits() -> None:
        await asyncio.sleep(3_600)

    async def serve(engine: Engine) -> weakref.ref[Request]:
        made = Request()
        request.set(made)
        await engine.start(waits(), id="w")
        await engine.send("w", 1, channel="c")
        await engine.pause("w")
        await engine.resume("w")
        return weakref.ref(made)

    async with Engine(db, workflows=[waits]) as engine:
        kept = await asyncio.create_task(serve(engine))
        await engine.run(plain_sum())
        gc.collect()
        assert kept() is None


@workflow
async def plain_sum() -> int:
    return 1


@awaited
async def test_what_a_step_starts_with_a_copy_of_its_context_has_its_current_step(db: str) -> None:
    @step
    async def starts() -> list[int]:
        seqs: list[int] = []

        async def task() -> None:
            seqs.append(current_step().seq)

        await asyncio.create_task(task())
        await asyncio.to_thread(lambda: seqs.append(current_step().seq))
        thread = threading.Thread(
            target=contextvars.copy_context().run, args=(lambda: seqs.append(current_step().seq),)
        )
        thread.start()
        await asyncio.to_thread(thread.join)
        return seqs

    @workflow
    async def main() -> list[int]:
        return await starts()

    async with Engine(db, workflows=[main]) as engine:
        assert await engine.run(main()) == [2, 2, 2]


class Holder:
    """Something in a context variable that holds the run's own task."""

    def __init__(self) -> None:
        self.task = asyncio.current_task()


holder: contextvars.ContextVar[Holder] = contextvars.ContextVar("holder")


@awaited
async def test_a_run_that_left_memory_with_a_step_open_is_freed_whatever_its_variables_hold(
    db: str,
) -> None:
    kept: list[weakref.ref[Holder]] = []

    @step(retry=Retry(attempts=2, delay=3_600, max_delay=3_600))
    async def down() -> None:
        raise ConnectionError("503")

    @workflow
    async def main() -> None:
        made = Holder()
        holder.set(made)
        kept.append(weakref.ref(made))
        del made
        await down()

    async with Engine(db, workflows=[main]) as engine:
        run = await engine.start(main())
        while await run.status() != "waiting":  # noqa: ASYNC110
            await asyncio.sleep(0.003)
    del run, engine
    gc.collect()
    assert [one() for one in kept] == [None]


class Odd(type):
    """A class whose `isinstance` raises."""

    def __instancecheck__(cls, instance: object) -> bool:
        raise RuntimeError("no instance check today")


class OddError(Exception, metaclass=Odd):
    pass


class OddRetry(Retry):
    def wait_ms(self, attempt: int, key: str) -> int:
        return float("nan")  # type: ignore[return-value]


class NeverEnds(Retry):
    def wait_ms(self, attempt: int, key: str) -> int:
        return 10**30


@awaited
@pytest.mark.parametrize(
    "retry", [Retry(on=OddError), OddRetry(), NeverEnds()], ids=["on", "nan", "huge"]
)
@pytest.mark.parametrize("kind", ["async", "thread", "transaction"])
async def test_a_retry_policy_that_fails_fails_the_step_by_name(
    db: str, retry: Retry, kind: str
) -> None:
    async def in_the_loop() -> None:
        raise ConnectionError("503")

    def in_a_thread() -> None:
        raise ConnectionError("503")

    def in_a_transaction(db: Any) -> None:
        raise ConnectionError("503")

    made: Any = {
        "async": lambda: step(retry=retry)(in_the_loop),
        "thread": lambda: step(retry=retry)(in_a_thread),
        "transaction": lambda: step(transactional=True, retry=retry)(in_a_transaction),
    }[kind]()

    @workflow
    async def main() -> None:
        await made()

    async with Engine(db, workflows=[main, plain_sum]) as engine:
        with pytest.raises(RunFailed) as failed:
            await engine.run(main())
        assert isinstance(failed.value.__cause__, StepFailed)
        assert (
            f"step {made.name} failed (ConnectionError), and its retry policy could not be applied"
            in str(failed.value)
        )
        assert await engine.run(plain_sum()) == 1
