"""Pages of lists over HTTP: roles, addresses, odd names, input that can't be."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from perdure import Engine, Every, Queue, Schedule, Token, workflow
from perdure.http import bulk
from tests.http.support import Serve, Served

ODD = "a/b c?d#e%2F<i>é"
PREFIX = "/durable"
SECRET = "operate-secret" * 2
ANN = f"Bearer {SECRET}"


@workflow
async def digest() -> int:
    return 7


@pytest.fixture(scope="module")
def site(serve: Serve) -> Served:
    """A site below a prefix, whose run, queue and schedule have an odd name."""
    served = serve(
        prefix=PREFIX,
        token=[
            Token(name="eve", secret="view-secret" * 2, role="view"),
            Token(name="ann", secret=SECRET),
        ],
        workflows=[digest],
        queues=[Queue(ODD, concurrency=1)],
        schedules=[Schedule(ODD, Every(3600), digest(), paused=True)],
    )

    async def one(engine: Engine) -> None:
        await (await engine.start(digest(), id=ODD, tags={ODD: ODD})).result()

    served.do(one)
    return served


def test_an_odd_name_is_found_by_its_own_address(site: Served) -> None:
    with site.client(authorization=ANN) as client:
        for path in ("/queues", "/schedules", "/"):
            page = client.get(path).text
            assert "<i>" not in page
            assert "&lt;i&gt;" in page
        (tag,) = set(re.findall(r'href="/durable(/\?tag=[^"]*)"', client.get("/").text))
        assert "completed" in client.get(tag.replace("&amp;", "&")).text


def test_a_viewer_sees_no_button_and_changes_nothing(site: Served) -> None:
    with site.client(authorization="Bearer " + "view-secret" * 2) as client:
        for path in ("/", "/queues", "/schedules"):
            page = client.get(path).text
            forms = re.findall(r'<form[^>]*method="post"[^>]*>', page)
            assert [one for one in forms if 'id="runs"' not in one] == []
            assert 'name="verb"' not in page
        chosen = client.get("/columns?column=took&tags=tenant&status=failed&status=waiting")
        assert chosen.headers["location"] == PREFIX + "/?status=failed&status=waiting"
        heads = re.findall("<th[^>]*>([^<]*)</th>", client.get("/").text)
        assert heads == ["Run", "Status", "Took", "tenant"]
        refused = client.post("/queues/" + "x", data={"paused": "yes"})
        assert refused.status_code == 403


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/?status=done", 422, "Choose from"),
        ("/?since=yesterday", 422, "an age such as 24h"),
        ("/?after=nonsense", 422, ""),
        ("/?limit=9999999", 422, "from 1 to 500"),
        ("/?q=" + "x" * 4000, 422, ""),
        ("/?q=xyz", 200, "No run matches"),
        ("/?filter=status%3Afailed", 303, ""),
        ("/queues/none", 404, ""),
        ("/schedules/none", 404, ""),
        ("/sql?text=DELETE+FROM+run", 422, ""),
        ("/sql?text=nonsense", 422, "syntax error"),
        ("/sql?q=nonsense", 422, "syntax error"),
        ("/sql.csv?text=SELECT+1+AS+one%2C+'%3Dx'+AS+two", 200, "one,two\r\n1,'=x\r\n"),
        ("/sql.csv?text=nonsense", 422, "syntax error"),
        ("/bulk", 405, ""),
    ],
)
def test_what_cannot_be_is_answered_clearly(
    site: Served, path: str, status: int, says: str
) -> None:
    with site.client(authorization=ANN) as client:
        answer = client.get(path)
        assert (answer.status_code, says in answer.text) == (status, True), answer.text[:2000]


def test_limits_that_are_refused_stay_in_their_open_form(site: Served) -> None:
    with site.client(authorization=ANN) as client:
        (address,) = set(re.findall(r'href="/durable(/queues/[^"]+)"', client.get("/queues").text))
        for typed, says in (("-3", "is no limit"), ("5000000000", "1,000,000,000")):
            page = client.post(address, data={"concurrency": typed, "rate": "7"})
            assert page.status_code == 422
            form = page.text.partition('<details class="pop end" open>')[2].partition("</form>")[0]
            assert says in form
            assert f'value="{typed}"' in form
            assert 'value="7"' in form
            assert "hx-get" not in page.text.partition("<main")[2]  # nothing takes it away


def test_one_verb_for_many_goes_on_with_the_others(
    site: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "RUNS_MAX", 1)
    monkeypatch.setattr(bulk, "PAGE_RUNS", 1)
    site.do(lambda engine: engine.start(digest(), id="later", at=datetime(2100, 1, 1, tzinfo=UTC)))

    def told(**more: str) -> tuple[str, list[str]]:
        with site.client(authorization=ANN) as client:
            answer = client.post("/bulk", data={"verb": "cancel", "query": "", **more})
        assert answer.status_code == 200, answer.text
        return answer.text, re.findall('name="(?:next|after)" value="([^"]*)"', answer.text)

    plan, (behind,) = told(all="1")
    assert "Cancel 1 run?" in plan
    done, again = told(id="later", sure="1", next=behind)
    assert "The next 1…" in done
    assert again == [behind]
    rest, none = told(all="1", after=behind)
    assert "it has ended" in rest
    assert none == []


@pytest.mark.parametrize(
    ("path", "form", "status"),
    [
        ("/bulk", {"verb": "delete", "id": "x"}, 422),
        ("/bulk", {"verb": "cancel"}, 200),
        ("/bulk", {"verb": "cancel", "id": "no such run"}, 200),
        ("/bulk", {"verb": "cancel", "id": "no such run", "sure": "1"}, 200),
        ("/bulk", {"verb": "retry", "all": "1", "query": "status=nonsense"}, 422),
        ("/queues/none", {"paused": "yes"}, 404),
        ("/schedules/none", {"verb": "pause"}, 404),
    ],
)
def test_forms_that_cannot_be_change_nothing(
    site: Served, path: str, form: dict[str, str], status: int
) -> None:
    with site.client(authorization=ANN) as client:
        assert client.post(path, data=form).status_code == status


def test_a_schedule_refuses_what_it_cannot_do(site: Served) -> None:
    name = "/schedules/a%2Fb%20c%3Fd%23e%252F%3Ci%3E%C3%A9"
    with site.client(authorization=ANN) as client:
        assert client.post(name, data={"verb": "explode"}).status_code == 400
        for form in ({"start": "x", "end": "y"}, {"start": "2026-01-02", "end": "2026-01-01"},
                     {"start": "2026-01-01", "end": "2199-01-01"}):  # fmt: skip
            answer = client.post(name, data={"verb": "backfill", **form})
            assert (answer.status_code, 'role="alert"' in answer.text) == (422, True)
