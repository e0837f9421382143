"""`perdure ui` and `perdure dev`: what they serve and refuse, and what a change of code does."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from perdure.cli import main, serving
from tests.cli.conftest import PATIENCE_SECONDS, Terminal

BROKEN = "def half(:\n"
GOOD = """
from perdure import step, workflow

@step
def say() -> str:
    return "{word}"

@workflow
async def talk() -> str:
    return await say()
"""


class Output:
    """What a command that goes on has said so far, a line at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.text = process, ""

    def until(self, pattern: str) -> re.Match[str]:
        """Read on until a line has this pattern."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.text += line
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"it ended before it said {pattern!r}:\n{self.text}")


def address(output: Output) -> str:
    return output.until(r"Pages: (http://\S+)/")[1]


def eventually(ask: Callable[[], Any]) -> Any:
    """What a server says that is being replaced, as soon as it says it."""
    for _ in range(PATIENCE_SECONDS):
        try:
            if found := ask():
                return found
        except httpx.TransportError:
            pass
    raise AssertionError("it never came")


# ui -----------------------------------------------------------------------------------------------


def test_ui_shows_a_store_and_ends(terminal: Terminal) -> None:
    terminal("run", "flows.py:alone", "x", "--id", "report-17", "--quiet")
    ui = terminal.start("ui", "perdure.db", "--port", "0")
    site = address(Output(ui))
    assert "report-17" in httpx.get(f"{site}/", headers={"accept": "text/html"}).text
    assert httpx.get(f"{site}/", headers={"host": "evil.example"}).status_code == 403
    taken = terminal("ui", "--port", site.rpartition(":")[2])
    assert taken.code == 2 and "--port 0" in taken.err
    assert terminal.stop(ui, signal.SIGTERM).code == 0


def test_ui_refuses_what_is_no_store(terminal: Terminal) -> None:
    (terminal.folder / "notes.txt").write_text("not a database, only some lines of text\n" * 50)
    said = terminal("ui", "notes.txt", "--port", "0")
    assert said.code == 4 and "can't be used" in said.err


def test_ui_asks_for_its_tokens(terminal: Terminal) -> None:
    terminal("run", "flows.py:alone", "x", "--id", "report-17", "--quiet")
    tokens = {"PERDURE_TOKEN": "big-secret", "PERDURE_VIEW_TOKEN": "small-secret"}
    ui = terminal.start("ui", "--port", "0", "--host", "0.0.0.0", **tokens)
    output = Output(ui)
    site = address(output)

    def asked(method: str, secret: str) -> int:
        path = f"{site}/api/v1/runs" + ("/report-17/retry" if method == "POST" else "")
        headers = {"authorization": f"Bearer {secret}"}
        return httpx.request(method, path, headers=headers, json={}).status_code

    assert [asked("GET", one) for one in ("x", "small-secret", "big-secret")] == [401, 200, 200]
    assert asked("POST", "small-secret") == 403
    assert asked("POST", "big-secret") not in (401, 403)
    said = terminal.stop(ui)
    assert said.code == 0 and "secret" not in output.text + said.err


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["ui", "none.db"], 4, "no store"),
        (["ui", ":memory:"], 2, "memory"),
        (["ui", "a.db", "--host", "0.0.0.0"], 2, "PERDURE_TOKEN"),
        (["ui", "a.db", "--host", "no.such.host.invalid", "--token", "x"], 2, "Can't listen"),
        (["ui", "a.db", "--token", ""], 2, "secret is printable"),
        (["ui", "a.db", "--view-token", "x"], 2, "--token"),
        (["ui", "a.db", "--port", "70000"], 2, "--port"),
        (["dev", "none.py"], 2, "no file"),
        (["dev", "a.py", "--host", "0.0.0.0"], 2, "PERDURE_TOKEN"),
    ],
)
def test_what_can_not_be_served_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("PERDURE_TOKEN", "PERDURE_VIEW_TOKEN", "PERDURE_STORE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("a.db", "a.py"):
        (tmp_path / name).touch()
    said = CliRunner().invoke(main, words)
    assert (said.exit_code, says in said.output) == (code, True), said.output


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to every file")
def test_a_file_that_can_not_be_written_is_shown(terminal: Terminal) -> None:
    terminal("run", "flows.py:alone", "x", "--id", "report-17", "--quiet")
    (terminal.folder / "perdure.db").chmod(0o444)
    terminal.folder.chmod(0o555)
    try:
        ui = terminal.start("ui", "--port", "0")
        assert "report-17" in httpx.get(f"{address(Output(ui))}/").text
    finally:
        terminal.folder.chmod(0o755)


def test_read_only_refuses_every_change(terminal: Terminal) -> None:
    terminal("run", "flows.py:alone", "x", "--id", "report-17", "--quiet")
    ui = terminal.start("ui", "--port", "0", "--read-only")
    site = address(Output(ui))
    answer = httpx.post(f"{site}/api/v1/runs/report-17/cancel", json={})
    assert answer.status_code == 403 and "only looked at" in answer.text


# dev ----------------------------------------------------------------------------------------------


def test_dev_follows_the_code(terminal: Terminal) -> None:
    app = terminal.folder / "talk.py"
    app.write_text(GOOD.format(word="one"))
    dev = terminal.start("dev", "talk.py", "--port", "0")
    output = Output(dev)
    site = address(output)

    def result(run_id: str) -> Any:
        """The result of a run that is started, as soon as it has one."""
        body = {"workflow": "talk", "id": run_id}
        httpx.post(f"{site}/api/v1/runs", json=body, timeout=PATIENCE_SECONDS)
        answer = httpx.get(f"{site}/api/v1/runs/{run_id}/result?wait=30", timeout=PATIENCE_SECONDS)
        return answer.json().get("result")

    output.until("Executing talk")
    assert result("a") == "one"
    app.write_text(BROKEN)
    output.until("The pages stay")
    page = eventually(lambda: httpx.get(f"{site}/", headers={"accept": "text/html"}).text)
    assert "can&#39;t be imported" in page and "SyntaxError" in page
    app.write_text(GOOD.format(word="two"))
    output.until("Executing talk")
    assert result("b") == "two"
    assert httpx.get(f"{site}/dev").json()["start"]
    assert terminal.stop(dev).code == 0


def test_dev_lives_on_when_its_worker_dies(terminal: Terminal) -> None:
    app = terminal.folder / "talk.py"
    app.write_text(GOOD.format(word="one") + "import os\nprint('pid', os.getpid(), flush=True)\n")
    dev = terminal.start("dev", "talk.py", "--port", "0")
    output = Output(dev)
    site = address(output)
    output.until("Executing talk")
    assert dev.stdout is not None
    os.kill(int(dev.stdout.readline().split()[1]), signal.SIGKILL)
    output.until("ended .signal 9.")
    output.until("Executing talk")
    assert httpx.get(f"{site}/api/v1/runs", timeout=PATIENCE_SECONDS).status_code == 200
    app.write_text("import os\nos._exit(3)\n")
    output.until("left out until a file changes")
    page = httpx.get(f"{site}/", headers={"accept": "text/html"}, timeout=PATIENCE_SECONDS).text
    assert "ended its process" in page
    assert terminal.stop(dev).code == 0


def test_a_file_of_no_bytes_is_no_store_and_stays_as_it_is(tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    empty.touch()
    for words in (["ui", str(empty), "--port", "0"], ["ls", "--store", str(empty)]):
        refused = CliRunner().invoke(main, words)
        assert refused.exit_code == 4 and "it is empty" in refused.output, words
    assert [one.name for one in tmp_path.iterdir()] == ["empty.db"] and not empty.stat().st_size


def test_a_short_token_is_named_as_one_that_can_be_guessed() -> None:
    for secret, warned in (("short", True), ("a" * 16, False)):
        with contextlib.redirect_stderr(io.StringIO()) as said:
            serving.listening("127.0.0.1", 0, serving.tokens_given(secret, None)).close()
        assert ("can be guessed" in said.getvalue()) is warned
