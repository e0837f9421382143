"""`export` and `import` as people type them."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from perdure import Engine
from tests.cli import flows
from tests.cli.conftest import Terminal


@pytest.fixture
def waiting(terminal: Terminal) -> Terminal:
    """A terminal whose store has a run that waits for a person."""

    async def main() -> None:
        async with Engine(terminal.folder / "perdure.db", execute=False) as engine:
            await engine.start(flows.asks("why"), id="ask-1")

    with contextlib.chdir(terminal.folder):
        asyncio.run(main())
    return terminal


def test_a_run_is_shown_from_its_file_and_goes_on_elsewhere(waiting: Terminal) -> None:
    said = waiting("export", "ask", "-o", "one.db", "--json")
    assert (said.code, said.json["runs"]) == (0, 1)
    assert waiting("export", "ask-1", "-o", "one.json").out.startswith("1 run in one.json (")
    shown = waiting("show", "ask-1", "--store", "one.db")
    assert (shown.code, shown.out.split()[:2]) == (0, ["ask-1", "pending"])
    imported = waiting("import", "one.json", "--go-on", "--store", "new.db")
    assert (imported.code, imported.out) == (0, "ask-1\n")
    assert imported.err == "1 run imported, 1 to be continued by a worker.\n"
    assert waiting("ls", "--json", "--store", "new.db").json[0]["status"] == "pending"
    again = waiting("import", "one.db", "--store", "new.db")
    assert (again.code, again.out) == (0, "")
    assert again.err == "0 runs imported; 1 run of the file here already.\n"
    chosen = waiting("import", "perdure.db", "--run", "ask-1", "--store", "third.db", "--json")
    assert chosen.json == {"ids": ["ask-1"], "open": 1, "already": []}


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("export", "no", "-o", "a.db"), 3, "no run 'no'"),
        (("export", "ask-1", "-o", "a.txt"), 2, "neither with .db"),
        (("export", "ask-1", "-o", "a.json", "--with-secrets"), 2, "needs a .db file"),
        (("export", "ask-1", "-o", "perdure.db"), 4, "there is a file of this name"),
        (("export", "-o", "a.db"), 2, "Missing argument"),
        (("import", "flows.py"), 4, "not an SQLite database"),
        (("import", "perdure.db"), 4, "the store itself"),
        (("import", "perdure.db", "--store", "other.db"), 4, "--run ID"),
        (("import", "perdure.db", "--run", "no", "--store", "other.db"), 4, "no run 'no'"),
        (("import", "nothing.db"), 2, "does not exist"),
    ],
)
def test_what_can_not_be_done_is_said(
    waiting: Terminal, words: tuple[str, ...], code: int, text: str
) -> None:
    said = waiting(*words)
    assert (said.code, said.out) == (code, "")
    assert text in said.err
