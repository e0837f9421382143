"""Recorded runs: taken out of a store as JSON that can be kept beside the tests, and replayed
against today's code.

Rules: a store is copied before it is read, so that looking changes nothing; replay executes no step
and writes nothing.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from perdure.api.definitions import Workflow
from perdure.codec.json_codec import JsonCodec
from perdure.core import events as ev
from perdure.core.events import Event, RunFacts
from perdure.core.replay import Kernel
from perdure.errors import RunNotFound, UnknownWorkflow
from perdure.runtime.kernels import recorded_call
from perdure.runtime.registry import add_workflow
from perdure.store.rows import RunFilter, RunRow
from perdure.store.sqlite import connection
from perdure.store.sqlite.reader import Reader
from perdure.testing import invariants
from perdure.testing.invariants import InvariantViolated

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Recording:
    """A run with its history. `key` is the store's own number of the run, which stays when its id
    moves on.
    """

    key: int
    id: str
    workflow: str
    status: str
    args: bytes
    seed: int
    timeout_ms: int | None
    rows: list[Event]
    scheduled_ms: int | None = None

    def kernel(self, known: dict[str, Workflow[..., Any]]) -> Kernel:
        """A fresh kernel for the run. Raises `UnknownWorkflow`."""
        definition = known.get(self.workflow)
        if definition is None:
            raise UnknownWorkflow(self.workflow, tuple(known))
        facts = RunFacts(
            self.id, self.workflow, self.seed, self.timeout_ms, scheduled_ms=self.scheduled_ms
        )
        return Kernel(recorded_call(definition, self.args), definition, facts, JsonCodec())


def recordings(store: str | os.PathLike[str]) -> list[Recording]:
    """Every run of a store, oldest first. Raises `StoreNotFound`, `StoreCorrupt`, `StoreTooNew`."""
    path = connection.path_of(store)
    with tempfile.TemporaryDirectory(prefix="perdure-") as folder:
        copy = os.path.join(folder, "copy.db")
        for end in ("", "-wal"):
            if os.path.exists(path + end):
                shutil.copyfile(path + end, copy + end)
        db = connection.open_reader(copy if os.path.exists(path) else path)
        try:
            reader = Reader(db, path)
            rows = reader.run_rows(RunFilter(limit=-1))
            return [_recording(reader, row) for row in reversed(rows)]
        finally:
            db.close()


def _recording(reader: Reader, row: RunRow) -> Recording:
    history = reader.history_page(row.run, 0, None)  # with the mask in the place of secrets
    for event in history:
        if event.kind == ev.FINISH:
            event.data = _last_word(reader, row, event)
    return Recording(
        row.run, row.id, row.workflow, row.status, row.args, row.seed, row.timeout_ms, history,
        row.scheduled_ms,
    )  # fmt: skip


def _last_word(reader: Reader, row: RunRow, event: Event) -> bytes | None:
    """The data of the last row is stored in the run's own row, or in its successor's."""
    if event.name == "continued" and row.successor is not None:
        after = reader.run_row(row.successor)
        return b'{"workflow":%s,"args":%s}' % (msgspec.json.encode(after.workflow), after.args)
    return {"completed": row.result, "failed": row.error}.get(event.name or "")


def export_run(store: str | os.PathLike[str], id: str) -> bytes:
    """One run as JSON, to be kept in a file beside the tests. Raises `RunNotFound`.

    Children are runs of their own; export them by their own ids if they matter.
    """
    found = [one for one in recordings(store) if one.id == id]
    if not found:
        raise RunNotFound(id)
    return to_json(found[0])


def to_json(recording: Recording) -> bytes:
    """A recording as readable JSON, with one value to a line."""
    run = {
        name: getattr(recording, name)
        for name in ("key", "id", "workflow", "status", "seed", "timeout_ms")
    }
    rows = [
        {name: value for name in _FIELDS if (value := _shown(row, name)) is not None}
        for row in recording.rows
    ]
    if recording.scheduled_ms is not None:
        run["scheduled_ms"] = recording.scheduled_ms
    whole = {"perdure_recording": FORMAT, **run, "args": msgspec.Raw(recording.args), "rows": rows}
    return msgspec.json.format(msgspec.json.encode(whole), indent=1) + b"\n"


_FIELDS = ("seq", "kind", "at_ms", "ref", "name", "data", "took_ms", "edited")


def _shown(row: Event, name: str) -> Any:
    value = getattr(row, name)
    return (
        msgspec.Raw(value)
        if name == "data" and value is not None
        else (None if value is False else value)
    )


class _Row(msgspec.Struct):
    seq: int
    kind: str
    at_ms: int
    ref: int | None = None
    name: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    took_ms: int | None = None
    edited: bool = False


class _Exported(msgspec.Struct):
    perdure_recording: int
    key: int
    id: str
    workflow: str
    status: str
    seed: int
    timeout_ms: int | None
    args: msgspec.Raw
    rows: list[_Row]
    scheduled_ms: int | None = None


def from_json(data: bytes | str) -> Recording:
    """What `export_run` has written, also after a formatter has put spaces into it. Raises
    `msgspec.ValidationError`.
    """
    found = msgspec.json.decode(data, type=_Exported)
    rows = [
        Event(
            row.seq,
            row.kind,
            row.at_ms,
            row.ref,
            row.name,
            _compact(row.data),
            row.took_ms,
            row.edited,
        )
        for row in found.rows
    ]
    return Recording(
        found.key,
        found.id,
        found.workflow,
        found.status,
        _compact(found.args) or b"{}",
        found.seed,
        found.timeout_ms,
        rows,
        found.scheduled_ms,
    )


def _compact(raw: msgspec.Raw) -> bytes | None:
    return msgspec.json.format(bytes(raw), indent=-1) if bytes(raw) else None


def replay_recorded(
    recording: Recording | bytes | str | os.PathLike[str],
    workflows: Iterable[Workflow[..., Any]],
    *,
    every_prefix: bool = False,
) -> None:
    """Replay one exported run (its JSON, or the path of a file with it) against today's code.

    Raises `InvariantViolated`, an AssertionError that shows both sides, if the code asks for
    something other than what was recorded: this run would block if the code were deployed. Raises
    `UnknownWorkflow` if its workflow is not among `workflows`.
    """
    if not isinstance(recording, Recording):
        recording = from_json(
            recording if isinstance(recording, bytes) else Path(recording).read_bytes()
        )
    known = _known(workflows)
    run = recording
    if every_prefix:
        invariants.replay_every_prefix(lambda: run.kernel(known), run.rows)
    else:
        invariants.replay(lambda: run.kernel(known), run.rows)


def replay_file(
    store: str | os.PathLike[str],
    workflows: Iterable[Workflow[..., Any]],
    *,
    every_prefix: bool = False,
) -> list[str]:
    """Replay every run of a store file, or of a copy of one; gives their ids. Raises as
    `replay_recorded` does.
    """
    known = list(workflows)
    found = recordings(store)
    for one in found:
        replay_recorded(one, known, every_prefix=every_prefix)
    return [one.id for one in found]


def _known(workflows: Iterable[Workflow[..., Any]]) -> dict[str, Workflow[..., Any]]:
    known: dict[str, Workflow[..., Any]] = {}
    for definition in workflows:
        add_workflow(known, definition)
    return known


# --- in another process ---------------------------------------------------------------------------


def can_be_found(workflows: Sequence[Workflow[..., Any]]) -> bool:
    """Whether another process can find these workflows by module and name: not those that a
    function or a prompt has made.
    """
    return all(
        _found(sys.modules.get(one.__module__), one.__qualname__) is one
        and inspect.getsourcefile(one.fn)
        for one in workflows
    )


def _found(module: Any, qualname: str) -> Any:
    for part in qualname.split("."):
        module = getattr(module, part, None)
    return module


def replay_elsewhere(
    found: Sequence[Recording], workflows: Sequence[Workflow[..., Any]], hash_seed: int
) -> None:
    """Replay in a process in which strings hash otherwise, so that sets of them have another order.
    Raises `InvariantViolated`.
    """
    task = {
        "path": sys.path,
        "workflows": [
            (one.__module__, inspect.getsourcefile(one.fn), one.__qualname__) for one in workflows
        ],
        "runs": [to_json(one).decode() for one in found],
    }
    done = subprocess.run(
        [sys.executable, "-c", "from perdure.testing import recording; recording._here()"],
        input=msgspec.json.encode(task),
        capture_output=True,
        check=False,
        env=os.environ
        | {"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if done.returncode:
        _, law, text = (
            done.stderr.decode(errors="replace").strip().rpartition("InvariantViolated: ")
        )
        if law:
            raise InvariantViolated(f"{text}\nDoes it walk a set of strings?")
        last = "\n".join(text.splitlines()[-3:])
        raise InvariantViolated(
            f"The workflow could not be loaded there; hash_seeds=() leaves this part out.\n{last}"
        )


def _here() -> None:
    """The other process."""
    task = msgspec.json.decode(sys.stdin.buffer.read())
    sys.path[:] = task["path"]
    workflows = [_loaded(*place) for place in task["workflows"]]
    for run in task["runs"]:
        replay_recorded(run.encode(), workflows)


def _loaded(module: str, file: str, qualname: str) -> Any:
    name = "__perdure_main__" if module == "__main__" else module
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return _found(sys.modules[name], qualname)
