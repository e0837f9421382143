"""`ls`, `show` and `tail` on a store that has a bit of everything."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from perdure import Engine, continue_as, receive, workflow
from perdure.cli import inspect, tail
from perdure.reader import StoreReader
from tests.cli.conftest import Said

Typed = Callable[..., Said]


def ids(said: Said) -> list[str]:
    return [run["id"] for run in said.json]


# --- ls -------------------------------------------------------------------------------------------


def test_ls_is_newest_first(typed: Typed) -> None:
    assert ids(typed("ls", "--json")) == [
        "asks-2",
        "asks-1",
        "fragile-1",
        "wide",
        "hello-2",
        "hello-1",
    ]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--status", "waiting"], ["asks-1"]),
        (["--status", "completed"], ["wide", "hello-2", "hello-1"]),
        (["--workflow", "hello"], ["hello-2", "hello-1"]),
        (["--tag", "team=red"], ["hello-1"]),
        (["--tag", "question=what"], ["asks-2"]),
        (["--workflow", "hello", "--tag", "team=blue", "--status", "completed"], ["hello-2"]),
        (["--status", "paused"], []),
        (["--limit", "2"], ["asks-2", "asks-1"]),
        (["--limit", "2", "--after", "asks-1"], ["fragile-1", "wide"]),
        (["--after", "hello-2"], ["hello-1"]),
    ],
)
def test_ls_filters(typed: Typed, words: list[str], found: list[str]) -> None:
    assert ids(typed("ls", "--json", *words)) == found


def test_ls_for_people(typed: Typed) -> None:
    lines = typed("ls").out.splitlines()
    assert lines[0].split() == ["ID", "WORKFLOW", "STATUS", "CREATED", "ROWS"]
    by_id = {line.split()[0]: line for line in lines[1:]}
    assert "Waits for a message on answer (str). Nobody has sent one." in by_id["asks-1"]
    assert "Step break_unless failed after 1 attempt" in by_id["fragile-1"]
    assert "cancelled" in by_id["asks-2"]


def test_ls_says_that_an_answer_is_there(seeded: Path, here: Typed, tmp_path: Path) -> None:
    """Sent, and not taken yet: the same sentence as on the page of the run."""
    shutil.copy(seeded, tmp_path)
    assert here("send", "asks-1", "answer", "so").code == 0
    (line,) = (line for line in here("ls").out.splitlines() if line.startswith("asks-1"))
    assert "Answered on answer at " in line
    assert "No worker is running" in here("ls").err


def test_ls_on_narrow_lines(typed: Typed) -> None:
    wide = typed("ls", COLUMNS="200").out
    assert wide == typed("ls").out
    for columns, first in (("80", "asks-2 "), ("60", "asks-2 "), ("40", "asks-2  cancelled")):
        lines = typed("ls", COLUMNS=columns).out.splitlines()
        assert max(map(len, lines)) <= int(columns)
        assert any(line.startswith(first) for line in lines)
        assert (
            any(line.startswith("  Waits for a message on answer") for line in lines)
            or columns == "80"
        )


def test_a_full_page_says_how_to_go_on(typed: Typed) -> None:
    assert (
        typed("ls", "--limit", "2").err == "There are more: perdure ls --limit 2 --after asks-1\n"
    )


def test_the_next_page_is_the_same_list(typed: Typed) -> None:
    given = ["--status", "completed", "--status", "failed", "--tag", "team=blue", "--since", "7d"]
    said = typed("ls", *given, "--limit", "1", "--store", "./perdure.db")
    assert said.err == ""  # there is one
    said = typed("ls", "--workflow", "hello", "--text", "noted ", "--limit", "1")
    assert said.err.split(": ")[1] == (
        "perdure ls --workflow hello --text 'noted ' --limit 1 --after hello-2\n"
    )


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--text", "ada"], ["hello-1"]),
        (["--text", "hello-"], ["hello-2", "hello-1"]),
        (["--status", "waiting", "--status", "failed"], ["asks-1", "fragile-1"]),
        (["--status", "retrying"], []),
        (["--since", "1h", "--limit", "1"], ["asks-2"]),
        (["--text", "mended", "--status", "failed"], ["fragile-1"]),
    ],
)
def test_ls_finds(typed: Typed, words: list[str], found: list[str]) -> None:
    assert ids(typed("ls", "--json", *words)) == found


def test_an_odd_age_is_refused(typed: Typed) -> None:
    said = typed("ls", "--since", "yesterday")
    assert (said.code, "write it as 30m" in said.err) == (2, True)


def test_nothing_found_is_said(typed: Typed) -> None:
    said = typed("ls", "--workflow", "nope")
    assert (said.code, said.out, said.err) == (0, "", "No run fits.\n")


# --- show -----------------------------------------------------------------------------------------


def test_show_is_a_tree_with_results_beneath(typed: Typed) -> None:
    out = typed("show", "hello-2").out
    assert 'hello(name="Bob", times=2)' in out
    assert "tags: " in out
    assert '✓ note(text="Bob 0")' in out
    assert '└ "noted Bob 0"' in out
    assert out.rstrip().endswith('completed → "hello Bob"')


def test_show_of_a_failed_run_names_step_and_error(typed: Typed) -> None:
    out = typed("show", "fragile-1").out
    assert '✗ break_unless(path="mended.txt")' in out
    assert "└ ValueError: mended.txt is missing" in out


def test_show_of_a_waiting_run_says_for_what(typed: Typed) -> None:
    out = typed("show", "asks-1").out
    assert out.rstrip().endswith("waiting: waits for a message on answer (str)")
    assert 'tagged question="why"' in out


def test_show_of_a_cancelled_run(typed: Typed) -> None:
    out = typed("show", "asks-2").out
    assert "← cancel" in out
    assert out.rstrip().endswith("cancelled")


def test_show_folds_a_fan_out_and_full_does_not(typed: Typed) -> None:
    folded, full = typed("show", "wide").out, typed("show", "wide", "--full").out
    assert "36 more of note: 36 completed" in folded
    assert folded.count("note(text=") == 4
    assert full.count("note(text=") == 40


def test_show_takes_the_beginning_of_an_id(typed: Typed) -> None:
    assert typed("show", "frag", "--json").json["run"]["id"] == "fragile-1"


def test_show_on_narrow_lines(typed: Typed) -> None:
    for run_id, columns in (("hello-2", 40), ("wide", 60), ("asks-1", 40)):
        lines = typed("show", run_id, COLUMNS=str(columns)).out.splitlines()
        tree = [line for line in lines if line.startswith("   ") and "more of" not in line]
        assert max(map(len, tree)) <= columns
    assert '     2  ✓ note(text="Bob 0")' in typed("show", "hello-2", COLUMNS="40").out


def test_show_draws_bars(typed: Typed) -> None:
    out = typed("show", "wide", "--waterfall").out
    assert "✓ note ×40" in out
    assert "█" in out or "▏" in out
    waits = typed("show", "asks-1", "--waterfall").out
    assert waits.rstrip().endswith("waiting: waits for a message on answer (str)")
    assert len(typed("show", "wide", "--waterfall", "--json").json["seq"]) == 40


def test_a_part_of_the_bars_is_said_to_be_one(typed: Typed) -> None:
    rows = typed("show", "wide", "--json").json["run"]["history_rows"]
    said = typed("show", "wide", "--waterfall", "--limit", "3")
    assert "✓" not in said.out and "░" not in said.out
    assert "⋮ note" in said.out
    assert f"Rows 1 to 3 of {rows}. The next ones, and the last ones:" in said.err
    assert "show wide --after 3 --waterfall --limit 3" in said.err
    assert f"show wide --after {rows - 3} --waterfall --limit 3" in said.err
    last = typed("show", "wide", "--waterfall", "--after", str(rows - 3))
    assert (last.err, "⋮" in last.out) == ("", False)
    assert "there is none behind" in typed("show", "wide", "--waterfall", "--after", "999").err
    assert "Rows 1 to 3" in typed("show", "wide", "--waterfall", "--limit", "3", "--json").err


def test_a_store_that_cant_be_written_is_read(tmp_path: Path, typed: Typed) -> None:
    """A copy of a file without its WAL, in a folder that can't be written."""
    folder = tmp_path / "copy"
    folder.mkdir()
    (folder / "c.db").write_bytes(Path("perdure.db").read_bytes())
    (folder / "c.db").chmod(0o400)
    folder.chmod(0o500)
    try:
        for command in (["ls"], ["show", "hello-1"], ["tail", "hello-1"], ["doctor"]):
            said = typed(*command, "--store", str(folder / "c.db"))
            assert (said.code, "Error" in said.err) == (0, False)
        assert [one.name for one in folder.iterdir()] == ["c.db"]
    finally:
        folder.chmod(0o700)


def test_show_json_has_run_and_history(typed: Typed) -> None:
    shown = typed("show", "hello-1", "--json").json
    assert shown["run"]["result"] == "hello Ada"
    assert [event["kind"] for event in shown["history"]] == ["start", "step", "completed", "finish"]
    assert shown["history"][1]["args"] == {"text": "Ada 0"}


def test_one_row_in_full_with_its_answer(typed: Typed) -> None:
    rows = typed("show", "fragile-1", "--json").json["history"]
    broken = next(row["seq"] for row in rows if row["name"] == "break_unless")
    out = typed("show", "fragile-1", "--seq", str(broken)).out
    assert f"row {broken}: step break_unless" in out
    assert '"path": "mended.txt"' in out
    assert f"answers row {broken}" in out
    assert 'raise ValueError(f"{path} is missing")' in out
    assert typed("show", "fragile-1", "--seq", str(broken), "--json").json["kind"] == "step"


def test_show_prints_a_page_of_the_history_and_how_to_go_on(typed: Typed) -> None:
    said = typed("show", "wide", "--limit", "10")
    assert "note(text=" in said.out
    assert said.out.rstrip().splitlines()[-1].startswith("completed → ")
    assert said.err == (
        "Rows 1 to 10 of 82. The next ones, and the last ones:\n"
        "  perdure show wide --after 10 --limit 10\n"
        "  perdure show wide --after 72 --limit 10\n"
    )
    last = typed("show", "wide", "--after", "72", "--limit", "10")
    assert last.err == ""
    assert "✓ note (row " in last.out


def test_a_long_history_is_shown_in_pages_by_default(
    typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect, "ROWS", 50)
    said = typed("show", "wide")
    assert said.err == "Rows 1 to 50 of 82. The others:\n  perdure show wide --after 50\n"
    assert len(typed("show", "wide", "--json").json["history"]) == 82
    assert typed("show", "wide", "--full").out.count("note(text=") == 40


def test_pages_of_json(typed: Typed) -> None:
    rows = typed("show", "wide", "--json", "--after", "80", "--limit", "5").json["history"]
    assert [row["seq"] for row in rows] == [81, 82]
    behind = typed("show", "wide", "--after", "82")
    assert (behind.code, behind.err) == (
        0,
        "wide has 82 rows; there is none behind row 82.\n",
    )


def test_a_row_that_is_not_there(typed: Typed) -> None:
    said = typed("show", "hello-1", "--seq", "99")
    assert said.code == 2
    assert "there is no row 99" in said.err


# --- tail -----------------------------------------------------------------------------------------


def test_tail_of_an_ended_run_tells_it_all(typed: Typed) -> None:
    said = typed("tail", "hello-1")
    assert said.code == 0
    assert '✓ note (row 2): "noted Ada 0"' in said.out
    assert said.out.rstrip().endswith('completed → "hello Ada"')


def test_tail_says_by_its_exit_code_how_it_ended(typed: Typed) -> None:
    assert typed("tail", "fragile-1").code == 1
    assert typed("tail", "asks-2").code == 1


def test_tail_follows_several_runs(typed: Typed) -> None:
    said = typed("tail", "hello-1", "hello-2", "hello-1")
    lines = said.out.splitlines()
    assert {line.split()[0] for line in lines} == {"hello-1", "hello-2"}
    assert [line.split()[1] for line in lines[-2:]] == ["completed", "completed"]
    assert said.code == 0
    assert typed("tail", "hello-1", "fragile-1").code == 1
    rows = typed("tail", "hello-1", "hello-2", "--json").out.splitlines()
    assert {msgspec.json.decode(row)["run"] for row in rows} == {"hello-1", "hello-2"}


def test_tail_json_is_one_object_a_line(typed: Typed) -> None:
    lines = typed("tail", "hello-1", "--json").out.splitlines()
    assert [msgspec.json.decode(line)["seq"] for line in lines] == [1, 2, 3, 4]


def test_tail_follows_a_run_through_all_that_it_goes_on_as(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the next history is already longer than what was shown of the one before."""

    @workflow
    async def chats(left: int) -> None:
        for _ in range(4 - left):
            await receive("word", str)
        if left:
            continue_as(chats(left - 1))

    shown = ""

    async def seen(text: str) -> None:
        nonlocal shown
        while text not in shown:
            await asyncio.sleep(0.005)
            shown += capsys.readouterr().out

    async def main() -> None:
        async with (
            Engine(tmp_path / "p.db", workflows=[chats]) as engine,
            StoreReader(str(tmp_path / "p.db")) as reader,
        ):
            run = await engine.start(chats(3), id="c")
            following = asyncio.ensure_future(tail.Followed(reader, "c").history())
            await seen("start")
            for number in range(10):
                await run.send(f"word {number}", channel="word")
                if number == 2:
                    await seen("word 2")
            await run.result()
            await following

    asyncio.run(main())
    shown += capsys.readouterr().out
    assert [number for number in range(10) if f"word {number}" not in shown] == []
    assert shown.count("word 1") == 1
