"""Help that teaches: every command has it, with examples that name the command."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import perdure
from perdure.cli import main

ROOT = Path(__file__).resolve().parents[2]

COMMANDS = [
    "init",
    "run",
    "worker",
    "dev",
    "ui",
    "observe",
    "ls",
    "show",
    "tail",
    "doctor",
    "check",
    "schema",
    "send",
    "ask",
    "inbox",
    "pause",
    "resume",
    "cancel",
    "retry",
    "resolve",
    "fork",
    "prune",
    "export",
    "import",
    "queue",
    "schedule",
    "replica",
    "completion",
]
GROUPS = ["queue", "schedule", "replica"]
READERS = [
    "run",
    "observe",
    "ls",
    "show",
    "tail",
    "doctor",
    "check",
    "queue ls",
    "queue show",
    "schedule ls",
    "schedule next",
    "prune",
    "export",
    "import",
]


def help_of(*words: str) -> str:
    result = CliRunner().invoke(main, [*words, "--help"], terminal_width=100)
    assert result.exit_code == 0
    return result.output


def test_every_command_is_listed_in_a_section() -> None:
    assert sorted(main.commands) == sorted(COMMANDS)
    text = help_of()
    sections = ["Start", "Pages", "Inspect", "Control", "Queues and schedules", "Repair"]
    sections += ["Runs in files", "Replica", "Shell"]
    assert [line[:-1] for line in text.splitlines() if line[:-1] in sections] == sections
    for name in COMMANDS:
        assert f"\n  {name} " in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_examples(name: str) -> None:
    text = help_of(name)
    assert "Example" in text
    assert f"\n    perdure {name}" in text


@pytest.mark.parametrize(
    "name", sorted({*COMMANDS} - {"init", "observe", "schema", "completion", *GROUPS})
)
def test_every_command_on_a_store_takes_store(name: str) -> None:
    assert "--store PATH" in help_of(name)
    assert "PERDURE_STORE" in help_of(name)


@pytest.mark.parametrize("name", READERS)
def test_everything_that_reads_has_json(name: str) -> None:
    assert "--json" in help_of(*name.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    options = [one for one in main.commands[name].params if isinstance(one, click.Option)]
    assert [one.name for one in options if not one.help] == []


def test_version() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"perdure {perdure.__version__}\n"


@pytest.mark.parametrize("name", ["status", "verify", "restore", "detach"])
def test_the_commands_of_a_replica_teach_too(name: str) -> None:
    text = help_of("replica", name)
    assert f"\n    perdure replica {name}" in text
    assert "--store PATH" in text
    assert "PERDURE_REPLICA" in text or name == "detach"


@pytest.mark.parametrize("name", ["ls", "show", "set", "pause", "resume"])
def test_the_commands_of_a_queue_teach_too(name: str) -> None:
    text = help_of("queue", name)
    assert f"\n    perdure queue {name}" in text
    assert "--store PATH" in text


@pytest.mark.parametrize(
    "name", ["ls", "add", "rm", "pause", "resume", "trigger", "backfill", "next"]
)
def test_the_commands_of_a_schedule_teach_too(name: str) -> None:
    text = help_of("schedule", name)
    assert f"\n    perdure schedule {name}" in text
    assert "--store PATH" in text


def test_every_command_and_option_is_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text()
    groups = {name: one for name, one in main.commands.items() if isinstance(one, click.Group)}
    names = [f"{group} {name}" for group, one in groups.items() for name in one.commands]
    names += sorted(set(main.commands) - set(groups))
    assert [name for name in names if f"`perdure {name}" not in text] == []
    commands = [*main.commands.values(), *(c for g in groups.values() for c in g.commands.values())]
    options = {
        word
        for command in commands
        for one in command.params
        if isinstance(one, click.Option)
        for word in one.opts
        if word.startswith("--")
    }
    assert sorted(word for word in options if word not in text) == []
