"""The pytest plugin, in a pytest of its own: alone, and with the plugins for async tests."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

FLOW = """
import asyncio
from perdure import receive, step, workflow

@step
async def double(n: int) -> int:
    return 2 * n

@workflow
async def order(n: int) -> int:
    total = await double(n)
    try:
        async with asyncio.timeout(3 * 24 * 3600):
            return total if await receive("approval", bool) else 0
    except TimeoutError:
        return await double(total)
"""

PLAIN = """
import asyncio
import pytest
from flow import order
from perdure.testing import InvariantViolated, assert_survives_every_crash, export_run

def test_three_days(perdure_time):
    assert perdure_time.run(order(4)) == 16
    assert perdure_time.elapsed_s == 3 * 24 * 3600

def test_engine(perdure_engine, perdure_time):
    async def main():
        async with perdure_engine(workflows=[order]) as engine:
            run = await engine.start(order(4), id="four")
            await run.send(True, channel="approval")
            return await run.result()
    assert perdure_time.run(main()) == 8

def test_engine_in_real_time(perdure_engine):
    async def main():
        async with perdure_engine(workflows=[order]) as engine:
            run = await engine.start(order(4), id="four")
            await run.send(True, channel="approval")
            return await run.result()
    assert asyncio.run(main()) == 8

@pytest.mark.parametrize("commits", range(1, 6))
def test_crash(perdure_time, perdure_crash_after, commits):
    with perdure_crash_after(commits):
        perdure_time.run(order(4), id="four")
    assert perdure_time.run(order(4), id="four") == 16

def test_survives():
    assert_survives_every_crash(order(4), messages=[("approval", True)], hash_seeds=())

def test_recorded(perdure_time, perdure_recorded, request):
    perdure_time.run(order(4), id="four")
    (request.path.parent / "four.json").write_bytes(export_run(perdure_time.path, "four"))
    perdure_recorded("four.json", [order])
    perdure_recorded(perdure_time.path, [order])
    text = (request.path.parent / "four.json").read_text()
    (request.path.parent / "other.json").write_text(text.replace('"n": 8', '"n": 9'))
    with pytest.raises(InvariantViolated):
        perdure_recorded("other.json", [order])

def test_each_test_has_a_store_of_its_own(perdure_time):
    assert perdure_time.run(order(5), id="four") == 20
"""

WITH_ASYNCIO = """
import pytest
from flow import order

@pytest.mark.asyncio
async def test_real_time(perdure_engine):
    async with perdure_engine(workflows=[order]) as engine:
        run = await engine.start(order(4), id="four")
        await run.send(True, channel="approval")
        assert await run.result() == 8

@pytest.mark.asyncio
async def test_virtual_time_has_a_loop_of_its_own(perdure_time):
    with pytest.raises(TypeError, match="to_thread"):
        perdure_time.run(order(4))
"""

WITH_ANYIO = """
import pytest
from flow import order
from perdure.testing import VirtualLoop

pytestmark = pytest.mark.anyio

@pytest.fixture(params=[{}, {"loop_factory": VirtualLoop}], ids=["real", "virtual"])
def anyio_backend(request):
    return "asyncio", request.param

async def test_engine(perdure_engine):
    async with perdure_engine(workflows=[order]) as engine:
        run = await engine.start(order(4), id="four")
        await run.send(True, channel="approval")
        assert await run.result() == 8

@pytest.mark.parametrize("anyio_backend", [("asyncio", {"loop_factory": VirtualLoop})])
async def test_three_days(perdure_engine):
    async with perdure_engine(workflows=[order]) as engine:
        assert await engine.run(order(4)) == 16
"""


def outcome(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, text: str, *words: str
) -> dict[str, int]:
    """What another pytest makes of a file; no plugin is found by itself, so that it is the same
    wherever Perdure is installed.
    """
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv(
        "PYTHONPATH",
        os.pathsep.join([str(ROOT / "src"), str(pytester.path), os.environ.get("PYTHONPATH", "")]),
    )
    pytester.makepyfile(flow=FLOW, test_them=text)
    return pytester.runpytest_subprocess(
        "-p", "perdure.testing.plugin", *words, "-W", "error", "-q", "test_them.py"
    ).parseoutcomes()


def test_with_plain_pytest(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome(pytester, monkeypatch, PLAIN) == {"passed": 11}


def test_with_pytest_asyncio(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function"]
    assert outcome(pytester, monkeypatch, WITH_ASYNCIO, *words) == {"passed": 2}


def test_with_anyio(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    assert outcome(pytester, monkeypatch, WITH_ANYIO, "-p", "anyio.pytest_plugin") == {"passed": 3}


def test_every_fixture_is_documented(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    said = pytester.runpytest_subprocess("-p", "perdure.testing.plugin", "--fixtures").stdout.str()
    assert "no docstring available" not in said.partition("perdure")[2]
    page = (ROOT / "docs" / "howto" / "test-workflows.md").read_text()
    for name in ("perdure_time", "perdure_engine", "perdure_crash_after", "perdure_recorded"):
        assert name in said
        assert f"`{name}`" in page


def test_pytest_finds_it_by_itself_where_perdure_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {
        "perdure.testing.plugin": "perdure.testing.plugin"
    }


def test_nothing_but_the_plugin_imports_pytest() -> None:
    importers = [
        path.name for path in (ROOT / "src").rglob("*.py") if "import pytest" in path.read_text()
    ]
    assert importers == ["plugin.py"]
