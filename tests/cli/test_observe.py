"""`perdure observe`, and the address of a replica as a store of commands that read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from campaigns.forking import Forked
from perdure.cli import main
from tests.observe.support import replicate


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("observe")
    for name in ("acme/agents", "initech"):
        replicate(folder / f"{name[:4]}.db", f"file://{folder}/fleet/{name}")
    return folder


def perdure(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_the_list_is_printed_for_people_and_for_machines(fleet: Path) -> None:
    printed = perdure("observe", f"file://{fleet}/fleet", "--list")
    assert printed.exit_code == 0
    head, first, second = printed.output.splitlines()
    assert head.split()[:3] == ["DATABASE", "STATE", "RUNNING"]
    assert first.split()[:2] == ["acme/agents", "ended"]
    assert second.split()[:2] == ["initech", "ended"]
    rows = json.loads(perdure("observe", f"file://{fleet}/fleet", "--json").output)
    assert [one["counts"] for one in rows] == [{"completed": 20, "failed": 1, "waiting": 1}] * 2
    named = json.loads(perdure("observe", str(fleet / "init.db"), "--json").output)
    assert named[0]["state"] == "file" and named[0]["counts"]["completed"] == 20
    (fleet / "text.db").write_bytes(b"hello " * 100)
    head, row, why = perdure("observe", str(fleet / "text.db"), "--list").output.splitlines()
    assert row.split()[1:4] == ["unreadable", "–", "–"] and "not an SQLite database" in why


def test_reading_commands_take_the_address_of_one_database(fleet: Path) -> None:
    address = f"file://{fleet}/fleet/acme/agents"
    listed = perdure("ls", "--store", address, "--status", "failed", "--json")
    assert [one["id"] for one in json.loads(listed.output)] == ["run-bad"]
    shown = perdure("show", "run-3", "--store", address)
    assert shown.exit_code == 0 and "completed" in shown.output
    assert perdure("doctor", "--store", address).exit_code == 0
    followed = perdure("tail", "run-3", "--store", address)
    assert followed.exit_code == 0 and "note" in followed.output
    for words in (("queue", "ls"), ("schedule", "ls"), ("inbox", "ls")):
        assert perdure(*words, "--store", address).exit_code == 0, words
    for change in (["cancel", "run-3"], ["send", "run-waits", "approval", "true"]):
        refused = perdure(*change, "--store", address)
        assert refused.exit_code == 2 and "only looked at" in refused.output
    several = perdure("ls", "--store", f"file://{fleet}/fleet")
    assert several.exit_code == 2 and f"file://{fleet}/fleet/acme/agents" in several.output
    for wrong, code in ((f"file://{fleet}/nothing", 4), ("s3://", 2)):
        assert perdure("ls", "--store", wrong).exit_code in (code, 4), wrong


@contextmanager
def serving(*words: str) -> Iterator[str]:
    """The address that a process says it serves; it ends in order when it is asked to."""
    command = [sys.executable, "-m", "perdure.cli", "observe", *words, "--port", "0"]
    process = Forked(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"}
    )
    assert process.stderr is not None
    said = process.stderr.readline()
    assert said.startswith("Pages: http"), said + process.stderr.read()
    yield said.split()[1]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 0


def test_pages_are_served_until_stopped(fleet: Path) -> None:
    with serving(f"file://{fleet}/fleet", str(fleet / "init.db")) as url:
        with urllib.request.urlopen(f"{url}databases.json") as answer:
            names = [one["name"] for one in json.loads(answer.read())["rows"]]
        assert names == ["acme/agents", "init.db", "initech"]
        with urllib.request.urlopen(f"{url}db/init.db/api/v1/runs/run-bad") as answer:
            assert json.loads(answer.read())["status"] == "failed"


def test_what_can_not_be_looked_at_is_said_at_once(tmp_path: Path) -> None:
    for target in (str(tmp_path / "nothing.db"), f"file://{tmp_path}/nothing"):
        refused = perdure("observe", target, "--port", "0")
        assert refused.exit_code == 4 and "nothing" in refused.output
