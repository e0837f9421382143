"""What commands print with --json fits the schemas that `perdure schema` prints, to the last field.

The commands run in this process: what is judged is their output.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
from pathlib import Path
from typing import Any

import click
import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
from click.testing import CliRunner

from perdure import Engine, Queue, Rate, RunFailed, Schedule, step, workflow
from perdure.cli import main
from perdure.cli.schema import SHAPES
from tests import json_page
from tests.cli import flows


@step
async def speaks() -> None:
    logging.getLogger("tests.schema").warning("said by a step")


@workflow
async def spoken() -> None:
    await speaks()


def strict(schema: Any) -> Any:
    """The schema, refusing fields that it does not name."""
    match schema:
        case {"properties": dict()}:
            inner = {key: strict(value) for key, value in schema.items()}
            return inner | {"additionalProperties": False}
        case dict():
            return {key: strict(value) for key, value in schema.items()}
        case list():
            return [strict(one) for one in schema]
        case _:
            return schema


def commands(group: click.Group, before: str = "") -> dict[str, click.Command]:
    """All commands by their whole names."""
    found: dict[str, click.Command] = {}
    for name, one in group.commands.items():
        match one:
            case click.Group():
                found |= commands(one, f"{before}{name} ")
            case _:
                found[before + name] = one
    return found


def test_each_command_with_json_has_a_schema() -> None:
    with_json = {
        name
        for name, one in commands(main).items()
        if any(param.name == "as_json" for param in one.params)
    }
    assert {name.partition(" --")[0] for name in SHAPES} == with_json


def test_schemas_are_schemas_and_are_in_the_reference() -> None:
    for name in SHAPES:
        printed = CliRunner().invoke(main, ["schema", *name.split()])
        assert printed.exit_code == 0
        jsonschema.Draft202012Validator.check_schema(msgspec.json.decode(printed.output))
    assert json_page.page() == json_page.PAGE.read_text(), "python -m tests.json_page"
    assert CliRunner().invoke(main, ["schema", "nothing"]).exit_code == 2
    assert "show --seq" in CliRunner().invoke(main, ["schema"]).output


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with something of everything, and its replica in a folder beside it."""
    folder = tmp_path_factory.mktemp("store")
    path = str(folder / "perdure.db")

    async def fill() -> None:
        async with Engine(
            path,
            workflows=[flows.hello, flows.fragile, flows.asks, flows.desk],
            queues=[Queue("llm", concurrency=1, rate=Rate(5, 60))],
            schedules=[
                Schedule(name, "0 3 * * *", flows.hello("x")) for name in ("nightly", "old")
            ],
            replica=f"file://{folder}/replica",
        ) as engine:
            await engine.run(flows.hello("you", 2), id="hello")
            await engine.run(spoken(), id="spoken")
            fragile = await engine.start(flows.fragile(str(folder / "none.txt")), id="fragile")
            with pytest.raises(RunFailed):
                await fragile.result()
            await engine.ask("desk", "hi", channel="question", key="k", start=flows.desk("x"))
            await engine.send("talked", "because", channel="answer", start=flows.asks("why?"))
            await (await engine.get("talked")).result()
            await engine.start(flows.asks("why?"), id="linked")
            for name in ("first", "second"):
                await engine.start(flows.asks("why?"), id=name, queue="llm", key="ada")

    with contextlib.chdir(folder):  # where the steps leave their notes
        asyncio.run(fill())
    return path


OFFLINE = [
    ("doctor", []),
    ("ls", []),
    ("ls", ["--status", "failed"]),
    ("show", ["hello"]),
    ("show", ["fragile"]),
    ("show --logs", ["spoken", "--logs"]),
    ("show --seq", ["hello", "--seq", "2"]),
    ("show --waterfall", ["hello", "--waterfall"]),
    ("tail", ["hello"]),
    ("tail", ["hello", "fragile"]),
    ("tail --logs", ["spoken", "--logs"]),
    ("tail --stream", ["talked", "--stream", "words"]),
    ("observe", []),
    ("prune", ["--completed", "0s", "--dry-run"]),
    ("queue ls", []),
    ("queue show", ["llm"]),
    ("queue set", ["llm", "--concurrency", "3"]),
    ("queue pause", ["llm"]),
    ("queue resume", ["llm"]),
    ("schedule ls", []),
    ("schedule add", ["own", "@every 15m", "hello", '{"name": "x"}']),
    ("schedule pause", ["nightly"]),
    ("schedule resume", ["nightly"]),
    ("schedule next", ["nightly"]),
    ("schedule rm", ["old"]),
    ("schedule trigger", ["nightly"]),
    ("schedule backfill", ["nightly", "2026-11-01", "2026-11-03"]),
    ("check", ["--app", flows.__file__]),
    ("run", [f"{flows.__file__}:hello", "you", "--quiet"]),
    ("ask", ["desk", "hi", "--channel", "question", "--key", "k"]),
    ("export", ["hello", "-o", "carried.db"]),
    ("import", ["carried.db"]),
    ("inbox ls", []),
    ("inbox link", ["linked"]),
    ("inbox answer", ["first", "so"]),
    ("replica status", []),
    ("replica verify", []),
    ("replica restore", ["--output", "restored.db"]),
]


def test_each_schema_is_tried() -> None:
    assert {name for name, _ in OFFLINE} == set(SHAPES)


@pytest.mark.parametrize(
    ("name", "arguments"), OFFLINE, ids=[" ".join([n, *a[:1]]) for n, a in OFFLINE]
)
def test_what_is_printed_fits(
    store: str, name: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*name.partition(" --")[0].split(), *arguments, "--json"]
    if name == "import":
        CliRunner().invoke(main, ["export", "hello", "-o", "carried.db", "--store", store])
    elif name != "run":
        words += [store] if name == "observe" else ["--store", store]
    printed = CliRunner().invoke(main, words)
    if printed.exception is not None and not isinstance(printed.exception, SystemExit):
        raise printed.exception  # click's runner takes it for exit code 1
    assert printed.exit_code in (0, 1), (printed.output, printed.exception)
    shape = SHAPES[name]
    texts = printed.stdout.splitlines() if shape.lines else [printed.stdout]
    assert all(texts) and texts, (printed.exit_code, printed.stderr)
    judge = jsonschema.Draft202012Validator(strict(copy.deepcopy(shape.schema)))
    for text in texts:
        errors = [
            f"{one.json_path}: {one.message[:300]}"
            for one in judge.iter_errors(msgspec.json.decode(text))
        ]
        assert errors == []
