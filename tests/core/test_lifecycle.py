"""The life cycle's table: complete, shown in the docs, and the only place that spells a status."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.core import lifecycle
from perdure.core.lifecycle import (
    CANCELLED,
    COMPLETED,
    FAILED,
    FINAL,
    NEW,
    OPEN,
    PAUSED,
    STATUSES,
    VERBS,
)
from tests import life_cycle_page

SOURCE = Path(lifecycle.__file__).parent.parent


def test_the_page_is_up_to_date() -> None:
    page = life_cycle_page.PAGE.read_text()
    assert life_cycle_page.renewed(page) == page, "write it again: just life-cycle"


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_outcome_in_every_status(verb: str) -> None:
    for status in STATUSES:
        assert lifecycle.outcome(verb, status) is not None
        assert list(VERBS[verb].outcomes[status])[-1] == (), "the last case holds always"
    assert set(VERBS[verb].outcomes) <= {NEW, *STATUSES}


def test_outcomes_go_by_facts() -> None:
    assert lifecycle.outcome("cancel", "pending", [lifecycle.NOT_STARTED]) == CANCELLED
    assert lifecycle.outcome("cancel", "pending") == "pending"
    assert lifecycle.outcome("worker died", "running", [lifecycle.CANCEL_WAITS]) == "pending"


def test_an_end_is_for_good() -> None:
    """Only a retry gives the id another status, and that is another run's."""
    for move in lifecycle.moves():
        if move.status in FINAL and isinstance(move.outcome, str) and move.verb != "retry":
            assert move.outcome == move.status
    assert set(STATUSES) == FINAL | OPEN


# --- spellings ------------------------------------------------------------------------------------


def statuses_in(sql: str) -> Iterator[str]:
    """What SQL compares a column `status` with, or sets it to."""
    text = re.sub("--.*", "", sql)
    for found in re.finditer(
        r"\bstatus\s*(?:=|<>|!=|IN|NOT\s+IN)\s*(\([^()]*\)|CASE.*?END|'\w*')|CASE\s+status\s.*?END\b",
        text,
        re.DOTALL,
    ):
        yield from re.findall(r"(?:IN|WHEN|THEN|ELSE|=|<>|!=|[(,])\s*'(\w+)'", found[0])


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.sql")), ids=lambda path: path.name)
def test_sql_knows_no_other_status(path: Path) -> None:
    assert set(statuses_in(path.read_text())) <= set(STATUSES)


def test_the_schema_allows_these_statuses_and_no_other() -> None:
    (schema,) = SOURCE.rglob("0001.sql")
    found = re.search(r"CHECK \(status IN\s*\((.*?)\)\)", schema.read_text(), re.DOTALL)
    assert found is not None
    assert tuple(re.findall(r"'(\w+)'", found[1])) == STATUSES


def test_a_status_in_sql_that_is_unknown_is_found() -> None:
    for sql in (
        "SELECT 1 FROM run WHERE status = 'parked'",
        "SELECT 1 FROM run WHERE r.status NOT IN ('completed', 'parked')",
        "UPDATE run SET status = CASE status WHEN 'running' THEN 'parked' ELSE status END",
        "SELECT CASE status WHEN 'parked' THEN 1 END",
    ):
        assert "parked" in set(statuses_in(sql))
    assert set(statuses_in("SELECT 1 -- status = 'parked'")) == set()


def spelled(text: str) -> list[ast.Constant]:
    """Where Python spells a status instead of naming it.

    "completed" and "failed" are kinds of rows too, and "paused" is a field of queues and schedules:
    they count where a status is compared with them.
    A name in `__slots__` is no status.
    """
    tree = ast.parse(text)
    slots = {id(inner) for node in ast.walk(tree) if _is_slots(node) for inner in ast.walk(node)}
    found: dict[int, ast.Constant] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(value)) if value in STATUSES:
                if value not in (COMPLETED, FAILED, PAUSED) and id(node) not in slots:
                    found[id(node)] = node
            case ast.Compare() if "status" in ast.unparse(node.left).rpartition(".")[2]:
                found |= {id(one): one for one in _statuses_below(node)}
            case ast.Match() if "status" in ast.unparse(node.subject):
                for case in node.cases:
                    found |= {id(one): one for one in _statuses_below(case.pattern)}
    return sorted(found.values(), key=lambda one: (one.lineno, one.col_offset))


def _is_slots(node: ast.AST) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__"


def _statuses_below(node: ast.AST) -> Iterator[ast.Constant]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and inner.value in STATUSES:
            yield inner


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(SOURCE.rglob("*.py")) if path != Path(lifecycle.__file__)],
    ids=lambda path: str(path.relative_to(SOURCE)),
)
def test_no_other_module_spells_a_status(path: Path) -> None:
    """Name it: `lifecycle.BLOCKED`."""
    assert [node.lineno for node in spelled(path.read_text())] == []


def test_a_status_that_is_spelled_is_found() -> None:
    def lines(text: str) -> list[int]:
        return [node.lineno for node in spelled(text)]

    assert lines('a = "blocked"') == [1]
    assert lines('row.status == "completed"') == [1]
    assert lines('match row.status:\n case "failed" | "x": pass') == [2]
    assert lines('row.kind == "completed"') == []
    assert lines("row.status == lifecycle.COMPLETED") == []
    assert lines('__slots__ = ("paused",)') == []
