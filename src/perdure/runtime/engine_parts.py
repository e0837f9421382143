"""The parts of an open engine, for the verbs that use them.

Rules: a verb of an engine that is not open, or that was opened before a fork, raises an error of
Perdure's; what is read comes inline or from a thread, as the store is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from perdure.api.definitions import Workflow
from perdure.codec.json_codec import JsonCodec
from perdure.core.limits import Limits
from perdure.errors import EngineClosed, UsedAfterFork
from perdure.process.clock import SystemClock
from perdure.runtime.control import Control
from perdure.runtime.opening import OpenEngine
from perdure.runtime.options import EngineOptions
from perdure.runtime.queries import Queries
from perdure.runtime.results import Results
from perdure.runtime.scheduler import Scheduler
from perdure.store.sqlite.driver import SqliteStore

P = ParamSpec("P")
T = TypeVar("T")


class EngineParts:
    """What an engine consists of; see the module's text. `Engine` sets the attributes."""

    path: str
    limits: Limits
    workflows: dict[str, Workflow[..., Any]]
    _options: EngineOptions
    _clock: SystemClock
    _codec: JsonCodec
    _open: OpenEngine | None
    _parent: int | None

    @property
    def _store(self) -> SqliteStore:
        return self._parts().store

    @property
    def _scheduler(self) -> Scheduler:
        return self._parts().scheduler

    def _parts(self) -> OpenEngine:
        if self._open is None:
            raise EngineClosed if self._parent is None else UsedAfterFork(self._parent)
        return self._open

    async def _read(self, read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a read of the store, inline or from a thread as the store is."""
        return await self._scheduler.reads.get(read, *args, **kwargs)

    @property
    def _control(self) -> Control:
        return self._parts().control

    @property
    def _queries(self) -> Queries:
        return self._parts().queries

    @property
    def _results(self) -> Results:
        return self._parts().results
