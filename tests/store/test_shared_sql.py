"""Queries that databases share: plain SQL, words in braces, and a caller for each of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import perdure
from perdure import Limits
from perdure.store import sql
from perdure.store.sqlite.driver import SqliteStore
from perdure.store.sqlite.queries import PACKAGE, Q

SHARED = sql.shared()
OWN = {**sql.load("sqlite.sql", PACKAGE), **sql.load("pages.sql", PACKAGE)}
SOURCE = "\n".join(path.read_text() for path in Path(perdure.__file__).parent.rglob("*.py"))
ONLY_SQLITE = re.compile(
    r"\b(json_\w+|rowid|pragma|indexed by|instr|strftime|sqlite_\w+|or ignore|group_concat)\b",
    re.IGNORECASE,
)
WORDS = {"lock", "index", "each", "returning"}


def only_sqlites(query: str) -> list[str]:
    """What a query has that Postgres does not take."""
    return [found[0] for found in ONLY_SQLITE.finditer(query)] + re.findall(r"\?(?!\d)", query)


def test_shared_queries_are_plain_sql_with_numbered_parameters() -> None:
    found = {name: only_sqlites(query) for name, query in SHARED.items()}
    assert {name: words for name, words in found.items() if words} == {}


def test_what_only_one_database_takes_is_found() -> None:
    query = "INSERT OR IGNORE INTO t SELECT instr(a, ?) FROM t INDEXED BY i, json_each(?1)"
    assert only_sqlites(query) == ["OR IGNORE", "instr", "INDEXED BY", "json_each", "?"]


def test_words_of_a_database_are_known_to_all() -> None:
    used = {word for query in SHARED.values() for word in re.findall(r"\{\{(\w+)", query)}
    assert used <= WORDS
    assert set(OWN) >= WORDS


def test_words_take_an_argument_and_leave_no_trace() -> None:
    queries = {"a": "SELECT 1 FROM run {{index i}} WHERE x IN ({{each ?1}}) {{lock}}"}
    words = {"index": "INDEXED BY {}", "each": "SELECT value FROM json_each({})", "lock": ""}
    wanted = "SELECT 1 FROM run INDEXED BY i WHERE x IN (SELECT value FROM json_each(?1))"
    assert sql.in_dialect(queries, words) == {"a": wanted}


def test_a_query_has_one_place() -> None:
    files = [sql.load(file, "perdure.store") for file in sql.SHARED_FILES]
    assert sum(map(len, files)) == len(SHARED)
    assert set(SHARED) & set(OWN) == set()


def test_every_query_has_a_caller() -> None:
    names = {*SHARED, *OWN} - WORDS
    assert [name for name in sorted(names) if f'"{name}"' not in SOURCE] == []


@pytest.fixture(scope="module")
def database() -> Iterator[SqliteStore]:
    store = SqliteStore(":memory:", limits=Limits())
    yield store
    store.close()


@pytest.mark.parametrize("name", sorted(set(Q) - {*WORDS, "whole"}))
def test_a_query_can_be_prepared(database: SqliteStore, name: str) -> None:
    """An index that is asked for by name must fit the query, whatever its parameters are."""
    numbered = [int(number) for number in re.findall(r"\?(\d+)", Q[name])]
    count = max(numbered, default=Q[name].count("?"))
    database._db.execute(f"EXPLAIN {Q[name]}", (None,) * count).fetchall()
