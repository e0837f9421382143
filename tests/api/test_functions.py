"""What `@step` and `@workflow` may decorate: each shape of a function works, or is refused where it
is defined, by an error that says
what to do."""

from __future__ import annotations

import asyncio
import functools
import math
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any, ParamSpec, TypeVar, overload

import pytest

from perdure import Call, DefinitionError, Engine, Step, receive, step, workflow
from tests.runtime.support import awaited, executed_again, reached

P = ParamSpec("P")
T = TypeVar("T")


def logged(fn: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """A decorator as libraries write them."""

    @functools.wraps(fn)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        return await fn(*args, **kwargs)

    return wrapper


def careless(fn: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """A decorator whose wrapper does not say that it gives something to await."""

    @functools.wraps(fn)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return fn(*args, **kwargs)

    return wrapper


class Prices:
    """Steps and workflows as static methods, the decorators in both orders, and in a
    nested class."""

    @staticmethod
    @step
    async def of(item: str) -> int:
        return len(item)

    @step
    @staticmethod
    def twice(n: int) -> int:
        return 2 * n

    @step
    def bare(n: int) -> int:  # noqa: N805
        return n + 1

    class Own:
        @staticmethod
        @workflow
        async def total(items: list[str]) -> int:
            return sum(await asyncio.gather(*map(Prices.of, items)))

        @workflow
        @staticmethod
        async def child(items: list[str]) -> int:
            return await Prices.twice(await Prices.Own.total(items)) + await Prices().bare(0)


class Client:
    """An object that can't be recorded."""

    def __init__(self, factor: int) -> None:
        self.factor, self.lock = factor, threading.Lock()

    def scale(self, n: int) -> int:
        return self.factor * n

    async def slowly(self, n: int) -> int:
        return self.factor * n

    @classmethod
    async def double(cls, n: int) -> int:
        return cls(2).scale(n)

    def __call__(self, n: int) -> int:
        return self.factor * n


# --- what works -----------------------------------------------------------------------------------


@awaited
async def test_static_methods_in_either_order_run_are_found_as_children_and_named_by_their_class(
    db: str,
) -> None:
    async with Engine(db, workflows=[Prices.Own.child]) as engine:
        assert await engine.run(Prices.Own.child(["ab", "c"]), id="p") == 7
        assert {info.workflow for info in await engine.runs()} == {
            "Prices.Own.child",
            "Prices.Own.total",
        }
        names = [
            event.name for event in await engine.history("p") if event.kind in ("step", "child")
        ]
        assert names == ["Prices.Own.total", "Prices.twice", "Prices.bare"]
    assert await Prices().of("abc") == 3  # as any static method, by an instance too
    assert Prices.twice.fn(4) == 8


@awaited
async def test_a_child_that_is_a_static_method_is_known_after_a_restart(db: str) -> None:
    class Jobs:
        class Parts:
            @staticmethod
            @workflow
            async def part() -> int:
                return await receive("n", int)

        @staticmethod
        @workflow
        @logged
        async def whole() -> int:
            return await Jobs.Parts.part.options(id="part")()

    async with Engine(db, execute=False) as client:
        await client.start(Jobs.whole(), id="whole")
    async with Engine(db, workflows=[Jobs.whole]) as engine:
        assert set(engine.workflows) == {"Jobs.whole", "Jobs.Parts.part"}  # also behind a decorator
        await reached(await engine.get("whole"), "waiting")
        await engine.send("part", 5, channel="n")
    assert await executed_again(db, [Jobs.whole], "whole") == 5


@awaited
async def test_bound_methods_are_steps_whose_object_belongs_to_the_process(db: str) -> None:
    client = Client(3)
    scale, slowly, double, called = (
        step(client.scale),
        step(client.slowly),
        step(Client.double),
        step(client.__call__),
    )

    @workflow
    async def bound() -> list[int]:
        return [await one(2) for one in (scale, slowly, double, called)]

    async with Engine(db, workflows=[bound]) as engine:
        assert await engine.run(bound(), id="b") == [6, 6, 4, 6]
        history = await engine.history("b")
    steps = [(event.name, event.args) for event in history if event.kind == "step"]
    assert [name for name, _ in steps] == [
        "Client.scale",
        "Client.slowly",
        "Client.double",
        "Client.__call__",
    ]
    assert all(data == {"n": 2} for _, data in steps), steps


@awaited
async def test_every_kind_of_parameter_reaches_the_function_as_given(db: str) -> None:
    @step
    async def shapes(
        a: int, /, b: int = 2, *rest: int, c: int, d: int = 4, **more: int
    ) -> list[Any]:
        return [a, b, list(rest), c, d, more]

    @workflow
    async def calls(a: int, /, *rest: int, c: int = 1, **more: int) -> list[Any]:
        return [await shapes(a, c=c), await shapes(a, 5, 6, 7, c=c, d=8, x=9), list(rest), more]

    async with Engine(db, workflows=[calls]) as engine:
        assert await engine.run(calls(1, 2, 3, c=4, z=5)) == [
            [1, 2, [], 4, 4, {}],
            [1, 5, [6, 7], 4, 8, {"x": 9}],
            [2, 3],
            {"z": 5},
        ]
    untyped: Any = shapes
    for args, kwargs in [((), {"c": 1}), ((1,), {}), ((1, 2), {"b": 3, "c": 1})]:
        with pytest.raises(TypeError, match="argument"):
            untyped(*args, **kwargs)


@awaited
async def test_decorators_between_built_in_functions_caches_and_overloads(db: str) -> None:
    @step
    @logged
    async def between(n: int) -> int:
        return n + 1

    @step
    @functools.cache
    def cached(n: int) -> int:
        return n + 2

    @overload
    def either(n: int) -> Call[int]: ...
    @overload
    def either(n: str) -> Call[str]: ...
    @step
    def either(n: Any) -> Any:
        return n

    @logged
    @step
    async def above(n: int) -> int:
        return n + 3

    root = step(math.isqrt)
    half = step(name="half")(lambda n: n // 2)

    @workflow
    async def mixed() -> list[int]:
        return [
            await between(1),
            await cached(1),
            await either(1),
            await above(1),
            await root(16),
            await half(8),
        ]

    async with Engine(db, workflows=[mixed]) as engine:
        assert await engine.run(mixed(), id="m") == [2, 3, 1, 4, 4, 4]
        names = [event.name for event in await engine.history("m") if event.kind == "step"]
    assert names == ["between", "cached", "either", "above", "isqrt", "half"]


@awaited
async def test_local_functions_are_named_without_what_is_around_them(db: str) -> None:
    def made(n: int) -> Step[[], int]:
        @step
        async def local() -> int:
            return n

        return local

    first, second = made(1), made(2)

    @workflow
    async def closures() -> list[int]:
        return [await first(), await second()]

    assert (first.name, closures.name) == ("local", "closures")
    async with Engine(db, workflows=[closures]) as engine:
        assert await engine.run(closures()) == [1, 2]


# --- what is refused ------------------------------------------------------------------------------


def methods() -> Iterator[tuple[str, Callable[[], Any], str]]:
    def method() -> Any:
        class Shop:
            @step
            def pay(self, amount: int) -> None: ...

        return Shop

    def wrapped_method() -> Any:
        class Shop:
            @workflow
            @logged
            async def order(self) -> None: ...

        return Shop

    def class_method_above() -> Any:
        class Shop:
            @classmethod
            @step
            def pay(cls, amount: int) -> None: ...

        return Shop

    def class_method_below() -> Any:
        class Shop:
            @workflow
            @classmethod
            async def order(cls) -> None: ...

        return Shop

    yield (
        "method",
        method,
        (
            r"Shop\.pay takes its instance as an argument.*@staticmethod.*`pay = "
            r"step\(the_instance\.pay\)`"
        ),
    )
    yield "wrapped", wrapped_method, r"Shop\.order takes its instance"
    yield (
        "later",
        lambda: step(Client.scale),
        r"step Client\.scale takes its instance as an argument",
    )
    yield (
        "cls above",
        class_method_above,
        r"Shop\.pay takes its class as an argument.*`pay = step\(the_class\.pay\)`",
    )
    yield (
        "cls below",
        class_method_below,
        r"Shop\.order takes its class as an argument.*workflow\(the_class\.order\)",
    )


def others() -> Iterator[tuple[str, Callable[[], Any], str]]:
    async def items() -> AsyncIterator[int]:
        yield 1

    def numbers() -> Iterator[int]:
        yield 1

    async def plain() -> None: ...

    def sync() -> None: ...

    once: Any = step
    decide: Any = workflow
    function = r"decorates functions, not .*Write a function that calls it"
    yield "partial", lambda: once(functools.partial(math.isqrt, 4)), function
    yield "partialmethod", lambda: once(functools.partialmethod(print, 1)), function
    yield "class", lambda: once(Client), function
    yield "object", lambda: once(Client(1)), function
    yield "property", lambda: once(property(len)), function
    yield "nothing", lambda: once(name="x")(None), function
    yield "no signature", lambda: once(max), "no signature found.*Write a function that calls it"
    yield "lambda", lambda: once(lambda: 1), r"A lambda has no name.*step\(name=\"\.\.\.\"\)"
    yield "generator", lambda: once(numbers), "numbers is a generator; return a list, or emit"
    yield "async generator", lambda: once(items), "items is a generator"
    yield "static generator", lambda: once(staticmethod(items)), "items is a generator"
    yield "plain workflow", lambda: decide(sync), "must be an `async def`"
    yield (
        "careless step",
        lambda: once(careless(plain)),
        "wrapper is a plain function, so nothing would await it.*above @step",
    )
    yield (
        "careless workflow",
        lambda: decide(careless(plain)),
        "wrapper is a plain function.*above @workflow",
    )
    yield "twice", lambda: once(once(plain)), "<step plain> is decorated already"
    yield "both", lambda: once(decide(plain)), "<workflow plain> is decorated already"
    yield "both, below a decorator", lambda: once(logged(decide(plain))), "is decorated already"


REFUSED = [*methods(), *others()]


@pytest.mark.parametrize(
    ("define", "says"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED]
)
def test_what_can_not_work_is_refused_where_it_is_defined(
    define: Callable[[], Any], says: str
) -> None:
    with pytest.raises(DefinitionError, match=says):
        define()


@awaited
async def test_two_workflows_of_one_name_are_refused_and_classes_tell_them_apart(db: str) -> None:
    class One:
        @staticmethod
        @workflow
        async def same() -> int:
            return 1

    class Two:
        @staticmethod
        @workflow
        async def same() -> int:
            return 2

    @workflow
    async def same() -> int:
        return 3

    other = workflow(name="One.same")(same.fn)
    async with Engine(db, workflows=[One.same, Two.same, same]) as engine:
        assert [await engine.run(one()) for one in (One.same, Two.same, same)] == [1, 2, 3]
    with pytest.raises(
        DefinitionError, match=r"Two workflows are called 'One\.same'.*give one of them a name="
    ):
        Engine(db, workflows=[One.same, other])
