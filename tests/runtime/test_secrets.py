"""Secrets and redaction: what a run works with, and what everybody else reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from perdure import (
    DefinitionError,
    Engine,
    Nondeterminism,
    NotSerializable,
    Request,
    Retention,
    RunExists,
    Secret,
    connect,
    continue_as,
    current_step,
    emit,
    expose,
    receive,
    receive_request,
    step,
    workflow,
)
from tests.runtime.support import awaited, reached

KEY = "sk-THE-TEXT-" + "x" * 20


@dataclass
class Login:
    user: str
    password: Secret


@step
def call(key: Secret, prompt: str) -> dict[str, Any]:
    context = current_step()
    context.heartbeat({"key": key})
    return {"said": prompt, "key": key, "same": key.reveal() == KEY, "shown": f"{key}"}


@step
async def log_in(login: Login, *more: Any) -> Login:
    assert login.password.reveal() == KEY
    return login


@workflow
async def agent(key: Secret, history: list[dict[str, Any]]) -> Secret:
    expose(token=key)
    first = await call(key, "hello")
    assert first == {"said": "hello", "key": key, "same": True, "shown": "•••"}
    login = await log_in(Login("me", key), {"deep": [key]}, *history)
    emit("keys", {"key": login.password})
    message = await receive("key", Secret)
    untyped: dict[str, Any] = await receive("any")
    assert message == untyped["key"] == key
    request: Request[Secret] = await receive_request("ask", Secret)
    request.reply(request.value)
    return message


async def whole_agent(engine: Engine, id: str) -> Secret:
    run = await engine.start(agent(Secret(KEY), LARGE), id=id)
    await engine.send(id, Secret(KEY), channel="key")
    await engine.send(id, {"key": Secret(KEY)}, channel="any")
    assert await engine.ask(id, Secret(KEY), channel="ask", timeout=10) == Secret(KEY)
    return await run.result()


LARGE = [{"role": "user", "content": "long " * 300, "token": Secret(KEY)} for _ in range(3)]


def tables_with(path: Path, text: str) -> set[str]:
    """The tables and views in which a text can be read."""
    found = set()
    db = connect(path)
    names = [
        name
        for (name,) in db.execute(
            "SELECT name FROM sqlite_schema WHERE sql IS NOT NULL AND type IN ('table', 'view')"
        )
    ]
    for name in names:
        for row in db.execute(f'SELECT * FROM "{name}"'):
            if text in repr(row):
                found.add(name)
    db.close()
    return found


@awaited
async def test_a_secret_is_read_by_its_run_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with Engine(path, workflows=[agent]) as engine:
        assert await whole_agent(engine, "a") == Secret(KEY)
        shown = [
            await engine.info("a"),
            await engine.history("a"),
            await engine.runs(),
            await engine.exposed("a"),
            [item async for item in (await engine.get("a")).stream("keys")],
        ]
    assert KEY not in repr(shown)
    assert "•••" in repr(shown)
    assert tables_with(path, KEY) == {"perdure_secret"}
    assert tables_with(path, "•••") >= {
        "perdure_runs", "perdure_steps", "perdure_events", "perdure_messages", "perdure_exposed",
        "perdure_requests", "perdure_streams",
    }  # fmt: skip
    assert tables_with(path, "\\U000f5ec7") == {"perdure_secret"}


@workflow
async def waits(key: Secret, texts: list[Any]) -> str:
    told = await call(key, "before")
    got = await receive("go", Secret)
    again = await call(got, "after")
    return str(told["same"] and again["same"])


@awaited
async def test_replay_fork_and_retry_have_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with Engine(path, workflows=[waits]) as engine:
        await engine.start(waits(Secret(KEY), LARGE), id="a")
        await reached(await engine.get("a"), "waiting")
    async with Engine(path, execute=False) as client:  # its message is stored by another process
        await client.send("a", Secret(KEY), channel="go")
        assert tables_with(path, KEY) == {"perdure_secret"}
    async with Engine(path, workflows=[waits]) as engine:
        same = await engine.start(waits(Secret(KEY), LARGE), id="a")
        assert await same.result() == "True"
        with pytest.raises(RunExists):
            await engine.start(waits(Secret("another"), LARGE), id="a")
        fork = await engine.fork("a", at=5, new_id="b")
        assert await fork.result() == "True"
    assert tables_with(path, KEY) == {"perdure_secret"}


@workflow
async def moves_on(key: Secret, n: int) -> Any:
    if n:
        continue_as(moves_on(key, n - 1))
    return await receive("left", Any)


@awaited
async def test_what_a_run_leaves_goes_on_with_its_secrets(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with Engine(path, execute=False) as client:
        await client.start(moves_on(Secret(KEY), 2), id="a")
        await client.send("a", {"of": Secret(KEY)}, channel="left")
    async with Engine(path, workflows=[moves_on]) as engine:
        assert await (await engine.get("a")).result() == {"of": Secret(KEY)}
    assert tables_with(path, KEY) == {"perdure_secret"}


@step
def keeps(config: dict[str, Any], api_token: str) -> int:
    return len(api_token) + len(config["inner"]["password"])


@workflow
async def configured(config: dict[str, Any], api_token: str) -> int:
    expose(password=api_token, n=1)
    return await keeps(config, api_token)


@awaited
async def test_members_are_redacted_by_name(tmp_path: Path) -> None:
    path, redact = tmp_path / "a.db", ["password", "*_token"]
    config = {"inner": {"Password": KEY, "password": [KEY, {"x": KEY}], "n": 1}, "text": '{"a":1}'}
    async with Engine(path, workflows=[configured], redact=redact) as engine:
        assert await engine.run(configured(config, KEY), id="a") == len(KEY) + 2
        assert await engine.exposed("a") == {"password": "•••", "n": 1}
        row = next(one for one in await engine.history("a") if one.kind == "step")
        assert row.args == {
            "config": {"inner": {"Password": "•••", "password": "•••", "n": 1}, "text": '{"a":1}'},
            "api_token": "•••",
        }
    async with Engine(path, execute=False) as client:  # the names are in the file
        await client.start(configured(config, KEY), id="b")
    assert tables_with(path, KEY) == {"perdure_secret"}


@awaited
async def test_a_function_redacts_for_its_engine(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with Engine(path, workflows=[configured], redact=lambda name: "pass" in name) as engine:
        config = {"inner": {"password": KEY}}
        assert await engine.run(configured(config, ""), id="a") == len(KEY)
    assert tables_with(path, KEY) == {"perdure_secret"}


@awaited
async def test_a_difference_does_not_show_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"

    async def version_1(key: Secret) -> None:
        await call(key, "before")
        await receive("go")

    async def version_2(key: Secret) -> None:
        await call(Secret(KEY + "2"), "before")

    one, two = (workflow(name="w")(fn) for fn in (version_1, version_2))
    async with Engine(path, workflows=[one]) as engine:
        await engine.start(one(Secret(KEY)), id="a")
        await reached(await engine.get("a"), "waiting")
    async with Engine(path, workflows=[two]) as engine:
        await engine.send("a", None, channel="go")
        with pytest.raises(Nondeterminism) as caught:
            await (await engine.get("a")).result()
    assert KEY not in str(caught.value)
    assert "another secret" in str(caught.value)


@step
def fails(key: Secret) -> None:
    raise ValueError("refused", key, {"in": key})


@workflow
async def failing(key: Secret) -> None:
    await fails.options(retry=None)(key)


@awaited
async def test_errors_do_not_show_it(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with Engine(path, workflows=[failing]) as engine:
        with pytest.raises(Exception, match="refused") as caught:
            await engine.run(failing(Secret(KEY)), id="a")
    assert KEY not in repr(caught.value) + str(caught.value.__cause__)
    assert tables_with(path, KEY) == {"perdure_secret"}


@awaited
async def test_a_place_of_another_type_refuses_it() -> None:
    @workflow
    async def plain(text: str) -> None: ...

    async with Engine(":memory:", workflows=[plain]) as engine:
        with pytest.raises(NotSerializable) as caught:
            await engine.start(plain(Secret(KEY)))  # type: ignore[arg-type]
        with pytest.raises(NotSerializable):
            await engine.start(plain("x"), tags={"key": Secret(KEY)})
    assert KEY not in str(caught.value)


@awaited
async def test_pruned_runs_take_their_secrets_along(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with Engine(path, workflows=[agent, configured]) as engine:
        await whole_agent(engine, "a")
        await engine.run(configured({"inner": {"password": ""}}, ""))  # the newest one stays
        await engine.prune(Retention(completed=0))
    assert tables_with(path, KEY) == set()


@pytest.mark.parametrize("wrong", ["password", [1], 3, ["error"], ["*"]])
def test_a_wrong_redaction_is_refused(wrong: Any) -> None:
    with pytest.raises(DefinitionError, match="redact"):
        Engine(":memory:", redact=wrong)


@awaited
async def test_a_schedule_keeps_no_secret(tmp_path: Path) -> None:
    async with Engine(tmp_path / "a.db", workflows=[moves_on], redact=["token"]) as engine:
        with pytest.raises(NotSerializable, match="schedule 'x'"):
            await engine.schedule("x", "@daily", moves_on(Secret(KEY), 1))
        assert await engine.schedules() == []


async def approve(key: Secret) -> Secret:
    login = await receive("login", Login)
    assert login.password.reveal() == KEY
    return (await call(key, "x"))["key"]  # type: ignore[no-any-return]


approves = workflow(approve)


@awaited
async def test_what_people_type_is_a_secret_by_its_schema(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with Engine(path, workflows=[approves]):
        pass  # it declares what the workflow takes
    async with Engine(path, execute=False) as pages:  # they have no code
        await pages.start_by_name("approve", {"key": KEY}, id="a")
        with pytest.raises(NotSerializable, match="in the place of a secret"):
            await pages.start_by_name("approve", {"key": "•••"}, id="b")
        await pages.start_by_name("approve", {"key": "•••"}, id="c", like="a")
    async with Engine(path, workflows=[approves]) as engine:
        run = await engine.get("a")
        await reached(run, "waiting")
        await engine.answer("a", {"user": "me", "password": KEY})
        assert await run.result() == Secret(KEY)
        with pytest.raises(NotSerializable, match="in the place of a secret"):
            await engine.start_by_name("approve", {"key": {"x": "•••"}}, like="a")
        again = await engine.start_by_name("approve", {"key": "•••"}, like="a")
        for id in ("c", again.id):
            await reached(await engine.get(id), "waiting")
            await engine.answer(id, {"user": "me", "password": KEY})
            assert await (await engine.get(id)).result() == Secret(KEY)
    assert tables_with(path, KEY) == {"perdure_secret"}


@awaited
async def test_an_edit_keeps_the_secrets_that_it_shows_masked(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    config = {"inner": {"password": KEY, "n": 1}}
    async with Engine(path, workflows=[configured], redact=["password", "*_token"]) as engine:
        await engine.run(configured(config, KEY), id="a")
        step = next(one for one in await engine.history("a") if one.kind == "step")
        edited = {**(step.args or {}), "config": {"inner": {"password": "•••", "n": 2}}}
        fork = await engine.fork("a", step.seq, new_id="b", args=edited)
        assert await fork.result() == len(KEY) * 2
        with pytest.raises(NotSerializable, match="in the place of a secret"):
            await engine.fork("a", step.seq, args={**edited, "other": "•••"})
        again = await engine.fork("a", 1, args={"config": edited["config"], "api_token": "•••"})
        assert await again.result() == len(KEY) * 2
    assert tables_with(path, KEY) == {"perdure_secret"}


DEFAULT = Secret(KEY)


@workflow
async def with_defaults(key: Secret = DEFAULT, password: str = KEY, n: int = 1) -> None: ...


@awaited
async def test_defaults_are_not_declared(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with Engine(path, workflows=[with_defaults], redact=["password"]) as engine:
        await engine.run(with_defaults())
    assert tables_with(path, KEY) == {"perdure_secret"}
    schema: Any = connect(path).execute("SELECT schema FROM perdure_workflow").get
    assert '"default":1' in schema
    assert '"format":"password"' in schema
