"""Exports as JSON: a document with the rows of an export, payloads as JSON in it.

Rules: secrets are never in it, and what has the mask in it knows that something is missing; a
payload keeps its bytes, so that it is compared as it was; what does not fit is refused with its
place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Raw

from perdure.codec.secrets import places_of_masks
from perdure.errors import ImportRefused
from perdure.store import payloads
from perdure.store.import_writes import JSON, PLAIN, PLAIN_TYPES, TABLES
from perdure.store.parcels import Head

VERSION = 1
SHOWN = {name: columns for name, columns in TABLES.items() if name not in ("chunk", "secret")}
_BY_RUN = list(TABLES["request"]).index("by_run")
_ARGUMENTS = frozenset({"step", "child", "spawn"})


class Document(msgspec.Struct):
    """An export. `tables` has rows as objects by the name of their table."""

    perdure_export: int
    schema: int
    tables: dict[str, list[dict[str, Raw]]]


Whole = Callable[[list[tuple[int, str | None]]], list[bytes | None]]
"""Payload columns of runs, with their chunks joined."""


def document(rows: Callable[[str], Iterator[tuple[Any, ...]]], whole: Whole, schema: int) -> bytes:
    """The document of an export with these rows: a line for each, payloads byte for byte."""
    tables = {name: _objects(name, list(rows(name)), whole) for name in SHOWN}
    each = [
        b'"%s":[\n%s\n]' % (name.encode(), b",\n".join(map(msgspec.json.encode, objects)))
        for name, objects in tables.items()
    ]
    head = b'{"perdure_export":%d,"schema":%d,"tables":{\n' % (VERSION, schema)
    return head + b",\n".join(each) + b"\n}}\n"


def _objects(table: str, rows: list[tuple[Any, ...]], whole: Whole) -> list[dict[str, Any]]:
    columns = TABLES[table]
    run_at = list(columns).index("run")
    made = [dict(zip(columns, row, strict=True)) for row in rows]
    for name in [name for name, kind in columns.items() if kind is JSON]:
        found = whole([(row[run_at], one[name]) for row, one in zip(rows, made, strict=True)])
        for one, raw in zip(made, found, strict=True):
            one[name] = None if raw is None else Raw(raw)
    for name in [name for name, kind in columns.items() if kind is PLAIN]:
        for one in made:
            one[name] = None if one[name] is None else Raw(one[name].encode())
    return [{name: value for name, value in one.items() if value is not None} for one in made]


class ExportJson:
    """See `import_writes.RunSource`. Raises `ImportRefused`."""

    is_export = True

    def __init__(self, raw: bytes, name: str, schema_max: int) -> None:
        self.name = name
        try:
            found = msgspec.json.decode(raw, type=Document)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ImportRefused(name, f"it is no export of perdure ({error})") from None
        if found.perdure_export != VERSION or found.schema > schema_max:
            detail = f"a newer perdure has made it (schema {found.schema}); upgrade to import it"
            raise ImportRefused(name, detail)
        self._known: dict[int, dict[bytes, int]] = defaultdict(dict)
        self._kept: dict[int, dict[bytes, int]] = defaultdict(dict)
        self._rows: dict[tuple[str, int], list[tuple[Any, ...]]] = defaultdict(list)
        self._chunks: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
        runs = [self._row("run", one, n) for n, one in enumerate(found.tables.get("run", []))]
        self._heads = [self._head(row, n) for n, row in enumerate(runs)]
        there = {row[0] for row in runs}
        for table in SHOWN:
            given = enumerate(found.tables.get(table, []))
            rows = runs if table == "run" else [self._row(table, one, n) for n, one in given]
            for row in rows:
                run = self._run_of(table, row, there)
                if run in there:
                    self._rows[table, run].append(row)
                elif table != "request":
                    detail = f"a row of {table!r} is of a run that is not there"
                    raise ImportRefused(name, detail)

    def heads(self) -> list[Head]:
        return sorted(self._heads, key=lambda head: head.run)

    def rows_of(self, table: str, run: int) -> Iterator[tuple[Any, ...]]:
        return iter(self._chunks[run] if table == "chunk" else self._rows[table, run])

    def check_payloads(self, table: str, row: tuple[Any, ...]) -> None:
        pass  # they are made here

    def _head(self, row: tuple[Any, ...], number: int) -> Head:
        fields = dict(zip(TABLES["run"], row, strict=True))
        try:
            return msgspec.convert({name: fields[name] for name in Head.__struct_fields__}, Head)
        except msgspec.ValidationError as error:
            detail = f"row {number} of 'run' does not fit: {error}"
            raise ImportRefused(self.name, detail) from None

    def _run_of(self, table: str, row: tuple[Any, ...], there: set[int]) -> int:
        """The run that a row is of; a request may be of one that went on from its own."""
        if table != "request":
            return int(row[0])
        by_run = row[_BY_RUN]
        return int(by_run) if row[1] not in there and by_run is not None else int(row[1])

    def _row(self, table: str, given: dict[str, Raw], number: int) -> tuple[Any, ...]:
        columns = TABLES[table]
        if unknown := given.keys() - columns.keys():
            detail = f"row {number} of {table!r} has a member {min(unknown)!r} that is not known"
            raise ImportRefused(self.name, detail)
        try:
            run = msgspec.json.decode(given["run"], type=int)
            for name in columns.keys() & PLAIN_TYPES.keys() & given.keys():
                msgspec.json.decode(given[name], type=PLAIN_TYPES[name])
            args = table == "run" or (
                table == "event" and msgspec.json.decode(given["kind"]) in _ARGUMENTS
            )
            return tuple(
                [self._value(run, kind, given.get(name), args) for name, kind in columns.items()]
            )
        except (KeyError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            detail = f"row {number} of {table!r} does not fit: {error}"
            raise ImportRefused(self.name, detail) from None

    def _value(self, run: int, kind: Any, raw: Raw | None, is_args: bool) -> Any:
        if raw is None or (kind is not JSON and bytes(raw) == b"null"):
            return None
        if kind is PLAIN:
            return bytes(raw).decode()
        if kind is not JSON:
            return msgspec.json.decode(raw, type=kind)
        text = bytes(raw)
        hidden, known = places_of_masks(text), self._known[run]
        if hidden:
            column, new, _ = payloads.split_with_secrets(
                text, hidden, known, self._kept[run], is_args
            )
        else:
            column, new = payloads.split(text, known, is_args)
        self._chunks[run] += [(run, *one) for one in new]
        return column
