"""`tail`: follows runs live until they end.

Rules: nothing is written or executed; every row of each history is printed once; a run that has
ended is read to its end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import click
import msgspec

from perdure.cli.common import Exit, json_option, store_option
from perdure.cli.format import ending, log_line
from perdure.cli.logged import text_of
from perdure.cli.output import as_lines, echo, echo_json, say, style
from perdure.cli.reading import with_reader
from perdure.core import lifecycle
from perdure.errors import RunNotFound
from perdure.reader import StoreReader
from perdure.reader.values import LogLine
from perdure.runtime.info import HistoryEvent, RunInfo, RunSummary
from perdure.views import timeline
from perdure.views.waiting import in_queue

POLL_SECONDS = 0.2
PLACE_SECONDS = 5.0
"""A place in line may change many times a second; `tail` says so this often."""

ROWS_AT_ONCE = 500
RUNS_MAX = 50


@click.command(short_help="Follow runs live until they end.")
@click.argument("run_ids", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--stream", metavar="NAME", help="Print the items of this stream instead of the history."
)
@click.option("--logs", is_flag=True, help="Print what its steps log instead of the history.")
@store_option
@json_option
def tail(
    run_ids: tuple[str, ...], stream: str | None, logs: bool, store: str, as_json: bool
) -> None:
    """Follow the history of a run, or of several, live until they end; the exit code says how: 0
    where all have completed. With --json, one object per line; of several runs with its `run`.

    \b
    Examples:
      perdure tail refund
      perdure tail agent-1 agent-2
      perdure tail agent --stream tokens
      perdure tail agent --logs
    """
    if logs and stream is not None:
        raise click.UsageError("Say --logs or --stream.")
    if len(run_ids) > RUNS_MAX:
        raise click.UsageError(f"Up to {RUNS_MAX} runs are followed at once.")

    async def follow(reader: StoreReader) -> list[RunInfo]:
        found = list(dict.fromkeys([await reader.find(one) for one in run_ids]))
        widest = max(map(len, found))
        followed = [
            Followed(reader, one, one.ljust(widest) if len(found) > 1 else "", as_json)
            for one in found
        ]
        await asyncio.gather(
            *(
                one.logs() if logs else one.history() if stream is None else one.stream(stream)
                for one in followed
            )
        )
        return [await reader.run(one) for one in found]

    infos = with_reader(store, follow)
    if not as_json and stream is None:
        for info in infos:
            name = f"{style(info.id, 'bold')}  " if len(infos) > 1 else ""
            first, *rest = ending(info)
            echo(name + first, *rest)
    done = all(info.status == lifecycle.COMPLETED for info in infos)
    raise click.exceptions.Exit(Exit.DONE if done else Exit.FAILED)


class Followed:
    """A run that is followed; `name` is put before its lines, where there are several."""

    def __init__(
        self, reader: StoreReader, run_id: str, name: str = "", as_json: bool = False
    ) -> None:
        self._reader, self._id, self._name, self._as_json = reader, run_id, name, as_json
        self._said, self._say_at = "", 0.0

    async def history(self) -> None:
        """Print each history under the id from its first row on; the next one has the name `id~N`
        when the run has gone on by then.
        """
        seen, number, reader = 0, 1, self._reader
        while await self._exists(f"{self._id}~{number}"):
            number += 1
        while True:
            # First, so that a run that has ended has its last rows in the history.
            run = await reader.summary(self._id)
            page = []
            if run.history_rows > seen:
                page = await reader.history(self._id, seen, ROWS_AT_ONCE)
            if gone_on := await self._exists(earlier := f"{self._id}~{number}"):
                page = await reader.history(earlier, seen, ROWS_AT_ONCE)
            self._print(page)
            seen = page[-1].seq if page else seen
            if len(page) == ROWS_AT_ONCE:
                continue
            if gone_on:
                seen, number = 0, number + 1
                continue
            if run.ended_at is not None:
                return
            await self._say_why(run)
            await asyncio.sleep(POLL_SECONDS)

    def _print(self, page: Sequence[HistoryEvent]) -> None:
        for row in page:
            if self._as_json:
                named = {"run": self._id} if self._name else {}
                echo_json({**named, **msgspec.to_builtins(row, enc_hook=str)}, indent=0)
            else:
                time = row.at.astimezone().strftime("%H:%M:%S.%f")[:-3]
                echo(self._lead() + log_line(timeline.log_line(row), time))

    def _lead(self) -> str:
        return f"{style(self._name, 'bold')}  " if self._name else ""

    async def _say_why(self, run: RunSummary) -> None:
        """Say why a run does not go on, once for each reason."""
        note = (await self._reader.why(self._id) or "").removesuffix(".")
        if not in_queue(run.waiting_for):
            self._say_at = 0.0
        if not self._as_json and note and note != self._said and time.monotonic() >= self._say_at:
            name = f"{self._id}: " if self._name else ""
            say(*as_lines(f"({name}{note})"))
            self._said, self._say_at = note, time.monotonic() + PLACE_SECONDS
        self._said = self._said if note else ""

    async def _exists(self, run_id: str) -> bool:
        try:
            await self._reader.summary(run_id)
        except RunNotFound:
            return False
        return True

    async def stream(self, name: str) -> None:
        """Print the items of a stream, those of its successors included, until the run ends."""
        after = 0
        while True:
            items, over = await self._reader.stream_on(self._id, name, after)
            for one in items:
                after = one.position
                self._print_item(one.item)
            if over:
                return
            if not items:
                await asyncio.sleep(POLL_SECONDS)

    async def logs(self) -> None:
        """Print what steps of the run log, until it ends."""
        after = 0
        while True:
            # First, so that a run that has ended has its last lines.
            ended = (await self._reader.summary(self._id)).ended_at is not None
            lines = await self._reader.logs(self._id, after, ROWS_AT_ONCE)
            for line in lines:
                after = line.position
                self._print_line(line)
            if ended and len(lines) < ROWS_AT_ONCE:
                return
            if not lines:
                await asyncio.sleep(POLL_SECONDS)

    def _print_line(self, line: LogLine) -> None:
        if self._as_json:
            named = {"run": self._id} if self._name else {}
            echo_json({**named, **msgspec.to_builtins(line, enc_hook=str)}, indent=0)
        else:
            echo(*(self._lead() + one for one in text_of(line)))

    def _print_item(self, item: Any) -> None:
        if self._as_json and self._name:
            echo_json({"run": self._id, "item": item}, indent=0)
        elif isinstance(item, str) and not self._as_json:
            echo(*(self._lead() + line for line in as_lines(item)))
        else:
            echo_json(item, indent=0)
