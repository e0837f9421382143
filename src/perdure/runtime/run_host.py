"""The host of a run in memory: what a run needs of its scheduler, and what a host sees of a run.

Rules: this module knows neither the scheduler nor the run; both sides depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from perdure.api.definitions import Workflow
from perdure.codec.json_codec import JsonCodec
from perdure.runtime.durability import DurabilityGate
from perdure.runtime.plans import Block
from perdure.runtime.queues import Lines
from perdure.runtime.read_executor import ReadExecutor
from perdure.runtime.steps import Steps
from perdure.runtime.writer import Writer
from perdure.store.base import Store
from perdure.store.writes import Finish, StartRun


class RunHost(Protocol):
    """What a run needs of its scheduler."""

    @property
    def owner(self) -> int:
        """The number of this worker: its runs belong to it."""
        ...

    writer: Writer
    steps: Steps
    store: Store
    reads: ReadExecutor
    workflows: dict[str, Workflow[..., Any]]
    codec: JsonCodec
    history_rows_max: int
    gate: DurabilityGate | None
    lines: Lines

    def register(self, definition: Any) -> None:
        """Make a workflow known here. Raises `DefinitionError` if its name is taken."""
        ...

    def new_run(self, start: StartRun, at_ms: int) -> StartRun:
        """Complete a start: a seed, and an owner where the run can be executed here at once."""
        ...

    def woken(self, runs: list[int]) -> None:
        """These runs have news."""
        ...

    def when_news(self, run: int, act: Callable[[], None]) -> None:
        """Call `act` once, when there is news of a run."""
        ...

    def released(self, result: Any) -> None:
        """Places were given back, and perhaps others admitted: the `Written` of that."""
        ...

    def spent(self, result: Any) -> None:
        """What an attempt has spent was committed, or refused."""
        ...

    def emitted(self, replied: Sequence[int] = ()) -> None:
        """Stream items, exposed values or replies to these requests were committed."""
        ...

    def parked(self, run: HostedRun) -> None:
        """The run waits for something from outside: it may be evicted."""
        ...

    def unparked(self, run: HostedRun) -> None:
        """The run waits no longer."""
        ...

    def run_ends(self) -> None:
        """The end of a run is about to be written."""
        ...

    def ended(self, run: HostedRun, how: Finish | Block | bool = False) -> None:
        """The run has left memory, and the file says so; `how` is its end, if it has ended."""
        ...

    def lease_lost(self, run: HostedRun) -> None:
        """The run belongs to another worker."""
        ...


class HostedRun(Protocol):
    """What a host sees of a run in memory."""

    run: int
    gone: bool
    child: bool
    """Whether another run waits for it."""

    @property
    def run_id(self) -> str: ...

    @property
    def workflow(self) -> str: ...

    @property
    def blocked(self) -> bool: ...

    @property
    def at_its_end(self) -> bool:
        """Whether its workflow has come to its end."""
        ...

    def evict(self) -> None: ...
