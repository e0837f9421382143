"""`export` and `import`: runs in a file of their own, and back into a store.

Rules: nothing is executed; no file is replaced; a run is imported whole or not at all.
"""

from __future__ import annotations

import click

from perdure.cli.common import (
    CONFIRM_S_MAX,
    command,
    json_option,
    misuse,
    run_async,
    store_option,
    with_engine,
)
from perdure.cli.output import echo, echo_json, say
from perdure.runtime.engine import Engine
from perdure.runtime.transfer import SUFFIXES, Exported, Imported
from perdure.views import format


@click.command(short_help="Write runs to a file of their own.")
@click.argument("run_ids", metavar="ID...", nargs=-1, required=True)
@click.option(
    "-o", "--output", required=True, metavar="FILE", help="A new file that ends with .db or .json."
)
@click.option("--alone", is_flag=True, help="Without children, and earlier runs under the ids.")
@click.option(
    "--with-secrets", is_flag=True, help="With the text of secrets, to go on with them (.db)."
)
@json_option
@store_option
def export(
    run_ids: tuple[str, ...],
    output: str,
    alone: bool,
    with_secrets: bool,
    as_json: bool,
    store: str,
) -> None:
    """Write runs to a file of their own, with their children and the runs that went before them
    under their ids. They stay in the store as they are.

    A .db file is a store: every command and page opens it. A .json file is text for other
    programs; `perdure import` takes both. The text of secrets is left out, as people read it: the
    file has the mask there.

    \b
    Examples:
      perdure export order-17 -o order-17.db
      perdure show order-17 --store order-17.db
      perdure export order-17 order-18 -o orders.json --alone
    """
    if not output.endswith(SUFFIXES):
        raise misuse(f"{output!r} ends neither with .db, a store, nor with .json, text.")
    if with_secrets and output.endswith(".json"):
        raise misuse("--with-secrets needs a .db file: text is read by people.")

    async def act(engine: Engine) -> Exported:
        ids = [await engine.find(one) for one in run_ids]
        return await engine.export(ids, output, family=not alone, secrets=with_secrets)

    exported = with_engine(store, act)
    if as_json:
        echo_json(exported)
        return
    echo(f"{format.count(exported.runs, 'run')} in {output} ({exported.bytes:,} bytes)")
    if with_secrets:
        say("The file has the text of secrets: keep it as you keep them.")
    if output.endswith(".db"):
        say(f"perdure show {run_ids[0]} --store {output}")


@click.command("import", short_help="Put the runs of an exported file into the store.")
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False))
@click.option("--go-on", is_flag=True, help="Continue here those that have not ended.")
@click.option(
    "--run",
    "runs",
    metavar="ID",
    multiple=True,
    help="Only this run, and what belongs to it; repeat it for several.",
)
@json_option
@store_option
def import_(file: str, go_on: bool, runs: tuple[str, ...], as_json: bool, store: str) -> None:
    """Put the runs of a file that `perdure export` has written into the store, under their ids.
    Where there is no store, it is made.

    The file is checked before anything is written. A run, its children and the runs before it under
    its id are imported together, or not at all. What is here already is left as it is, so that an
    import that was interrupted can be given again. Of a store that is no export, runs are taken by
    name: --run.

    Runs that have not ended are paused; with --go-on a worker of this store continues them from
    where they were. They stay in the first store, too: see that only one of both goes on.

    \b
    Examples:
      perdure import order-17.db
      perdure import order-17.db --go-on --store other.db
      perdure import backup.db --run order-17
    """

    async def act() -> Imported:
        async with Engine(store, execute=False, replica_timeout=CONFIRM_S_MAX) as engine:
            return await engine.import_(file, go_on=go_on, runs=runs or None)

    imported = run_async(act())
    if as_json:
        echo_json(imported)
        return
    echo(*imported.ids)
    text = f"{format.count(len(imported.ids), 'run')} imported"
    if imported.open and go_on:
        text += f", {imported.open:,} to be continued by a worker"
    elif imported.open:
        text += f", {imported.open:,} paused: {command(store, 'resume', 'ID')} continues one"
    if imported.already:
        text += f"; {format.count(len(imported.already), 'run')} of the file here already"
    say(f"{text}.")
