"""Errors of queues: names that are not declared, queues that are full, weights that never fit."""

from __future__ import annotations

from perdure.errors.base import DefinitionError, PerdureError


class QueueNotFound(PerdureError, LookupError):
    """No queue has this name."""

    NAMES_MAX = 10

    def __init__(self, name: str, names: tuple[str, ...] = ()) -> None:
        self.name, self.names = name, names
        more = " and others" if len(names) > self.NAMES_MAX else ""
        shown = [one if one.isprintable() else repr(one) for one in names[: self.NAMES_MAX]]
        there = f"There are: {', '.join(shown)}{more}." if names else ""
        there = there or "There is none yet."
        super().__init__(
            f"There is no queue {name!r} in this store. {there} Declare it with "
            f"Engine(queues=[Queue({name!r}, …)]) or create it with `perdure queue set`."
        )


class QueueFull(PerdureError):
    """As many places wait in the queue as its `waiting_max` allows."""

    def __init__(self, name: str, waiting_max: int) -> None:
        self.name, self.waiting_max = name, waiting_max
        waits = "place waits" if waiting_max == 1 else "places wait"
        super().__init__(
            f"Queue {name!r} is full: {waiting_max:,} {waits} in it already. Try again later, or "
            "raise its waiting_max."
        )


class TooManyQueues(DefinitionError):
    """The store has as many queues as it may."""

    def __init__(self, name: str, queues_max: int) -> None:
        self.name, self.queues_max = name, queues_max
        super().__init__(
            f"Queue {name!r} can't be created: this store has {queues_max:,} queues already. Use "
            "one queue with a key for each tenant, and key_concurrency or key_rate as its limits."
        )


class WeightOverBurst(DefinitionError):
    """The weight is over the burst of the queue's rate: it would never be admitted."""

    def __init__(self, name: str, weight: int, burst: int, option: str = "rate") -> None:
        self.name, self.weight, self.burst = name, weight, burst
        super().__init__(
            f"A weight of {weight:,} is never admitted by queue {name!r}, whose {option} has a "
            f"burst of {burst:,}. Lower the weight, or raise the burst."
        )
