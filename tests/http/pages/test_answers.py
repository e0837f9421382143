"""Answers over HTTP: forms of the inbox, links without a login, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from perdure import (
    Engine,
    RunFailed,
    Secret,
    Token,
    connect,
    receive,
    receive_request,
    step,
    workflow,
)
from perdure.api.secret import MASK
from tests.http.support import CSRF, FORM_KEY, Serve, Served
from tests.runtime.support import reached


@dataclasses.dataclass
class Verdict:
    publish: bool
    note: str = ""


@workflow
async def report(topic: str) -> str:
    """Write a report."""
    verdict = await receive("verdict", Verdict, prompt=f"Publish <{topic}>?")
    return f"{verdict.publish}: {verdict.note}"


@step(retry=None)
async def count() -> int:
    raise ValueError("never works")


@workflow
async def counts() -> int:
    return await count() + 1


@workflow
async def login(key: Secret, user: str = "") -> int:
    return len(key.reveal())


@workflow
async def bot() -> None:
    while True:
        request = await receive_request("questions", int)
        request.reply(request.value + 1)


TOKENS = [Token(name="ada", secret="s" * 20), Token(name="guest", secret="v" * 20, role="view")]


@pytest.fixture(scope="module")
def served(serve: Serve) -> Served:
    return serve(workflows=[report, bot, counts, login], token=TOKENS, prefix="/durable")


@pytest.fixture(scope="module")
def ada(served: Served) -> httpx.Client:
    return served.client(authorization="Bearer " + "s" * 20, accept="text/html")


def waiting(served: Served, id: str) -> int:
    """Start a report that waits; gives the row of its wait."""

    async def started(engine: Engine) -> int:
        run = await engine.start(report("tea"), id=id)
        await reached(run, "waiting")
        return int((await run.info()).waiting_for[0]["seq"])

    return served.do(started)


def link(served: Served, id: str) -> str:
    async def made(engine: Engine) -> str:
        return (await engine.answer_link(id, recipient="bob")).path

    return served.do(made)


def result(served: Served, id: str) -> Any:
    async def ended(engine: Engine) -> Any:
        return await (await engine.get(id)).result()

    return served.do(ended)


def test_an_answer_is_checked_recorded_with_the_name_of_the_token_and_given_once(
    served: Served, ada: httpx.Client
) -> None:
    form = {"channel": "verdict", "seq": str(waiting(served, "a/b"))}
    page = ada.get("/inbox")
    assert "Publish &lt;tea&gt;?" in page.text
    assert "/durable/inbox/a%2Fb/answer" in page.text
    wrong = ada.post("/inbox/a%2Fb/answer", data=form | {"v/note": "kept <this>"})
    assert wrong.status_code == 422
    assert "kept &lt;this&gt;" in wrong.text
    assert "This is needed." in wrong.text
    done = ada.post("/inbox/a%2Fb/answer", data=form | {"v/publish": "true", "v/note": "fine"})
    assert (done.status_code, done.headers["location"]) == (
        303,
        f"/durable/inbox?done=a%2Fb&at={form['seq']}",
    )
    assert result(served, "a/b") == "True: fine"
    late = ada.post("/inbox/a%2Fb/answer", data=form | {"v/publish": "false"})
    assert (late.status_code, "ada answered this at" in late.text) == (409, True)
    answered = ada.get("/inbox").text
    assert ">ada<" in answered


def test_a_link_needs_no_login_answers_once_and_leaves_no_other_way_in(served: Served) -> None:
    waiting(served, "linked")
    path, stranger = link(served, "linked"), served.client(accept="text/html")
    for _ in range(2):  # mail programs open links by themselves
        assert stranger.get(path).status_code == 200
    assert stranger.get("/inbox").status_code == 303  # to the login
    bad = stranger.post(path, data={"v/publish": "maybe"})
    assert bad.status_code == 422
    done = stranger.post(path, data={"v/publish": "false", "v/note": "no"})
    assert (done.status_code, "Thank you" in done.text) == (200, True)
    assert result(served, "linked") == "False: no"
    again = [stranger.get(path), stranger.post(path, data={"v/publish": "true"})]
    assert [one.status_code for one in again] == [410, 410]
    assert "It was used at" in again[0].text
    assert stranger.get(path[:-1]).status_code == 404
    assert stranger.post(path[:-1], data={}).status_code == 404
    evil = stranger.post(path, data={}, headers={"origin": "https://evil.example"})
    assert evil.status_code == 403


def test_a_link_whose_question_was_answered_otherwise_says_so(served: Served) -> None:
    seq = waiting(served, "other")
    path = link(served, "other")
    served.do(lambda e: e.answer("other", {"publish": True}, seq=seq, sender="carl"))
    assert result(served, "other") == "True: "
    gone = served.client(accept="text/html").get(path)
    assert (gone.status_code, "Nothing is asked any more" in gone.text) == (409, True)


def test_a_request_is_sent_and_its_reply_shown(served: Served, ada: httpx.Client) -> None:
    async def started(engine: Engine) -> int:
        run = await engine.start(bot(), id="bot")
        await reached(run, "waiting")
        return int((await run.info()).waiting_for[0]["seq"])

    form = {"kind": "request", "channel": "questions", "seq": str(served.do(started)), "v": "41"}
    shown = ada.post("/inbox/bot/answer", data=form)
    assert (shown.status_code, "bot replied" in shown.text, ">42<" in shown.text) == (
        200,
        True,
        True,
    )
    served.do(lambda engine: engine.cancel("bot"))


def test_the_view_role_reads_and_answers_nothing(served: Served) -> None:
    seq = waiting(served, "seen")
    guest = served.client(authorization="Bearer " + "v" * 20, accept="text/html")
    page = guest.get("/inbox/seen").text
    assert "Publish" in page
    assert "<form class=" not in page
    assert "Start the fork" not in guest.get("/runs/seen/fork?at=1").text
    form = {"channel": "verdict", "seq": str(seq), "v/publish": "true"}
    ada = served.client(authorization="Bearer " + "s" * 20, accept="text/html")
    made = ada.post("/inbox/seen/link", data=form | {"days": "1"})
    assert f"{served.url}/answer/" in made.text
    for path in ("/inbox/seen/answer", "/inbox/seen/link", "/start/report", "/runs/seen/fork?at=1"):
        assert guest.post(path, data=form).status_code == 403


def test_starts_are_checked_and_shown_as_code(served: Served, ada: httpx.Client) -> None:
    page = ada.get("/start/report").text
    assert "Write a report." in page
    assert "-H &#34;authorization: Bearer $PERDURE_TOKEN&#34;" in page
    assert ada.post("/start/report", data={"v/topic": ""}).status_code == 422
    bad = {"v/topic": "x", "priority": "high", "tags": "nonsense", "at": "soon"}
    refused = ada.post("/start/report", data=bad)
    assert (refused.status_code, refused.text.count('class="error"')) == (422, 3)
    good = {"v/topic": "milk", "id": "formed", "tags": "tenant=acme n=1", "priority": "3"}
    assert ada.post("/start/report", data=good).headers["location"] == "/durable/runs/formed"
    info = served.do(lambda engine: engine.info("formed"))
    assert (info.args, info.tags, info.priority) == (
        {"topic": "milk"}, {"tenant": "acme", "n": 1}, 3,
    )  # fmt: skip
    other = ada.post("/start/report", data=good | {"v/topic": "tea"})
    assert (other.status_code, "exists already" in other.text) == (409, True)
    again = ada.get("/start/report?again=formed").text
    assert "milk" in again
    assert "tenant=acme" in again
    assert ada.get("/start/nothing").status_code == 404


def test_forks_are_started_after_their_difference_was_shown(
    served: Served, ada: httpx.Client
) -> None:
    waiting(served, "source")
    address = "/runs/source/fork?at=1"
    edit = {"how": "args", "args": '{"topic": "coffee"}', "new_id": "forked"}
    first = ada.post(address, data=edit)
    assert (first.status_code, "This is what changes" in first.text) == (200, True)
    seen = first.text.partition('name="seen" value="')[2].partition('"')[0]
    other = ada.post(address, data=edit | {"args": '{"topic": "beer"}', "seen": seen})
    assert "This is what changes" in other.text
    made = ada.post(address, data=edit | {"seen": seen})
    assert made.headers["location"] == "/durable/runs/forked"
    assert served.do(lambda engine: engine.info("forked")).args == {"topic": "coffee"}
    for args in ("{", "[]", '{"topic": 1}'):
        assert ada.post(address, data=edit | {"args": args}).status_code == 422
    assert ada.get("/runs/source/fork").status_code == 404
    assert ada.get("/runs/source/travel?at=99999").status_code == 200
    assert ada.get("/runs/source/travel?at=x").status_code == 200
    compared = ada.get("/compare?a=source&b=forked").text
    assert "Their arguments differ." in compared
    assert ada.get("/compare?a=source&b=none").status_code == 404
    assert ada.get("/compare").status_code == 200


def test_a_failed_step_is_given_a_result_and_a_wrong_one_is_refused(
    served: Served, ada: httpx.Client
) -> None:
    with pytest.raises(RunFailed):
        served.do(lambda engine: engine.run(counts(), id="failed"))
    assert "With a result" in ada.get("/runs/failed/fork?at=3").text
    assert "never works" in ada.get("/runs/failed/travel?at=3").text
    args = {"how": "args", "args": '{"n": 1}'}
    shown = ada.post("/runs/failed/fork?at=3", data=args).text
    args["seen"] = shown.partition('name="seen" value="')[2].partition('"')[0]
    assert ada.post("/runs/failed/fork?at=3", data=args).status_code == 422
    edit = {"how": "result", "new_id": "given"}
    for text, status in (('"many"', 422), ("41", 303)):
        seen = ada.post("/runs/failed/fork?at=3", data=edit | {"result": text}).text
        name = seen.partition('name="seen" value="')[2].partition('"')[0]
        made = ada.post("/runs/failed/fork?at=3", data=edit | {"result": text, "seen": name})
        assert made.status_code == status
    assert result(served, "given") == 42


def test_secrets_that_are_typed_are_hidden_where_they_are_stored(
    serve: Serve, served: Served, ada: httpx.Client
) -> None:
    page = ada.post("/start/login", data={"v/key": "sk-typed", "do": "code"}).text
    assert 'type="password"' in page
    assert "sk-typed" not in page.partition('id="code"')[2]
    unfit = ada.post("/start/login", data={"v/key": "sk-typed", "v/user": "a\0", "do": "code"}).text
    assert "sk-typed" not in unfit.partition('id="code"')[2]
    for name, site in (
        ("here", served),
        ("elsewhere", serve(store=served.engine.path, execute=False)),
    ):
        client = site.client(authorization="Bearer " + "s" * 20, accept="text/html", **CSRF)
        made = client.post("/start/login", data={"v/key": "sk-typed", "id": name, "csrf": FORM_KEY})
        assert made.status_code == 303
        assert result(served, name) == 8
    again = {"v/key": MASK, "again": "here", "id": "again"}
    assert "•••" in ada.get("/start/login?again=here").text
    assert ada.post("/start/login", data={"v/key": MASK}).status_code == 422
    assert ada.post("/start/login", data=again).status_code == 303
    assert result(served, "again") == 8
    dump = "".join(map(str, connect(served.engine.path).execute("SELECT args FROM run").fetchall()))
    assert "sk-typed" not in dump


def test_a_program_sends_forms_with_the_key_of_a_browser(served: Served) -> None:
    """A cookie alone is not enough: a page of another site could have sent it."""
    waiting(served, "keyed")
    login = served.client(accept="text/html", **CSRF)
    entered = login.post("/login", data={"token": "s" * 20})
    cookie = entered.headers["set-cookie"].partition(";")[0]
    form = {"channel": "verdict", "seq": "1", "v/publish": "true"}
    bare = served.client(accept="text/html", cookie=cookie)
    assert bare.post("/inbox/keyed/answer", data=form).status_code == 403


def test_characters_that_turn_text_around_are_shown_and_not_obeyed(
    served: Served, ada: httpx.Client
) -> None:
    async def started(engine: Engine) -> None:
        await reached(await engine.start(report("04 \u202elive\0"), id="turned"), "waiting")

    served.do(started)
    for path in ("/inbox/turned", "/runs/turned", "/", "/runs/turned/travel"):
        page = ada.get(path).text
        assert "\u202e" not in page
        assert "\0" not in page
    assert "04 \\u202elive\\u0000" in ada.get("/inbox/turned").text


def test_ids_are_text_in_every_attribute(served: Served, ada: httpx.Client) -> None:
    odd = 'a"><svg onload=x>'
    waiting(served, odd)
    for path in ("/inbox", "/", f"/inbox/{quote(odd, safe='')}", f"/runs/{quote(odd, safe='')}"):
        page = ada.get(path).text
        assert "&lt;svg" in page
        assert "<svg onload" not in page
