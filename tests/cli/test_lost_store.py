"""A store that is lost while a command has it open: exit code 4 and a sentence, not a traceback."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from tests.cli.conftest import Said, Terminal

Typed = Callable[..., Said]


def told(said: Said, *words: str) -> None:
    """The last line is the error, in full; there is no traceback above it."""
    assert said.code == 4, said
    assert "Traceback" not in said.err
    last = said.err.strip().splitlines()[-1]
    assert re.match(r"Error: The store '.*perdure.db' ", last)
    assert all(word in last for word in words), last


def delete(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    (path.parent / "other.db").write_bytes(b"something else " * 400)
    os.replace(path.parent / "other.db", path)


def migrate(path: Path) -> None:
    newer = apsw.Connection(str(path))
    newer.set_busy_timeout(10_000)
    newer.pragma("user_version", 99)
    newer.close()


HAPPENS = {
    delete: "deleted, moved or replaced",
    replace: "start again",
    migrate: "Upgrade perdure to open it.",
}


@pytest.mark.parametrize(
    "command", [["worker", "flows.py"], ["run", "flows.py:asks", "why"]], ids=["worker", "run"]
)
def test_a_store_that_is_lost_ends_the_command(terminal: Terminal, command: list[str]) -> None:
    """Each notices it when it next renews its lease, so they wait together."""
    losing = []
    for happens in HAPPENS:
        place = terminal.below(happens.__name__)
        process, path = place.start(*command), place.folder / "perdure.db"
        assert process.stderr is not None
        said = process.stderr.readline()  # it is at work
        happens(path)
        losing.append((happens, process, path, said, contents(path)))
    for happens, process, path, said, there in losing:
        out, err = process.communicate(timeout=120)
        told(Said(process.returncode, out, said + err), HAPPENS[happens])
        assert happens is migrate or contents(path) == there


def contents(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


@pytest.mark.parametrize(
    "words",
    [
        ["ls"],
        ["show", "w"],
        ["check", "--app", "flows.py"],
        ["worker", "flows.py"],
        ["run", "flows.py:wide", "3"],
    ],
    ids=lambda words: words[0],
)
def test_pages_that_are_damaged(here: Typed, words: list[str]) -> None:
    here("run", "flows.py:wide", "300", "--id", "w", "-q")
    path = Path("perdure.db")
    raw = bytearray(path.read_bytes())
    for at in range(4096, len(raw), 4096):
        raw[at : at + 2048] = b"\xa5" * 2048
    path.write_bytes(raw)
    told(here(*words), "can't be used: it is damaged", "Restore a copy, or name another file.")
    assert path.read_bytes() == raw


@pytest.mark.parametrize(
    "words",
    [["ls"], ["worker", "flows.py"], ["run", "flows.py:hello", "Ada"]],
    ids=lambda words: words[0],
)
def test_a_wal_whose_file_is_gone(here: Typed, words: list[str]) -> None:
    Path("perdure.db-wal").write_bytes(b"x" * 5_000)
    said = here(*words)
    assert said.code == 4
    assert Path("perdure.db-wal").read_bytes() == b"x" * 5_000
    if words != ["ls"]:
        told(said, "missing or empty, but its 'perdure.db-wal' is there")
