"""Workers and the runs that they own: joining, leases, claims, and the end of a worker.

Rules: a worker's number is never used again, so it is the fencing token of its runs; only the owner
of a run writes its history; the runs of a worker that ends are due at once; what was looked up is
known until another connection has committed.
"""

from __future__ import annotations

import msgspec

from perdure.errors import CrashLoop, LeaseLost
from perdure.store import claims
from perdure.store.admission import Room
from perdure.store.inboxes import Inboxes
from perdure.store.queue_settings import QueueSettings
from perdure.store.queues import Places
from perdure.store.rows import Claimed, WorkerEnded
from perdure.store.transaction import Transaction
from perdure.store.writes import (
    Claim,
    ClockMovedBack,
    EndWorker,
    JoinWorker,
    RenewLease,
    WakeBlocked,
)

_encode = msgspec.json.Encoder().encode


class Ownership:
    """What writes about workers do in the transaction `db`."""

    def __init__(
        self, db: Transaction, inboxes: Inboxes, places: Places, queues: QueueSettings
    ) -> None:
        self._db, self._inboxes, self._places, self._queues = db, inboxes, places, queues
        self.owners: dict[int, int] = {}
        """Owners of runs, as far as they are known."""
        self._alive: set[int] = set()

    def forget(self) -> None:
        """Another connection has committed, or the transaction was rolled back."""
        self.owners.clear()
        self._alive.clear()

    # --- owners ---------------------------------------------------------------------------------

    def lost(self, run: int, owner: int) -> LeaseLost | None:
        """The refusal of a write to a run that `owner` does not own."""
        if self.owners.get(run) == owner:
            return None
        found = self._db.rows("owner_of", (run,))
        if not found or found[0][0] != owner:
            return LeaseLost(f"Worker {owner}")
        self.owners[run] = owner
        return None

    def is_alive(self, worker: int) -> bool:
        """Whether a worker has not ended."""
        if worker not in self._alive and self._db.rows("worker_alive", (worker,)):
            self._alive.add(worker)
        return worker in self._alive

    # --- writes -----------------------------------------------------------------------------------

    def claim(self, claim: Claim) -> Claimed:
        """See `Claim`."""
        if not self.is_alive(claim.owner):
            return Claimed()
        due = claims.due_runs(self._db, claim)
        free = [(claim.owner, claim.now_ms, run) for run, queue in due if queue is None]
        self._db.many("claim_run", free)
        if len(free) == len(due) and not self._places.states.any:
            return self._own(claim, Claimed([run for run, _ in due]))
        runs = [run for run, queue in due if queue is None or self._goes_on(run, claim)]
        return self._admit(claim, runs)

    def _goes_on(self, run: int, claim: Claim) -> bool:
        """Claim a run with a queue, or let it wait there."""
        admitted = self._places.goes_on(run, claim.owner, claim.now_ms)
        if admitted:
            self._db.do("claim_run", (claim.owner, claim.now_ms, run))
        return admitted

    def _admit(self, claim: Claim, runs: list[int]) -> Claimed:
        """Add to claimed `runs` what queues admit."""
        places = self._places
        places.begin()
        left = claim.limit - len(runs)
        if left > 0 and claim.families is None:
            left = min(left, claims.share(self._db, claim, places.admissible(claim.now_ms)))
        room = Room(claim.owner, left, claim.workflows if claim.families is None else ())
        places.claim(claim, room)
        admitted = places.admitted_of(claim.owner)
        return self._own(claim, Claimed(runs + room.runs, admitted, bool(room.runs)))

    def _own(self, claim: Claim, claimed: Claimed) -> Claimed:
        self.owners.update(dict.fromkeys(claimed.runs, claim.owner))
        return claimed

    def join(self, join: JoinWorker) -> int:
        """See `JoinWorker`."""
        lease_ms = join.now_ms + join.ttl_ms
        fields = (join.name, join.host, join.pid, join.born, join.now_ms, lease_ms, join.ttl_ms)
        ((worker,),) = self._db.rows("join_worker", (*fields, int(join.asked)))
        return int(worker)

    def renew(self, renew: RenewLease) -> bool:
        """See `RenewLease`."""
        return bool(self._db.rows("renew_lease", (renew.lease_ms, renew.worker, renew.ttl_ms)))

    def end(self, end: EndWorker) -> WorkerEnded | None:
        """See `EndWorker`."""
        self.forget()
        if not self._db.rows("end_worker", (end.now_ms, end.worker, end.beats)):
            return None
        self._places.begin()
        self._places.end_worker(end.worker, end.now_ms)
        self._db.do("orphan_schedules", (end.worker,))
        self._db.do("undeclare_schedules", (end.worker,))
        blocked = self._block_crash_loops(end) if end.crashed else []
        return WorkerEnded(self._db.change("free_runs", (end.now_ms, end.worker)), blocked)

    def _block_crash_loops(self, end: EndWorker) -> list[tuple[str, str, str]]:
        """Count a crash against each run that the worker executed; too many block the run."""
        self._db.do("count_crashes", (end.worker,))
        blocked = []
        for run, run_id, workflow, crashes in self._db.rows(
            "crash_loops", (end.worker, end.crashes_max)
        ):
            reason = CrashLoop(run_id, crashes).reason
            self._db.do("block_crash_loop", (reason, run))
            if self._places.states.any:
                self._places.stop(run, end.worker, end.now_ms)
            self._inboxes.cancel_blocked(run, end.now_ms)
            blocked.append((run_id, workflow, reason))
        return blocked

    def wake_blocked(self, wake: WakeBlocked) -> None:
        """See `WakeBlocked`."""
        family = (None, None) if wake.family is None else (wake.family.run, wake.family.root)
        bindings = (wake.now_ms, _encode(wake.workflows).decode(), *family)
        self._db.do("wake_blocked", bindings)
        self._db.do("wake_unread", bindings)

    def clock_moved_back(self, moved: ClockMovedBack) -> None:
        """See `ClockMovedBack`."""
        self._db.do("due_at_once", (moved.now_ms,))
        self._db.do("due_with_mail", (moved.now_ms,))
        self._queues.clock_moved_back(moved.now_ms)
