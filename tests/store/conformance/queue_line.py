"""One queue that admits a step at a time, for runs that are parked, woken and taken over.

Rules: what comes first is worked out here from what was asked; a place of a run that has no worker
may be passed over by a write that claims none.
"""

from __future__ import annotations

import random

from perdure.core.lifecycle import WAITING
from perdure.store.base import Store
from perdure.store.rows import Place
from perdure.store.writes import Claim, Deliver, EndWorker, ReleasePlaces
from tests.store.conformance.queue_support import asking
from tests.store.conformance.support import join, one, queue, start, suspend

Step = tuple[int, int]
KEYS = (None, "a", "b")


class Line:
    """The queue, its workers and the steps that wait."""

    def __init__(self, store: Store, rng: random.Random) -> None:
        self.store, self.rng, self.now_ms = store, rng, 0
        self.queue = f"q{rng.random()}"
        queue(store, self.queue, concurrency=1)
        self.workers = [join(store), join(store), join(store)]
        self.runs: dict[int, str] = {}
        self.priority: dict[Step, int] = {}
        self.places: dict[Step, int] = {}
        self.inside: set[Step] = set()

    def act(self) -> None:
        """One thing that happens."""
        self.now_ms += 1
        acts = [self.ask, self.ask, self.ask, self.again, self.free, self.free, self.free]
        acts += [self.begin, self.park, self.wake, self.claim, self.claim, self.die]
        self.rng.choice(acts)()

    def check(self) -> None:
        """What is admitted now and was not before goes before all that still waits."""
        line, inside = self._steps(admitted=False), self._steps(admitted=True)
        owned = {run for run in self.runs if self.owner(run) is not None}
        for step in inside - self.inside:
            passed = [o for o in line if o[0] in owned and self.priority[o] > self.priority[step]]
            assert not passed, f"{step} was admitted before {passed}"
        self.inside = inside

    def _steps(self, *, admitted: bool) -> set[Step]:
        keys = {id: run for run, id in self.runs.items()}
        rows = self.store.places(self.queue, 10_000, admitted)
        return {(keys[row.run_id], row.seq or 0) for row in rows}

    def owner(self, run: int) -> int | None:
        return self.store.run_row(run).owner

    # --- what happens -----------------------------------------------------------------------------

    def begin(self) -> None:
        id = f"{self.queue}-{len(self.runs)}"
        self.runs[start(self.store, id, owner=self.rng.choice(self.workers)).run] = id

    def ask(self) -> None:
        run, owner = self._owned()
        if run and owner:
            step = run, 2 + max((seq for one, seq in self.priority if one == run), default=0)
            self.priority[step] = self.rng.choice([0, 0, 1, 2])
            self._ask(step, owner, self.rng.choice(KEYS))

    def again(self) -> None:
        """An owner takes the places that its run has."""
        run, owner = self._owned()
        for step in sorted(self._steps(admitted=False)):
            if step[0] == run and owner:
                self._ask(step, owner, None)

    def _ask(self, step: Step, owner: int, key: str | None) -> None:
        fields = {"queue": self.queue, "key": key, "priority": self.priority[step]}
        place = one(self.store, asking(step[0], owner, step[1], self.now_ms, **fields))  # type: ignore[arg-type]
        assert isinstance(place, Place)
        self.places[step] = place.place

    def _owned(self) -> tuple[int | None, int | None]:
        owned = [run for run in self.runs if self.owner(run) is not None]
        run = self.rng.choice(owned) if owned else None
        return run, None if run is None else self.owner(run)

    def free(self) -> None:
        for worker in self.workers:
            held = [place for _, _, place in self.store.admitted(worker)]
            one(self.store, ReleasePlaces(held, worker, self.now_ms))

    def park(self) -> None:
        run, owner = self._owned()
        if run and owner and all(step[0] != run for step in self.inside):
            fields = {"release": True, "places": True}
            one(self.store, suspend(run, owner, WAITING, self.now_ms, **fields))

    def wake(self) -> None:
        if self.runs:
            id = self.rng.choice([*self.runs.values()])
            one(self.store, Deliver(id, "message", self.now_ms, "c", data=b"1"))

    def claim(self) -> None:
        worker = self.rng.choice(self.workers)
        one(self.store, Claim(worker, ("flow",), 100, self.now_ms, insists=True))

    def die(self) -> None:
        if self.rng.random() < 0.4:
            worker = self.workers.pop(self.rng.randrange(len(self.workers)))
            one(self.store, EndWorker(worker, self.now_ms, crashed=False, crashes_max=9))
            self.workers.append(join(self.store))
