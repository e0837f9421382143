"""What holds back effects and answers until the history that led to them is in the replica.

Rules: without a replica there is no gate and nothing is asked; a readonly step and a transactional
one never wait, because nothing of them leaves the process; what is nearest decides: the step's
durability, then its run's, then the engine's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from perdure.api.options import Options
from perdure.errors import PerdureError


class Confirms(Protocol):
    """What knows when the replica has what is committed: `replica.Replica`."""

    def passed(self) -> bool: ...

    def after(self, action: Callable[[], None]) -> None: ...

    async def wait(self) -> None: ...

    @property
    def trouble(self) -> PerdureError:
        """Why it takes so long."""
        ...

    @property
    def full(self) -> PerdureError | None:
        """Why nothing new should be begun: the disk fills because the replica takes nothing."""
        ...


class Answers(Protocol):
    """What holds back the answers of an engine: `Gate` where it executes, `replica.door.ClientGate`
    where another process does.
    """

    async def answer(self, durability: str | None = None, s_max: float | None = None) -> None: ...

    def check_room(self) -> None: ...


def stricter(asked: str | None, own: str | None) -> str | None:
    """The level of an answer for which a caller asks for one level, and the run has one of its own;
    None: the engine's decides.

    >>> stricter("disk", "replica"), stricter(None, "disk"), stricter(None, None)
    ('replica', 'disk', None)
    """
    return "replica" if "replica" in (asked, own) else asked or own


class Gate:
    """See the module's text. `durability` is the engine's."""

    def __init__(self, replica: Confirms, durability: str) -> None:
        self._replica, self.durability = replica, durability
        self.after = replica.after

    def holds(self, options: Options, durability: str | None) -> bool:
        """Whether a step with these options, in a run of this durability, must wait now."""
        if options.readonly and self._replica.full is None:
            return False
        return (
            options.durability or durability or self.durability
        ) == "replica" and not self._replica.passed()

    async def confirmed(self) -> None:
        """Come back when all that is committed is in the replica; never, if the lease is lost."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.after(lambda: None if future.done() else future.set_result(None))
        await future

    async def answer(self, durability: str | None = None, s_max: float | None = None) -> None:
        """Come back when what is committed may be told. Raises what ended the engine, and
        `ReplicaUnavailable` after `s_max`.
        """
        if (durability or self.durability) == "replica" and not self._replica.passed():
            try:
                async with asyncio.timeout(s_max):
                    await self._replica.wait()
            except TimeoutError:
                raise self._replica.trouble from None

    def check_room(self) -> None:
        """Raise why nothing new can be begun, if so."""
        if self._replica.full is not None:
            raise self._replica.full

    @property
    def full(self) -> bool:
        return self._replica.full is not None
