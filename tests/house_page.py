"""The picture of the imports and the tree in docs/explain/house.md, made from the source.

Run `python -m tests.house_page` (or `just house`) after a file or an import between packages has
come or gone.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "perdure"
PAGE = ROOT / "docs" / "explain" / "house.md"
BEGIN, END = "<!-- generated: {} -->", "<!-- end -->"
ITSELF = "perdure"  # the package's own names: perdure/__init__.py


def rooms() -> dict[str, list[Path]]:
    """The packages below perdure/, each with its files."""
    found = {ITSELF: [PACKAGE / "__init__.py"]}
    for folder in sorted(path for path in PACKAGE.iterdir() if (path / "__init__.py").exists()):
        found[folder.name] = sorted(folder.rglob("*.py"))
    return found


@cache
def imports() -> dict[str, set[str]]:
    """Which package imports which, late imports and those for type checkers included."""
    names = rooms()
    return {
        name: {one for path in files for one in _imported(path, set(names)) if one != name}
        for name, files in names.items()
    }


def _imported(path: Path, names: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Import(names=aliases):
                modules = [alias.name for alias in aliases]
            case ast.ImportFrom(module="perdure", names=aliases):
                modules = [f"perdure.{alias.name}" for alias in aliases]
            case ast.ImportFrom(module=str(module)):
                modules = [module]
            case _:
                continue
        for module in modules:
            root, _, rest = module.partition(".")
            if root == "perdure":
                room = rest.partition(".")[0]
                yield room if room in names else ITSELF


def above(name: str, graph: dict[str, set[str]]) -> set[str]:
    """All that a package imports, also through others. Raises `ValueError` for a circle."""
    seen: set[str] = set()
    todo = [*graph[name]]
    while todo:
        one = todo.pop()
        if one == name:
            raise ValueError(f"perdure.{name} is in a circle of imports")
        if one not in seen:
            seen.add(one)
            todo += graph[one]
    return seen


def picture() -> str:
    """The imports between packages, without those that follow from others, for Mermaid."""
    graph = imports()
    lines = []
    for name, imported in graph.items():
        through = set[str]().union(*(above(one, graph) for one in imported))
        lines += [f"    {name} --> {one}" for one in sorted(imported - through)]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```"])


def tree() -> str:
    """Each package with its files, and the first sentence of its docstring."""
    rows = ["| package | is | files |", "|---|---|---|"]
    for name, files in rooms().items():
        if name != ITSELF:
            rows.append(f"| `{name}/` | {_purpose(files)} | {_shown(PACKAGE / name, files)} |")
    return "\n".join(rows)


def _purpose(files: list[Path]) -> str:
    text = ast.get_docstring(ast.parse(files[0].read_text())) or ""
    return " ".join(text.split("\n\n")[0].split())


def _shown(folder: Path, files: list[Path]) -> str:
    names = [path.relative_to(folder).with_suffix("").as_posix() for path in files]
    names = [name for name in names if not name.endswith(("__init__", "__main__"))]
    queries = [path.relative_to(folder).as_posix() for path in folder.rglob("*.sql")]
    names += [name for name in queries if "migrations/" not in name]
    return " · ".join(sorted(names))


def page() -> str:
    """The page with both parts made anew; the text around them is written by hand."""
    text = PAGE.read_text()
    for name, made in (("picture", picture()), ("tree", tree())):
        before, _, rest = text.partition(BEGIN.format(name))
        _, _, after = rest.partition(END)
        text = f"{before}{BEGIN.format(name)}\n\n{made}\n\n{END}{after}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page())
