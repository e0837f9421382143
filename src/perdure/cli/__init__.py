"""The `perdure` command: one file per group of verbs.

Rules: results go to stdout, everything else to stderr; exit codes are a contract (see
`common.Exit`); an error of Perdure's is one message that says what to do next, never a traceback.
"""

from __future__ import annotations

import click

from perdure import __version__
from perdure.cli import (
    ask,
    check,
    completion,
    control,
    dev,
    doctor,
    inbox,
    init,
    inspect,
    observe,
    prune,
    queue,
    repair,
    replica,
    run,
    schedule,
    schema,
    tail,
    transfer,
    ui,
    worker,
)
from perdure.cli.common import Commands

__all__ = ["main"]


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Every command has its own --help with examples. Exit codes: 0 done, 1 the run "
    "failed, was cancelled, is "
    "blocked or would be, 2 wrong usage, 3 no such run, queue "
    "or schedule, 4 the store or its replica can't be used.",
)
@click.version_option(__version__, prog_name="perdure", message="%(prog)s %(version)s")
def main() -> None:
    """Durable workflows for Python in one SQLite file.

    Kill a run anywhere; the same command goes on where it stopped.

    \b
      perdure init demo                        write a small app to start from
      perdure run demo/app.py A-17 120         run it, with live progress
      perdure ls                               what is there
      perdure show refund                      what a run did, step by step
      perdure ui                               the same in a browser
    """


_SECTIONS: dict[str, list[click.Command]] = {
    "Start": [init.init, run.run, worker.worker],
    "Pages": [dev.dev, ui.ui, observe.observe],
    "Inspect": [
        inspect.ls,
        inspect.show,
        tail.tail,
        doctor.doctor,
        check.check,
        schema.schema,
    ],
    "Control": [
        control.send,
        ask.ask,
        inbox.inbox,
        control.pause,
        control.resume,
        control.cancel,
    ],
    "Queues and schedules": [queue.queue, schedule.schedule],
    "Repair": [repair.retry, repair.resolve, repair.fork, prune.prune],
    "Runs in files": [transfer.export, transfer.import_],
    "Replica": [replica.replica],
    "Shell": [completion.completion],
}
for section, commands in _SECTIONS.items():
    main.add_section(section, commands)
