"""Every command on a file that is empty, and on one that is not there: neither becomes a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from perdure import StoreError, SyncEngine
from perdure.cli import main
from tests.cli import flows
from tests.cli.conftest import Said

Typed = Callable[..., Said]

NOT_OF_A_STORE = {"init", "completion", "schema", "observe"}
"""Commands that take no store."""
MAKES_ONE = {"run", "worker", "dev", "import", "replica restore"}
"""Commands that say in their help that they make a store."""
USES = {
    "ui": "ui --store FILE",
    "ls": "ls",
    "show": "show a",
    "tail": "tail a",
    "doctor": "doctor",
    "check": "check --app flows.py",
    "send": "send a c 1",
    "ask": "ask a 1 --channel c",
    "inbox ls": "inbox ls",
    "inbox link": "inbox link a",
    "inbox answer": "inbox answer a 1",
    "pause": "pause a",
    "resume": "resume a",
    "cancel": "cancel a",
    "queue ls": "queue ls",
    "queue show": "queue show q",
    "queue set": "queue set q --concurrency 1",
    "queue pause": "queue pause q",
    "queue resume": "queue resume q",
    "schedule ls": "schedule ls",
    "schedule next": "schedule next s",
    "schedule add": "schedule add s @daily hello",
    "schedule rm": "schedule rm s",
    "schedule pause": "schedule pause s",
    "schedule resume": "schedule resume s",
    "schedule trigger": "schedule trigger s",
    "schedule backfill": "schedule backfill s 2026-01-01 2026-01-02",
    "retry": "retry a",
    "resolve": "resolve a --retry",
    "fork": "fork a --at 1",
    "prune": "prune",
    "export": "export a -o new.db",
    "replica status": "replica status",
    "replica verify": "replica verify",
    "replica detach": "replica detach",
}
"""Words that are right, but for the store."""
WITHOUT_IT = {"replica status", "replica verify"}
"""Commands that need no file, but then the address of the replica: 2 where that is not given."""


def commands(group: click.Group, before: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{before}{name} ")
        else:
            yield before + name


def test_every_command_is_in_the_table() -> None:
    assert set(commands(main)) == NOT_OF_A_STORE | MAKES_ONE | USES.keys()


@pytest.mark.parametrize("there", [True, False], ids=["empty", "missing"])
@pytest.mark.parametrize("words", USES.values(), ids=list(USES))
def test_no_command_makes_a_store_of_it(here: Typed, words: str, there: bool) -> None:
    file = Path("file.db")
    if there:
        file.touch()
    before = sorted(Path().iterdir())
    split = [one for one in words.split() if one not in ("--store", "FILE")]
    said = here(*split, PERDURE_STORE="file.db")
    codes = (3, 4) if there or words not in WITHOUT_IT else (2,)
    assert (said.code in codes, said.out) == (True, ""), said
    assert "file.db" in said.err
    assert said.err.startswith("Error: ")
    after = sorted(one for one in Path().iterdir() if one.name != "__pycache__")
    assert after == before
    assert not there or file.stat().st_size == 0


@pytest.mark.parametrize("there", [True, False], ids=["empty", "missing"])
def test_no_verb_of_a_client_in_python_does(tmp_path: Path, there: bool) -> None:
    file = tmp_path / "file.db"
    if there:
        file.touch()
    with pytest.raises(StoreError, match=r"file\.db"), SyncEngine(file, create=False) as engine:
        engine.cancel("a")
    with pytest.raises(StoreError), SyncEngine(file, execute=False, create=False) as engine:
        engine.start(flows.asks("why"))
    assert [one.stat().st_size for one in tmp_path.iterdir()] == [0] * there


def test_an_engine_that_may_make_a_store_takes_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "file.db").touch()
    with SyncEngine(tmp_path / "file.db", workflows=[flows.hello]) as engine:
        assert engine.run(flows.hello("Ada")) is not None
