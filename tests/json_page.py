"""docs/reference/json.md: what commands print with --json, made from `perdure.cli.schema`.

Run `python -m tests.json_page` after a change of the shapes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perdure.cli.schema import SHAPES
from perdure.http.api import words

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "json.md"
HEAD = """# What `--json` prints

Made by `python -m tests.json_page`. `perdure schema` lists these, `perdure schema COMMAND` prints the JSON Schema (draft 2020-12) of one. A test holds every command to its schema. The [HTTP API](http.md) answers with the same shapes where it shows the same thing.

Times are ISO 8601 with an offset, durations ISO 8601 (`PT3600S`), names that end in `_ms` milliseconds. Integers are exact, also beyond 2^53. A field marked *may be missing* is left out where there is nothing to say; all others are always there. New fields may come; fields that are here keep their names and meanings until a major version.
"""  # noqa: E501


def page() -> str:
    """The whole page."""
    known: dict[str, Any] = {}
    rows = ["| command | prints | shape |", "|---|---|---|"]
    for name, shape in SHAPES.items():
        known |= shape.schema.get("$defs", {})
        each = " (one on each line)" if shape.lines else ""
        rows.append(f"| `perdure {name}` | {shape.about}{each} | {_type(shape.schema)} |")
    parts = [HEAD, "\n".join(rows), "", "## Shapes"]
    parts += [_shape(name, known[name]) for name in sorted(known)]
    return "\n".join(parts) + "\n"


def _shape(name: str, schema: dict[str, Any]) -> str:
    needed = schema.get("required", [])
    text = " ".join(schema.get("description", "").split())
    if "properties" not in schema:
        return f"\n### {name}\n\n{text} A list: {_type(schema)}."
    lines = [f"\n### {name}", "", text, "", "| field | is |", "|---|---|"]
    for field, one in schema["properties"].items():
        always = field in needed or "default" in one
        lines.append(f"| `{field}` | {_type(one)}{'' if always else ', *may be missing*'} |")
    return "\n".join(lines)


def _type(schema: dict[str, Any]) -> str:
    marks = {"": "{}", "code": "`{}`"}
    return "".join(
        f"[{text}](#{text.lower()})" if kind == "shape" else marks[kind].format(text)
        for kind, text in words.of_schema(schema)
    )


if __name__ == "__main__":
    PAGE.write_text(page())
