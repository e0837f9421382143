"""New runs in a transaction: started, continued under the same id, forked.

Rules: an id names one run; a start with an id that exists gives that run if workflow and arguments
are the same; a run that continues, or that is retried, gets a suffix to its id, and the new one
takes over the id, the keys of messages that arrived, and the inbox.
"""

from __future__ import annotations

import msgspec

from perdure.core.events import REQUEST, Chunked, Event
from perdure.core.lifecycle import PENDING, RUNNING, WAITING
from perdure.errors import PerdureError, RunExists, RunNotFound
from perdure.store import debounce
from perdure.store.history import HistoryWriter
from perdure.store.inboxes import Inboxes
from perdure.store.ownership import Ownership
from perdure.store.queues import Places, waiting_for
from perdure.store.rows import Started
from perdure.store.tags import Tags
from perdure.store.transaction import Transaction
from perdure.store.writes import AdoptChild, Finish, ForkRun, StartRun

_decode = msgspec.json.decode


class Starting:
    """What writes about new runs do in the transaction `db`."""

    def __init__(
        self,
        db: Transaction,
        history: HistoryWriter,
        ownership: Ownership,
        inboxes: Inboxes,
        tags: Tags,
        places: Places,
    ) -> None:
        self._db, self._history, self._ownership = db, history, ownership
        self._inboxes, self._tags, self._places = inboxes, tags, places

    def start(self, start: StartRun) -> Started | PerdureError:
        """See `StartRun`."""
        if start.owner is not None and not self._ownership.is_alive(start.owner):
            start.owner, start.due_ms = None, start.at_ms  # ended meanwhile: any worker may claim
        started = self._begin(start) if start.queue is None else self._start_in_queue(start)
        if start.places and isinstance(started, Started) and started.owned:
            for ask in start.places:
                ask.run = started.run
                started.places.append(self._places.ask(ask))
            started.queue_due = started.queue_due or self._places.due()
        return started

    def _start_in_queue(self, start: StartRun) -> Started | PerdureError:
        """Start a run that is admitted at once, or waits in line, or asks when it is due."""
        assert start.queue is not None
        if self._db.row("existing_run", (start.id,)) is not None:
            return self._existing(start)
        if start.due_ms is not None and start.due_ms > start.at_ms:
            refused = self._places.refusal(start.queue, start.weight)
            start.owner = None
            return refused if isinstance(refused, PerdureError) else self._begin(start)
        against = self._places.plan(start)
        if isinstance(against, PerdureError):
            return against
        if against is not None:
            start.owner = None
        started = self._begin(start, waits=against is not None)
        assert isinstance(started, Started)
        self._places.begin_run(start, started.run, against)
        queue = self._places.states.named(start.queue)
        started.queue_due = queue is not None and queue.next_ms is not None
        return started

    def _begin(self, start: StartRun, *, waits: bool = False) -> Started | PerdureError:
        """Insert a run; with `waits` one that waits in line."""
        inline = self._history.fits_in_row(start.args)
        owned = start.owner is not None
        status, started_ms = (RUNNING, start.at_ms) if owned else (PENDING, None)
        due_ms, waiting = start.due_ms, None
        if waits:
            status, due_ms, waiting = WAITING, None, waiting_for(start.queue or "")
        args = start.args.decode() if inline else "null"
        fields = (
            start.id, start.workflow, status, args, start.owner, due_ms, start.priority,
            start.queue, start.parent, start.parent_seq, start.seed, start.timeout_ms, start.at_ms,
            started_ms, start.durability, start.python, start.root, waiting, start.key,
            start.weight, start.scheduled_ms,
        )  # fmt: skip
        run = self._db.insert("insert_run", fields)
        if run is None:
            return self._existing(start)
        if not inline:
            self._db.do("set_args", (self._history.payload(run, start.args, True), run))
        if start.tags:
            self._tags.put(run, start.tags)
        if start.debounce_until_ms is not None:
            self._db.do("set_debounce", (start.debounce_until_ms, run))
        if start.owner is not None:
            self._ownership.owners[run] = start.owner
            self._history.append(run, start.first or ())
        return Started(run, start.id, True, owned)

    def _existing(self, start: StartRun) -> Started | RunExists:
        """The run that has the id, if the start means it."""
        put_off = debounce.put_off(self._db, self._history, start)
        if put_off is not None:
            return Started(put_off, start.id, False)
        ((run, workflow, args),) = self._db.rows("existing_run", (start.id,))
        if self._is_start_of(start, run, workflow, args):
            return Started(run, start.id, False)
        first = self._db.row("existing_run", (f"{start.id}~1",))
        if first is not None and self._is_start_of(start, *first):
            return Started(run, start.id, False)  # continued as another call: callers can't know
        runs = [run] if workflow == start.workflow else []
        runs += [first[0]] if first is not None and first[1] == start.workflow else []
        if workflow != start.workflow:
            reason = f"it is a run of workflow {workflow!r}, not {start.workflow!r}"
            return RunExists(start.id, reason, run, tuple(runs))
        if (begun := debounce.refusal(self._db, start, run, tuple(runs))) is not None:
            return begun
        return RunExists(start.id, "it has other arguments", run, tuple(runs))

    def _is_start_of(self, start: StartRun, run: int, workflow: str, args: str) -> bool:
        return workflow == start.workflow and self._history.is_same(run, args, start.args)

    # --- under the same id ------------------------------------------------------------------------

    def succeed(self, run: int, start: StartRun, finish: Finish) -> int:
        """Start the run that continues another under its id. Returns the new run's key.

        It inherits parent, family, tags and durability: callers of the id were promised that; and
        the place in its queue.
        """
        ((parent, seq, root, tags, durability, *more),) = self._db.rows("inherited", (run,))
        start.scheduled_ms, *asks = more
        start.parent, start.parent_seq, start.root = parent, seq, root
        start.tags = _decode(tags) if tags else None
        start.durability = durability or start.durability
        if asks[0] is not None:
            start.queue, start.key, start.priority, start.weight = asks
        generation = self._rename(run, start.id)
        if start.owner is not None and not self._ownership.is_alive(start.owner):
            start.owner, start.due_ms = None, start.at_ms
        started = self._begin(start)
        assert isinstance(started, Started)
        if asks[0] is not None:
            self._db.do("hand_on_place", (started.run, run))
        for channel, data in finish.leftovers:
            self._inboxes.put(started.run, "message", channel, None, data, start.at_ms)
        for request in finish.requests:
            self._put_request(started.run, run, request)
        self._db.do("move_inbox", (started.run, run))
        for message, text in self._db.rows("chunked_messages", (started.run,)):
            moved = self._history.payload(started.run, self._history.whole(run, text))
            self._db.do("set_message", (moved, message))
        self._db.do("join_chain", (run, generation, started.run))
        return started.run

    def _rename(self, run: int, run_id: str) -> int:
        """Give a run the suffix of its generation. Returns that."""
        ((before,),) = self._db.rows("generation", (run,))
        if before is None:
            bounds = (f"{run_id}~", f"{run_id}\x7f")  # ~ comes right before the second
            ((before,),) = self._db.rows("count_ids", bounds)
        generation = int(before) + 1
        self._db.do("set_id", (f"{run_id}~{generation}", run))
        return generation

    # --- forks ------------------------------------------------------------------------------------

    def fork(self, fork: ForkRun) -> Started | RunExists | RunNotFound:
        """See `ForkRun`."""
        found = self._db.row("existing_run", (fork.id,))
        if not fork.replace and found is not None:
            return RunExists(fork.id, "a fork needs an id of its own")
        generation = 0
        if self._db.row("id_of", (fork.source,)) is None:
            return RunNotFound.pruned(fork.source)
        if fork.replace:
            if found is None or found[0] != fork.source:
                return RunExists(fork.id, "it has been retried already")
            generation = self._rename(fork.source, fork.id)
        run = self._copied(fork)
        self._history.append(run, fork.extra)
        if fork.replace:
            self._take_over(fork, run)
            self._db.do("join_chain", (fork.source, generation, run))
            if "@" in fork.id:  # as in the id of a tick's run
                self._db.do("note_retried_tick", (fork.id, fork.id.rpartition("@")[0]))
        ((tags,),) = self._db.rows("run_tags", (run,))
        if tags:
            self._tags.put(run, _decode(tags))
        return Started(run, fork.id, True)

    def _copied(self, fork: ForkRun) -> int:
        """The new run with what it has of its source; returns its key."""
        db, source = self._db, fork.source
        parent = fork.parent or (None, None)
        ((run,),) = db.rows("fork_run", (fork.id, fork.at_ms, int(fork.replace), source, *parent))
        db.do("copy_chunks", (run, source))
        db.do("copy_secrets", (run, source))
        payload = self._history.payload
        edits = [(seq, payload(run, data, True)) for seq, data in fork.edits]
        db.copy_history(run, source, fork.before_seq, fork.left_out, edits)
        streams = "move_stream" if fork.replace else "fork_stream"
        db.do(streams, (run, source, fork.before_seq))
        db.do("copy_exposed", (run,))
        if fork.args is not None:
            db.do("set_args", (payload(run, fork.args, True), run))
        return int(run)

    def _take_over(self, fork: ForkRun, run: int) -> None:
        """What the source received behind the cut comes first, then what it has not read."""
        self._db.do("fork_heartbeats", (run, fork.source, fork.before_seq))
        self._db.do("copy_requests", (run, fork.source, fork.before_seq))
        for row in fork.returned:
            if row.kind == REQUEST:
                self._put_request(run, fork.source, row)
            else:
                self._inboxes.put(run, row.kind, row.name, row.ref, _whole(row.data), row.at_ms)
        self._db.do("copy_left_messages", (run, fork.source))

    def _put_request(self, run: int, before: int, row: Event) -> None:
        """Give a run a request again that the run `before` it has in a row."""
        found = self._db.row("request_at", (before, row.seq))
        ref = None if found is None else found[0]
        self._inboxes.put(run, REQUEST, row.name, ref, _whole(row.data), row.at_ms)

    def adopt_child(self, adopt: AdoptChild) -> bool:
        """See `AdoptChild`."""
        return self._db.row("adopt_child", (adopt.parent, adopt.child)) is not None


def _whole(data: bytes | Chunked | None) -> bytes | None:
    return data if data is None or isinstance(data, bytes) else data.read()
