"""Starts of runs as code: the same start as a line of Python and as a call of curl.

Rules: what is shown can be pasted and does the same, but for secrets: they are not shown, and
are to be filled in, or come from a variable of the shell.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pprint import pformat
from shlex import quote
from typing import Any

import msgspec

from perdure.api.secret import Secret

_PLAIN = (str, int, float, bool, type(None), Secret)
LINE_CHARS = 78
_AROUND = "\ue000"
"""Stands around the variable of a secret until the text is quoted for the shell."""


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
    imports = ["from datetime import datetime"] if "at" in options else []
    hidden = repr(Secret(""))
    if hidden in line:
        line = line.replace(hidden, 'Secret("…")')
        imports.append("from perdure import Secret")
    return "\n".join([*imports, "", line]) if imports else line


def as_curl(
    address: str, workflow: str, args: dict[str, Any], options: dict[str, Any], *, token: bool
) -> str:
    """A start by the API at this address."""
    said = {"workflow": workflow, "args": _variables(args), **options}
    body = msgspec.json.encode(said, enc_hook=str).decode()
    if len(body) > LINE_CHARS:
        body = msgspec.json.format(body)
    lines = [f"curl {quote(address)}", "-H 'content-type: application/json'"]
    if token:
        lines.append('-H "authorization: Bearer $PERDURE_TOKEN"')
    data = re.sub(rf"{_AROUND}(\w+){_AROUND}", r"""'"$\1"'""", quote(body))
    return " \\\n  ".join([*lines, f"-d {data}"])


def _variables(value: Any, name: str = "") -> Any:
    """A value whose secrets are variables of the shell, called as what they are."""
    match value:
        case Secret():
            called = re.sub(r"\W", "_", name, flags=re.ASCII).upper().lstrip("0123456789_")
            return f"{_AROUND}{called or 'SECRET'}{_AROUND}"
        case dict():
            return {key: _variables(one, str(key)) for key, one in value.items()}
        case list():
            return [_variables(one, name) for one in value]
        case _:
            return value


def _python(name: str, value: Any) -> str:
    return f"datetime.fromisoformat({value!r})" if name == "at" else repr(value)
