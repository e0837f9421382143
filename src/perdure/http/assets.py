"""Assets: addresses of static files, which change with what the files hold.

Rules: a browser keeps a file for a year under an address that has the mark of its content, and
under no other one: an old page beside a new server would else spoil what comes after both.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import HTTPConnection

from perdure.http.site import url

STATIC, MODULES = "/static/", "waterfall"
"""Where static files are, and the folder of them that has modules."""


def asset(request: HTTPConnection, *parts: str) -> str:
    """The address of a file."""
    return url(request, "static", *parts, v=_marks()["/".join(parts)])


def module_assets(request: HTTPConnection, folder: str) -> dict[str, str]:
    """Addresses of the modules of a folder by name."""
    mark, names = modules(folder)
    return {name: url(request, "static", folder, f"v-{mark}", name) for name in names}


def is_marked(path: str, query: bytes) -> bool:
    """Whether an address that leads to a file has the mark of what the file holds."""
    name = path.removeprefix(STATIC)
    folder, _, rest = name.partition("/")
    if folder == MODULES:
        return rest.startswith(f"v-{modules(folder)[0]}/")
    mark = _marks().get(name)
    return mark is not None and query == f"v={mark}".encode()


@cache
def modules(folder: str) -> tuple[str, list[str]]:
    """A mark of a folder of modules, and their names. The mark is in their path: what one imports
    from "./other.js" has it, too.
    """
    found = sorted(_static().joinpath(folder).iterdir(), key=lambda one: one.name)
    return _mark(*found), [one.name for one in found]


@cache
def _marks() -> dict[str, str]:
    """The marks of all files by path."""
    found: dict[str, str] = {}
    folders = [("", _static())]
    for path, folder in folders:
        for one in folder.iterdir():
            if one.is_dir():
                folders.append((f"{path}{one.name}/", one))
            else:
                found[path + one.name] = _mark(one)
    return found


def _static() -> Traversable:
    return files("perdure.http").joinpath("static")


def _mark(*found: Traversable) -> str:
    return hashlib.sha256(b"".join(one.read_bytes() for one in found)).hexdigest()[:10]
