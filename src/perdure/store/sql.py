"""Named queries of `.sql` files: `-- name: x` begins one, the next name or the file's end ends it.

Rules: a query that several databases share has a word in double braces where their dialects differ.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

SHARED_FILES = (
    "shared.sql", "queues.sql", "schedules.sql", "requests.sql", "retention.sql", "answers.sql",
    "import.sql", "logs.sql",
)  # fmt: skip

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_WORD = re.compile(r"\{\{(\w+)(?: ([^}]+))?\}\}")


def json_text(value: Any) -> str:
    """A value as JSON text, as queries take lists and payloads."""
    return msgspec.json.encode(value).decode()


def text_of(file: str, package: str) -> str:
    """The text of a file of a package.

    `importlib.resources` would load archives and temporary files, a tenth of our import.
    """
    return (pkgutil.get_data(package, file) or b"").decode()


@cache
def load(file: str, package: str) -> dict[str, str]:
    """The queries of a file, by name."""
    parts = _NAME.split(text_of(file, package))
    return {
        name: body.strip().rstrip(";") for name, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def shared() -> dict[str, str]:
    """The queries that every database takes, by name."""
    files = [load(file, "perdure.store") for file in SHARED_FILES]
    return {name: text for queries in files for name, text in queries.items()}


def in_dialect(queries: Mapping[str, str], words: Mapping[str, str]) -> dict[str, str]:
    """These queries with the words of a database; `{}` in a word is its argument.

    >>> in_dialect({"one": "SELECT 1 FROM run {{index a}}"}, {"index": "INDEXED BY {}"})
    {'one': 'SELECT 1 FROM run INDEXED BY a'}
    """

    def word(found: re.Match[str]) -> str:
        return words[found[1]].replace("{}", found[2] or "")

    return {name: _WORD.sub(word, text).rstrip() for name, text in queries.items()}
