"""`doctor`: facts, and what stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from perdure import Engine
from tests.cli.conftest import Said

Typed = Callable[..., Said]


def test_doctor_has_the_facts(typed: Typed) -> None:
    facts = typed("doctor", "--json").json
    assert facts["integrity"] == "ok"
    assert facts["runs"] == {"completed": 3, "failed": 1, "waiting": 1, "cancelled": 1}
    assert facts["workers"] == []
    assert facts["stuck"] == []
    assert facts["file_bytes"] > 0


def test_doctor_for_people(typed: Typed) -> None:
    out = typed("doctor").out
    assert out.startswith("path ")
    for word in ("sqlite", "schema version", "wal bytes", "integrity", "stuck", "workers"):
        assert word in out


def test_it_is_said_that_no_worker_runs(here: Typed) -> None:
    async def left() -> None:
        async with Engine("perdure.db", execute=False) as engine:
            await engine.start_by_name("hello", {"name": "Ada"}, id="left")

    asyncio.run(left())
    sentence = "No worker is running: start one"
    assert sentence in here("doctor").out
    assert sentence in here("doctor", "--json").json["no_worker"]
    assert sentence in here("ls").err
    assert sentence in here("show", "left").out


def test_a_worker_that_is_alive_is_a_sentence(here: Typed) -> None:
    async def asked() -> str:
        async with Engine("perdure.db", workflows=[], lease_ttl=600):
            return (await asyncio.to_thread(here, "doctor")).out

    out = asyncio.run(asked())
    assert ": alive, its lease runs for another " in out
    assert "lease_left_ms" not in out
