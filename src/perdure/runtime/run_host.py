"""The host of runs in memory, as they see it: what an active run needs of its scheduler.

Rules: a run knows its scheduler by this alone, so that the kit for tests can stand in for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from perdure.codec.json_codec import JsonCodec
from perdure.runtime.durability import DurabilityGate
from perdure.runtime.read_executor import ReadExecutor
from perdure.runtime.steps import Steps
from perdure.runtime.writer import Writer
from perdure.store.base import Store
from perdure.store.writes import Finish, StartRun

if TYPE_CHECKING:
    from perdure.runtime.run import ActiveRun


class RunHost(Protocol):
    """What an active run needs of its scheduler."""

    @property
    def owner(self) -> int: ...

    writer: Writer
    steps: Steps
    store: Store
    reads: ReadExecutor
    codec: JsonCodec
    workflows: dict[str, Any]
    history_rows_max: int
    gate: DurabilityGate | None

    def register(self, definition: Any) -> None: ...

    def new_run(self, start: StartRun, at_ms: int) -> StartRun: ...

    def woken(self, runs: list[int]) -> None: ...

    def emitted(self) -> None: ...

    def parked(self, active: ActiveRun) -> None: ...

    def unparked(self, active: ActiveRun) -> None: ...

    def ended(self, active: ActiveRun, how: Finish | bool = False) -> None: ...

    def lease_lost(self, active: ActiveRun) -> None: ...
