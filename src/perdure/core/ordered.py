"""Parts of asyncio whose order is the same in every process and Python; installed on import.

Rules: outside of workflow code nothing changes; inside, sets keep the order of insertion.
"""

from __future__ import annotations

import asyncio
import builtins
import sys
from asyncio import tasks as _asyncio_tasks
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType
from typing import Any

from perdure.core.loop import WorkflowLoop, running


class _OrderedSet(builtins.set[Any]):
    """A set in the order of insertion; outside workflow code a plain set is made."""

    def __new__(cls, items: Iterable[Any] = ()) -> Any:
        return builtins.set(items) if running() is None else super().__new__(cls)

    def __init__(self, items: Iterable[Any] = ()) -> None:
        self._order = dict.fromkeys(items)
        super().__init__(self._order)

    def __iter__(self) -> Iterator[Any]:
        return iter([item for item in self._order if item in self])

    def __repr__(self) -> str:
        return f"{{{', '.join(map(repr, self))}}}" if self else "set()"

    def add(self, item: Any) -> None:
        super().add(item)
        self._order[item] = None

    def update(self, *others: Iterable[Any]) -> None:
        for other in others:
            for item in other:
                self.add(item)

    def symmetric_difference_update(self, other: Iterable[Any]) -> None:
        for item in dict.fromkeys(other):
            if item in self:
                self.discard(item)
            else:
                self.add(item)

    def pop(self) -> Any:
        for item in self._order:
            if item in self:
                self.remove(item)
                return item
        raise KeyError("pop from an empty set")

    def copy(self) -> Any:
        return _ordered(self)

    def __ior__(self, other: Any) -> Any:  # type: ignore[misc]
        self.update(other)
        return self

    def __ixor__(self, other: Any) -> Any:  # type: ignore[misc]
        self.symmetric_difference_update(other)
        return self


def _ordered(items: Iterable[Any]) -> Any:
    """An ordered set, also outside workflow code: what is made of a workflow's set stays one."""
    made = builtins.set.__new__(_OrderedSet)
    _OrderedSet.__init__(made, items)
    return made


def _derive(name: str, in_place: str) -> Callable[..., Any]:
    def method(self: Any, *others: Any) -> Any:
        if name.startswith("__") and not isinstance(others[0], builtins.set | frozenset):
            return NotImplemented
        made = _ordered(self)
        getattr(made, in_place)(*others)
        return made

    method.__name__ = name
    return method


for _name, _in_place in {
    "union": "update",
    "__or__": "update",
    "intersection": "intersection_update",
    "__and__": "intersection_update",
    "difference": "difference_update",
    "__sub__": "difference_update",
    "symmetric_difference": "symmetric_difference_update",
    "__xor__": "symmetric_difference_update",
}.items():
    setattr(_OrderedSet, _name, _derive(_name, _in_place))


class _Gathering(_asyncio_tasks._GatheringFuture):  # type: ignore[misc,name-defined]
    """What `asyncio.gather` gives, with a stable hash."""

    def __init__(self, children: Any, *, loop: Any) -> None:
        super().__init__(children, loop=loop)
        self.number = loop.next_number() if isinstance(loop, WorkflowLoop) else id(self)

    def __hash__(self) -> int:
        return self.number


_all_tasks = asyncio.all_tasks


def _own_tasks(loop: Any = None) -> set[Any]:
    """Tasks of a run, oldest first, then those in an eager first step; elsewhere asyncio's."""
    found = running() if loop is None else loop
    if not isinstance(found, WorkflowLoop):
        return _all_tasks(loop)
    known = _OrderedSet(found.live_tasks())
    eager = _all_tasks(found) - known
    known.update(sorted(eager, key=lambda task: (len(task.get_name()), task.get_name())))
    return known


# `asyncio.wait` and `asyncio.as_completed` walk a set of what they get. Plain coroutines hash by
# address, so the walk would differ from process to process.
_asyncio_tasks.set = _OrderedSet  # type: ignore[attr-defined]
_asyncio_tasks._GatheringFuture = _Gathering  # type: ignore[attr-defined]
_asyncio_tasks.all_tasks = asyncio.all_tasks = _own_tasks


async def _wait_for(awaitable: Any, seconds: float | None) -> Any:
    """`asyncio.wait_for` as it is from Python 3.12 on: it awaits in the task that waits."""
    if seconds is None or seconds > 0:
        async with asyncio.timeout(seconds):
            return await awaitable
    task = asyncio.ensure_future(awaitable)
    if not task.done():
        await _asyncio_tasks._cancel_and_wait(task, asyncio.get_running_loop())  # type: ignore[attr-defined]
    try:
        return task.result()
    except asyncio.CancelledError as error:
        raise TimeoutError from error


def _gather(*awaitables: Any, return_exceptions: bool = False) -> Any:
    """`asyncio.gather` as it is from Python 3.12 on: what is done already counts at once."""
    ready = running()._ready  # type: ignore[union-attr]
    before = len(ready)
    gathering = _plain["gather"](*awaitables, return_exceptions=return_exceptions)
    fresh = [ready.pop() for _ in range(len(ready) - before)][::-1]
    names = {handle: getattr(handle._callback, "__qualname__", "") for handle in fresh}
    done = [one for one in fresh if names[one] == "gather.<locals>._done_callback"]
    ready.extend(handle for handle in fresh if handle not in done)
    for handle in done:
        handle._callback(*handle._args)
    return gathering


_plain: dict[str, Any] = {}


def _put(name: str, ours: Any, dispatch: Any) -> None:
    """Replace the code of a function of asyncio, so that imported names have it, too."""
    function = getattr(_asyncio_tasks, name)
    plain = _plain[name] = FunctionType(
        function.__code__, vars(_asyncio_tasks), name, function.__defaults__, function.__closure__
    )
    plain.__kwdefaults__ = function.__kwdefaults__
    setattr(
        _asyncio_tasks,
        f"_perdure_{name}",
        lambda: plain if (loop := running()) is None or loop.owner.facts.old else ours,
    )
    function.__code__ = dispatch.__code__


if sys.version_info < (3, 12):

    async def _dispatched_wait_for(fut: Any, timeout: float | None) -> Any:
        return await _perdure_wait_for()(fut, timeout)  # type: ignore[name-defined]  # noqa: F821

    def _dispatched_gather(*coros_or_futures: Any, return_exceptions: bool = False) -> Any:
        return _perdure_gather()(*coros_or_futures, return_exceptions=return_exceptions)  # type: ignore[name-defined]  # noqa: F821

    _put("wait_for", _wait_for, _dispatched_wait_for)
    _put("gather", _gather, _dispatched_gather)
