"""`prune`: deletes runs that ended long ago, and says what it would delete.

Rules: nothing is executed; with --dry-run nothing is written; a run is deleted only when the file
with it is durable in the archive, if there is one; progress goes to stderr.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

import click

from perdure.api.retention import Retention
from perdure.cli.common import json_option, store_option, with_engine
from perdure.cli.output import as_lines, echo, echo_json, live, say_anew
from perdure.core.lifecycle import CANCELLED
from perdure.errors import DefinitionError, VacuumRefused
from perdure.runtime.engine import Engine
from perdure.runtime.prune_report import PruneReport
from perdure.store.sqlite import connection
from perdure.views import format, times

F = TypeVar("F", bound=Callable[..., Any])

_KEPT_SHOWN = 5
NEVER = "never"


def _age(ctx: click.Context, param: click.Parameter, text: str) -> timedelta | None:
    """A time such as 30d; None for never."""
    if text == NEVER:
        return None
    try:
        age = times.duration(text)
        if age is None:
            raise click.BadParameter(f"{text!r} is no duration. {times.EXAMPLES}, or never.")
        Retention(completed=age)
    except (OverflowError, DefinitionError):
        raise click.BadParameter(
            f"{text!r} is more than ten years; never keeps such runs."
        ) from None
    return age


def _age_option(status: str, default: str) -> Callable[[F], F]:
    return click.option(
        f"--{status}",
        callback=_age,
        default=default,
        show_default=True,
        metavar="AGE",
        help=f"Runs that {'were' if status == CANCELLED else 'have'} {status} longer ago.",
    )


@click.command(short_help="Delete runs that ended long ago.")
@_age_option("completed", "30d")
@_age_option("failed", "90d")
@_age_option(CANCELLED, "30d")
@click.option(
    "--archive", metavar="ADDRESS", help="Write them there first: file:///folder or s3://bucket/..."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--vacuum", is_flag=True, help="Give all free space of the file back.")
@json_option
@store_option
def prune(
    completed: timedelta | None,
    failed: timedelta | None,
    cancelled: timedelta | None,
    archive: str | None,
    dry_run: bool,
    vacuum: bool,
    as_json: bool,
    store: str,
) -> None:
    """Delete runs that ended long ago, with all that belongs to them: history, messages, streams,
    tags, children, earlier runs under their ids. An AGE is a number with s, m, h, d or w, or never.

    Engines go on meanwhile: it is done in small pieces. With --archive the runs are in files there
    first, one for each day on which they ended; `perdure show ID --store FILE` opens one. Free
    space is used for new runs; the file gets shorter where much is free.

    \b
    Examples:
      perdure prune --dry-run
      perdure prune --completed 7d --failed never
      perdure prune --archive file:///var/archive/agents
    """
    retention = Retention(completed, failed, cancelled, archive=archive)
    shows = live() and not as_json and not dry_run

    async def act(engine: Engine) -> tuple[PruneReport, bool]:
        whole = vacuum and not dry_run and _is_rewritten(await engine.doctor())
        show = _show if shows else None
        report = await engine.prune(retention, dry_run=dry_run, vacuum=vacuum, on_progress=show)
        return report, whole

    report, whole = with_engine(store, act)
    if shows:
        say_anew("")
    if whole:
        report.space_given_back += connection.vacuum(connection.path_of(store))
        report.space_free = 0
    if as_json:
        echo_json(report)
    else:
        echo(*as_lines("\n".join(_told(report, archive))))


def _is_rewritten(facts: dict[str, Any]) -> bool:
    """Whether a file has to be written anew to give space back: one that an early Perdure has made.

    Raises `VacuumRefused` where others use it.
    """
    if facts["gives_space_back"]:
        return False
    if facts["workers"]:
        raise VacuumRefused(facts["path"], "a worker uses it; stop it first")
    if "replica" in facts:
        detail = "its replica would have to take all of it at once; detach it first"
        raise VacuumRefused(facts["path"], detail)
    return True


def _show(report: PruneReport) -> None:
    say_anew(f"{format.count(report.runs, 'run')} deleted, {len(report.files)} files written")


def _told(report: PruneReport, archive: str | None) -> list[str]:
    """The report as lines."""
    would = "Would delete" if report.dry_run else "Deleted"
    if not report.runs:
        lines = ["Nothing is old enough."]
    else:
        lines = [f"{would} {format.count(report.runs, 'run')} ({_kinds(report)})."]
    if report.oldest and report.newest:
        lines.append(f"They ended from {_day(report.oldest)} to {_day(report.newest)}, UTC.")
    if report.files and archive:
        wrote = "Would write" if report.dry_run else "Wrote"
        names = report.files if len(report.files) < 4 else [report.files[0], "…", report.files[-1]]
        lines.append(f"{wrote} {format.count(len(report.files), 'file')}: {', '.join(names)}.")
    for run_id, reason in report.kept[:_KEPT_SHOWN]:
        lines.append(f"Stays: {run_id}: {reason}.")
    if len(report.kept) > _KEPT_SHOWN:
        lines.append(f"… and {len(report.kept) - _KEPT_SHOWN} more; --json names up to 100.")
    if not report.dry_run:
        lines.append(
            f"{report.space_given_back:,} bytes were given back; {report.space_free:,} are free in "
            "the file for new runs."
        )
    return lines


def _kinds(report: PruneReport) -> str:
    """What runs these are, by how they ended; children and earlier runs are counted apart."""
    each = [f"{number:,} {status}" for status, number in report.by_status.items()]
    others = report.runs - sum(report.by_status.values())
    if each and others > 0:
        each.append(f"{others:,} children and earlier runs of these")
    return ", ".join(each) or "what was left"


def _day(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M")
