"""`check`: whether the code that is about to be deployed fits the runs that are under way.

Rules: read-only: nothing is executed, claimed or written; results go to stdout, progress to
stderr; what is alike is shown once, however many runs it concerns.
"""

from __future__ import annotations

import contextlib
import io
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from perdure.check import lint
from perdure.check.replay import Checked, Checker, OutOfTime
from perdure.cli import targets
from perdure.cli.common import Exit, json_option, misuse, store_option
from perdure.cli.format import status
from perdure.cli.output import console, echo, echo_json, live, say, style
from perdure.process.interpreter import PYTHON
from perdure.runtime.registry import add_workflow
from perdure.views import format

REPLAY_SECONDS_MAX = 60.0
GROUPS_MAX = 20  # differences that are shown in full
IDS_SHOWN_MAX = 5

# Verdict: its text for one run, for several, and what to do where the reason does not say it.
_VERDICTS = {
    "would_block": ("would block", "would block", ""),
    "would_fail": (
        "would fail",
        "would fail",
        "It would end as failed as soon as it goes on. Fix the code.",
    ),
    "does_not_fit": (
        "has values that no longer fit",
        "have values that no longer fit",
        (
            "Keep the old type for these runs: a new field needs a default, a changed one a "
            "workflow of a new name."
        ),
    ),
    "unknown_workflow": (
        "has an unknown workflow",
        "have an unknown workflow",
        (
            "Name its file with another --app, keep the old name with @workflow(name=...), or "
            "choose workflows with --workflow."
        ),
    ),
    "stays_blocked": (
        "stays blocked",
        "stay blocked",
        "It is blocked already, so this does not count as an error.",
    ),
}


@dataclass
class Alike:
    """Runs with the same problem: the first one in full, a few ids of the others."""

    first: Checked
    ids: list[str] = field(default_factory=list)
    count: int = 0


@dataclass
class Tally:
    """What is kept of all runs, however many there are."""

    verdicts: Counter[str] = field(default_factory=Counter)
    unblocked: int = 0
    alike: dict[Any, Alike] = field(default_factory=dict)
    not_shown: int = 0
    pythons: Counter[str] = field(default_factory=Counter)
    """How many runs were executed by which other Python."""
    not_going_on: int = 0
    """How many of these would not go on under this one."""
    failed: bool = False

    def add(self, checked: Checked) -> None:
        self.verdicts[checked.verdict] += 1
        if checked.python is not None:
            self.pythons[checked.python] += 1
            self.not_going_on += not checked.ok
        self.failed |= not checked.ok
        if checked.verdict == "ok":
            self.unblocked += checked.unblocked
            return
        # Arguments differ from run to run; one problem differs from another by the row and the
        # names.
        key = (
            checked.workflow,
            checked.verdict,
            *(line.partition("{")[0] for line in (checked.reason or "").splitlines()),
        )
        if key not in self.alike and len(self.alike) >= GROUPS_MAX:
            self.not_shown += 1
            return
        group = self.alike.setdefault(key, Alike(checked))
        group.count += 1
        if len(group.ids) < IDS_SHOWN_MAX:
            group.ids.append(checked.id)


@click.command(short_help="Replay unfinished runs against new code, before a deploy.")
@click.argument("place", metavar="[STORE]", required=False)
@click.option(
    "--app",
    "apps",
    metavar="FILE",
    multiple=True,
    help="The code to check, as `perdure worker` takes it; may be given again.",
)
@click.option(
    "--workflow",
    "names",
    metavar="NAME",
    multiple=True,
    help="Only runs of this workflow; may be given again.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the newest N runs.")
@click.option(
    "--lint-only",
    is_flag=True,
    help="Only read the code: no store, no import. FILE may be a folder then.",
)
@click.option("--verbose", "-v", is_flag=True, help="Also list the runs that fit.")
@store_option
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    place: str | None,
    apps: tuple[str, ...],
    names: tuple[str, ...],
    limit: int | None,
    lint_only: bool,
    verbose: bool,
    store: str,
    as_json: bool,
) -> None:
    """Replay every unfinished run of a store against the code that is about to be deployed, and
    read that code for what replay can't repeat: clocks, random, sets, I/O, threads.

    Nothing is executed, claimed or written, so a worker may be at work on the file; a copy of it
    does as well. Exit code 1 says that a run would block or fail, or that the code has an error;
    notes don't count. With --json, one object per line, the summary last. A comment silences a rule
    in its line of code:

    \b
      started = time.time()  # perdure: allow wall-clock

    \b
    Examples:
      perdure check --app app.py
      perdure check /var/lib/app/perdure.db --app app.py --app billing.py
      perdure check --app app.py --workflow refund --json | tail -1
      perdure check --lint-only --app src

    \b
    In a deploy script, on the machine that has the store:
      perdure check "$STORE" --app new/app.py || exit 1
      systemctl restart app-worker
    """
    if place is not None and place.endswith(".py"):
        raise misuse(
            f"{place} is code, not a store. Code is named with --app: perdure check --app {place}"
        )
    if not apps:
        raise misuse(
            f"Say which code to check: perdure check{f' {place}' if place else ''} --app app.py"
        )
    if lint_only:
        if place is not None:
            raise misuse(
                f"--lint-only reads no store, so {place} means nothing here. Code is "
                f"named with --app."
            )
        code = _lint(files_in(apps), {}, as_json)
        _sum_up(code, None, as_json)
        raise click.exceptions.Exit(Exit.FAILED if code["errors"] else Exit.DONE)
    path = _store(ctx, place, store)
    with contextlib.redirect_stdout(
        sys.stderr
    ):  # what a module prints while it is imported is no result of ours
        known = _known(apps)
    code = _lint(*_sources(apps, known), as_json)
    tally = _replay(path, known, names, limit, as_json, verbose)
    _sum_up(code, tally, as_json)
    raise click.exceptions.Exit(Exit.FAILED if code["errors"] or tally.failed else Exit.DONE)


def _store(ctx: click.Context, place: str | None, store: str) -> str:
    if place is None:
        return store
    if ctx.get_parameter_source("store") is ParameterSource.COMMANDLINE and place != store:
        raise misuse(f"Two stores are named, {place} and {store}. Name one.")
    return place


def _known(apps: tuple[str, ...]) -> dict[str, targets.AnyWorkflow]:
    """The workflows of these files, and those that their code names: what a worker
    would execute.
    """
    known: dict[str, targets.AnyWorkflow] = {}
    for definition in targets.workflows_in(apps).values():
        add_workflow(known, definition)
    return known


def _sum_up(code: dict[str, int], tally: Tally | None, as_json: bool) -> None:
    if as_json:
        runs: dict[str, Any] = {}
        if tally is not None:
            runs = {
                "runs": tally.verdicts.total(),
                **dict.fromkeys(("ok", *_VERDICTS), 0),
                **tally.verdicts,
            }
            runs |= {"python": PYTHON, "other_python": tally.pythons.total()}
        echo_json({"kind": "summary", **code, **runs}, indent=0)
        return
    found = [format.count(code[name], name[:-1]) for name in ("errors", "notes") if code[name]]
    echo(f"{format.count(code['files'], 'file')} read, {' and '.join(found) or 'nothing found'}.")
    if tally is None:
        return
    others = [
        f"{count:,} {_VERDICTS[verdict][count > 1]}"
        for verdict, count in tally.verdicts.items()
        if verdict != "ok"
    ]
    echo(
        f"{format.count(tally.verdicts.total(), 'run')} replayed, "
        f"{', '.join(others) or 'none would block'}."
    )
    if tally.pythons:
        by = ", ".join(f"{count:,} by {python}" for python, count in sorted(tally.pythons.items()))
        go_on = (
            f"{tally.not_going_on:,} of them would not go on"
            if tally.not_going_on
            else "all of them would go on"
        )
        echo(f"This is Python {PYTHON}. Runs that another one has executed: {by}; {go_on}.")
    if tally.unblocked:
        which = "run that is blocked now" if tally.unblocked == 1 else "runs that are blocked now"
        say(f"{tally.unblocked:,} {which} would go on with this code.")


# --- code -----------------------------------------------------------------------------------------


def _sources(
    apps: tuple[str, ...], known: dict[str, targets.AnyWorkflow]
) -> tuple[list[Path], dict[Path, set[int]]]:
    """The files to read, and in them the lines where workflows begin; installed packages are left
    alone.
    """
    lines: dict[Path, set[int]] = {targets.split_target(app)[0].resolve(): set() for app in apps}
    for definition in known.values():
        code = definition.fn.__code__
        path = Path(code.co_filename).resolve()
        if path.is_file() and "site-packages" not in path.parts:
            lines.setdefault(path, set()).add(code.co_firstlineno)
    return sorted(lines), lines


def _lint(paths: Sequence[Path], lines: dict[Path, set[int]], as_json: bool) -> dict[str, int]:
    """Print what is wrong with the code, and count it."""
    counts = {"files": len(paths), "errors": 0, "notes": 0}
    for path in paths:
        for finding in lint.lint_file(path, frozenset(lines.get(path, ()))):
            counts[f"{finding.level}s"] += 1
            if as_json:
                echo_json({"kind": "finding", **asdict(finding)}, indent=0)
            else:
                echo(str(finding))
    return counts


# --- runs -----------------------------------------------------------------------------------------


def _replay(
    store: str,
    known: dict[str, targets.AnyWorkflow],
    names: tuple[str, ...],
    limit: int | None,
    as_json: bool,
    verbose: bool,
) -> Tally:
    """Replay what is open, print what there is to say, and keep count."""
    tally = Tally()
    with contextlib.closing(Checker(store, known)) as checker:
        for name in names:
            if name not in known and not checker.unfinished([name], 1):
                raise misuse(
                    f"No workflow is called {name!r} in this code, and no run of one is "
                    f"open. The code has: {', '.join(known)}."
                )
        for checked in _progress(checker, checker.unfinished(names, limit)):
            tally.add(checked)
            if as_json:
                echo_json({"kind": "run", **msgspec.structs.asdict(checked)}, indent=0)
            elif verbose and checked.verdict == "ok":
                echo(
                    f"{checked.id}  {checked.workflow}  {status(checked.status)}  "
                    f"{format.count(checked.rows, 'row')}  fits"
                )
    if not as_json:
        for group in tally.alike.values():
            echo(*_described(group), "")
        if tally.not_shown:
            say(
                f"{format.count(tally.not_shown, 'run')} more with other problems; --json "
                f"lists them all."
            )
    return tally


def _described(group: Alike) -> list[str]:
    """A problem and the runs that have it."""
    first = group.first
    one, several, advice = _VERDICTS[first.verdict]
    reason = [*(first.reason or "").splitlines(), *filter(None, [advice])]
    if group.count == 1:
        title = f"{first.id} ({first.workflow}, {format.count(first.rows, 'row')}) {one}:"
    else:
        others = "" if group.count == len(group.ids) else " …"
        title = (
            f"{group.count:,} runs of {first.workflow} {several}: {', '.join(group.ids)}{others}"
        )
        reason = [f"{first.id}:", *(f"  {line}" for line in reason)]
    return [style(title, "yellow" if first.ok else "red"), *(f"  {line}" for line in reason)]


def _progress(checker: Checker, runs: list[int]) -> Iterator[Checked]:
    """One run after the other, with a bar on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("replaying"), BarColumn(), MofNCompleteColumn())
    bar = Progress(
        *columns, console=console(), transient=True, redirect_stdout=False, disable=not live()
    )
    with bar:
        task = bar.add_task("", total=len(runs))
        for run in runs:
            with (
                contextlib.redirect_stdout(_Nowhere()),
                _time_limit(REPLAY_SECONDS_MAX),
            ):  # a workflow's print is no result
                checked = checker.check(run)
            if checked is not None:
                yield checked
            bar.advance(task)


class _Nowhere(io.TextIOBase):
    """Takes what is printed and keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` into what takes too long, where the platform can."""
    if (
        not hasattr(signal, "setitimer")
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return

    def ring(number: int, frame: object) -> None:
        raise OutOfTime(seconds)

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def files_in(names: Iterable[str]) -> list[Path]:
    """The Python files named, and those in the folders named, without hidden folders."""
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = (
                file
                for file in sorted(path.rglob("*.py"))
                if not any(part.startswith(".") for part in file.relative_to(path).parts)
            )
            found |= dict.fromkeys(inside)
        elif path.is_file():
            found[path] = None
        else:
            raise misuse(f"There is no file or folder {name}.")
    if not found:
        raise misuse(f"There is no Python file in {', '.join(names)}.")
    return list(found)
