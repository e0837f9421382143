"""What steps have logged, in the terminal: for `show --logs` and `tail --logs`."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from perdure.cli.output import as_lines, style
from perdure.reader.values import LogLine
from perdure.views import format

COLOURS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}


class TailedLine(LogLine, frozen=True, kw_only=True):
    """A line of a run that is followed; `run` is whose it is, where several are."""

    run: str | UnsetType = UNSET


def text_of(line: LogLine) -> list[str]:
    """A line with its time, step and attempt, and its traceback below it."""
    time = line.at.astimezone().strftime("%H:%M:%S.%f")[:-3]
    attempt = f"#{line.attempt}" if line.attempt > 1 else ""
    where = f"{style(time, 'dim')} {line.seq:>5}{attempt}"
    if line.dropped:
        return [f"{where}  ({format.count(line.dropped, 'line')} more, not kept)"]
    more = f" … ({line.left_out:,} characters more)" if line.left_out else ""
    level = style(line.level, COLOURS.get(line.level))
    first, *rest = as_lines(line.message) or [""]
    below = rest + (as_lines(line.traceback) if line.traceback else [])
    return [f"{where}  {level} {line.logger}: {first}{more}", *(f"    {one}" for one in below)]
