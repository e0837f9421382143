"""Pages of an observer: the list, and the pages of each database below its name."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.http.observed import observed
from tests.http.support import CSRF
from tests.observe.support import replicate
from tests.runtime.support import PATIENCE_S


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three replicas; one has a name that needs quoting, one has lost a file."""
    folder = tmp_path_factory.mktemp("fleet")
    replicate(folder / "a.db", f"file://{folder}/fleet/acme/agents")
    place = folder / "fleet"
    shutil.copytree(place / "acme/agents", place / "100% odd?")
    shutil.copytree(place / "acme/agents", place / "broken")
    for path in (place / "broken/000001/ltx").rglob("*.ltx"):
        path.write_bytes(path.read_bytes()[:200])
    return place


@pytest.fixture(scope="module")
def client(fleet: Path) -> Iterator[httpx.Client]:
    with (
        observed(f"file://{fleet}", prefix="/look") as url,
        httpx.Client(base_url=url, timeout=PATIENCE_S) as client,
    ):
        yield client


def test_the_list_has_every_database_with_what_its_summary_says(client: httpx.Client) -> None:
    rows = {one["name"]: one for one in client.get("/databases.json").json()["rows"]}
    assert sorted(rows) == ["100% odd?", "acme/agents", "broken"]
    assert rows["acme/agents"]["counts"] == {"completed": 20, "failed": 1, "waiting": 1}
    page = client.get("/")
    assert page.status_code == 200
    assert "/look/db/acme%2Fagents/?status=failed" in page.text
    assert "/look/db/100%25%20odd%3F/" in page.text
    none = client.get("/", params={"q": "nothing has this name"})
    assert "No database matches" in none.text and "Show all 3" in none.text
    assert client.get("/", params={"only": "blocked"}).text.count("<tr>") == 0
    for odd in ({"sort": "x"}, {"only": "x"}, {"after": "-1"}, {"after": "9" * 30}, {"q": "\0<"}):
        assert client.get("/", params=odd).status_code == 200


def test_a_database_has_the_pages_of_a_store_below_its_name(client: httpx.Client) -> None:
    page = client.get("/db/100%25%20odd%3F/")
    assert page.status_code == 200 and "run-waits" in page.text
    assert 'href="/look/db/100%25%20odd%3F/runs/run-waits"' in page.text
    assert "Read-only, from the replica" in page.text and "All databases" in page.text
    runs = client.get("/db/acme%2Fagents/api/v1/runs", params={"status": "failed"})
    assert [one["id"] for one in runs.json()["runs"]] == ["run-bad"]
    bare = client.get("/db/acme%2Fagents")
    assert bare.status_code == 303 and bare.headers["location"] == "/look/db/acme%2Fagents/"
    found = client.get("/search.json", params={"q": "bank"}).json()
    assert {one["name"] for one in found if one["runs"]} == {"100% odd?", "acme/agents"}
    assert client.get("/search", params={"q": "bank"}).text.count("run-bad") >= 2


def test_nothing_can_be_changed_and_nothing_else_be_reached(client: httpx.Client) -> None:
    for path in ("runs/run-waits/cancel", "bulk", "api/v1/runs/run-waits/cancel", "api/v1/runs"):
        answer = client.post(f"/db/acme%2Fagents/{path}", headers=CSRF)
        assert answer.status_code in (403, 404, 405), path
    for path in ("/db/nothing/", "/db/..%2F..%2Fetc/", "/db/%2Fetc%2Fpasswd/", "/db/acme/", "/x"):
        assert client.get(path).status_code == 404, path
    assert client.get("/", params={"after": "9" * 5_000}).status_code == 200


def test_a_program_is_told_why_a_write_is_refused(client: httpx.Client) -> None:
    answer = client.post("/db/acme%2Fagents/api/v1/runs", json={"workflow": "notes"})
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert "only looked at" in answer.json()["detail"]


def test_files_have_their_counts_or_why_they_have_none(fleet: Path, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_bytes(b"hello " * 100)
    with (
        observed(str(fleet.parent / "a.db"), str(tmp_path / "text.db")) as url,
        httpx.Client(base_url=url, timeout=PATIENCE_S) as client,
    ):
        text = client.get("/", params={"only": "failed"}).text
        assert "/db/a.db/?status=failed" in text and ">20</a>" in text
        row = text[text.index('/db/text.db/"') :]
        assert "not an SQLite database" in row and "–" in row and ">0<" not in row
        refused = client.get("/db/text.db/", headers={"accept": "text/html"})
        assert "To the databases" in refused.text


def test_a_damaged_database_says_what_is_damaged_and_leaves_the_others(
    client: httpx.Client,
) -> None:
    answer = client.get("/db/broken/", headers={"accept": "application/json"})
    assert answer.status_code == 503
    assert ".ltx" in answer.json()["detail"] and "can't be trusted" in answer.json()["detail"]
    assert client.get("/db/acme%2Fagents/").status_code == 200


def test_a_single_database_is_shown_at_once_and_a_token_is_asked_for(fleet: Path) -> None:
    with (
        observed(f"file://{fleet}/acme/agents", token="s3cret-for-this-test") as url,
        httpx.Client(base_url=url, timeout=PATIENCE_S) as client,
    ):
        assert client.get("/databases.json").status_code == 401
        assert client.get("/db/agents/api/v1/runs").status_code == 401
        client.headers["authorization"] = "Bearer s3cret-for-this-test"
        assert client.get("/").headers["location"] == "/db/agents/"
        assert client.get("/db/agents/api/v1/runs/run-3").json()["status"] == "completed"
