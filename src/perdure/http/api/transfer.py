"""Exports and imports as resources: runs as a file, from one store to another.

Rules: what is hidden from people is never in a file that is given out here; a file is made and read
in a folder of its own, which is removed.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from perdure.errors import ImportRefused, PerdureError, RunExists, StoreCorrupt, StoreTooNew
from perdure.http.api.operation import Call, Operation
from perdure.http.limits import time_limit
from perdure.runtime.transfer import Imported

T = TypeVar("T")

MEDIA = {"json": "application/json", "db": "application/vnd.sqlite3"}
SQLITE = b"SQLite format 3\0"


class Export(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`id` is repeated. `format` is text for people and programs, or a store that Perdure opens;
    with `family` earlier runs under the ids and all children are in it, too.
    """

    id: list[str]
    format: Literal["json", "db"] = "json"
    family: bool = True


class Import(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """With `go_on` runs that have not ended are continued here; without they are paused. `run` is
    repeated: only these and what belongs to them are taken, also from a store that is no export.
    """

    go_on: bool = False
    run: list[str] = []


async def export_runs(call: Call[Export, None]) -> Response:
    """Get runs as a file, without secrets and what is redacted."""
    asked = call.query
    time_limit(call.request, 300)
    with tempfile.TemporaryDirectory(prefix="perdure-") as folder:
        file = Path(folder, f"runs.{asked.format}")
        await call.engine.export(asked.id, file, family=asked.family)
        raw = await _in_thread(file.read_bytes)
    headers = {
        "content-disposition": f'attachment; filename="{file.name}"', "cache-control": "no-store",
    }  # fmt: skip
    return Response(raw, 200, headers, MEDIA[asked.format])


async def import_runs(call: Call[Import, None]) -> Imported:
    """Put the runs of an exported file into this store: the body is the file, up to 16 MB.

    A run, its children and the runs before it under its id are imported together, or not at all;
    what is here already is left as it is, and named in `already`. A larger file is for
    `perdure import`.
    """
    raw = await call.request.body()
    if not raw:
        raise HTTPException(400, "The body is a file that an export has given.")
    time_limit(call.request, 300)
    kind = "db" if raw.startswith(SQLITE) else "json"
    with tempfile.TemporaryDirectory(prefix="perdure-") as folder:
        file = Path(folder, f"import.{kind}")
        await _in_thread(lambda: file.write_bytes(raw))
        try:
            return await call.engine.import_(
                file, go_on=call.query.go_on, runs=call.query.run or None
            )
        except RunExists as error:
            raise HTTPException(409, _of_a_file(error, file)) from error
        except (ImportRefused, StoreCorrupt, StoreTooNew) as error:
            if error.path != str(file):
                raise
            raise HTTPException(422, _of_a_file(error, file)) from error


def _of_a_file(error: PerdureError, file: Path) -> str:
    """The text of an error without the name that the file had here."""
    name = repr(str(file))
    text = str(error).replace(f"The store {name}", "The file").replace(name, "the file")
    return text[:1].upper() + text[1:]


async def _in_thread(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)


OPERATIONS = [
    Operation(
        "GET", "/export", export_runs, Any, Export, group="Store", errors=(403, 404, 409)
    ),
    Operation(
        "POST", "/import", import_runs, Imported, Import, group="Store", status=201,
        errors=(403, 409, 413), takes="application/octet-stream",
    ),
]  # fmt: skip
