"""`perdure worker`: how much it takes at once."""

from __future__ import annotations

import asyncio

import pytest

from perdure import Engine
from tests.cli import flows
from tests.cli.conftest import Said, Terminal


def started(terminal: Terminal, runs: int) -> None:
    """Runs that wait for a worker."""

    async def main() -> None:
        async with Engine(terminal.folder / "perdure.db", execute=False) as client:
            for number in range(runs):
                await client.start(flows.alone(str(number)), id=f"r{number}")

    asyncio.run(main())


@pytest.mark.parametrize("concurrency", ["1", "3"])
def test_no_more_runs_are_at_work_than_it_is_told(terminal: Terminal, concurrency: str) -> None:
    started(terminal, 8)
    worker = terminal.start("worker", "flows.py", "--concurrency", concurrency)
    terminal.until(lambda: len(terminal.notes) == 16)
    assert terminal.stop(worker).code == 0
    at_work, most = set[str](), 0
    for kind, name in (line.split() for line in terminal.notes):
        (at_work.add if kind == "begin" else at_work.remove)(name)
        most = max(most, len(at_work))
    assert most == int(concurrency)


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_a_number_that_makes_no_sense_is_refused(terminal: Terminal, number: str) -> None:
    said: Said = terminal("worker", "flows.py", "--concurrency", number)
    assert said.code == 2
    assert "--concurrency" in said.err
