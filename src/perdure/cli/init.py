"""`init`: writes a small app to start from.

Rules: it never overwrites; where one of its files exists, nothing is written.
"""

from __future__ import annotations

import importlib.resources
import shlex
from pathlib import Path

import click

from perdure.cli.common import misuse
from perdure.cli.output import echo

FILES = ("app.py", "README.md")


@click.command(short_help="Write a small app to start from.")
@click.argument("folder", default=".", type=click.Path(path_type=Path, file_okay=False))
def init(folder: Path) -> None:
    """Write a small app to start from: a workflow with steps, a durable pause and a human approval.

    \b
    Examples:
      perdure init
      perdure init demo
    """
    if taken := [name for name in FILES if (folder / name).exists()]:
        raise misuse(
            f"{shown(folder)} has {' and '.join(taken)} already, and init never "
            f"overwrites. Name another folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            with (folder / name).open("x", encoding="utf-8") as target:
                target.write(template(name))
    except OSError as error:
        raise misuse(f"Can't write into {shown(folder)}: {error.strerror or error}.") from error
    echo(f"Wrote {' and '.join(FILES)} in {shown(folder)}. Next:", "", *_next_steps(folder))


def template(name: str) -> str:
    return (
        importlib.resources.files("perdure.cli")
        .joinpath("templates", name)
        .read_text(encoding="utf-8")
    )


def shown(folder: Path) -> str:
    return "this folder" if folder == Path() else str(folder)


def _next_steps(folder: Path) -> list[str]:
    commands = [] if folder == Path() else [(f"cd {shlex.quote(str(folder))}", "")]
    commands += [
        ("perdure run app.py A-17 120", "runs until it waits for an approval"),
        ("perdure send refund approval true", "approves it; type it in another terminal"),
        ("perdure show refund", "what happened, step by step"),
        ("perdure dev app.py --open", "all of it in a browser, while you change the code"),
    ]
    width = max(len(command) for command, _ in commands)
    return [f"  {command.ljust(width)}   {note}".rstrip() for command, note in commands]
