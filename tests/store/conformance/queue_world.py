"""A world of random clients, workers and clocks around queues, and what must hold in it.

Rules: what is right is worked out here from what was asked and what the store shows, by lists and
loops; the store's own tables and the order of its statements are not looked at.
"""

from __future__ import annotations

import random
from typing import Any

from perdure.core.lifecycle import FINAL, PAUSED, RUNNING, WAITING
from perdure.errors import PerdureError
from perdure.store.base import Store
from perdure.store.rows import Claimed, Place, Started
from perdure.store.writes import (
    BatchRolledBack,
    Claim,
    ClockMovedBack,
    ControlRun,
    Deliver,
    EndWorker,
    Finish,
    HoldQueue,
    JoinWorker,
    QueueLimits,
    ReleasePlaces,
    SetQueue,
    Spend,
    StartRun,
    Suspend,
    Turn,
    Write,
)
from tests.store.conformance.queue_support import asking

WORKFLOWS = ("flow", "other")
KEYS = (None, "a", "b", "c")
Step = tuple[int, int]
"""A run and a row of it; row 0 is the run itself."""


class Bucket:
    """Tokens as a number that grows with time: the most that there may be, and the fewest.

    A clock that is set back may cost what has come since the last token was drawn.
    """

    def __init__(self, limit: int, per_ms: int, burst: int, now_ms: int) -> None:
        self.per_ms, self.burst = limit / per_ms, burst
        self.tokens, self.at_ms = float(burst), now_ms
        self.few, self.few_at_ms = self.tokens, now_ms

    def most(self, now_ms: int) -> float:
        self.tokens = min(self.burst, self.tokens + max(0, now_ms - self.at_ms) * self.per_ms)
        self.at_ms = now_ms
        return self.tokens

    def fewest(self, now_ms: int) -> float:
        """Two milliseconds for what is rounded."""
        since_ms = max(0, now_ms - self.few_at_ms - 2)
        return min(self.burst, self.few + since_ms * self.per_ms)

    def draw(self, tokens: float, now_ms: int) -> None:
        self.tokens = min(self.burst, self.most(now_ms) - tokens)
        self.few = min(self.burst, self.fewest(now_ms) - tokens)
        self.few_at_ms = max(self.few_at_ms, now_ms)

    def back(self, now_ms: int) -> None:
        self.most(now_ms)
        if self.few_at_ms - now_ms >= 10_000:
            self.few_at_ms = now_ms


class World:
    """Two processes on one database with two queues."""

    def __init__(self, stores: list[Store], seed: int) -> None:
        self.stores, self.rng, self.now_ms = stores, random.Random(seed), 1_000_000
        self.store = stores[0]
        self.limits: dict[str, QueueLimits] = {}
        self.held_ms = {"q": 0, "p": 0}
        self.hold_length_ms = {"q": 0, "p": 0}
        self.names: dict[int, tuple[str, ...]] = {}
        """Workers that are alive, and the workflows that they know."""
        self.runs: dict[int, str] = {}
        self.asked: dict[Step, tuple[str, str, int, int]] = {}
        """Queue, key, priority and weight of places."""
        self.places: dict[Step, int] = {}
        """Numbers of places of steps."""
        self.age: dict[Step, int] = {}
        self.paid: set[Step] = set()
        self.inside: dict[str, set[Step]] = {"q": set(), "p": set()}
        self.line: dict[str, set[Step]] = {"q": set(), "p": set()}
        self.buckets: dict[tuple[str, str | None], Bucket] = {}
        self.made = 0
        for name in ("q", "p"):
            self._declare(name)
        for _ in range(3):
            self.join()

    def _declare(self, name: str) -> None:
        rng = self.rng
        many, own, of_key = (rng.choice([None, rng.randint(1, most)]) for most in (4, 2, 2))
        limits = QueueLimits(many, own, key_concurrency=of_key)
        if rng.random() < 0.5:
            limits.rate_limit, limits.rate_per_ms, limits.rate_burst = rng.randint(1, 9), 1_000, 4
        if rng.random() < 0.4:
            limits.key_rate_limit, limits.key_rate_per_ms = rng.randint(1, 9), 1_000
            limits.key_rate_burst = 3
        given = {one: getattr(limits, one) for one in limits.__struct_fields__}
        self.write(SetQueue(name, given, self.now_ms))
        self.limits[name] = limits

    # --- writes -----------------------------------------------------------------------------------

    def write(self, write: Write, worker: int = 0) -> Any:
        """The result of a write, by the process of a worker, sometimes after one that failed."""
        store = self.stores[worker % 2]
        if self.rng.random() < 0.05:
            nothing: Any = None
            bad = StartRun("bad", "flow", nothing, 1, 0, None)  # no arguments: an error of ours
            before = [store.queue_row(name) for name in self.limits]
            try:
                store.write([_copied(write), bad], True)
            except BatchRolledBack:
                assert before == [store.queue_row(name) for name in self.limits]
        (result,) = store.write([write], True)
        return result

    def join(self) -> None:
        worker = self.write(JoinWorker("w", "here", 1, "then", self.now_ms, 10_000))
        self.names[worker] = WORKFLOWS if self.rng.random() < 0.7 else (self.rng.choice(WORKFLOWS),)

    def turn(self, run: int, owner: int, **more: Any) -> Any:
        return self.write(Turn(run, owner, [], self.now_ms, **more), owner)

    # --- what is so -------------------------------------------------------------------------------

    def owner(self, run: int) -> int | None:
        return self.store.run_row(run).owner

    def owned(self) -> list[tuple[int, int]]:
        found = [(run, self.owner(run)) for run in self.runs]
        return [(run, owner) for run, owner in found if owner is not None]

    def steps_of(self, run: int) -> list[Step]:
        return [step for step in self.places if step[0] == run]

    def _seen(self) -> None:
        """Read who waits and who is admitted, and hold that against the limits."""
        keys = {id: run for run, id in self.runs.items()}
        for name, before in self.inside.items():
            rows = self.store.places(name, 10_000, True)
            inside = {(keys[row.run_id], row.seq or 0) for row in rows}
            rows = self.store.places(name, 10_000, False)
            line = {(keys[row.run_id], row.seq or 0) for row in rows}
            shown = self.store.queue_row(name)
            assert (shown.waiting, shown.running) == (len(line), len(inside))
            for step in sorted(line - set(self.age), key=lambda step: step):
                self.age[step] = len(self.age)
            new = inside - before
            for step in sorted(new, key=lambda step: self.age.get(step, 0)):
                self._check_new(name, step, line, inside)
            self._check_limits(name, new, inside)
            self.inside[name], self.line[name] = inside, line

    def _check_new(self, name: str, step: Step, line: set[Step], inside: set[Step]) -> None:
        """An admission: tokens, and no place before it in its own line."""
        queue, key, priority, weight = self.asked[step]
        assert queue == name
        if step not in self.paid:
            self.paid.add(step)
            for of in (None, key) if key else (None,):
                bucket = self._bucket(name, of)
                if bucket is not None:
                    have = bucket.most(self.now_ms)
                    assert have >= min(weight, bucket.burst) - 1e-3, (step, have, weight)
                    bucket.draw(weight, self.now_ms)
        for other in line:
            if self.asked[other][:3] == (queue, key, priority) and other[0] == step[0]:
                assert other[1] == 0 or self.places[other] > self.places.get(step, 0), (
                    other,
                    step,
                )

    def _bucket(self, name: str, key: str | None) -> Bucket | None:
        limits = self.limits[name]
        if key is None:
            rate = (limits.rate_limit, limits.rate_per_ms, limits.rate_burst)
        else:
            rate = (limits.key_rate_limit, limits.key_rate_per_ms, limits.key_rate_burst)
        if rate[0] is None or rate[1] is None or rate[2] is None:
            return None
        if (name, key) not in self.buckets:
            self.buckets[name, key] = Bucket(rate[0], rate[1], rate[2], self.now_ms)
        return self.buckets[name, key]

    def _check_limits(self, name: str, new: set[Step], inside: set[Step]) -> None:
        limits = self.limits[name]
        if new and limits.concurrency is not None:
            assert len(inside) <= limits.concurrency
        for step in new:
            key = self.asked[step][1]
            if key and limits.key_concurrency is not None:
                of_key = [one for one in inside if self.asked[one][1] == key]
                assert len(of_key) <= limits.key_concurrency
        for worker in self.names if limits.per_worker is not None else ():
            assert self.of_worker(name, worker) <= (limits.per_worker or 0)

    def of_worker(self, name: str, worker: int) -> int:
        """What a worker has of a queue."""
        rows = [self.store.run_row(run) for run in self.runs]
        steps = {(run, seq) for run, seq, _ in self.store.admitted(worker)}
        own = [row for row in rows if row.owner == worker and row.queue == name]
        return len(own) + len([one for one in steps if self.asked[one][0] == name])

    # --- nobody is stuck --------------------------------------------------------------------------

    def settle(self) -> None:
        """Let workers claim as long as the store says that it is worth it, then look again."""
        for _ in range(200):
            self._seen()
            due = [
                (worker, names)
                for worker, names in self.names.items()
                if (self.store.next_due_ms(names, worker=worker) or 1 << 60) <= self.now_ms
            ]
            if not due:
                break
            worker, names = self.rng.choice(due)
            self.claim(worker, names)
        else:
            raise AssertionError("claims without end")
        for name in self.limits:
            self._check_not_stuck(name)

    def claim(self, worker: int, names: tuple[str, ...]) -> Claimed:
        limit = self.rng.choice([1, 2, 50])
        claim = Claim(worker, names, limit, self.now_ms, insists=True)
        claimed: Claimed = self.write(claim, worker)
        return claimed

    def _check_not_stuck(self, name: str) -> None:
        """Either no place that waits may go on, or the first has no tokens, and a time is known."""
        limits = self.limits[name]
        if limits.paused or self.held_ms[name] > self.now_ms:
            return
        inside = self.inside[name]
        if limits.concurrency is not None and len(inside) >= limits.concurrency:
            return
        may = [step for step in self.line[name] if self._may(name, step, inside)]
        if not may:
            return
        bucket = self.buckets.get((name, None))
        need = [0 if step in self.paid else self.asked[step][3] for step in may]
        have = float("inf") if bucket is None else bucket.fewest(self.now_ms)
        assert have < max(need), f"{may} may go on in {name}"
        times = [
            self.store.next_due_ms(names, worker=worker) for worker, names in self.names.items()
        ]
        assert any(ms is not None and ms > self.now_ms for ms in times), f"{may}: no time"

    def _may(self, name: str, step: Step, inside: set[Step]) -> bool:
        """Whether nothing but the queue's tokens is against a place."""
        limits, (_, key, _, weight) = self.limits[name], self.asked[step]
        of_key = len([one for one in inside if self.asked[one][1] == key])
        if key and limits.key_concurrency is not None and of_key >= limits.key_concurrency:
            return False
        bucket = self.buckets.get((name, key)) if key else None
        others = [one for one in self.line[name] if self.asked[one][1] == key]
        weights = [0 if one in self.paid else self.asked[one][3] for one in others]
        if bucket is not None and bucket.fewest(self.now_ms) < max([weight, *weights]):
            return False  # it, or one of its key that is before it, waits for tokens
        row = self.store.run_row(step[0])
        if row.owner is not None:
            takers = [row.owner]
        else:
            takers = [one for one, names in self.names.items() if row.workflow in names]
            if step[1] and row.queue is not None:
                takers = [one for one in takers if not self._full(row.queue, one)]
        return any(not self._full(name, one) for one in takers)

    def _full(self, name: str, worker: int) -> bool:
        limit = self.limits[name].per_worker
        return limit is not None and self.of_worker(name, worker) >= limit

    # --- what happens -----------------------------------------------------------------------------

    def act(self) -> None:
        """One thing that happens."""
        acts = [
            self.start, self.start, self.start_plain, self.ask, self.ask, self.ask, self.release,
            self.release, self.give_up, self.end, self.end, self.park, self.wake, self.pause,
            self.resume, self.block, self.cancel, self.die, self.change, self.hold, self.spend,
            self.clock, self.clock, self.clock_back,
        ]  # fmt: skip
        self.rng.choice(acts)()

    def start(self) -> None:
        rng, self.made = self.rng, self.made + 1
        name, key = rng.choice(["q", "p"]), rng.choice(KEYS)
        worker = rng.choice([None, *self.names])
        workflow = rng.choice(WORKFLOWS if worker is None else self.names[worker])
        due_ms = self.now_ms + rng.choice([0, 0, 0, 300])
        start = StartRun(
            f"r{self.made}", workflow, b"{}", 1, self.now_ms, due_ms, worker, queue=name,
            key=key, priority=rng.choice([0, 0, 1]), weight=rng.randint(1, 3),
        )  # fmt: skip
        started = self.write(start, worker or 0)
        if isinstance(started, Started):
            self.runs[started.run] = start.id
            self.asked[started.run, 0] = (name, key or "", start.priority, start.weight)

    def start_plain(self) -> None:
        self.made += 1
        worker = self.rng.choice([*self.names])
        start = StartRun(
            f"r{self.made}", self.names[worker][0], b"{}", 1, self.now_ms, None, worker
        )
        self.runs[self.write(start, worker).run] = start.id

    def ask(self) -> None:
        rng, owned = self.rng, self.owned()
        if not owned:
            return
        run, owner = rng.choice(owned)
        if self.store.run_row(run).status == PAUSED or len(self.steps_of(run)) >= 4:
            return
        own = self.store.run_row(run).queue
        if own is not None and self.limits[own].per_worker is not None:
            return  # see test_queues: a step in the queue of its run
        seq = 2 + max((step[1] for step in self.asked if step[0] == run), default=0)
        name, key, weight = rng.choice(["q", "p"]), rng.choice(KEYS), rng.randint(1, 3)
        priority = rng.choice([0, 0, 1])
        ask = asking(
            run, owner, seq, self.now_ms, queue=name, key=key, weight=weight, priority=priority
        )
        self.asked[run, seq] = (name, key or "", priority, weight)
        place = self.write(ask, owner)
        if isinstance(place, Place):
            self.places[run, seq] = place.place

    def release(self) -> None:
        worker = self.rng.choice([*self.names])
        held = self.store.admitted(worker)
        if held:
            run, seq, place = self.rng.choice(held)
            self.write(ReleasePlaces([place], worker, self.now_ms), worker)
            self.places.pop((run, seq), None)

    def give_up(self) -> None:
        waits = [step for line in self.line.values() for step in line if step[1]]
        owned = dict(self.owned())
        waits = [step for step in waits if step[0] in owned]
        if waits:
            step = self.rng.choice(sorted(waits))
            owner = owned[step[0]]
            self.write(ReleasePlaces([self.places.pop(step)], owner, self.now_ms), owner)

    def end(self) -> None:
        owned = self.owned()
        if owned:
            run, owner = self.rng.choice(owned)
            self._stop(run, owner, finish=Finish("completed", b"1"))

    def _stop(self, run: int, owner: int, **more: Any) -> None:
        """A turn with which a run gives up all its steps."""
        steps = self.steps_of(run)
        self.turn(run, owner, released=[self.places.pop(step) for step in steps], **more)

    def park(self) -> None:
        owned = self.owned()
        if owned:
            run, owner = self.rng.choice(owned)
            working = {step[0] for step in self.store.admitted(owner)}
            if run not in working and self.store.run_row(run).status != PAUSED:
                suspend = Suspend(WAITING, release=True, places=bool(self.steps_of(run)))
                self.turn(run, owner, suspend=suspend)

    def wake(self) -> None:
        run = self._any_run()
        if run is not None:
            self.write(Deliver(self.runs[run], "message", self.now_ms, "c", data=b"1"))

    def _any_run(self) -> int | None:
        return self.rng.choice([*self.runs]) if self.runs else None

    def pause(self) -> None:
        run = self._any_run()
        if run is None:
            return
        self.write(ControlRun(self.runs[run], "pause", self.now_ms))
        row = self.store.run_row(run)
        if row.status == PAUSED and row.owner is not None:
            self._stop(run, row.owner, suspend=Suspend(None, release=True))
        self._forget_steps(run)

    def _forget_steps(self, run: int) -> None:
        """Steps of a run that is kept by a person have no places."""
        if self.store.run_row(run).owner is None:
            for step in self.steps_of(run):
                del self.places[step]

    def resume(self) -> None:
        for run in self.runs:
            if self.store.run_row(run).status not in (*FINAL, RUNNING, WAITING):
                self.write(ControlRun(self.runs[run], "retry", self.now_ms))

    def block(self) -> None:
        owned = self.owned()
        if owned:
            run, owner = self.rng.choice(owned)
            suspend = Suspend("blocked", release=True, blocked_by="code", reason="why")
            self._stop(run, owner, suspend=suspend)

    def cancel(self) -> None:
        run = self._any_run()
        if run is not None:
            self.write(Deliver(self.runs[run], "cancel", self.now_ms, verb="cancel"))
            if self.store.run_row(run).status in FINAL:
                for step in self.steps_of(run):
                    del self.places[step]

    def die(self) -> None:
        if self.rng.random() < 0.5 and len(self.names) > 1:
            worker = self.rng.choice([*self.names])
            for run, seq, _ in self.store.admitted(worker):
                self.places.pop((run, seq), None)
            del self.names[worker]
            self.write(EndWorker(worker, self.now_ms, crashed=True, crashes_max=4))
            for run in self.runs:
                if self.store.run_row(run).status == "blocked":
                    self._forget_steps(run)
            self.join()

    def change(self) -> None:
        name = self.rng.choice(["q", "p"])
        given: dict[str, Any] = {"paused": self.rng.random() < 0.3}
        if self.rng.random() < 0.5:
            given["concurrency"] = self.rng.choice([None, 1, 2, 5])
        if self.rng.random() < 0.3:
            given["key_concurrency"] = self.rng.choice([None, 1, 2])
        for field, value in given.items():
            setattr(self.limits[name], field, value)
        assert not isinstance(self.write(SetQueue(name, given, self.now_ms)), PerdureError)

    def hold(self) -> None:
        if self.rng.random() < 0.3:
            name = self.rng.choice(["q", "p"])
            until_ms = self.now_ms + self.rng.choice([50, 700])
            self.write(HoldQueue(name, until_ms, self.now_ms))
            self.held_ms[name] = max(self.held_ms[name], until_ms)
            self.hold_length_ms[name] = 700

    def spend(self) -> None:
        name, amount = self.rng.choice(["q", "p"]), self.rng.choice([-2, 1, 2, 6])
        self.write(Spend(name, None, amount, self.now_ms))
        bucket = self._bucket(name, None)
        if bucket is not None:
            bucket.draw(amount, self.now_ms)

    def clock(self) -> None:
        self.now_ms += self.rng.choice([1, 40, 333, 2_000])

    def clock_back(self) -> None:
        if self.rng.random() < 0.3:
            back_ms = self.rng.choice([10, 5_000, 100_000])
            for bucket in self.buckets.values():
                bucket.most(self.now_ms)
            self.now_ms -= back_ms
            for name, length_ms in self.hold_length_ms.items():  # it may not have seen its end
                self.held_ms[name] = self.now_ms + length_ms + 10_000
            for bucket in self.buckets.values():
                bucket.back(self.now_ms)
            self.write(ClockMovedBack(self.now_ms))

    # --- the end ----------------------------------------------------------------------------------

    def drain(self) -> None:
        """Without limits of the moment everything that waits is admitted in the end."""
        self.names = dict.fromkeys(self.names, WORKFLOWS)  # somebody has to know each
        for name in self.limits:
            self.write(SetQueue(name, {"paused": False}, self.now_ms))
            self.limits[name].paused = False
        for _ in range(300):
            self.resume()
            self.settle()
            for run, owner in self.owned():
                for worker in self.names:
                    for _, seq, place in [s for s in self.store.admitted(worker) if s[0] == run]:
                        self.write(ReleasePlaces([place], worker, self.now_ms), worker)
                        self.places.pop((run, seq), None)
                self._stop(run, owner, finish=Finish("completed", b"1"))
            for worker in self.names:
                places = [place for _, _, place in self.store.admitted(worker)]
                self.write(ReleasePlaces(places, worker, self.now_ms), worker)
            self._seen()
            if not any(self.line.values()) and not any(self.inside.values()):
                return
            self.now_ms += 500
            for run in self.runs:
                self.write(Deliver(self.runs[run], "message", self.now_ms, "c", data=b"1"))
        raise AssertionError(f"never admitted: {self.line}, {self.inside}")


def _copied(write: Write) -> Write:
    """A write that may be applied twice: some are changed when they are."""
    if isinstance(write, StartRun):
        fields = {name: getattr(write, name) for name in write.__struct_fields__}
        return StartRun(**fields)
    return write
