"""The durability gate: holds back effects and answers until the replica has their history.

Rules: an engine without a replica has no gate, and nothing is asked; a readonly step and a
transactional one never wait, because nothing of them leaves the process; the nearest setting
decides: the step's durability, then its run's, then the engine's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from perdure.api.options import Options

if TYPE_CHECKING:
    from perdure.replica.barrier import Barrier
    from perdure.replica.confirm_client import ConfirmClient


class DurabilityGate:
    """The gate of an engine that executes runs and copies its store. `durability` is the engine's.

    `barrier` confirms: all that is committed is confirmed when the replica has it.
    """

    def __init__(self, barrier: Barrier, durability: str) -> None:
        self._barrier, self.durability = barrier, durability

    def holds(self, options: Options, durability: str | None) -> bool:
        """Whether a step with these options, in a run of this durability, must wait now."""
        if options.readonly and self._barrier.full is None:
            return False
        level = options.durability or durability or self.durability
        return level == "replica" and not self._barrier.passed()

    def after(self, action: Callable[[], None]) -> None:
        """Call `action` when all that is committed by now is confirmed.

        It is never called if the lease is lost.
        """
        self._barrier.after(action)

    async def answer(self, durability: str | None = None, s_max: float | None = None) -> None:
        """Wait until what is committed may be answered.

        Raises `ReplicaUnavailable` after `s_max` seconds, and the error that ended the engine.
        """
        if (durability or self.durability) == "replica" and not self._barrier.passed():
            try:
                async with asyncio.timeout(s_max):
                    await self._barrier.wait()
            except TimeoutError:
                raise self._barrier.waiting_for() from None

    def check_room(self) -> None:
        """Raise `ReplicaFull` while nothing new may begin."""
        if self._barrier.full is not None:
            raise self._barrier.full

    @property
    def full(self) -> bool:
        """Whether nothing new may begin: the disk fills because the replica takes nothing."""
        return self._barrier.full is not None


AnswerGate: TypeAlias = "DurabilityGate | ConfirmClient"
"""The gate of an engine: over its own replica, or over that of the process that copies."""


def stricter(asked: str | None, own: str | None) -> str | None:
    """The level of an answer: `asked` by the caller, `own` of the run; None: the engine's decides.

    >>> stricter("disk", "replica"), stricter(None, "disk"), stricter(None, None)
    ('replica', 'disk', None)
    """
    return "replica" if "replica" in (asked, own) else asked or own
