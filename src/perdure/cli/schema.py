"""`schema`: JSON Schemas of what the commands print with --json.

Rules: each command that has --json is in the table; what a command prints fits its schema, and has
no field that the schema does not name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import click
import msgspec

from perdure.api.schedules import ScheduleInfo
from perdure.cli.common import misuse
from perdure.cli.format import columns
from perdure.cli.logged import TailedLine
from perdure.cli.output import echo, echo_json
from perdure.reader.values import InboxItem, LogLine
from perdure.runtime.info import HistoryEvent, QueueInfo, RunInfo
from perdure.runtime.prune_report import PruneReport
from perdure.runtime.transfer import Exported, Imported
from perdure.views import shapes
from perdure.views.waterfall import Waterfall

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Shape:
    """What a command prints: a value of a type, or with `lines` one on each line; `about` says what
    it is. `later` gives a type that is slow to import.
    """

    def __init__(
        self,
        type_: Any,
        about: str,
        *,
        lines: bool = False,
        later: Callable[[], Any] | None = None,
    ) -> None:
        self._type, self.about, self.lines, self._later = type_, about, lines, later

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the value, or of each line."""
        found = msgspec.json.schema(
            self._type if self._later is None else self._later(), schema_hook=_any
        )
        each = ", one on each line" if self.lines else ""
        return {"$schema": DIALECT, "description": f"{self.about}{each}.", **found}


def _any(type_: Any) -> dict[str, Any]:
    return {}


def _databases() -> Any:
    from perdure.observe.listing import Row

    return list[Row]


SHAPES = {
    "ask": Shape(shapes.Reply, "the reply"),
    "check": Shape(
        shapes.CheckFinding | shapes.CheckedRun | shapes.CheckSummary,
        "findings in code, verdicts on runs, at the end a summary",
        lines=True,
    ),
    "doctor": Shape(shapes.Doctor, "the store and what stands still"),
    "export": Shape(Exported, "the file that was written"),
    "import": Shape(Imported, "the runs that were imported"),
    "inbox answer": Shape(shapes.AnswerSent, "what was answered"),
    "inbox link": Shape(shapes.LinkMade, "the link"),
    "inbox ls": Shape(list[InboxItem], "what waits for a person"),
    "ls": Shape(list[RunInfo], "runs, the newest first"),
    "observe": Shape(None, "databases, with what their summaries say", later=_databases),
    "prune": Shape(PruneReport, "what was or would be deleted"),
    "queue ls": Shape(list[QueueInfo], "queues by name"),
    "queue pause": Shape(QueueInfo, "the queue as it is now"),
    "queue resume": Shape(QueueInfo, "the queue as it is now"),
    "queue set": Shape(QueueInfo, "the queue as it is now"),
    "queue show": Shape(shapes.QueueShown, "a queue and what is in it"),
    "replica restore": Shape(shapes.ReplicaRestored, "the store that was made"),
    "replica status": Shape(shapes.ReplicaStatus, "the replica"),
    "replica verify": Shape(shapes.ReplicaVerified, "the test restore"),
    "run": Shape(shapes.Ended, "how the run ended"),
    "schedule add": Shape(ScheduleInfo, "the schedule as it is now"),
    "schedule backfill": Shape(list[str], "ids of the runs"),
    "schedule ls": Shape(list[ScheduleInfo], "schedules by name"),
    "schedule next": Shape(list[shapes.Tick], "the next ticks"),
    "schedule pause": Shape(ScheduleInfo, "the schedule as it is now"),
    "schedule resume": Shape(ScheduleInfo, "the schedule as it is now"),
    "schedule rm": Shape(shapes.Removed, "what was removed"),
    "schedule trigger": Shape(shapes.Triggered, "the run that was started"),
    "show": Shape(shapes.Shown, "a run and its history"),
    "show --logs": Shape(list[LogLine], "lines that its steps have logged"),
    "show --seq": Shape(HistoryEvent, "a row of the history"),
    "show --waterfall": Shape(Waterfall, "steps, waits and attempts over time, as columns"),
    "tail": Shape(shapes.TailedRow, "rows of the history", lines=True),
    "tail --logs": Shape(TailedLine, "lines that its steps log", lines=True),
    "tail --stream": Shape(Any, "items of the stream", lines=True),
}
"""By command; of a command that prints different things, with the option that decides."""


@click.command(
    short_help="JSON Schemas of what --json prints.",
    context_settings={"ignore_unknown_options": True},
)
@click.argument("name", required=False, nargs=-1, metavar="[COMMAND]...")
def schema(name: tuple[str, ...]) -> None:
    """Print the JSON Schema of what a command prints with --json; without COMMAND list those that
    have one.

    \b
    Examples:
      perdure schema
      perdure schema ls
      perdure schema queue show
      perdure schema show --seq
    """
    if not name:
        rows = [(one, shape.about) for one, shape in SHAPES.items()]
        echo(*columns(("COMMAND", "PRINTS"), rows))
        return
    wanted = " ".join(name)
    if wanted not in SHAPES:
        raise misuse(f"There is no schema {wanted!r}. `perdure schema` lists them.")
    echo_json(SHAPES[wanted].schema)
