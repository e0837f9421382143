"""Starts of runs as code: the same start as a line of Python and as a call of curl.

Rules: what is shown can be pasted and does the same, but for secrets, which are masked.
"""

from __future__ import annotations

from collections.abc import Iterable
from pprint import pformat
from shlex import quote
from typing import Any

import msgspec

_PLAIN = (str, int, float, bool, type(None))
LINE_CHARS = 78


def as_python(
    workflow: str, args: dict[str, Any], options: dict[str, Any], missing: Iterable[str] = ()
) -> str:
    """A start in an async function, with an open engine; `missing` arguments are dots."""
    plain = workflow.isidentifier() and all(isinstance(one, _PLAIN) for one in args.values())
    if plain and all(name.isidentifier() for name in args):
        given = [f"{name}={value!r}" for name, value in args.items()]
        given = [*(f"{name}=..." for name in missing), *given]
        parts = [f"{workflow}({', '.join(given)})"]
    else:
        shown = pformat(args, width=LINE_CHARS - 8, sort_dicts=False).replace("\n", "\n    ")
        parts = [repr(workflow), shown]
    parts += [f"{name}={_python(name, value)}" for name, value in options.items()]
    verb = "start" if parts[0][0] not in "'\"" else "start_by_name"
    line = f"run = await engine.{verb}({', '.join(parts)})"
    if len(line) > LINE_CHARS:
        line = f"run = await engine.{verb}(\n    " + ",\n    ".join(parts) + ",\n)"
    begin = "from datetime import datetime\n\n" if "at" in options else ""
    return begin + line


def as_curl(
    address: str, workflow: str, args: dict[str, Any], options: dict[str, Any], *, token: bool
) -> str:
    """A start by the API at this address."""
    said = {"workflow": workflow, "args": args, **options}
    body = msgspec.json.encode(said, enc_hook=str).decode()
    if len(body) > LINE_CHARS:
        body = msgspec.json.format(body)
    lines = [f"curl {quote(address)}", "-H 'content-type: application/json'"]
    if token:
        lines.append('-H "authorization: Bearer $PERDURE_TOKEN"')
    return " \\\n  ".join([*lines, f"-d {quote(body)}"])


def _python(name: str, value: Any) -> str:
    return f"datetime.fromisoformat({value!r})" if name == "at" else repr(value)
