"""The gate: who is let in, from where, with what; and what an answer carries."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from perdure import DefinitionError, Engine, Token, workflow
from perdure.http import assets, limits, sessions
from perdure.http.app import guarded, pages
from perdure.http.body import FORM
from perdure.http.site import Site, url
from perdure.http.visitors import person
from tests.http.support import Serve, Served
from tests.runtime.support import awaited

HTML = {"accept": "text/html"}
TOKENS = [
    Token(name="ada", secret="Ada-secret-1"),
    Token(name="vic", secret="Vic-secret-2", role="view"),
]


@workflow
async def greet(name: str) -> str:
    return f"hello {name}"


def with_probe(engine, token=None, prefix=""):
    """The application of an engine with an address that can be changed."""
    site = Site(engine.path, engine=engine)
    app = pages(site)

    async def probe(request):
        if request.method == "POST":
            await request.body()
        return PlainTextResponse(f"{person(request)} {url(request, 'x')}")

    async def broken(request):
        raise ValueError("the secret is tiger")

    async def slow(request):
        limits.time_limit(request, 0.05)
        await request.body()
        await asyncio.sleep(60)

    app.router.routes.insert(0, Route("/probe", probe, methods=["GET", "POST"]))
    app.router.routes.insert(0, Route("/api/probe", probe, methods=["POST"]))
    app.router.routes.insert(0, Route("/answer/x", probe, methods=["GET", "POST"]))
    app.router.routes.insert(0, Route("/broken", broken))
    app.router.routes.insert(0, Route("/slow", slow, methods=["GET"]))
    return guarded(app, site, token=token, prefix=prefix)


@pytest.fixture(scope="module")
def local(serve: Serve) -> Served:
    return serve(workflows=[greet], app=with_probe)


@pytest.fixture(scope="module")
def closed(serve: Serve) -> Served:
    return serve(workflows=[greet], app=lambda engine: with_probe(engine, TOKENS))


def logged_in(served: Served, secret: str) -> httpx.Client:
    client = served.client(**HTML)
    form = client.get("/login").text
    key = form.partition('name="csrf" value="')[2].partition('"')[0]
    answer = client.post("/login", data={"token": secret, "csrf": key, "next": "/probe"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/probe")
    return client


# Without a token ----------------------------------------------------------------------------------


def test_this_machine_is_answered_without_a_token(local: Served) -> None:
    assert local.client().get("/probe").text == "local /x"
    port = local.origin.rpartition(":")[2]
    for host in (f"localhost:{port}", "app.localhost", f"[::1]:{port}"):
        assert local.client(host=host).get("/probe").status_code == 200, host


@pytest.mark.parametrize(
    "header",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example:80"},
        {"host": ""},
        {"x-forwarded-for": "127.0.0.1"},
        {"forwarded": "for=10.0.0.1"},
    ],
)
def test_another_name_or_a_proxy_is_refused_without_a_token(local: Served, header) -> None:
    answer = local.client(**header).get("/probe")
    assert answer.status_code == 403
    assert "PERDURE_TOKEN" in answer.text


async def _ask(app, client, path="/probe"):
    transport = httpx.ASGITransport(app, client=client)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        return await http.get(path)


def test_another_machine_is_refused_without_a_token(local: Served) -> None:
    app = with_probe(local.engine)
    refused = local.do(lambda _: _ask(app, ("10.0.0.7", 4711)))
    assert refused.status_code == 403 and "another machine" in refused.text
    assert local.do(lambda _: _ask(app, ("::ffff:127.0.0.1", 4711))).status_code == 200


# With tokens --------------------------------------------------------------------------------------


def test_a_bearer_is_known_by_name(closed: Served) -> None:
    assert closed.client(authorization="Bearer Ada-secret-1").post("/probe").text == "ada /x"
    assert closed.client(authorization="bearer Vic-secret-2").get("/probe").text == "vic /x"


@pytest.mark.parametrize("header", [{}, {"authorization": "Basic QWRhOng="}])
def test_a_program_without_a_token_gets_a_problem(closed: Served, header) -> None:
    for path in ("/api/v1/runs", "/probe", "/nothing", "/metrics"):
        answer = closed.client(**header).get(path)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"].startswith("Bearer")
    problem = closed.client().get("/api/v1/runs")
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.json()["status"] == 401


def test_a_person_without_a_token_gets_the_login_page(closed: Served) -> None:
    answer = closed.client(**HTML).get("/runs/a%2Fb%3Fc%23?step=1&x=%26")
    assert answer.status_code == 303
    wanted = httpx.URL(answer.headers["location"]).params["next"]
    assert wanted == "/runs/a%2Fb%3Fc%23?step=1&x=%26"
    part = closed.client(**HTML, **{"hx-request": "true"}).get("/probe")
    assert (part.status_code, part.headers["hx-redirect"]) == (401, "/login?next=%2Fprobe")


def test_a_login_is_a_cookie_that_ends_with_logout(closed: Served) -> None:
    client = logged_in(closed, "Ada-secret-1")
    assert client.get("/probe").text == "ada /x"
    set_cookie = closed.client(**HTML).get("/login").headers["set-cookie"]
    assert "HttpOnly" in set_cookie and "SameSite=Strict" in set_cookie
    assert client.post("/logout").status_code == 403  # no form key
    key = client.cookies["perdure_csrf"]
    copied = {"cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}
    other = logged_in(closed, "Ada-secret-1")
    assert closed.client(**copied).get("/probe").status_code == 200
    assert client.post("/logout", data={"csrf": key}).status_code == 303
    assert client.get("/probe").status_code == 303
    assert closed.client(**copied).get("/probe").status_code == 401
    assert other.get("/probe").text == "ada /x"


def test_sessions_that_were_logged_out_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are too many, all sessions of that time end: none comes back to life."""
    monkeypatch.setattr(sessions, "LOGGED_OUT_MAX", 2)
    out, begun = sessions.LoggedOut(), 1_000
    cookies = [sessions.issue(TOKENS[0], begun) for _ in range(4)]
    out.add(cookies[0], begun)
    out.add(cookies[1], begun)
    assert [out.has(cookie) for cookie in cookies] == [True, True, False, False]
    out.add(cookies[2], begun + 1)
    assert all(out.has(cookie) for cookie in cookies)
    later = sessions.issue(TOKENS[0], begun + 2)
    assert not out.has(later)
    for at_s in (begun + sessions.LASTS_S, begun + 2 * sessions.LASTS_S):
        out.add(sessions.issue(TOKENS[0], at_s), at_s)
    assert not out.has(sessions.issue(TOKENS[0], begun + 2 * sessions.LASTS_S))


def test_a_cookie_that_was_changed_is_none(closed: Served) -> None:
    client = logged_in(closed, "Vic-secret-2")
    name = next(name for name in client.cookies if name != "perdure_csrf")
    good = client.cookies[name]
    ada = good.replace(good.partition(".")[0], "YWRh")
    late = good.replace(good.split(".")[1], "99999999999")
    for bad in (ada, late, good[:-1], "", "x", "a.b.c.d", good + "\u00e9"):
        raw = f"{name}={bad}".encode()
        answer = httpx.get(f"{closed.url}/probe", headers=[(b"cookie", raw)], verify=False)
        assert answer.status_code == 401, bad
    assert client.get("/probe").text == "vic /x"


def test_the_role_view_changes_nothing(closed: Served) -> None:
    for client in (
        closed.client(authorization="Bearer Vic-secret-2"),
        logged_in(closed, "Vic-secret-2"),
    ):
        key = client.cookies.get("perdure_csrf") or ""
        for path in ("/probe", "/api/probe"):
            answer = client.post(path, headers={"x-csrf-token": key})
            assert answer.status_code == 403 and "may look" in answer.text


@pytest.mark.parametrize(
    "wanted",
    ["//[", "//evil.example", "https://evil.example/", "/\\evil.example", "x", "/a/../b", "/a\n"],
)
def test_a_login_leads_nowhere_else(closed: Served, wanted) -> None:
    client = closed.client(**HTML)
    client.get("/login")
    form = {"token": "Ada-secret-1", "next": wanted, "csrf": client.cookies["perdure_csrf"]}
    assert client.post("/login", data=form).headers["location"] == "/"


def test_guesses_are_limited(serve: Serve) -> None:
    short, long = Token(name="s", secret="right-one"), Token(name="l", secret="long-enough-a-one")
    served = serve(workflows=[greet], token=[short, long])
    client = served.client(**HTML)
    client.get("/login")
    key = client.cookies["perdure_csrf"]
    old = served.client(authorization="Bearer old-one")
    assert {old.get("/").status_code for _ in range(15)} == {401}  # it guesses nothing
    answers = [client.post("/login", data={"token": f"w{n}", "csrf": key}) for n in range(10)]
    assert [answer.status_code for answer in answers] == [401] * 9 + [429]
    assert int(answers[-1].headers["retry-after"]) > 0
    assert served.client(authorization="Bearer right-one").get("/").status_code == 429
    # Others behind the same address are not kept out, and a header names no other address.
    assert served.client(authorization=f"Bearer {long.secret}").get("/").status_code == 200
    assert client.post("/login", data={"token": long.secret, "csrf": key}).status_code == 303
    forged = {"authorization": "Bearer w10", "x-forwarded-for": "10.0.0.9"}
    assert served.client(**forged).get("/").status_code == 429


# What changes something ---------------------------------------------------------------------------

FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
]


@pytest.mark.parametrize("header", FOREIGN)
def test_a_page_of_another_site_changes_nothing(local: Served, header) -> None:
    client = local.client(**header)
    client.cookies["perdure_csrf"] = key = "k" * 32
    for path in ("/probe", "/api/probe", "/answer/x"):
        answer = client.post(path, headers={"x-csrf-token": key})
        assert answer.status_code == 403 and "another site" in answer.text


def test_a_page_of_another_site_embeds_nothing_and_may_link(local: Served) -> None:
    asks = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert local.client(**asks).get("/api/v1/runs").status_code == 403
    asks["sec-fetch-mode"] = "navigate"
    assert local.client(**asks).get("/probe").status_code == 200


def test_a_form_needs_its_key(local: Served) -> None:
    client = local.client(origin=local.origin)
    assert client.post("/probe", data={"a": "1"}).status_code == 403
    client.cookies["perdure_csrf"] = key = "k" * 32
    assert client.post("/probe", data={"a": "1"}).status_code == 403
    assert client.post("/probe", data={"csrf": "x" * 32}).status_code == 403
    assert client.post("/probe", content=b"{}").status_code == 403
    assert client.post("/probe", data={"csrf": key}).status_code == 200
    assert client.post("/probe", headers={"x-csrf-token": key}).status_code == 200
    assert client.post("/api/probe", json={}).status_code == 200  # a form can't send that


def test_a_signed_link_needs_neither_token_nor_key(closed: Served) -> None:
    assert closed.client().post("/answer/x").text == "link /x"


def test_a_site_without_an_engine_changes_nothing(local: Served) -> None:
    site = Site("copy.db", local.do(_reader))
    app = guarded(pages(site), site)

    async def post():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            http.cookies["perdure_csrf"] = key = "k" * 32
            return await http.post("/runs/x/cancel", data={"csrf": key})

    answer = local.do(lambda _: post())
    assert answer.status_code == 403 and "only looked at" in answer.text


async def _reader(engine):
    return engine.reader()


# Limits, problems, headers ------------------------------------------------------------------------


def test_large_bodies_are_refused_while_they_come(local: Served) -> None:
    def endless():
        for _ in range(limits.BODY_BYTES_MAX // 2**20 + 2):
            yield b"x" * 2**20

    answer = local.client().post("/api/probe", content=endless())
    assert answer.status_code == 413
    assert answer.json()["title"] in ("Content Too Large", "Request Entity Too Large")
    honest = local.client().post("/api/probe", content=bytes(limits.BODY_BYTES_MAX + 1))
    assert honest.status_code == 413


def test_a_stranger_sends_no_more_than_a_token(closed: Served) -> None:
    for body in (bytes(limits.LOGIN_BYTES_MAX + 1), iter([bytes(limits.LOGIN_BYTES_MAX), b"+"])):
        sent = closed.client().post("/login", content=body, headers={"content-type": FORM})
        assert sent.status_code == 413


POST = b"POST /api/probe HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\xff no http at all\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /%ff%fe%00%zz HTTP/1.1\r\nHost: localhost\r\nCookie: perdure_csrf=\xff; =;;\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        POST + b"Content-Length: 50\r\n\r\nit breaks off",
    ],
)
def test_rubbish_harms_nothing_and_is_no_news(local: Served, caplog, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", int(local.origin.rpartition(":")[2]))) as raw:
        # what comes after the refusal is answered with a reset, if it comes late enough
        with contextlib.suppress(OSError):
            raw.sendall(sent)
            raw.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while answer := raw.recv(65_536):
                assert b" 500 " not in answer
    assert local.client().get("/probe").status_code == 200
    assert caplog.records == []


def test_an_answer_that_does_not_begin_is_given_up(local: Served) -> None:
    answer = local.client().get("/slow")
    assert answer.status_code == 503 and "look before you ask again" in answer.text


def test_an_unforeseen_error_has_a_number_in_the_log(local: Served, caplog) -> None:
    answer = local.client(accept="application/json").get("/broken?token=lion")
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (500, 500)
    assert "tiger" not in answer.text and problem["number"] in problem["detail"]
    (record,) = [one for one in caplog.records if problem["number"] in one.getMessage()]
    assert "/broken" in record.getMessage() and "lion" not in record.getMessage()


def test_problems_are_pages_for_people(local: Served) -> None:
    answer = local.client(**HTML).get("/nothing/here")
    assert answer.status_code == 404 and "nothing at this address" in answer.text
    assert local.client(**HTML).delete("/probe").status_code == 403
    assert local.client().get("/nothing.json").json()["title"] == "Not Found"


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2Fapp.py", "/static//etc/passwd",
     "/%00", "/runs/%ff%fe", "/static/app.css%00"],
)  # fmt: skip
def test_path_tricks_find_nothing(closed: Served, path) -> None:
    bearer = closed.client(authorization="Bearer Ada-secret-1")
    for client in (closed.client(), bearer):
        answer = client.get(httpx.URL(closed.url).copy_with(raw_path=path.encode()))
        assert answer.status_code in (401, 404), path


def test_every_answer_has_its_headers(local: Served) -> None:
    for path in ("/", "/nothing", "/broken", "/static/plain.css"):
        headers = local.client(**HTML).get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_a_file_is_kept_under_the_mark_of_its_content_alone(local: Served) -> None:
    client, page = local.client(**HTML), local.client(**HTML).get("/").text
    marked = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)
    assert any("app.css?v=" in address for address in marked)
    folder = f"/static/waterfall/v-{assets.modules('waterfall')[0]}"
    for address in (*marked, f"{folder}/main.js"):
        assert "immutable" in client.get(address).headers["cache-control"], address
    old = ("app.css?v=1", "app.css", "x/../app.css?v=1", "waterfall/v-1/main.js",
           "waterfall/v-1/main.js?v=1", "waterfall/main.js?v=1")  # fmt: skip
    for address in old:  # of a server before this one, or after it
        answer = client.get(httpx.URL(local.url).copy_with(raw_path=f"/static/{address}".encode()))
        assert answer.status_code in (200, 404), address
        assert answer.headers["cache-control"] == "no-store", address


def test_modules_have_the_mark_of_their_folder_in_their_path(local: Served) -> None:
    mark, names = assets.modules("waterfall")
    for name in names:
        answer = local.client().get(f"/static/waterfall/v-{mark}/{name}")
        assert answer.status_code == 200, name
        assert "immutable" in answer.headers["cache-control"]
        assert set(re.findall(r'from "\./([^"]+)"', answer.text)) <= set(names)
    assert local.client().get("/static/waterfall/main.js").headers["cache-control"] == "no-store"


# Prefixes -----------------------------------------------------------------------------------------


def test_a_prefix_that_a_proxy_has_taken_away_is_in_addresses(serve: Serve) -> None:
    served = serve(app=lambda engine: with_probe(engine, prefix="/durable"), workflows=[greet])
    assert served.client().get("/probe").text == "local /durable/x"
    assert served.client().get("/durable/probe").text == "local /durable/x"
    assert served.client().get("/durableprobe").status_code == 404


def test_a_mounted_application_knows_its_path(serve: Serve) -> None:
    served = serve(
        app=lambda engine: Starlette(routes=[Mount("/in/side", with_probe(engine, TOKENS))]),
        prefix="/in/side",
        workflows=[greet],
    )
    client = logged_in_below(served)
    assert client.get("/in/side/probe").text == "ada /in/side/x"
    answer = served.client(**HTML).get("/probe")
    assert answer.headers["location"] == "/in/side/login?next=%2Fin%2Fside%2Fprobe"


@awaited
async def test_a_server_that_runs_it_alone_opens_the_engine(tmp_path: Path) -> None:
    engine = Engine(str(tmp_path / "a.db"), workflows=[greet])
    app, heard, said = engine.asgi(), asyncio.Queue[Any](), asyncio.Queue[Any]()
    assert (await _ask(app, ("127.0.0.1", 1), "/api/v1/runs")).status_code == 503
    life = asyncio.ensure_future(app({"type": "lifespan"}, heard.get, said.put))
    await heard.put({"type": "lifespan.startup"})
    assert (await said.get())["type"] == "lifespan.startup.complete"
    assert engine.is_open
    assert (await _ask(app, ("127.0.0.1", 1), "/api/v1/runs")).status_code == 200
    await heard.put({"type": "lifespan.shutdown"})
    await life
    assert (await said.get())["type"] == "lifespan.shutdown.complete"
    assert not engine.is_open


@awaited
async def test_a_store_that_can_not_be_opened_ends_the_server(tmp_path: Path) -> None:
    app, heard, said = (
        Engine(str(tmp_path), workflows=[greet]).asgi(),
        asyncio.Queue[Any](),
        list[Any](),
    )

    async def say(message):
        said.append(message)

    await heard.put({"type": "lifespan.startup"})
    await app({"type": "lifespan"}, heard.get, say)
    assert [one["type"] for one in said] == ["lifespan.startup.failed"]
    assert str(tmp_path) in said[0]["message"]


def test_what_can_not_be_right_is_refused_where_it_is_said() -> None:
    engine = Engine(":memory:")
    wrongs: list[Any] = ["", "two words", "caf\u00e9", [], 5, [TOKENS[0], TOKENS[0]], ["a"]]
    for wrong in wrongs:
        with pytest.raises(DefinitionError):
            engine.asgi(token=wrong)
    for prefix in ("durable", "/a//b", "/a?b", "/a b"):
        with pytest.raises(DefinitionError):
            engine.asgi(prefix=prefix)
    with pytest.raises(DefinitionError, match="role"):
        Token(name="a", secret="b", role="admin")
    assert "Ada-secret-1" not in repr(TOKENS)


def logged_in_below(served: Served) -> httpx.Client:
    client = served.client(**HTML)
    client.base_url = httpx.URL(served.origin)
    login = client.get("/in/side/login")
    assert "Path=/in/side" in login.headers["set-cookie"]
    key = client.cookies["perdure_csrf"]
    client.post("/in/side/login", data={"token": "Ada-secret-1", "csrf": key})
    return client
