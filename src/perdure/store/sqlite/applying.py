"""What each write means in SQLite: the statements that apply it, within the transaction that
`sqlite.SqliteStore` has begun.

Rules: a refused write is an error value; ownership is checked before anything is changed; rows of
history are gathered and inserted together at the end of the transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import apsw
import msgspec
from msgspec.structs import astuple

from perdure.core.events import FINISH, Command, Event
from perdure.core.lifecycle import FINAL
from perdure.core.limits import INLINE_BYTES_MAX, Limits
from perdure.errors import (
    InboxFull,
    LeaseLost,
    PayloadTooLarge,
    PerdureError,
    RunBlocked,
    RunExists,
    RunFinished,
    RunNotFound,
)
from perdure.store import payloads, sql
from perdure.store.rows import Started, Woken, WorkerEnded, Written
from perdure.store.sqlite import checksum, claims
from perdure.store.sqlite.authorizer import Guard
from perdure.store.sqlite.reader import Reader
from perdure.store.writes import (
    AdoptChild,
    Append,
    BeginEpoch,
    Claim,
    ClockMovedBack,
    ControlRun,
    Deliver,
    Emit,
    EndWorker,
    Finish,
    ForkRun,
    JoinWorker,
    RecordHeartbeat,
    RenewLease,
    StartRun,
    Suspend,
    Transact,
    Turn,
    WakeBlocked,
)

Q = sql.load("sqlite.sql")
_json = msgspec.json.Encoder()


class Applier(Reader):
    """Applies writes on the connection of a store, which sets what stands here."""

    limits: Limits
    _db: apsw.Connection
    _cursor: apsw.Cursor
    _guard: Guard
    _sealed: bool
    _added: checksum.Additions
    _owners: dict[int, int]
    _alive: set[int]
    _rows: list[tuple[Any, ...]]
    _digests: dict[int, dict[bytes, int]]
    _apply: dict[type, Callable[[Any], Any]]

    def _one(self, sql: str, bindings: Any = ()) -> Any:
        return self._cursor.execute(sql, bindings).fetchone()

    # --- history ----------------------------------------------------------------------------------

    def _payload(self, run: int, raw: bytes | None, is_args: bool = False) -> str | None:
        if raw is None:
            return None
        if len(raw) <= INLINE_BYTES_MAX:
            return raw.decode()
        known = self._digests.get(run)
        if known is None:
            if len(self._digests) > 256:
                self._digests.clear()
            known = self._digests[run] = dict(self._db.execute(Q["chunk_digests"], (run,)))
        text, new = payloads.split(raw, known, is_args)
        self._db.executemany(Q["insert_chunk"], [(run, n, digest, body) for n, digest, body in new])
        return text

    def _append(self, run: int, rows: Sequence[Event | Command]) -> None:
        first, add = run << 24, self._rows.append
        for row in rows:
            data = row.data
            if data is None or (type(data) is bytes and len(data) <= INLINE_BYTES_MAX):
                add((first, *astuple(row)[:8]))
            else:
                raw = data if isinstance(data, bytes) else data.read()
                text = self._payload(run, raw, row.kind in ("step", "child", "spawn"))
                add((first, *astuple(row)[:5], text, row.took_ms, row.edited))

    def _flush(self) -> None:
        self._cursor.executemany(Q["insert_event"], self._rows)
        if self._sealed:
            self._added.add(self._rows)
        self._rows.clear()

    def _append_rows(self, append: Append) -> LeaseLost | None:
        if (
            self._owners.get(append.run) != append.owner
            and (lost := self._not_owner(append.run, append.owner)) is not None
        ):
            return lost
        self._append(append.run, append.rows)
        return None

    def _turn(self, turn: Turn) -> Written | PerdureError:
        if (
            self._owners.get(turn.run) != turn.owner
            and (lost := self._not_owner(turn.run, turn.owner)) is not None
        ):
            return lost
        tags = None if turn.tags is None else self._with_tags(turn.run, turn.tags)
        if isinstance(tags, PayloadTooLarge):
            return tags
        if turn.finish is not None:
            for row in turn.rows:
                if row.kind == FINISH:
                    row.data = None  # stands in the run's own row
        self._append(turn.run, turn.rows)
        self._note(turn, tags)
        written = Written([], [])
        for effect in turn.effects:
            result = self._apply[type(effect)](effect)
            written.effects.append(result)
            if isinstance(result, Woken):
                written.woken += [result.run, *result.others]
        if turn.finish is not None:
            self._finish(turn, turn.finish, written)
        elif turn.suspend is not None:
            written.woken += self._suspend(turn.run, turn.suspend, turn.at_ms)
        return written

    def _note(self, turn: Turn, tags: dict[str, Any] | None) -> None:
        """What a turn changes of its run besides the history."""
        for inbox_id, seq in turn.taken:
            self._db.execute(Q["take"], (seq, inbox_id))
        if tags is not None:
            self._store_tags(turn.run, tags)
        if turn.unread is not None:
            self._db.execute(Q["set_unread"], (turn.unread, turn.run))
        if turn.python is not None:
            self._db.execute(Q["set_python"], (turn.python, turn.run))
        if turn.settled:
            self._db.execute(Q["settle"], (turn.run,))

    def _suspend(self, run: int, suspend: Suspend, at_ms: int) -> list[int]:
        """Note where a run stands; gives the runs that are to be woken by that."""
        if suspend.status is not None:
            waiting = suspend.waiting.decode() if suspend.waiting is not None else None
            self._db.execute(
                Q["suspend"],
                (suspend.status, waiting, suspend.due_ms, suspend.blocked_by, suspend.reason, run),
            )
        if suspend.release:
            self._owners.pop(run, None)
            self._db.execute(Q["release"], (run,))
            self._db.execute(Q["release_with_mail"], (at_ms, run))
        return self._cancelled_at_last(run, at_ms) if suspend.status == "blocked" else []

    def _finish(self, turn: Turn, finish: Finish, written: Written) -> None:
        self._owners.pop(turn.run, None)
        successor = self._succeed(turn.run, finish) if finish.successor is not None else None
        result = self._payload(turn.run, finish.result)
        error = self._payload(turn.run, finish.error)
        parent, parent_seq, run_id = self._one(
            Q["finish"], (finish.status, result, error, turn.at_ms, successor, turn.run)
        )
        self._db.execute(Q["close_inbox"], (turn.run,))
        if successor is not None:
            written.woken.append(successor)
        elif parent is not None:
            self._tell_parent(parent, parent_seq, run_id, finish, turn.at_ms)
            written.woken.append(parent)

    def _tell_parent(
        self, parent: int, seq: int | None, run_id: str, finish: Finish, at_ms: int
    ) -> None:
        if seq is None:  # of an earlier generation: the parent looks at it again
            self._db.execute(Q["wake_waiting"], (at_ms, parent, at_ms))
            return
        if finish.status == "completed":
            kind, data = "completed", finish.result or b"null"
        else:
            kind, data = (
                "failed",
                b'{"error":%s,"run":%s,"status":%s}'
                % (
                    finish.error or b"null",
                    _json.encode(run_id),
                    _json.encode(finish.status),
                ),
            )
        self._db.execute(Q["insert_inbox"], (parent, kind, None, seq, data.decode(), at_ms))
        self._db.execute(Q["wake_waiting"], (at_ms, parent, at_ms))

    def _succeed(self, run: int, finish: Finish) -> int:
        """The old run gets a suffix, the new one its id, its parent and what is in its inbox."""
        start = finish.successor
        assert start is not None
        self._rename(run, start.id)
        started = self._start(start)
        assert isinstance(started, Started)
        for channel, data in finish.leftovers:
            self._db.execute(
                Q["insert_inbox"],
                (started.run, "message", channel, None, data.decode(), start.at_ms),
            )
        self._hand_on(started.run, run, "hand_on_inbox")
        return started.run

    def _hand_on(self, run: int, predecessor: int, what: str) -> None:
        """The inbox goes to the run that goes on under the id, in its order, and keys
        stay used up.
        """
        self._db.execute(Q[what], (run, predecessor))
        self._db.execute(Q["join_chain"], (predecessor, run))

    def _rename(self, run: int, run_id: str) -> None:
        (generations,) = self._one(Q["generations"], (run,))
        self._db.execute(Q["set_id"], (f"{run_id}~{generations + 1}", run))

    def _with_tags(self, run: int, changes: dict[str, Any]) -> dict[str, Any] | PayloadTooLarge:
        """The run's tags after a turn, if together they are not larger than one payload may be."""
        (text,) = self._one(Q["run_tags"], (run,))
        tags = {**(msgspec.json.decode(text) if text else {}), **changes}
        kept = {key: value for key, value in tags.items() if value is not None}
        size_bytes, limit_bytes = len(_json.encode(kept)), self.limits.payload_bytes_max
        return (
            kept
            if size_bytes <= limit_bytes
            else PayloadTooLarge("the run's tags together", size_bytes, limit_bytes)
        )

    def _store_tags(self, run: int, tags: dict[str, Any]) -> None:
        self._db.execute(Q["set_tags"], (_json.encode(tags).decode(), run))
        self._db.execute(Q["drop_tags"], (run,))
        self._db.executemany(
            Q["insert_tag"],
            [(key, _json.encode(value).decode(), run) for key, value in tags.items()],
        )

    # --- starting ---------------------------------------------------------------------------------

    def _start(self, start: StartRun) -> Started | PerdureError:
        if start.owner is not None and not self._is_alive(start.owner):
            start.owner, start.due_ms = (
                None,
                start.at_ms,
            )  # it lost its lease meanwhile: anybody may take the run
        inline = len(start.args) <= INLINE_BYTES_MAX
        owned = start.owner is not None
        status, started_ms = ("running", start.at_ms) if owned else ("pending", None)
        inserted = self._one(
            Q["insert_run"],
            (
                start.id,
                start.workflow,
                status,
                start.args.decode() if inline else "null",
                start.owner,
                start.due_ms,
                start.priority,
                start.queue,
                start.parent,
                start.parent_seq,
                start.seed,
                start.timeout_ms,
                start.at_ms,
                started_ms,
                start.durability,
                start.python,
                start.root,
            ),
        )
        if inserted is None:
            return self._same_run(start, *self._one(Q["existing_run"], (start.id,)))
        (run,) = inserted
        if not inline:
            self._db.execute(Q["set_args"], (self._payload(run, start.args, True), run))
        if start.tags:
            self._store_tags(run, start.tags)
        if start.owner is not None:
            self._owners[run] = start.owner
            self._append(run, start.first or ())
        return Started(run, start.id, True, owned)

    def _same_run(
        self, start: StartRun, run: int, workflow: str, args: str
    ) -> Started | PerdureError:
        if _is_start_of(start, workflow, args):
            return Started(run, start.id, False)
        first = self._one(Q["first_generation"], (f"{start.id}~1",))
        if first is not None and _is_start_of(start, *first[:2]):
            return Started(
                run, start.id, False
            )  # it has gone on as another call since; who starts again can't know
        runs = [run] if workflow == start.workflow else []
        runs += [first[2]] if first is not None and first[0] == start.workflow else []
        if workflow != start.workflow:
            return RunExists(
                start.id,
                f"it is a run of workflow {workflow!r}, not {start.workflow!r}",
                run,
                tuple(runs),
            )
        return RunExists(start.id, "it has other arguments", run, tuple(runs))

    def _fork(self, fork: ForkRun) -> Started | PerdureError:
        found = self._one(Q["existing_run"], (fork.id,))
        if not fork.replace and found is not None:
            return RunExists(fork.id, "a fork needs an id of its own")
        if fork.replace:
            if found is None or found[0] != fork.source:
                return RunExists(fork.id, "it has been retried already")
            self._rename(fork.source, fork.id)
        (run,) = self._one(
            Q["fork_run"],
            (fork.id, fork.at_ms, int(fork.replace), fork.source, *(fork.parent or (None, None))),
        )
        self._db.execute(Q["copy_chunks"], (run, fork.source))
        self._db.execute(
            Q["fork_events"],
            (run, fork.source, fork.before_seq, _json.encode(fork.left_out).decode()),
        )
        self._db.execute(
            Q["move_stream" if fork.replace else "fork_stream"], (run, fork.source, fork.before_seq)
        )
        if fork.args is not None:
            self._db.execute(Q["set_args"], (self._payload(run, fork.args, True), run))
        for seq, data in fork.edits:
            self._db.execute(Q["edit_event"], (self._payload(run, data, True), run, seq))
        if self._sealed:
            self._added.add_run(self._db, run)
        self._append(run, fork.extra)
        if fork.replace:
            self._hand_on_retried(fork, run)
        (tags,) = self._one(Q["run_tags"], (run,))
        if tags:
            self._store_tags(run, msgspec.json.decode(tags))
        return Started(run, fork.id, True)

    def _adopt_child(self, adopt: AdoptChild) -> bool:
        return self._one(Q["adopt_child"], (adopt.parent, adopt.child)) is not None

    def _hand_on_retried(self, fork: ForkRun, run: int) -> None:
        """What the run had received behind the cut comes first, then what nobody has read."""
        self._db.execute(Q["fork_heartbeats"], (run, fork.source, fork.before_seq))
        for row in fork.returned:
            data = row.data if row.data is None or isinstance(row.data, bytes) else row.data.read()
            text = None if data is None else data.decode()
            self._db.execute(Q["insert_inbox"], (run, row.kind, row.name, row.ref, text, row.at_ms))
        self._hand_on(run, fork.source, "hand_on_left")

    # --- messages and people's words --------------------------------------------------------------

    def _deliver(self, message: Deliver) -> Woken | PerdureError:
        found = self._one(Q["receiver"], (message.run_id,))
        if found is None:
            return RunNotFound(message.run_id)
        run, status, chain = found
        if message.key is not None and self._one(Q["key_used"], (chain, message.key)) is not None:
            return Woken(
                run
            )  # it has arrived before; who sends again need not know when the run ended
        if status == "cancelled" and message.kind == "cancel":
            return Woken(run)  # it is what was asked for
        if status in FINAL:
            return RunFinished(message.run_id, status, message.verb)
        if (
            message.kind == "cancel"
            and (ended := self._one(Q["end_unstarted"], (message.at_ms, run))) is not None
        ):
            return self._ended_at_once(run, ended, message.at_ms)
        if (
            message.kind == "message"
            and self._one(Q["unread"], (run,))[0] >= self.limits.inbox_rows_max
        ):
            return InboxFull(message.run_id, self.limits.inbox_rows_max)
        if (
            message.kind != "cancel" or self._one(Q["cancel_waits"], (run,)) is None
        ):  # one cancel waits at most
            data = message.data.decode() if message.data is not None else None
            of_chain = None if message.key is None else chain
            row = (
                run,
                message.kind,
                message.name,
                message.ref,
                data,
                message.at_ms,
                message.key,
                of_chain,
            )
            self._db.execute(Q["insert_message"], row)
        if message.kind != "message":
            if status in ("paused", "blocked"):
                self._db.execute(Q["go_on"], (message.at_ms, run))
            self._db.execute(Q["wake_if_idle"], (message.at_ms, run, message.at_ms))
        else:
            self._db.execute(Q["wake_waiting"], (message.at_ms, run, message.at_ms))
        return Woken(run)

    def _ended_at_once(self, run: int, ended: Any, at_ms: int) -> Woken:
        """A run that has not started, or that is blocked, has no code to unwind: it is cancelled as
        it stands.
        """
        self._db.execute(Q["close_inbox"], (run,))
        woken = Woken(run)
        for (child,) in self._db.execute(Q["open_children"], (run,)).fetchall():
            below = self._deliver(Deliver(str(child), "cancel", at_ms, verb="cancel"))
            if isinstance(below, Woken):
                woken.others += [below.run, *below.others]
        parent, seq, run_id = ended
        if parent is not None:
            self._tell_parent(parent, seq, run_id, Finish("cancelled"), at_ms)
            woken.others.append(parent)
        return woken

    def _cancelled_at_last(self, run: int, at_ms: int) -> list[int]:
        """A run that is blocked while a cancel waits in its inbox has been cancelled; gives the
        runs that are to be woken by that.
        """
        if self._one(Q["cancel_waits"], (run,)) is None:
            return []
        ended = self._one(Q["end_unstarted"], (at_ms, run))
        return [] if ended is None else self._ended_at_once(run, ended, at_ms).others

    def _control(self, control: ControlRun) -> Woken | PerdureError:
        found = self._one(Q["run_of_id"], (control.run_id,))
        if found is None:
            return RunNotFound(control.run_id)
        run, status, reason = found
        if status in FINAL:
            return RunFinished(control.run_id, status, control.verb)
        match control.verb, status:
            case (
                "pause",
                _,
            ):  # also where it is blocked: new code would let it go on; its reason stays
                self._db.execute(Q["pause"], (run,))
            case ("resume", "paused") | ("retry", "blocked" | "paused"):
                self._db.execute(Q["go_on"], (control.at_ms, run))
            case "resume", "blocked":
                return RunBlocked(control.run_id, reason or "")
            case _:
                pass  # it runs already
        return Woken(run)

    # --- workers ----------------------------------------------------------------------------------

    def _claim(self, claim: Claim) -> list[int]:
        if not self._is_alive(claim.owner):
            return []
        runs = claims.due_runs(self._db, claim)
        self._db.executemany(Q["claim_run"], [(claim.owner, claim.now_ms, run) for run in runs])
        return runs

    def _join(self, join: JoinWorker) -> int:
        fields = (
            join.name,
            join.host,
            join.pid,
            join.born,
            join.now_ms,
            join.now_ms + join.ttl_ms,
            join.ttl_ms,
            join.asked,
        )
        return int(self._one(Q["join_worker"], fields)[0])

    def _keep_lease(self, keep: RenewLease) -> bool:
        return self._one(Q["keep_lease"], (keep.lease_ms, keep.worker)) is not None

    def _forget_owners(self) -> None:
        self._owners.clear()
        self._alive.clear()

    def _is_alive(self, worker: int) -> bool:
        if worker not in self._alive and self._one(Q["worker_alive"], (worker,)) is not None:
            self._alive.add(worker)
        return worker in self._alive

    def _end_worker(self, end: EndWorker) -> WorkerEnded | None:
        self._forget_owners()
        if self._one(Q["end_worker"], (end.now_ms, end.worker, end.beats)) is None:
            return None  # somebody was faster, or it lives after all
        blocked: list[Any] = []
        if end.crashed:
            self._db.execute(Q["count_crashes"], (end.worker,))
            blocked += self._db.execute(
                Q["block_crash_loops"], (end.worker, end.crashes_max)
            ).fetchall()
            for run, *_ in blocked:
                self._cancelled_at_last(run, end.now_ms)
        self._db.execute(Q["free_runs"], (end.now_ms, end.worker))
        return WorkerEnded(self._db.changes(), [row[1:] for row in blocked])

    def _wake_blocked(self, wake: WakeBlocked) -> None:
        family = (None, None) if wake.family is None else (wake.family.run, wake.family.root)
        bindings = (wake.now_ms, _json.encode(wake.workflows).decode(), *family)
        self._db.execute(Q["wake_blocked"], bindings)
        self._db.execute(Q["wake_unread"], bindings)

    def _clock_moved_back(self, moved: ClockMovedBack) -> None:
        self._db.execute(Q["due_at_once"], (moved.now_ms,))
        self._db.execute(Q["due_with_mail"], (moved.now_ms,))

    def _begin_epoch(self, begin: BeginEpoch) -> None:
        self._db.execute(Q["begin_epoch"], (begin.store_id, begin.address, begin.epoch))

    # --- steps ------------------------------------------------------------------------------------

    def _not_owner(self, run: int, owner: int) -> LeaseLost | None:
        found = self._cursor.execute(
            Q["owner_of"], (run,)
        ).fetchall()  # to its end: an open statement would lock a step's DROP TABLE
        if not found or found[0][0] != owner:
            return LeaseLost(f"Worker {owner}")
        self._owners[run] = owner
        return None

    def _emit(self, emit: Emit) -> LeaseLost | None:
        if (lost := self._not_owner(emit.run, emit.owner)) is not None:
            return lost
        attempt = emit.attempt or None
        rows = [
            (emit.run, name, emit.seq, attempt, data.decode() if attempt else None, emit.at_ms)
            for name, data in emit.items
        ]
        self._db.executemany(Q["insert_stream"], rows)
        return None

    def _record_heartbeat(self, heartbeat: RecordHeartbeat) -> LeaseLost | None:
        if (lost := self._not_owner(heartbeat.run, heartbeat.owner)) is not None:
            return lost
        self._db.execute(
            Q["insert_heartbeat"],
            (
                heartbeat.run,
                heartbeat.seq,
                heartbeat.attempt,
                heartbeat.data.decode(),
                heartbeat.at_ms,
            ),
        )
        return None

    def _transact(self, transact: Transact) -> Event | PerdureError | None:
        """The user's writes and the step's row, together or not at all."""
        if (lost := self._not_owner(transact.run, transact.owner)) is not None:
            return lost
        if self._rows:
            self._flush()
        value, error = self._guard.run(transact.work)
        row = transact.conclude(value, error)
        if row is not None:
            self._append(transact.run, [row])
        return row


def _is_start_of(start: StartRun, workflow: str, args: str) -> bool:
    if workflow != start.workflow:
        return False
    return (
        payloads.recorded_digest(args) == payloads.digest_of(start.args)
        if payloads.is_chunked(args)
        else args == start.args.decode()
    )
