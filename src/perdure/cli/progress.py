"""Progress of a run, live: a redrawn block on a terminal, a line now and then elsewhere, nothing
when quiet.

Rules: progress goes to stderr, so the result on stdout stays clean; the next action is shown as a
command; the engine's observer hook says when there is something new, so an idle run costs nothing.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from perdure.cli.format import COLOURS
from perdure.cli.output import console, is_terminal, live, rich_text, say
from perdure.runtime.observer import Observer

if TYPE_CHECKING:
    from rich.console import RenderableType

LINE_EVERY_SECONDS, LINE_EVERY_SECONDS_MAX = 5.0, 600.0


@dataclass
class Snapshot:
    """What is known of a run at a moment: `waiting` says what it waits for, `hint` is the command
    that lets it go on.
    """

    status: str
    steps_done: int = 0
    steps_total: int = 0
    running: list[str] = field(default_factory=list)
    waiting: str | None = None
    hint: str | None = None

    @property
    def running_text(self) -> str:
        return ", ".join(
            name if count == 1 else f"{name} × {count}"
            for name, count in Counter(self.running).items()
        )


class Activity(Observer):
    """What an engine reports: that something has changed, and which attempts are under way."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self._attempts: dict[tuple[str, int], str] = {}

    @property
    def running(self) -> list[str]:
        """The steps under way, each with its attempt where that is not the first."""
        return list(self._attempts.values())

    def attempt_started(self, run_id: str, seq: int, step: str, attempt: int) -> None:
        """See `Observer`."""
        self._attempts[run_id, seq] = step if attempt == 1 else f"{step} (attempt {attempt})"
        self.changed.set()

    def attempt_ended(
        self,
        run_id: str,
        seq: int,
        step: str,
        attempt: int,
        took_ms: int,
        error: BaseException | None,
        again_ms: int | None,
    ) -> None:
        """See `Observer`."""
        self._attempts.pop((run_id, seq), None)
        self.changed.set()

    def committed(self, writes: int, took_ms: float) -> None:
        """See `Observer`."""
        self.changed.set()

    def run_ended(self, run_id: str, workflow: str, status: str) -> None:
        """See `Observer`."""
        self.changed.set()


class Display(Protocol):
    """Shows snapshots, at most one every `poll_seconds`; None is never."""

    @property
    def poll_seconds(self) -> float | None: ...

    def note(self, text: str) -> None: ...

    def show(self, snapshot: Snapshot) -> None: ...

    def close(self) -> None: ...


def display_for(quiet: bool) -> Callable[[str], Display]:
    """What makes the display of a run, given its id. Imports take their time here, not while runs
    are executed.
    """
    if quiet:
        return Silence
    if not live():
        return Lines
    import rich.live
    import rich.progress_bar
    import rich.table  # noqa: F401

    return Screen


class Silence:
    """Shows nothing."""

    poll_seconds = None

    def __init__(self, run_id: str) -> None: ...

    def note(self, text: str) -> None: ...

    def show(self, snapshot: Snapshot) -> None: ...

    def close(self) -> None: ...


class Lines:
    """For logs and pipes: a line when there is a command to type, one every few seconds while steps
    end, and ever fewer while nothing happens.
    """

    poll_seconds = 0.3

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._said = ("", "")
        self._line, self._every_s = "", LINE_EVERY_SECONDS
        self._next = time.monotonic() + self._every_s

    def note(self, text: str) -> None:
        say(f"{self.run_id}: {text}")

    def show(self, snapshot: Snapshot) -> None:
        matters = (snapshot.waiting or "", snapshot.hint or "")
        late = time.monotonic() >= self._next
        if not late and (matters == self._said or not snapshot.hint):
            return
        line = f"{_steps(snapshot)}, {snapshot.waiting or snapshot.status}"
        self._every_s = (
            min(2 * self._every_s, LINE_EVERY_SECONDS_MAX)
            if line == self._line
            else LINE_EVERY_SECONDS
        )
        self._said, self._line, self._next = matters, line, time.monotonic() + self._every_s
        self.note(line)
        if snapshot.hint:
            self.note(f"go on with: {snapshot.hint}")

    def close(self) -> None: ...


class Screen:
    """For a terminal: bar, counts, time, and what is going on, redrawn in place and gone at the
    end.
    """

    poll_seconds = 0.1

    def __init__(self, run_id: str) -> None:
        from rich.live import Live

        self.run_id = run_id
        self._begun = time.monotonic()
        self._console = console()
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=is_terminal(sys.stdout),
            redirect_stderr=True,
        )
        self._live.start()

    def note(self, text: str) -> None:
        self._console.print(rich_text(f"{self.run_id}: {text}"))

    def show(self, snapshot: Snapshot) -> None:
        self._live.update(self._block(snapshot), refresh=True)

    def close(self) -> None:
        self._live.stop()

    def _block(self, snapshot: Snapshot) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        line = Table.grid(padding=(0, 2))
        bar = ProgressBar(
            total=max(snapshot.steps_total, 1), completed=snapshot.steps_done, width=30
        )
        line.add_row(
            rich_text(self.run_id, "bold", cut=True),
            *([bar] if self._console.width >= 90 else []),
            rich_text(_steps(snapshot)),
            rich_text(_elapsed(time.monotonic() - self._begun)),
            rich_text(snapshot.status, COLOURS.get(snapshot.status, "")),
        )
        rows: list[Any] = [line]
        if snapshot.waiting:
            rows.append(rich_text(f"  {snapshot.waiting}", "yellow"))
        elif snapshot.running:
            rows.append(rich_text(f"  {snapshot.running_text}", "dim", cut=True))
        if snapshot.hint:
            rows.append(rich_text(f"  in another terminal: {snapshot.hint}"))
        return Group(*rows)


def _steps(snapshot: Snapshot) -> str:
    return f"{snapshot.steps_done:,} of {snapshot.steps_total:,} steps"


def _elapsed(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
