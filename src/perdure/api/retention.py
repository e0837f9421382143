"""Retention: how long runs are kept that have ended, and where they go then.

Rules: a value, checked when it is made; a time of None keeps such runs for ever; loading it loads
nothing of what deletes.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec

from perdure.core import numbers
from perdure.core.lifecycle import CANCELLED, COMPLETED, FAILED
from perdure.errors import BadArchiveAddress, DefinitionError

Age = timedelta | float | None


class Retention(msgspec.Struct, frozen=True):
    """How long a store keeps runs that have ended: `Engine(store, retention=Retention())`.

    `completed` (30 days by default), `failed` (90 days) and `cancelled` (30 days) are a timedelta
    or a number of seconds, by how a run has ended; None keeps such runs for ever. A run goes with
    all that belongs to it: history, messages, streams, tags, children, and the earlier runs under
    its id. It is deleted in pieces so small that no other write waits for longer than some
    milliseconds.

    `archive` is a folder, `file:///folder`, or a place in a bucket, `s3://bucket/prefix`, that gets
    the runs first: one file for each day (UTC) on which they ended, which is a store of its own
    that `perdure show` opens. While the archive can't be written nothing is deleted.

    Raises `DefinitionError` for a time that can't be right, and `BadArchiveAddress`.

    >>> Retention(completed=timedelta(days=7), failed=None, archive="file:///var/archive").failed
    """

    completed: Age = timedelta(days=30)
    failed: Age = timedelta(days=90)
    cancelled: Age = timedelta(days=30)
    archive: str | None = None

    def __post_init__(self) -> None:
        for name, age in self._ages():
            _checked(name, age)
        if self.archive is not None and not isinstance(self.archive, str):
            raise BadArchiveAddress(numbers.shown(self.archive), "it is no text")
        if self.archive is not None and not self.archive.startswith(("file:///", "s3://")):
            raise BadArchiveAddress(self.archive, "it is neither a folder nor a bucket")

    def ages_ms(self) -> dict[str, int]:
        """How many milliseconds a run is kept, by its status; without those that stay for ever.

        >>> Retention(completed=60, failed=None, cancelled=0).ages_ms()
        {'completed': 60000, 'cancelled': 0}
        """
        return {name: _ms(age) for name, age in self._ages() if age is not None}

    def _ages(self) -> Iterator[tuple[str, Any]]:
        yield from ((COMPLETED, self.completed), (FAILED, self.failed), (CANCELLED, self.cancelled))


def _checked(name: str, age: Any) -> None:
    if isinstance(age, timedelta):
        age = age.total_seconds()
    if age is None:
        return
    try:
        numbers.seconds(age, name)
    except DefinitionError as error:
        raise DefinitionError(
            f"Retention({name}=…): {error} A timedelta is right as well, such as "
            "timedelta(days=30), and None keeps such runs for ever."
        ) from None


def _ms(age: timedelta | float) -> int:
    return round((age.total_seconds() if isinstance(age, timedelta) else age) * 1000)
