"""A replica's options: its address, and how its lease, its standby and its drills are kept.

Rules: a value, checked when it is made; loading it loads nothing of what replicates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Literal

from perdure.core import numbers
from perdure.errors import DefinitionError

if TYPE_CHECKING:
    from perdure.replica.address import Address
    from perdure.replica.lease_rules import LeaseRow


@dataclass(frozen=True, slots=True)
class Replica:
    """Where a store is copied to, and how: `Engine(store, replica=Replica("s3://agents/prod"))`.

    `address` is `s3://bucket/prefix?endpoint=…&region=…` or `file:///folder`; credentials come from
    the usual AWS variables. An engine works only while it holds the replica's lease.

    `fencing` is the proof that the lease is still held when a write is confirmed. True reads the
    lease from the bucket each time. "clock" trusts this machine's clock: faster, and wrong on a
    virtual machine that is paused. False keeps no lease: for a bucket without conditional writes,
    where you make sure that there is never a second engine.

    `standby=True` follows the replica while another engine holds the lease, and takes over at once
    when that is gone; without a lease it is refused. `drill_every` is the number of seconds between
    two test restores in the background; None makes none. `on_wait(row, seconds)` is called while
    another engine holds the lease, with that engine and the seconds after which its lease ends if
    it is not renewed.
    `on_progress(text)` is called during a long restore and a long first copy. `summary=False`
    writes no summary for `perdure observe` beside the replica.

    Raises `BadReplicaAddress`, and `DefinitionError` for another value that can't be right.

    >>> Replica("s3://agents/prod", drill_every=3_600).place.bucket
    'agents'
    """

    address: str
    _: KW_ONLY
    fencing: bool | Literal["clock"] = True
    standby: bool = False
    drill_every: float | None = None
    summary: bool = True
    on_wait: Callable[[LeaseRow, float], None] | None = None
    on_progress: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.address, str):
            shown = numbers.shown(self.address)
            raise DefinitionError(
                'A replica is named by an address, such as "s3://bucket/prefix" or '
                f'"file:///folder", or by a Replica("s3://bucket/prefix"), not by {shown}.'
            )
        _ = self.place  # raises for one that can not be used
        if not isinstance(self.fencing, bool) and self.fencing != "clock":
            raise DefinitionError(
                'fencing is True (the lease is read before each confirmation), "clock" (the '
                "machine's clocks are trusted) or False (there is no lease), not "
                f"{numbers.shown(self.fencing)}."
            )
        numbers.flag(self.standby, "standby")
        numbers.flag(self.summary, "summary")
        if self.standby and self.fencing is False:
            raise DefinitionError(
                "standby=True waits for a lease, and fencing=False keeps none: give one of them."
            )
        if self.drill_every is not None:
            numbers.seconds(self.drill_every, "drill_every", above=True)
        for name in ("on_wait", "on_progress"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                shown = numbers.shown(value)
                raise DefinitionError(f"{name} is a function or None, not {shown}.")

    @property
    def place(self) -> Address:
        """The address, parsed."""
        from perdure.replica.address import parse  # only with a replica: urllib takes long to load

        return parse(self.address)
