"""Decorators: `@step`, `@workflow`, and their calls as values.

Rules: no I/O and no store here; a definition that can't work is an error at the decorator.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Generator
from datetime import timedelta
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, cast, overload

from perdure.api import functions, queues
from perdure.api.options import Durability, OnCrash, Options, changed, check_step
from perdure.core import names
from perdure.core.guard import inside as _inside
from perdure.core.numbers import shown
from perdure.core.retry import Retry
from perdure.errors import DefinitionError, NotInWorkflow

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
_KEEP: Any = object()  # an option that a call does not change


# --- definitions ----------------------------------------------------------------------------------


class Definition(Generic[P, T]):
    """A decorated function. Calling it makes a `Call`; `fn` is the bare function."""

    kind: Literal["step", "workflow"]

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        options: Options,
        scope: dict[str, Any] | None = None,
    ) -> None:
        self.fn = fn
        self.name = names.checked("name of a step or a workflow", name)
        self.call_options = options
        self.is_async = inspect.iscoroutinefunction(fn)
        # the locals around a nested function, for its annotations
        self.scope = scope
        self.signature = functions.signature_of(fn)
        if options.transactional:
            self.signature = functions.without_first(self.signature, name)
        self._fixed = functions.fixed_arity(self.signature)
        self.compiled: Any = None  # the codec's compiled signature
        self.choices: dict[int, Any] = {}  # compiled functions of keys and weights
        if options.key is not None or options.weight != 1:
            queues.check_choices(self)
        self.__name__ = getattr(fn, "__name__", name)
        self.__qualname__ = getattr(fn, "__qualname__", name)
        self.__doc__ = fn.__doc__
        self.__module__ = fn.__module__
        self.__wrapped__ = fn
        # What libraries ask to know whether to await a call of it: inspect from Python 3.12 on,
        # asyncio before.
        if sys.version_info >= (3, 12):
            inspect.markcoroutinefunction(self)
        else:
            self._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Call[T]:
        low, high = self._fixed
        if kwargs or not low <= len(args) <= high:
            self.signature.bind(
                *args, **kwargs
            )  # raises the TypeError that Python itself would raise
        return Call(self, args, kwargs, self.call_options)

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"

    def _with(self, options: dict[str, Any]) -> Any:
        clone = object.__new__(type(self))
        clone.__dict__.update(self.__dict__)
        clone.call_options = changed(self.call_options, options, f"{self.kind} {self.name}")
        if "key" in options or "weight" in options:
            queues.check_choices(clone)
        return clone


class Step(Definition[P, T]):
    """A step: a function that does something, whose outcome is recorded once. Made by `@step`.

    Calling it makes a `Call`. `fn` is the bare function, `name` is what the history records.
    """

    kind = "step"

    def options(
        self,
        *,
        retry: Retry | int | None = _KEEP,
        timeout: float | timedelta | None = _KEEP,
        readonly: bool = _KEEP,
        on_crash: OnCrash = _KEEP,
        durability: Durability | None = _KEEP,
        queue: str | None = _KEEP,
        key: str | Callable[..., str | None] | None = _KEEP,
        weight: int | Callable[..., int] = _KEEP,
    ) -> Step[P, T]:
        """The same step with other options for the calls made from it:
        `fetch.options(timeout=5)(url)`.
        """
        given = {
            "retry": retry,
            "timeout": timeout,
            "readonly": readonly,
            "on_crash": on_crash,
            "durability": durability,
            "queue": queue,
            "key": key,
            "weight": weight,
        }
        return cast("Step[P, T]", self._with({k: v for k, v in given.items() if v is not _KEEP}))


class Workflow(Definition[P, T]):
    """A workflow: an async function that decides. Made by `@workflow`.

    Calling it makes a `Call`, for `Engine.start` or to be awaited in another workflow. `fn` is the
    bare function, `name` is what the history records.
    """

    kind = "workflow"

    def options(
        self,
        *,
        id: str | None = _KEEP,
        queue: str | None = _KEEP,
        timeout: float | timedelta | None = _KEEP,
        durability: Durability | None = _KEEP,
        key: str | Callable[..., str | None] | None = _KEEP,
        weight: int | Callable[..., int] = _KEEP,
    ) -> Workflow[P, T]:
        """The same workflow with other options for the calls made from it:
        `review.options(id="r-1")(text)`.
        """
        given = {
            "id": id,
            "queue": queue,
            "timeout": timeout,
            "durability": durability,
            "key": key,
            "weight": weight,
        }
        return cast(
            "Workflow[P, T]", self._with({k: v for k, v in given.items() if v is not _KEEP})
        )


class _Awaited:
    """The state of an awaited call: like a coroutine, it refuses to begin again."""

    def send(self, value: Any) -> Any:
        raise RuntimeError(
            "cannot reuse a call that was awaited before; call the step or workflow again"
        )

    throw = send

    def close(self) -> None: ...


_AWAITED = _Awaited()


class _Once:
    """The coroutine that a task drives. A second task over the same call is refused."""

    __slots__ = ("_future", "_inner")

    def __init__(self, inner: Generator[Any, Any, Any]) -> None:
        self._inner = inner
        self._future: Any = None

    def send(self, value: Any) -> Any:
        if self._future is not None and not self._future.done():
            _AWAITED.send(value)
        self._future = self._inner.send(value)
        return self._future

    def throw(self, *error: Any) -> Any:
        return self._inner.throw(*error)

    def close(self) -> None:
        self._inner.close()


class Call(Coroutine[Any, Any, T_co]):
    """One call of a step or a workflow, as a value: awaitable, and a coroutine as far as asyncio is
    concerned.

    Awaited inside a workflow it is durable: a step is carried out once, a workflow becomes a child.
    A step that is awaited outside any workflow is just its function. A call is carried out once;
    call the step or the workflow again for another one.
    """

    __slots__ = ("_inner", "_number", "_warns", "args", "definition", "kwargs", "options")

    def __init__(
        self,
        definition: Definition[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: Options,
    ) -> None:
        self.definition, self.args, self.kwargs, self.options = definition, args, kwargs, options
        self._inner: Any = None
        self._number = 0
        self._warns = (
            _inside.loop is not None
        )  # made by workflow code, which then has to await it or hand it on

    def __await__(self) -> Generator[Any, Any, T_co]:
        if self._inner is not None:
            raise RuntimeError(
                f"{self!r} was awaited before; a call is carried out once, so call the "
                f"{self.definition.kind} again"
            )
        self._inner = _AWAITED
        loop = _inside.loop
        if loop is not None:
            return loop.owner.issue(self).__await__()  # type: ignore[no-any-return]
        if self.definition.kind == "workflow":
            raise NotInWorkflow(
                f"Awaiting workflow {self.definition.name}",
                "workflow; elsewhere start it with `await engine.run(call)`",
            )
        return cast("Generator[Any, Any, T_co]", self._plain().__await__())

    async def _plain(self) -> Any:
        """A step outside any workflow is the function that it wraps, so unit tests need nothing."""
        if self.options.transactional:
            raise NotInWorkflow(
                f"Awaiting transactional step {self.definition.name}",
                "workflow; in a unit test call `.fn(connection, ...)`",
            )
        if self.definition.is_async:
            return await self.definition.fn(*self.args, **self.kwargs)
        return self.definition.fn(*self.args, **self.kwargs)

    def send(self, value: Any) -> Any:
        if self._inner is None:
            self._inner = _Once(self.__await__())
        return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        if self._inner is None:  # cancelled before its first turn: nothing is carried out
            self.used()
            raise error[1] if len(error) > 1 and error[1] is not None else error[0]
        return self._inner.throw(*error)

    def close(self) -> None:
        if self._inner is None:
            self.used()
        elif self._inner is not _AWAITED:
            self._inner.close()

    def used(self) -> None:
        """Mark the call as passed on: it is not awaited."""
        self._inner = _AWAITED

    def __del__(self) -> None:
        # Only what workflow code drops within a turn: a run that leaves memory drops its calls
        # outside of one.
        if self._inner is None and self._warns and _inside.loop is not None and not _inside.muted:
            import warnings

            warnings.warn(
                (
                    f"{self.definition.kind} {self.definition.name} was called and never "
                    f"awaited: nothing is done"
                ),
                RuntimeWarning,
                2,
            )

    def __hash__(self) -> int:
        if not self._number:
            loop = _inside.loop
            self._number = id(self) if loop is None else loop.next_number()
        return self._number

    def __repr__(self) -> str:
        return f"<call of {self.definition!r}>"


@overload
def step(fn: Callable[P, Coroutine[Any, Any, T]], /) -> Step[P, T]: ...
@overload
def step(fn: Callable[P, T], /) -> Step[P, T]: ...
@overload
def step(
    *, transactional: Literal[True], name: str | None = ..., retry: Retry | int | None = ...
) -> Callable[[Callable[Concatenate[Any, P], T]], Step[P, T]]: ...
@overload
def step(
    *,
    name: str | None = ...,
    retry: Retry | int | None = ...,
    timeout: float | timedelta | None = ...,
    readonly: bool = ...,
    transactional: Literal[False] = ...,
    on_crash: OnCrash = ...,
    durability: Durability | None = ...,
    queue: str | None = ...,
    key: str | Callable[..., str | None] | None = ...,
    weight: int | Callable[..., int] = ...,
) -> _StepDecorator: ...
def step(fn: Any = None, /, *, name: str | None = None, **options: Any) -> Any:
    """Make a function a step: its outcome is recorded once, and survives the process.

    An `async def` runs on the engine's event loop, a plain `def` in a thread. In a class it is a
    `@staticmethod`, in either order; a method is decorated bound, `send = step(client.send)`,
    because its object is not recorded. Options: `name` (default: the function's, behind its class;
    it is what the history records), `retry` (a `Retry`, a number of attempts, or None for one
    attempt; default `Retry()`, three attempts), `timeout` of one attempt (seconds or timedelta),
    `readonly` (no effect outside, so it may run before the history that led to it is on disk),
    `transactional` (a plain `def` whose first argument is the store's connection: its writes and
    its checkpoint commit together), `on_crash` (when the process died during an attempt: "retry",
    "ask" a person, or "fail"), `durability` ("disk" or "replica": what the history has to be before
    the step begins; default: its run's). With a `queue` an attempt begins when that admits it,
    among the attempts of all processes; `key` is whom it is for (default: its run's key) and
    `weight` how many tokens of a `Rate` it takes: values, or functions of the step's arguments,
    `key=lambda tenant, **_: tenant`.

    Raises `DefinitionError` for options that can't work together, and for what is no function:
    methods, generators, partials.

    >>> @step(retry=Retry(attempts=5), timeout=60)
    ... async def add(a: int, b: int) -> int:
    ...     return a + b
    >>> asyncio.run(add(1, 2))  # outside a workflow it is just the function
    3
    """

    def decorate(function: Callable[..., Any]) -> Step[Any, Any]:
        function = functions.function_of(function, "step")
        chosen = changed(Options(), options, f"step {function.__name__}")
        check_step(function, chosen)
        known_as = functions.name_of(function, "step") if name is None else name
        return Step(function, known_as, chosen, functions.scope_of(function))

    return decorate if fn is None else decorate(fn)


@overload
def workflow(fn: Callable[P, Awaitable[T]], /) -> Workflow[P, T]: ...
@overload
def workflow(
    *,
    name: str | None = ...,
    timeout: float | timedelta | None = ...,
    queue: str | None = ...,
    durability: Durability | None = ...,
    key: str | Callable[..., str | None] | None = ...,
    weight: int | Callable[..., int] = ...,
) -> _WorkflowDecorator: ...
def workflow(fn: Any = None, /, *, name: str | None = None, **options: Any) -> Any:
    """Make an async function a workflow: code that decides, and is replayed over its history after
    a crash.

    Options: `name` (default: the function's), `timeout` of a whole run (seconds or timedelta),
    `queue` with `key` and `weight` (values, or functions of the arguments; see `Engine.start`),
    `durability` of its runs (default: the engine's, and for a child its parent's).
    Raises `DefinitionError` if the function is not an `async def`, or takes `self` or `cls`: see
    `step`.

    >>> @workflow
    ... async def double(n: int) -> int:
    ...     return n * 2
    >>> double(4)
    <call of <workflow double>>
    """

    def decorate(function: Callable[..., Any]) -> Workflow[Any, Any]:
        function = functions.function_of(function, "workflow")
        if not inspect.iscoroutinefunction(function):
            raise DefinitionError(
                f"Workflow {function.__name__} must be an `async def`; a plain function "
                f"can be a @step."
            )
        chosen = changed(Options(), options, f"workflow {function.__name__}")
        known_as = functions.name_of(function, "workflow") if name is None else name
        return Workflow(function, known_as, chosen, functions.scope_of(function))

    return decorate if fn is None else decorate(fn)


class _StepDecorator(Protocol):
    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, T]], /) -> Step[P, T]: ...
    @overload
    def __call__(self, fn: Callable[P, T], /) -> Step[P, T]: ...


class _WorkflowDecorator(Protocol):
    def __call__(self, fn: Callable[P, Awaitable[T]], /) -> Workflow[P, T]: ...


def workflow_call(call: Any, verb: str) -> Call[Any]:
    """The call, if it is a workflow's, marked as passed on. Raises `DefinitionError`."""
    if not isinstance(call, Call) or not isinstance(call.definition, Workflow):
        raise DefinitionError(
            f"{verb} takes the call of a workflow, as in {verb[:-2]}(agent('x')), not "
            f"{shown(call)}."
        )
    call.used()
    return call


def starting_call(call: Any, run_id: str) -> Call[Any]:
    """The call that begins the run which a message or a request is for, marked as passed on.

    Raises `DefinitionError` where it is no workflow's, or has another id.
    """
    if not isinstance(call, Call) or not isinstance(call.definition, Workflow):
        raise DefinitionError(
            f"start= takes the call of a workflow, as in start=agent('x'), not {shown(call)}."
        )
    call.used()
    if call.options.id not in (None, run_id):
        raise DefinitionError(
            f"start= is a call with the id {call.options.id!r}, and what is sent is for run "
            f"{run_id!r}: leave the id of the call out."
        )
    return call
