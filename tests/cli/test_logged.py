"""What steps have logged, in the terminal: `show --logs` and `tail --logs`."""

from __future__ import annotations

import asyncio
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from perdure import Engine, Limits, step, workflow
from tests.cli.conftest import Terminal

log = logging.getLogger("tests.logged")


@step
async def speaks(count: int) -> None:
    for n in range(count):
        log.info("line %d\n\x1b[31mbelow", n)
    try:
        raise ValueError("bad")
    except ValueError:
        log.exception("it failed")


@workflow
async def spoken() -> None:
    await speaks(1)
    await speaks(5)


@workflow
async def silent() -> None: ...


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    folder = tmp_path_factory.mktemp("logged")
    log.setLevel(logging.INFO)

    async def fill() -> None:
        limits = Limits(attempt_log_lines_max=3)
        async with Engine(Path(folder) / "perdure.db", limits=limits) as engine:
            await engine.run(spoken(), id="s")
            await engine.run(silent(), id="quiet")

    asyncio.run(fill())
    log.setLevel(logging.NOTSET)
    return Terminal(folder)


@pytest.mark.parametrize("verb", ["show", "tail"])
def test_lines_are_printed_with_their_step(here: Terminal, verb: str) -> None:
    said = here(verb, "s", "--logs")
    assert said.code == 0, said.err
    lines = [re.sub(r"^\d\d:\d\d:\d\d\.\d\d\d ", "", one) for one in said.out.splitlines()]
    assert lines[:4] == [
        "    2  INFO tests.logged: line 0",
        "    \\u001b[31mbelow",
        "    2  ERROR tests.logged: it failed",
        "    Traceback (most recent call last):",
    ]
    assert "    ValueError: bad" in lines
    assert "    4  INFO tests.logged: line 2" in lines
    assert "    4  INFO tests.logged: line 3" not in lines
    assert "    4  (3 lines more, not kept)" in lines


def test_lines_of_a_step_as_json(here: Terminal) -> None:
    every = here("show", "s", "--logs", "--json").json
    found = here("show", "s", "--logs", "--seq", "2", "--json").json
    assert [one["level"] for one in found] == ["INFO", "ERROR"]
    assert found == every[:2]
    last = here("show", "s", "--logs", "--limit", "1", "--json").json
    assert [one["dropped"] for one in last] == [3]
    after = here("show", "s", "--logs", "--after", str(every[0]["position"]), "--json").json
    assert after == every[1:]
    tailed: list[Any] = here("tail", "s", "quiet", "--logs", "--json").out.splitlines()
    assert len(tailed) == len(every)
    assert '"run":"s"' in tailed[0]


def test_what_can_not_be_shown_is_said(here: Terminal) -> None:
    assert "Steps of quiet have logged nothing." in here("show", "quiet", "--logs").err
    assert here("tail", "s", "--logs", "--stream", "x").code == 2
    missing = here("show", "quiet", "--logs", "--seq", "99")
    assert (missing.code, "there is no row 99" in missing.err) == (2, True)
