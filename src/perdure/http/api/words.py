"""JSON Schemas in words: `list of RunInfo`, `integer from 1 to 500`.

Rules: a text is a list of parts, each a kind ("", "shape" or "code") and its text, so that pages
and documents mark them in their own way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Part = tuple[str, str]
Parts = list[Part]


def of_schema(schema: dict[str, Any]) -> Parts:
    """A schema in words.

    >>> of_schema({"type": "array", "items": {"$ref": "#/$defs/RunInfo"}})
    [('', 'list of '), ('shape', 'RunInfo')]
    >>> of_schema({"type": "integer", "minimum": 1, "maximum": 500})
    [('', 'integer from 1 to 500')]
    """
    match schema:
        case {"$ref": ref}:
            return [("shape", ref.rpartition("/")[2])]
        case {"anyOf": kinds}:
            return _joined(map(of_schema, kinds), " or ")
        case {"enum": values}:
            return _joined(([("code", str(value))] for value in values), " or ")
        case {"type": "array", "prefixItems": parts}:
            return [("", "["), *_joined(map(of_schema, parts), ", "), ("", "]")]
        case {"type": "array"}:
            return [("", "list of "), *of_schema(schema.get("items") or {})]
        case {"type": "object", "additionalProperties": dict(values)}:
            return [("", "object of "), *of_schema(values)]
        case {"type": "string", "format": shape}:
            return [("", {"date-time": "time"}.get(shape, shape))]
        case {"type": kind, "minimum": low, "maximum": high}:
            return [("", f"{kind} from {low:,} to {high:,}")]
        case {"type": kind}:
            return [("", str(kind))]
        case _:
            return [("", "any JSON")]


def of_text(text: str) -> Parts:
    """A docstring's text; what is between backticks is code.

    >>> of_text("give `ids`, or")
    [('', 'give '), ('code', 'ids'), ('', ', or')]
    """
    pieces = " ".join(text.split()).split("`")
    return [("code" if n % 2 else "", piece) for n, piece in enumerate(pieces) if piece]


def _joined(texts: Iterable[Parts], between: str) -> Parts:
    found: Parts = []
    for text in texts:
        found += [("", between), *text] if found else text
    return found
