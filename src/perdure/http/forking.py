"""Forks as pages prepare them: where a fork cuts, what may be edited there, and what that changes.

Rules: what is edited is JSON, checked before the fork is started where the code is known; a fork is
started only after its difference has been shown.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from perdure.codec.schema_check import faults
from perdure.codec.schemas import parameters_schema
from perdure.core import events as ev
from perdure.errors import DefinitionError
from perdure.http.filling import pretty
from perdure.runtime.info import HistoryEvent
from perdure.views.moment import Moment

How = Literal["again", "args", "result"]
_ENDS = frozenset({ev.COMPLETED, ev.FAILED})
DIFF_LINES_MAX = 400


class Cut(msgspec.Struct):
    """Where a fork cuts. `row` is the row that is done again; `args` and `result` are what it has
    on record, as JSON texts, None where that can't be edited.
    """

    row: int
    kind: str
    name: str
    args: str | None
    result: str | None


class Edit(msgspec.Struct):
    """An edit of a fork: how, the text that was typed, what it means, what is wrong with it, and
    the difference that it makes. `seen` names the difference, for the button that starts it.
    """

    how: How
    text: str
    value: Any
    errors: list[str]
    diff: list[tuple[str, str]]
    seen: str


def cut_at(moment: Moment, rows: Sequence[HistoryEvent]) -> Cut:
    """The cut that a fork from a moment makes; `rows` are the step and its answers, where the row
    belongs to one. A step without a result, a failed one say, can be given one.
    """
    row, seq = moment.row, step_of(moment)
    entry = next((one for one in rows if one.seq == seq), None)
    end = next((one for one in rows if one.ref == seq and one.kind == ev.COMPLETED), None)
    result = "" if end is None else pretty(end.result)
    if row.kind == ev.START:
        return Cut(row.seq, "start", moment.run.workflow, _json(moment.args), None)
    if entry is None or entry.kind not in (ev.STEP, ev.CHILD):
        return Cut(row.seq, row.kind, row.name or row.of or row.kind, None, None)
    args = _json(entry.args) if entry.kind == ev.STEP else None
    return Cut(entry.seq, entry.kind, entry.name or "", args, result)


def step_of(moment: Moment) -> int | None:
    """The row of the step or child that a moment is about."""
    row = moment.row
    if row.kind in (ev.STEP, ev.CHILD):
        return row.seq
    return row.ref if row.kind in _ENDS else None


def edit_of(cut: Cut, sent: Mapping[str, str], definition: Any) -> Edit:
    """What was typed for a fork, checked."""
    asked = sent.get("how", "again")
    how: How = "args" if asked == "args" else "result" if asked == "result" else "again"
    before = {"again": None, "args": cut.args, "result": cut.result}[how]
    if how != "again" and before is None:
        how = "again"
    text = sent.get(how, before or "").replace("\r\n", "\n") if how != "again" else ""
    made = Edit(how, text, None, [], [], "")
    if how != "again":
        try:
            made.value = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            made.errors = [f'This is not JSON: {error}. A text needs its quotes: "so".']
            return made
        made.errors = _wrong(cut, made, definition)
        made.diff = diff_of(before or "", pretty(made.value))
    marks = f"{cut.row} {how} {text}".encode(errors="replace")
    made.seen = hashlib.sha256(marks).hexdigest()[:16]
    return made


def _wrong(cut: Cut, edit: Edit, definition: Any) -> list[str]:
    """What is wrong with edited arguments; the engine checks the rest, and puts secrets back that
    are masked.
    """
    if edit.how != "args":
        return []
    if not isinstance(edit.value, dict):
        return ["Arguments are an object by name."]
    if cut.kind != "start" or definition is None:
        return []
    try:
        return [str(one) for one in faults(parameters_schema(definition), edit.value)]
    except DefinitionError:
        return []


def diff_of(before: str, after: str) -> list[tuple[str, str]]:
    """Lines with what they are: "-", "+", " " or "…"."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=2, lineterm="")
    found = [("…" if line[:2] == "@@" else line[0], line[1:]) for line in list(lines)[2:]]
    return [(sign, "" if sign == "…" else text) for sign, text in found[:DIFF_LINES_MAX]]


def _json(value: Any) -> str | None:
    return None if value is None else pretty(value)
