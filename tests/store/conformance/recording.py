"""Recording stores: what the tests of the suite really call, write and get."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from perdure.errors import PerdureError
from perdure.store.writes import BatchRolledBack, Transact, Turn, Write

CALLS: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
"""By backend: the `methods` that were called, the types of `writes`, and the `refusals`."""


class Recording:
    """A store that notes each call. Attributes are noted as methods are."""

    def __init__(self, store: Any, backend: str) -> None:
        self.store, self._seen = store, CALLS[backend]

    def __getattr__(self, name: str) -> Any:
        self._seen["methods"].add(name)
        found = getattr(self.store, name)
        return self._noting(found) if callable(found) else found

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("store", "_seen"):
            super().__setattr__(name, value)
        else:
            setattr(self.store, name, value)

    def _noting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            if method.__name__ == "write":
                args = ([self._watched(write) for write in args[0]], *args[1:])
            try:
                got = method(*args, **named)
            except (PerdureError, BatchRolledBack) as error:
                self._seen["refusals"].add(type(error).__name__)
                raise
            if method.__name__ == "write":
                self._seen["writes"] |= {type(write).__name__ for write in _all(args[0])}
                self._refused(got)
            return got

        return call

    def _watched(self, write: Write) -> Write:
        """The write; of a transactional step, with the error that its `conclude` gets noted."""
        if not isinstance(write, Transact):
            return write

        def conclude(value: Any, error: BaseException | None) -> Any:
            self._refused([error])
            return write.conclude(value, error)

        return Transact(write.run, write.owner, write.work, conclude)

    def _refused(self, results: list[Any]) -> None:
        found = [one for one in results if isinstance(one, PerdureError)]
        self._seen["refusals"] |= {type(one).__name__ for one in found}


def _all(batch: Sequence[Write]) -> Iterator[Write]:
    """The writes of a batch, effects of turns included."""
    for write in batch:
        yield write
        if isinstance(write, Turn):
            yield from _all(write.effects)
