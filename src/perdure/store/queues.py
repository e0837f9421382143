"""Places in queues: asked for, released, given back by runs that stop, freed by workers that end.

Rules: a place is admitted in the transaction that asks where nothing is against it, else it waits
in line; what is released lets the next steps go on in the same transaction, and leaves runs to a
claim; the place of a run is its own until it ends, except while it is paused or blocked: then it
keeps its number only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from perdure.core.lifecycle import BLOCKED, PAUSED
from perdure.errors import PerdureError, QueueFull, QueueNotFound, WeightOverBurst
from perdure.store import lines as line_takers
from perdure.store.admission import KEY_LIMIT, KEY_RATE, Admission, Obstacle, Room
from perdure.store.lines import READY, UNTIL_RELEASE, Lines
from perdure.store.queue_state import OpenQueue, QueueStates
from perdure.store.rows import Place
from perdure.store.transaction import Transaction
from perdure.store.writes import AskPlace, Claim, StartRun

_encode = msgspec.json.Encoder().encode


class Places:
    """What writes do about places, in the transaction `db`."""

    def __init__(self, db: Transaction) -> None:
        self._db = db
        self.states = QueueStates(db)
        self.lines = Lines(db)
        self.admission = Admission(db, self.states, self.lines)
        self.steps: list[tuple[int, int, int, int]] = []
        """Steps that a write has admitted for workers, as (worker, run, row, place)."""
        self.due_at_ms: int | None = None
        """When a write has made a pass worth making; None: it has not."""

    def begin(self) -> None:
        """Forget what the last write has done."""
        self.steps, self.due_at_ms = [], None

    def admitted_of(self, worker: int) -> list[tuple[int, int, int]]:
        """Steps of a worker that this write has admitted."""
        return [(run, seq, place) for one, run, seq, place in self.steps if one == worker]

    def due(self) -> bool:
        """Whether a claim is worth making after this write, now or at a time that claims, which
        may sleep for longer, have to be told: tokens come back by themselves.
        """
        return self.due_at_ms is not None

    # --- asking -----------------------------------------------------------------------------------

    def refusal(self, name: str, weight: int) -> OpenQueue | PerdureError:
        """The queue, or why it never takes a place of this weight."""
        queue = self.states.named(name)
        if queue is None:
            return QueueNotFound(name, self.states.names())
        for option, rate in (("rate", queue.rate), ("key_rate", queue.key_rate)):
            if rate is not None and weight > rate.burst:
                return WeightOverBurst(name, weight, rate.burst, option)
        return queue

    def ask(self, ask: AskPlace) -> Place | PerdureError:
        """See `AskPlace`; the owner was checked."""
        queue = self.refusal(ask.queue, ask.weight)
        if isinstance(queue, PerdureError):
            return self._existing(ask) or queue
        key, now_ms = ask.key or "", ask.at_ms
        against = self.admission.obstacle(queue, key, ask.weight, ask.owner, now_ms)
        if against is None:
            fields = (ask.run, ask.seq, ask.priority, ask.weight)
            place = self._insert_admitted(queue, key, *fields, now_ms, ask.owner)
            return Place(place, True) if place else self._again(ask)
        if (existing := self._existing(ask)) is not None:
            return existing
        if (full := self._too_many(queue)) is not None:
            return full
        taker = line_takers.of_worker(ask.owner)
        fields = (ask.run, ask.seq, ask.priority, ask.weight)
        return Place(self._insert_waiting(queue, key, *fields, taker, now_ms, against), False)

    def hand_on(self, place: int, ask: AskPlace) -> Place | None:
        """Give a place that is free to the step that asks: one update in place of two writes.

        None where anything is to be decided, or counted anew: there is a rate, or a place waits.
        """
        queue = self.states.named(ask.queue)
        if queue is None or not queue.is_open(ask.owner, ask.key or ""):
            return None
        fields = (place, ask.owner, queue.queue, ask.key or "", ask.run, ask.seq)
        handed_on = self._db.change("hand_on", (*fields, ask.priority, ask.weight, ask.at_ms))
        return Place(place, True) if handed_on else None

    def _existing(self, ask: AskPlace) -> Place | None:
        """The place that a step has already: its run's owner takes it."""
        return self._again(ask) if self._db.row("place_of", (ask.run, ask.seq)) else None

    def _again(self, ask: AskPlace) -> Place:
        row = self._db.rows("place_of", (ask.run, ask.seq))[0]
        place, queue, key, priority, _, _, line, admitted_ms, worker = row
        state = self.states.keyed(queue)
        if admitted_ms is not None:
            if worker != ask.owner:
                self._db.do("set_place_worker", (ask.owner, place))
                state.worker_changed(worker)
                state.worker_changed(ask.owner)
            return Place(place, True)
        taker = line_takers.of_worker(ask.owner)
        if line is not None:
            self.lines.move(state, place, key, priority, line, taker)
        return Place(place, False)

    def _too_many(self, queue: OpenQueue) -> QueueFull | None:
        waiting_max = queue.limits.waiting_max
        if waiting_max is not None and queue.waiting >= waiting_max:
            return QueueFull(queue.name, waiting_max)
        return None

    def _insert_admitted(
        self, queue: OpenQueue, key: str, run: int, seq: int, priority: int, weight: int,
        now_ms: int, worker: int | None,
    ) -> int | None:  # fmt: skip
        """A place that is admitted at once. None where there is one already."""
        executes = worker if seq else None
        prepaid = weight
        fields = (queue.queue, key, run, seq, priority, weight, prepaid, now_ms, executes)
        place = self._db.insert("insert_admitted", fields)
        if place is None:
            return None
        self.admission.draw(queue, key, weight, now_ms)
        queue.added(key, 1)
        queue.worker_changed(worker)
        return place

    def _insert_waiting(
        self, queue: OpenQueue, key: str, run: int, seq: int, priority: int, weight: int,
        taker: str, now_ms: int, against: Obstacle | None,
    ) -> int:  # fmt: skip
        """A place that waits, as the last of its line."""
        fields = (queue.queue, key, run, seq, priority, weight, now_ms)
        place = self._db.insert("insert_waiting", fields)
        assert place is not None
        self._into_line(queue, place, key, priority, taker, now_ms, against)
        return place

    def _into_line(
        self, queue: OpenQueue, place: int, key: str, priority: int, taker: str, now_ms: int,
        against: Obstacle | None,
    ) -> None:  # fmt: skip
        ready_ms = READY
        if against is not None and against.why == KEY_LIMIT:
            ready_ms = UNTIL_RELEASE
        elif against is not None and against.why == KEY_RATE and against.ms is not None:
            ready_ms = against.ms
        line = self.lines.join(queue, key, priority, taker, place, ready_ms)
        self._db.do("set_line", (line, place))
        queue.look_at(now_ms if against is None else against.ms)
        self._note_due(queue)

    def _note_due(self, queue: OpenQueue) -> None:
        if queue.next_ms is not None:
            self.due_at_ms = min(queue.next_ms, self.due_at_ms or queue.next_ms)

    # --- releasing --------------------------------------------------------------------------------

    def release(self, places: Sequence[int], worker: int, now_ms: int) -> None:
        """Steps of a worker's runs have ended, or wait no longer."""
        changed = {}
        for place in places:
            row = self._db.row("place_of_worker", (place, worker))
            if row is not None:
                self._db.do("drop_place", (place,))
                queue = self._freed(row, worker, now_ms)
                changed[queue.queue] = queue
        for queue in changed.values():
            self._pass(queue, now_ms)

    def set_apart(self, places: Sequence[int], worker: int) -> None:
        """Attempts have ended whose threads have not: the places are not their steps' any more."""
        self._db.many("set_apart", [(place, worker) for place in places])

    def _freed(self, row: tuple[Any, ...], worker: int | None, now_ms: int) -> OpenQueue:
        """A place is gone, or its run has given it back."""
        place, key, state, line, admitted_ms = row
        queue = self.states.keyed(state)
        if line is not None:
            self.lines.left(queue, line, place, now_ms)
        elif admitted_ms is not None:
            queue.added(key, -1)
            queue.worker_changed(worker)
            if key and queue.limits.key_concurrency is not None and queue.waiting:
                self.lines.open(queue, key, now_ms)
        return queue

    def _pass(self, queue: OpenQueue, now_ms: int) -> None:
        """Let the next steps go on; a run is left to a claim."""
        if queue.waiting == 0:
            return queue.look_next(None)
        room = Room()
        self.admission.admit(queue, now_ms, room)
        self.steps += room.steps
        return self._note_due(queue)

    def _next(self, queue: OpenQueue, now_ms: int, *, reports: bool) -> None:
        """Let the next steps go on where the write `reports` them to their worker; else a claim
        does: what this process has admitted for itself it would not notice.
        """
        if reports or queue.waiting == 0:
            self._pass(queue, now_ms)
        else:
            queue.look_at(now_ms)
            self._note_due(queue)

    # --- runs -------------------------------------------------------------------------------------

    def plan(self, start: StartRun) -> Obstacle | PerdureError | None:
        """What is against the place of a new run with a queue, or why there can be no such run."""
        assert start.queue is not None
        queue = self.refusal(start.queue, start.weight)
        if isinstance(queue, PerdureError):
            return queue
        against = self.admission.obstacle(
            queue, start.key or "", start.weight, start.owner, start.at_ms
        )
        if against is None and start.owner is not None:
            return None
        return self._too_many(queue) or against or Obstacle("", start.at_ms)

    def begin_run(self, start: StartRun, run: int, against: Obstacle | None) -> None:
        """The place of a new run."""
        queue = self.states.named(start.queue or "")
        assert queue is not None
        key, fields = start.key or "", (run, 0, start.priority, start.weight)
        if against is None:
            self._insert_admitted(queue, key, *fields, start.at_ms, start.owner)
        else:
            taker = line_takers.of_workflow(start.workflow)
            self._insert_waiting(queue, key, *fields, taker, start.at_ms, against)

    def goes_on(self, run: int, worker: int, now_ms: int) -> bool:
        """Whether a run that is due may be executed by a worker; if not, it waits in line."""
        name, workflow, key, priority, weight = self._db.rows("asks_of_run", (run,))[0]
        queue = self.states.named(name)
        if queue is None:
            return True  # a file of a version that had no queues: the name was a label
        key, taker = key or "", line_takers.of_workflow(workflow)
        row = self._db.row("place_of", (run, 0))
        if row is None:
            against = self.admission.obstacle(queue, key, weight, worker, now_ms)
            fields = (run, 0, priority, weight)
            if against is None:
                self._insert_admitted(queue, key, *fields, now_ms, worker)
                return True
            self._insert_waiting(queue, key, *fields, taker, now_ms, against)
        else:
            place, _, key, priority, weight, prepaid, line, admitted_ms, _ = row
            if line is None:
                if admitted_ms is not None:
                    if not queue.worker_full(worker):
                        queue.worker_changed(worker)
                        return True
                    self._db.do("set_aside", (place,))
                    self._freed((place, key, queue.queue, None, admitted_ms), None, now_ms)
                tokens = max(0, weight - prepaid)
                against = self.admission.obstacle(queue, key, tokens, worker, now_ms)
                if against is None:
                    self._admit_again(queue, place, key, prepaid, tokens, now_ms, worker)
                    return True
                self._into_line(queue, place, key, priority, taker, now_ms, against)
        self._db.do("wait_in_line", (waiting_for(name), run))
        return False

    def _admit_again(
        self, queue: OpenQueue, place: int, key: str, prepaid: int, tokens: int, now_ms: int,
        worker: int,
    ) -> None:  # fmt: skip
        self.admission.draw(queue, key, tokens, now_ms)
        self._db.do("admit_place", (now_ms, prepaid + tokens, None, place))
        queue.added(key, 1)
        queue.worker_changed(worker)

    def end_run(self, run: int, worker: int | None, now_ms: int) -> None:
        """A run with a queue has ended, or a run that waited was cancelled: its places are free."""
        self._gone("places_of_run", (run,), worker, now_ms, reports=worker is not None)

    def give_back(self, run: int, worker: int | None, now_ms: int, *, reports: bool) -> None:
        """A run was paused or blocked: it keeps the number of its place only."""
        row = self._db.row("place_of", (run, 0))
        if row is not None:
            place, queue, key, _, _, _, line, admitted_ms, _ = row
            self._db.do("set_aside", (place,))
            self._freed((place, key, queue, line, admitted_ms), worker, now_ms)
            self._next(self.states.keyed(queue), now_ms, reports=reports)

    def stop(self, run: int, worker: int | None, now_ms: int) -> None:
        """A run without an owner was paused: its steps wait no longer, either."""
        self.give_back(run, worker, now_ms, reports=False)
        self._gone("step_places_in_line", (run,), worker, now_ms, reports=False)

    def _gone(
        self, query: str, bindings: tuple[Any, ...], worker: int | None, now_ms: int, *,
        reports: bool,
    ) -> list[tuple[Any, ...]]:  # fmt: skip
        """Drop the places that a query finds. Returns their rows."""
        rows = self._db.rows(query, bindings)
        for row in rows:
            self._db.do("drop_place", row[:1])
        queues = {row[2]: self._freed(tuple(row[:5]), worker, now_ms) for row in rows}
        for queue in queues.values():
            self._next(queue, now_ms, reports=reports)
        return rows

    def let_go(self, run: int, queue: str | None, status: str, worker: int, now_ms: int) -> None:
        """A run with a queue has no owner any more."""
        if status in (PAUSED, BLOCKED):
            self.give_back(run, worker, now_ms, reports=True)
        elif queue is not None and (state := self.states.named(queue)) is not None:
            state.worker_changed(worker)
            if state.limits.per_worker is not None and state.waiting:
                self._pass(state, now_ms)

    def leave_in_line(self, run: int, now_ms: int) -> None:
        """A run without an owner waits on for places of its steps; one that has come makes it due.

        It would not have been admitted for another than its owner, who has not seen it yet.
        """
        ((workflow,),) = self._db.rows("workflow_of", (run,))
        for place, queue, key, priority, line, admitted_ms in self._db.rows("step_places", (run,)):
            if admitted_ms is not None:
                self._db.do("due_for_step", (now_ms, run))
            elif line is not None:
                taker = line_takers.of_workflow(workflow)
                state = self.states.keyed(queue)
                self.lines.move(state, place, key, priority, line, taker)
                self._note_due(state)

    # --- workers ----------------------------------------------------------------------------------

    def end_worker(self, worker: int, now_ms: int) -> None:
        """A worker ends: its steps' places are free, and what waits is for others to take."""
        if not self.states.any:
            return
        for (run,) in self._db.rows("runs_in_line", (line_takers.of_worker(worker),)):
            self.leave_in_line(run, now_ms)
        for (run,) in self._db.rows("paused_in_queues", (worker,)):
            self.stop(run, worker, now_ms)
        for row in self._gone("places_of_worker", (worker,), worker, now_ms, reports=False):
            self._db.do("due_for_step", (now_ms, row[5]))

    def admissible(self, now_ms: int) -> int:
        """About how many places queues could admit by now."""
        found = 0
        for queue in self.states.due(now_ms):
            limit = queue.limits.concurrency
            found += min(queue.waiting, queue.waiting if limit is None else limit - queue.admitted)
        return found

    def claim(self, claim: Claim, room: Room) -> None:
        """Let queues admit what they may, within the room of a claim."""
        for queue in [*self.states.due(claim.now_ms)]:
            queue.worker_changed(claim.owner)
            self.admission.admit(queue, claim.now_ms, room)
        for family in claim.families or ():
            for row in self._db.rows("family_places", (family.root, family.run)):
                queue = self._claim_asked(row, claim, room)
                if queue.full():
                    queue.look_next(None)
        self.steps += room.steps

    def _claim_asked(self, row: tuple[Any, ...], claim: Claim, room: Room) -> OpenQueue:
        """Admit a place of a family that an engine was asked for."""
        queue = self.states.keyed(row[0])
        first = line_takers.Waiting(*row[1:])
        wanted = [line_takers.of_workflow(name) for name in claim.workflows]
        if room.left > 0 and first.taker in wanted:
            against = self.admission.obstacle(
                queue, first.key, first.tokens, claim.owner, claim.now_ms, in_order=False
            )
            if against is None:
                self.admission.take(queue, first, claim.now_ms, room)
            else:
                queue.look_at(against.ms)
        return queue


def waiting_for(queue: str) -> str:
    """What a run waits for in line, as JSON."""
    return _encode([{"queue": queue}]).decode()
