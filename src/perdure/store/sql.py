"""Named queries of `.sql` files: `-- name: x` begins one, the next name or the file's end ends it.

Rules: a query that several databases share has a word in double braces where their dialects differ.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Mapping
from functools import cache

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_WORD = re.compile(r" \{\{(\w+)\}\}")


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


def in_dialect(queries: Mapping[str, str], words: Mapping[str, str]) -> dict[str, str]:
    """These queries with the words of a database.

    >>> in_dialect({"one": "SELECT run FROM run WHERE id = ?1 {{lock}}"}, {"lock": " FOR UPDATE"})
    {'one': 'SELECT run FROM run WHERE id = ?1 FOR UPDATE'}
    """
    return {name: _WORD.sub(lambda found: words[found[1]], text) for name, text in queries.items()}
