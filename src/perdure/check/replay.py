"""Replay check: unfinished runs replayed against new code, without changing them.

Rules: the store is only read, no step is executed and no run is claimed, so a worker may run on
the same file. One history is in memory at a time. A verdict is a value, never an exception. A
check does not run inside an asyncio task (Python 3.14 refuses to enter one task from another).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from perdure.api.definitions import Workflow
from perdure.codec.json_codec import JsonCodec
from perdure.codec.signature import signature_of
from perdure.core import events as ev
from perdure.core import lifecycle
from perdure.core.events import Command
from perdure.core.lifecycle import FINAL
from perdure.core.limits import Limits
from perdure.errors import Nondeterminism, NotSerializable, PerdureError, RunBlocked, StoreError
from perdure.process import interpreter
from perdure.runtime.kernels import kernel_of
from perdure.store.rows import RunRow
from perdure.store.sqlite import connection
from perdure.store.sqlite.reader import Reader

Verdict = Literal[
    "ok", "would_block", "stays_blocked", "would_fail", "does_not_fit", "unknown_workflow"
]

CODE_REASONS = frozenset({"nondeterminism", "code", "store"})
"""Reasons of blocked runs that go on by themselves as soon as the code fits again."""


class Checked(msgspec.Struct, frozen=True):
    """The verdict on one run: `rows` were replayed; `reason` is None if it would go on.

    `would_block`: code and history differ. `stays_blocked`: they differed before, and this code
    does not fix it. `would_fail`: the code raises at the end of the history. `does_not_fit`:
    recorded arguments or results are not of the types that the code asks for.
    `unknown_workflow`: this code does not have its workflow.
    """

    id: str
    workflow: str
    status: str
    rows: int
    verdict: Verdict
    reason: str | None = None
    unblocked: bool = False
    """It is blocked now because of its code, and would go on with this one."""
    python: str | None = None
    """The Python that executed it, where that is another one than this."""

    @property
    def ok(self) -> bool:
        """Whether a deploy of this code leaves the run no worse than it is."""
        return self.verdict in ("ok", "stays_blocked")


class OutOfTime(KeyboardInterrupt):
    """Raised by a timer of the caller's into a replay that takes too long; of these kinds only,
    asyncio lets every task go.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds


class Checker:
    """Opens a store for reading. Raises `StoreNotFound`, `StoreCorrupt` or `StoreTooNew` where it
    can't be read.
    """

    def __init__(self, store: str, workflows: Mapping[str, Workflow[..., Any]]) -> None:
        self.path = connection.path_of(store)
        self.workflows = workflows
        self._connection = connection.open_reader(self.path)
        self._reader = Reader(self._connection, self.path)
        self._codec = JsonCodec(payload_bytes_max=Limits().payload_bytes_max)

    def close(self) -> None:
        self._connection.close()

    def unfinished(self, names: Sequence[str] = (), limit: int | None = None) -> list[int]:
        """Keys of the runs that have not ended, newest first; of these workflows only, if any are
        given.
        """
        if not self._reader.pragma("user_version"):
            return []  # a file without tables: no engine has opened it yet
        return self._reader.unfinished(tuple(names), limit)

    def check(self, run: int) -> Checked | None:
        """Replay one run; None if it has ended meanwhile."""
        row = self._reader.run_row(run, true=True)
        if row.status in FINAL:
            return None
        verdict, reason = self._judge(row)
        blocked = row.status == lifecycle.BLOCKED and row.blocked_by in CODE_REASONS
        if blocked and verdict not in ("ok", "would_fail"):
            verdict = "stays_blocked"
        python = row.python if interpreter.is_other(row.python) else None
        return Checked(
            row.id,
            row.workflow,
            row.status,
            row.history_rows,
            verdict,
            reason,
            blocked and verdict == "ok",
            python,
        )

    def _judge(self, row: RunRow) -> tuple[Verdict, str | None]:
        definition = self.workflows.get(row.workflow)
        if definition is None:
            return (
                "unknown_workflow",
                f"no workflow is called {row.workflow!r} here, so nothing would execute it",
            )
        try:
            signature_of(definition).decode_args(row.args)
        except NotSerializable as error:
            return "does_not_fit", str(error)
        except Exception as error:
            return "would_block", _in_words(error)
        return self._replay(row, definition)

    def _replay(self, row: RunRow, definition: Workflow[..., Any]) -> tuple[Verdict, str | None]:
        kernel = kernel_of(row, definition, self._codec)
        try:
            return _at_the_end(kernel.replay(self._reader.history(row.run)))
        except Nondeterminism as error:
            verdict: Verdict = (
                "does_not_fit" if isinstance(error.__cause__, NotSerializable) else "would_block"
            )
            return verdict, interpreter.with_python(error.reason, row.python)
        except RunBlocked as error:
            return "would_block", error.reason
        except StoreError:
            raise
        except OutOfTime as error:
            return (
                "would_block",
                (
                    f"the replay did not come to an end within {error.seconds:g} s: an endless "
                    f"loop, or one that blocks?"
                ),
            )
        except Exception as error:
            return "would_block", _in_words(error)
        finally:
            kernel.discard()


def _at_the_end(fresh: Sequence[Command]) -> tuple[Verdict, str | None]:
    """What the code asks for behind the end of the history: anything, but not to fail."""
    last = fresh[-1] if fresh else None
    if last is None or (last.kind, last.name) != (ev.FINISH, "failed"):
        return "ok", None
    error = msgspec.json.decode(last.data or b"{}")
    return "would_fail", f"the code raises {error.get('type')}: {error.get('message')}"


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, PerdureError) else f"{type(error).__name__}: {error}"
