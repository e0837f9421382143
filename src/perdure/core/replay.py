"""The kernel of one run: histories and events in, commands and an outcome out.

Rules: an input is fed alone and the loop runs until it is quiet, so the order of rows is the order
of execution, live and on replay. A command gets its row number when it is asked for: the next one,
on replay that of the row that records it, or else one behind all recorded rows. Replay compares
kind, name and arguments of every command with its row before anything is changed.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Sequence
from gc import disable, enable, isenabled
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Any

import msgspec

from perdure.core import discard, lifecycle, names, ordered  # its import is what counts  # noqa: F401
from perdure.core import events as ev
from perdure.core.diff import difference, fits
from perdure.core.events import Codec, Command, Event, RunFacts
from perdure.core.guard import inside as _inside
from perdure.core.limits import EXPOSED_NAMES_MAX, NEVER_MS
from perdure.core.loop import Future, Task, TimerHandle, WorkflowLoop
from perdure.core.mail import Mail
from perdure.errors import BadName, Nondeterminism, NotSerializable, RefusalIgnored

if TYPE_CHECKING:
    import random as _rng


class _Continue(BaseException):
    """Unwinds a workflow that continues as another call; no `except Exception` stops it."""

    def __init__(self, call: Any, args: bytes) -> None:
        self.call, self.args_json = call, args


class Kernel:
    """One run in memory. `main` makes the workflow's coroutine; everything else is data.

    Live: `stamp` an input, `feed` it, write what comes back. After a crash: `replay` the rows and
    continue with the commands that it returns. `open` holds the commands without an answer.
    """

    def __init__(self, main: ev.Main, definition: Any, facts: RunFacts, codec: Codec) -> None:
        self.facts, self.codec = facts, codec
        self.loop = WorkflowLoop(self, facts.seed)  # type: ignore[abstract]
        self._random: _rng.Random | None = None
        self.seq = 0
        self.open: dict[int, Command] = {}
        self.local = 0  # of these, how many this process answers
        self.timers: dict[int, TimerHandle] = {}
        self._deadlines: list[tuple[int, int]] = []
        self.outcome: ev.Outcome | None = None
        self.replaying = False
        self.diverged = False  # code and history differ: row numbers mean nothing any more
        self._main, self._definition = main, definition
        self._task: Task | None = None
        self._futures: dict[int, Future] = {}
        self._commands: list[Command] = []
        self.mail = Mail(self.loop, codec)
        self._exposed: frozenset[str] = frozenset()
        self._patches: dict[str, bool] = {}
        self._ending = False
        self._rows: Sequence[Event] = ()
        self._next = 0  # on replay: the place of the next command's row

    @property
    def random(self) -> _rng.Random:
        """The run's own generator; made when it is first asked for, because most runs never do."""
        if self._random is None:
            import random as _rng

            self._random = _rng.Random(self.facts.seed)
        return self._random

    # --- inputs ------------------------------------------------------------------------------

    def stamp(
        self, kind: str, at_ms: int, *, ref: int | None = None, name: str | None = None,
        data: bytes | None = None, took_ms: int | None = None,
    ) -> Event:  # fmt: skip
        """A new row with the next number; time never goes backwards within a run."""
        self.seq += 1
        now_ms = self.loop.now_ms
        return Event(self.seq, kind, max(now_ms, at_ms), ref, name, data, took_ms)

    def feed(self, event: Event) -> list[Command]:
        """Feed one input to workflow code. Returns the commands that it asks for."""
        loop = self.loop
        if loop.refused is not None and not self.replaying:
            self._judge_refusal()
        loop.now_ms = event.at_ms
        if collects := isenabled():
            disable()  # finalizers of the application would run here, as workflow code
        _inside.loop = loop
        try:
            self._deliver(event)
            loop.turn()
            if self._task is not None and self._task.done():
                self._settle(self._task)
        finally:
            _inside.loop = None
            if collects:
                enable()
        if loop.refused is not None and not self.replaying:
            self._judge_refusal()
        commands, self._commands = self._commands, []
        return commands

    def replay(self, rows: Sequence[Event]) -> list[Command]:
        """Run recorded history again. Returns commands behind its end. Raises `Nondeterminism`."""
        self._rows, self.replaying = rows, True
        asked: deque[Command] = deque()
        recorded = False
        own, ids = self.facts.run_id, _recorded_under(rows) if self.facts.forked else []
        self._go_by(ids[0] if ids else own)
        _inside.muted = True
        if collects := isenabled():
            disable()  # once, and not with every input
        try:
            for index, row in enumerate(rows):
                if row.kind in ev.INPUTS:
                    if asked:
                        self._match(row, asked[0])
                    self.seq, self._next = row.seq, index + 1
                    self.loop.refused, recorded = None, False
                    asked.extend(self.feed(row))
                elif row.kind in ev.COMMANDS:
                    self._match(row, asked.popleft() if asked else None)
                    recorded = True
                else:
                    self.seq = max(self.seq, row.seq)
                    if ids and _recorded_under((row,)):
                        del ids[0]
                        self._go_by(ids[0] if ids else own)
            if self.loop.refused is not None and (asked or not recorded):
                self._judge_refusal()  # of the last turn: earlier ones are history
        except BaseException:
            self.diverged = True
            raise
        finally:
            _inside.muted = False
            if collects:
                enable()
            self.loop.forgive()
            self._rows, self._next, self.replaying = (), 0, False
        return list(asked)

    def _judge_refusal(self) -> None:
        """Raise `RefusalIgnored`, unless the workflow has ended with the error of the refusal."""
        refused, self.loop.refused = self.loop.refused, None
        if refused is not None and not refused.ended(self._task):
            self.diverged = True
            raise RefusalIgnored(self.facts.run_id, refused.what, refused.line)

    def _ahead(self) -> Event | None:
        """On replay, the row of the next command in this turn, if there is one."""
        rows = self._rows
        while self._next < len(rows):
            row = rows[self._next]
            if row.kind in ev.COMMANDS:
                return row
            if row.kind in ev.INPUTS:
                return None
            self.seq = row.seq  # a command without a row comes behind the notes, too
            self._next += 1
        return None

    def _match(self, row: Event, command: Command | None) -> None:
        if command is None or not fits(row, command, self.codec):
            raise Nondeterminism(self.facts.run_id, difference(row, command, self.codec))
        if row.edited:
            command.edited = True
            command.data = _read(row.data)
            if row.kind == ev.TIMER:
                self.move_timer(row.seq, msgspec.json.decode(command.data or b"{}")["until_ms"])

    def _go_by(self, run_id: str) -> None:
        """Set `current_run().id`: a fork's copied rows were recorded under the id of its source."""
        if run_id != self.facts.run_id:
            self.facts = msgspec.structs.replace(self.facts, run_id=run_id)

    def move_timer(self, seq: int, when_ms: int) -> None:
        """Give a timer another deadline, if it is still ahead."""
        if seq not in self.timers:
            return
        self.timers[seq].when_ms = when_ms
        self._deadlines = [(when_ms if one == seq else ms, one) for ms, one in self._deadlines]
        heapify(self._deadlines)

    def _deliver(self, event: Event) -> None:
        data = event.data
        if data is not None and type(data) is not bytes:
            data = _read(data)
        ref = event.ref or 0
        match event.kind:
            case ev.COMPLETED:
                self._resolve(ref, data or b"null")
            case ev.START:
                # Called here, so that arguments which the code does not take block the run.
                main = self._main()
                # A context of its own: variables that the caller has set would differ on replay.
                self._task = self.loop.create_task(self._run(main), context=contextvars.Context())
            case ev.FAILED if (command := self._close(ref)) is not None:
                future = self._futures.pop(ref)
                future.set_exception(self.codec.decode_failure(command.call, data or b"{}"))
                future._Future__log_traceback = False  # type: ignore[attr-defined]  # the history has it
            case ev.FIRED if (timer := self.timers.pop(ref, None)) is not None:
                self.loop.fire(timer)
            case ev.MESSAGE | ev.REQUEST:
                self.mail.put(event, data or b"null")
            case ev.CANCEL if self._task is not None:
                self._task.cancel()
            case _:
                pass  # an answer to an abandoned command

    def _resolve(self, seq: int, data: bytes) -> None:
        if (command := self.open.pop(seq, None)) is None:
            return  # abandoned
        self.local -= command.kind != ev.CHILD
        # A spawn is answered with an id, a send with nothing.
        call = None if command.kind in (ev.SPAWN, ev.SEND) else command.call
        try:
            value = self.codec.decode_result(call, data)
        except NotSerializable as error:
            self.diverged = True
            reason = f"row {command.seq}, {command.kind} {command.name}: {error}"
            raise Nondeterminism(self.facts.run_id, reason) from error
        self._futures.pop(seq).set_result(value)

    # --- the end ----------------------------------------------------------------------------------

    async def _run(self, main: Any) -> Any:
        if self.facts.timeout_ms is None:
            return await main
        limit_s = self.facts.timeout_ms / 1000
        scope = asyncio.timeout(limit_s)
        try:
            async with scope:
                return await main
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise TimeoutError(f"the run's time limit of {limit_s:g} s has passed") from error

    def _settle(self, task: Task) -> None:
        """The workflow has returned: cancel what it left, as `asyncio.run` does, then finish."""
        if self.outcome is not None:
            return
        if not self._ending:
            self._ending = True
            if left := self.loop.live_tasks():
                for other in left:
                    other.cancel()
                self.loop.turn()
        if not self.loop.live_tasks() and (open_generators := self.loop.open_generators()):
            for agen in open_generators:
                self.loop.call_soon(self.loop.create_task, agen.aclose())
            self.loop.turn()
        if not self.loop.live_tasks():
            self.outcome = self._outcome(task)
            self._finish(self.outcome)

    def _finish(self, outcome: ev.Outcome) -> None:
        for command in [c for c in self.open.values() if c.kind in (ev.STEP, ev.CHILD)]:
            self._futures[command.seq].cancel()
        self.timers.clear()
        match outcome:
            case ev.Completed(result):
                self.command(ev.FINISH, "completed", result)
            case ev.Failed(error):
                self.command(ev.FINISH, "failed", error)
            case ev.Cancelled():
                self.command(ev.FINISH, lifecycle.CANCELLED)
            case ev.Continued(call, workflow, args):
                data = b'{"workflow":%s,"args":%s}' % (self.codec.encode(workflow, "name"), args)
                self.command(ev.FINISH, "continued", data, call=call)

    def _outcome(self, task: Task) -> ev.Outcome:
        if task.cancelled():
            return ev.Cancelled()
        error = task.exception()
        if error is None:
            try:
                return ev.Completed(self.codec.encode_output(self._definition, task.result()))
            except Exception as failure:
                error = failure
        if (leaving := _continuation(error)) is not None:
            return ev.Continued(leaving.call, leaving.call.definition.name, leaving.args_json)
        return ev.Failed(self.codec.encode_error(error))

    def discard(self) -> None:
        """Drop everything without resuming user code; see `core/discard.py`."""
        for command in self.open.values():
            command.context = None  # untracked by the garbage collector, and may hold the run
        if self.outcome is not None and not self.loop.suspended():
            self.loop.clear()
            return
        if discard.supported:
            discard.discard(self.loop.suspended(), self.loop, self)
        discard.untie(self.loop.live_tasks(), self.timers.values())
        self.loop.clear()
        self._task, self.timers = None, {}

    # --- what workflow code asks for --------------------------------------------------------------

    def _number(self) -> int:
        if (row := self._ahead() if self._rows else None) is None:
            self.seq += 1
        else:
            self._next += 1
            self.seq = row.seq
        return self.seq

    def command(
        self, kind: str, name: str | None = None, data: bytes | None = None,
        ref: int | None = None, call: Any = None,
    ) -> Command:  # fmt: skip
        """A command that is not answered."""
        at_ms, seq = self.loop.now_ms, self._number()
        command = Command(seq, kind, at_ms, ref, name, data, None, False, call)
        self._commands.append(command)
        return command

    def _ask(
        self, kind: str, name: str, data: bytes, call: Any = None, key: str | None = None,
        context: contextvars.Context | None = None,
    ) -> Future:  # fmt: skip
        """A command that will be answered; workflow code awaits the future."""
        if self._rows:
            seq = self._number()
        else:
            self.seq = seq = self.seq + 1
        self.open[seq] = command = Command(
            seq, kind, self.loop.now_ms, None, name, data, None, False, call, key, context
        )
        self._commands.append(command)
        self.local += kind != ev.CHILD
        self._futures[seq] = future = Future(loop=self.loop)
        future.kernel, future.seq = self, seq
        return future

    def _close(self, seq: int) -> Command | None:
        if (command := self.open.pop(seq, None)) is not None:
            self.local -= command.kind != ev.CHILD
        return command

    def abandon(self, seq: int) -> None:
        if (command := self._close(seq)) is not None:
            self._futures.pop(seq, None)
            self.command(ev.ABANDON, command.name, None, seq, command)

    def issue(self, call: Any) -> Future:
        """A step or a child is awaited."""
        name = call.definition.name
        if call.definition.kind == "step":
            data, context = self.codec.encode_call(call), contextvars.copy_context()
            return self._ask(ev.STEP, name, data, call, None, context)
        return self._ask(ev.CHILD, name, self._start_data(call, call.options.id, None), call)

    def spawn(self, call: Any, run_id: str | None, tags: dict[str, Any] | None) -> Future:
        data = self._start_data(call, call.options.id if run_id is None else run_id, tags)
        return self._ask(ev.SPAWN, call.definition.name, data, call)

    def _start_data(self, call: Any, run_id: str | None, tags: dict[str, Any] | None) -> bytes:
        parts = [b'"args":%s' % self.codec.encode_call(call)]
        if run_id is not None:
            parts.append(b'"id":%s' % self.codec.encode(names.checked_id(run_id), "the run id"))
        if tags:
            parts.append(b'"tags":%s' % self.codec.encode_tags(names.checked_tags(tags)))
        return b"{%s}" % b",".join(parts)

    def send(self, run_id: str, value: Any, channel: str, key: str | None, start: Any) -> Future:
        names.checked("run id", run_id)
        if key is not None:
            names.checked("message key", key)
        text = self.codec.encode(names.checked("channel", channel), "the channel name")
        raw = self.codec.encode(value, f"the message on channel {channel!r}")
        begin = b""
        if start is not None:
            names.checked_id(run_id)
            name = self.codec.encode(start.definition.name, "the name of the workflow")
            begin = b',"start":{"workflow":%s,"args":%s}' % (name, self.codec.encode_call(start))
        data = b'{"channel":%s,"value":%s%s}' % (text, raw, begin)
        future = self._ask(ev.SEND, run_id, data, start, key)
        self._commands[-1].cls = type(value)
        return future

    def emit(self, stream: str, item: Any) -> None:
        data = self.codec.encode_item(item, f"the item for stream {stream!r}")
        self.command(ev.EMIT, names.checked_to_emit(stream), data).cls = type(item)

    def expose(self, values: dict[str, Any]) -> None:
        named = self._exposed.union(names.checked("exposed value", name) for name in values)
        if len(named) > EXPOSED_NAMES_MAX:
            detail = f"a run has at most {EXPOSED_NAMES_MAX:,} of them"
            raise BadName("exposed value", detail, "Expose an object or a list under one name.")
        where = "the exposed value {!r}"
        encoded = [self.codec.encode_item(v, where.format(name)) for name, v in values.items()]
        self._exposed = named
        for (name, value), data in zip(values.items(), encoded, strict=True):
            self.command(ev.EXPOSE, name, data).cls = type(value)

    def tag(self, tags: dict[str, Any]) -> None:
        self.command(ev.TAG, None, self.codec.encode_tags(names.checked_tags(tags)))

    def now_ms(self) -> int:
        return self.loop.now_ms

    def continue_as(self, call: Any) -> None:
        raise _Continue(call, self.codec.encode_call(call))

    def patched(self, change_id: str) -> bool:
        """True if the marker is recorded or history ends here; False if it goes on without it."""
        if change_id not in self._patches:
            row = self._ahead()
            recorded = row is not None and (row.kind, row.name) == (ev.PATCH, change_id)
            at_the_end = row is None and self._next == len(self._rows)
            self._patches[change_id] = recorded or at_the_end
            if self._patches[change_id]:
                self.command(ev.PATCH, change_id)
        return self._patches[change_id]

    # --- timers ---------------------------------------------------------

    def timer_set(self, handle: TimerHandle) -> None:
        command = self.command(ev.TIMER, None, b'{"until_ms":%d}' % handle.when_ms)
        handle.seq = command.seq
        self.timers[command.seq] = handle
        heappush(self._deadlines, (handle.when_ms, command.seq))

    def timer_cancelled(self, handle: TimerHandle) -> None:
        self.timers.pop(handle.seq, None)

    def due(self) -> tuple[int, int] | None:
        """The next timer as (deadline in ms, seq); the oldest first among equals."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][1] not in self.timers:
            heappop(deadlines)
        return deadlines[0] if deadlines and deadlines[0][0] < NEVER_MS else None

    @property
    def waits(self) -> bool:
        """Whether an input may come: an answer, a timer or a message."""
        return bool(self.open or self.due() or self.mail.awaited)

    def waiting_for(self) -> list[dict[str, Any]]:
        """What the run waits for, human-readable: messages, children, steps, timers."""
        found = self.mail.waiting_for()
        found += [{one.kind: one.name, "seq": one.seq} for one in [*self.open.values()][:20]]
        due = self.due()
        never = [] if found else [{"timer": None, "seq": seq} for seq in list(self.timers)[:1]]
        return found + ([{"timer": due[0], "seq": due[1]}] if due else never)


def _read(data: bytes | ev.Chunked | None) -> bytes | None:
    return data if isinstance(data, bytes) or data is None else data.read()


def _recorded_under(rows: Sequence[Event]) -> list[str]:
    """The names in the notes of forks: the id that the run had up to each."""
    return [row.name for row in rows if row.kind == ev.ATTEMPT and row.name]


def _continuation(error: BaseException) -> _Continue | None:
    """The continuation in an error, also inside the group of a TaskGroup."""
    if isinstance(error, _Continue):
        return error
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return next((found for one in inner if (found := _continuation(one)) is not None), None)
