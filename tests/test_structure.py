"""The house: import layers, sizes, where SQL lives, what may not be imported. Every checker is
shown a bad example.

A checker takes text and a name and returns its complaints, so that it can be fed a bad file as
easily as one of ours.
"""

from __future__ import annotations

import ast
import re
import statistics
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeGuard

import pytest

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
PACKAGE = SRC / "perdure"

# Imports point down this list, or stay on their own line of it.
ITSELF = "itself"  # perdure/__init__.py and what it names
LAYERS = [
    ("cli", "http", "ext", "testing"),
    (ITSELF,),
    ("views", "check", "observe", "reader"),
    ("runtime",),
    ("replica",),
    ("process",),
    ("store",),
    ("codec",),
    ("api",),
    ("core",),
    ("errors",),
]
RANK = {name: len(LAYERS) - place for place, names in enumerate(LAYERS) for name in names}
OUTSIDE = 0  # other people's modules

NOBODY_MAY = {"_pickle", "cloudpickle", "cPickle", "dill", "pickle", "shelve", "sqlite3"}
CORE_MAY_NOT = {
    "apsw",
    "concurrent",
    "datetime",
    "http",
    "io",
    "multiprocessing",
    "os",
    "pathlib",
    "psycopg",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "tempfile",
    "threading",
    "time",
    "urllib",
}
STORE_MAY_NOT = {"asyncio", "click", "rich"}
VIEWS_MAY_NOT = {"asyncio", "click", "rich"}  # pages show them, too
# Its threading.local tells the hook whose thread it is on; it wraps time.sleep to refuse it, and
# reads no clock. It refuses futures of pools, which it therefore has to name.
EXCEPTIONS = {
    ("perdure.core.guard", "threading"),
    ("perdure.core.guard", "time"),
    ("perdure.core.guard", "concurrent"),
}

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
FUNCTION_LINES_MEDIAN_MAX = 6
CORE_LINES_MAX = 2_520
# Without blank lines, comments and docstrings. The engine is all that is not named here; ADR 0011
# says why there is a limit for each part.
ENGINE = "engine"
CODE_LINES_MAX = {
    ENGINE: 25_400,
    "check": 850,
    "cli": 4_600,
    "ext": 300,
    "http": 5_500,
    "observe": 1_550,
    "replica": 3_600,
    "testing": 1_200,
    "views": 1_850,
}

DIRECT_DEPENDENCIES = {"apsw", "click", "cronsim", "msgspec", "rich", "tzdata"}
TEXT = {
    ".cfg",
    ".css",
    ".html",
    ".ini",
    ".js",
    ".json",
    ".md",
    ".py",
    ".sh",
    ".sql",
    ".toml",
    ".txt",
    ".yaml",
    ".yml",
    "",
}

SOURCES = sorted(PACKAGE.rglob("*.py"))


@cache
def tree_of(text: str) -> ast.Module:
    """Parsed once for all checkers: parsing is most of their time."""
    return ast.parse(text)


def complaints(check: Callable[[str, Path], list[str]]) -> list[str]:
    """What a checker says of all modules; it takes the text and the file of one."""
    return [said for path in SOURCES for said in check(path.read_text(), path)]


def name_of(path: Path) -> str:
    """The dotted name of a module file below src."""
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_package(path: Path) -> bool:
    return path.name == "__init__.py"


# Imports ------------------------------------------------------------------------------------------


def imports_of(text: str, module: str, *, package: bool = False) -> Iterator[tuple[str, int]]:
    """Every dotted name a module imports, with its line: late, relative, TYPE_CHECKING
    and import_module ones too."""
    for node in ast.walk(tree_of(text)):
        match node:
            case ast.Import(names=names):
                yield from ((alias.name, node.lineno) for alias in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                base = absolute(source, level, module, package=package)
                yield from ((f"{base}.{alias.name}", node.lineno) for alias in names)
            case ast.Call(
                func=ast.Name(id="__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name, node.lineno


def absolute(source: str | None, level: int, module: str, *, package: bool) -> str:
    """What `from ..x import y` means in this module."""
    if not level:
        return source or ""
    parts = module.split(".")
    parents = parts[: len(parts) - level + package]
    return ".".join([*parents, source] if source else parents)


def rank_of(name: str) -> int:
    """How high a module is; `codec_types` and the like belong to their layer,
    `perdure.Engine` to the package itself."""
    root, _, rest = name.partition(".")
    head = rest.partition(".")[0]
    if root != "perdure":
        return OUTSIDE
    return RANK.get(head) or RANK.get(head.partition("_")[0]) or RANK[ITSELF]


def wrong_layers(text: str, module: str, *, package: bool = False) -> list[str]:
    """Imports that point up."""
    found = sorted(imports_of(text, module, package=package), key=lambda one: one[1])
    return [
        f"{module}:{line} imports {name}, which is above it"
        for name, line in found
        if rank_of(name) > rank_of(module)
    ]


def forbidden(text: str, module: str, roots: set[str], *, package: bool = False) -> list[str]:
    """Imports of modules that this one must do without."""
    if not any(root in text for root in roots):
        return []  # most files, and quicker than parsing them
    found = {
        (name.partition(".")[0], line) for name, line in imports_of(text, module, package=package)
    }
    return [
        f"{module}:{line} imports {root}"
        for root, line in sorted(found)
        if root in roots and (module, root) not in EXCEPTIONS
    ]


def test_imports_point_one_way() -> None:
    def check(text: str, path: Path) -> list[str]:
        return wrong_layers(text, name_of(path), package=is_package(path))

    assert complaints(check) == []


def graph_of(modules: dict[str, str], packages: set[str]) -> dict[str, set[str]]:
    """Which module imports which; late imports and those for type checkers count, too."""
    found: dict[str, set[str]] = {}
    for module, text in modules.items():
        names = [name for name, _ in imports_of(text, module, package=module in packages)]
        found[module] = {known for name in names if (known := known_in(modules, name)) != module}
        found[module].discard("")
    return found


def known_in(modules: dict[str, str], name: str) -> str:
    """The module that a dotted name is, or is in; "" for a name that is not ours."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name


def circles_in(graph: dict[str, set[str]]) -> list[set[str]]:
    """Sets of modules that import each other: each from each, however far around."""
    reach = {module: below(graph, module) for module in graph}
    circles = {frozenset(x for x in reach[one] if one in reach[x]) for one in graph}
    return sorted((set(circle) for circle in circles if circle), key=sorted)


def below(graph: dict[str, set[str]], module: str) -> set[str]:
    """All that a module imports, directly or not."""
    seen: set[str] = set()
    waiting = list(graph[module])
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting += graph[one]
    return seen


def test_no_modules_import_each_other() -> None:
    graph = graph_of(
        {name_of(path): path.read_text() for path in SOURCES},
        {name_of(path) for path in SOURCES if is_package(path)},
    )
    assert circles_in(graph) == []


def test_a_circle_is_found() -> None:
    one, two = "from perdure.b import x", "def late():\n    from perdure import a"
    for third in ("import perdure.a", "from perdure.a import y"):
        graph = graph_of({"perdure.a": one, "perdure.b": two, "perdure.c": third}, set())
        assert circles_in(graph) == [{"perdure.a", "perdure.b"}]
    assert circles_in(graph_of({"perdure.a": one, "perdure.b": "import os"}, set())) == []


def test_every_module_has_a_place_in_the_layers() -> None:
    homeless = {name_of(path) for path in SOURCES if rank_of(name_of(path)) == RANK[ITSELF]}
    assert homeless <= {"perdure", "perdure.__main__"}


def test_no_module_imports_what_its_layer_must_do_without() -> None:
    def check(text: str, path: Path) -> list[str]:
        name = name_of(path)
        roots = NOBODY_MAY | (CORE_MAY_NOT if name.startswith("perdure.core") else set())
        roots |= STORE_MAY_NOT if name.startswith("perdure.store") else set()
        roots |= VIEWS_MAY_NOT if name.startswith("perdure.views") else set()
        return forbidden(text, name, roots, package=is_package(path))

    assert complaints(check) == []


@pytest.mark.parametrize("folder", ["tests", "examples", "benchmarks"])
def test_nothing_around_the_package_pickles(folder: str) -> None:
    pickles = NOBODY_MAY - {
        "sqlite3"
    }  # a test may ask the standard library's SQLite what a person would see
    for path in sorted((ROOT / folder).rglob("*.py")):
        assert forbidden(path.read_text(), f"{folder}.{path.stem}", pickles) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("perdure.core.loop", "from perdure.store import base"),
        ("perdure.core.loop", "from ..store.base import RunRow"),
        ("perdure.core.loop", "from .. import api"),
        ("perdure.core.loop", "import perdure.codec.signature"),
        ("perdure.core.loop", "if TYPE_CHECKING:\n    from perdure.api.definitions import Call"),
        ("perdure.core.loop", "def late():\n    from perdure.runtime.engine import Engine"),
        (
            "perdure.core.loop",
            "import importlib\nimportlib.import_module('perdure.api.definitions')",
        ),
        ("perdure.errors", "from perdure.core.events import Event"),
        ("perdure.api.definitions", "from perdure.codec.types import ENCODER"),
        ("perdure.codec.types", "from perdure.store.base import Store"),
        ("perdure.store.sqlite.driver", "from perdure.process.clock import SystemClock"),
        ("perdure.runtime.engine", "from perdure.cli import words"),
        ("perdure.runtime.engine", "from perdure import Engine"),
        ("perdure.runtime.engine", "import perdure"),
        ("perdure", "from perdure.cli import main"),
    ],
)
def test_an_import_that_points_up_is_found(module: str, line: str) -> None:
    assert len(wrong_layers(line, module)) == 1


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("perdure.cli.format", "from perdure.runtime.engine import Engine"),
        ("perdure.runtime.engine", "from perdure import codec, errors"),
        ("perdure.runtime.engine", "from .steps import Steps"),
        ("perdure.store.sqlite.driver", "from ..core import events"),
        ("perdure.codec.signature", "from perdure.codec.types import ENCODER"),
        ("perdure", "from perdure.runtime.engine import Engine"),
        ("perdure.cli", "from perdure import __version__"),
    ],
)
def test_an_import_that_points_down_is_not(module: str, line: str) -> None:
    assert wrong_layers(line, module) == []


def test_a_relative_import_of_a_package_starts_at_the_package() -> None:
    assert wrong_layers("from .engine import Engine", "perdure.runtime", package=True) == []
    assert len(wrong_layers("from ..cli import main", "perdure.runtime", package=True)) == 1


@pytest.mark.parametrize(
    "line",
    [
        "import time",
        "from time import monotonic",
        "import socket as s",
        "def f():\n    import datetime",
        "import os.path",
    ],
)
def test_a_clock_or_a_socket_in_core_is_found(line: str) -> None:
    assert len(forbidden(line, "perdure.core.loop", CORE_MAY_NOT)) == 1


@pytest.mark.parametrize("name", ["threading", "time"])
def test_only_the_guard_may_import_what_it_guards(name: str) -> None:
    assert forbidden(f"import {name}", "perdure.core.guard", CORE_MAY_NOT) == []
    assert forbidden(f"import {name}", "perdure.core.loop", CORE_MAY_NOT) == [
        f"perdure.core.loop:1 imports {name}"
    ]


def test_asyncio_in_a_store_and_pickle_anywhere_are_found() -> None:
    assert forbidden("from asyncio import Lock", "perdure.store.sqlite.driver", STORE_MAY_NOT) == [
        "perdure.store.sqlite.driver:1 imports asyncio"
    ]
    assert forbidden("__import__('pickle')", "perdure.codec.signature", NOBODY_MAY) == [
        "perdure.codec.signature:1 imports pickle"
    ]


# Sizes and docstrings -----------------------------------------------------------------------------


def functions_of(text: str) -> Iterator[tuple[str, int]]:
    """Name and length of every function; overloads and protocol methods, which are
    `...`, don't count."""
    for node in ast.walk(tree_of(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_stub(node):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def is_stub(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return all(
        isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) for line in node.body
    )


def too_long(text: str, module: str) -> list[str]:
    """The module if it is too long, and its functions that are."""
    lines = len(text.splitlines())
    module_too_long = [f"{module} has {lines} lines"] if lines >= MODULE_LINES_MAX else []
    return module_too_long + [
        f"{module}.{name} has {size} lines"
        for name, size in functions_of(text)
        if size > FUNCTION_LINES_MAX
    ]


def code_lines(text: str) -> int:
    """Lines that hold code; those inside of a string do, unless it is a docstring."""
    spoken = {
        number
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    }
    strings = (node for node in ast.walk(tree_of(text)) if is_string(node))
    silent = set().union(*map(lines_of, docstrings_of(tree_of(text))))
    return len(spoken.union(*map(lines_of, strings)) - silent)


def is_string(node: ast.AST) -> TypeGuard[ast.Constant | ast.JoinedStr]:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )


def lines_of(node: ast.expr) -> range:
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def docstrings_of(tree: ast.AST) -> Iterator[ast.Constant]:
    """Strings that stand alone as a statement."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            yield node.value


def undocumented(text: str, module: str) -> list[str]:
    """The module, if it does not say what it is for."""
    return (
        [] if (ast.get_docstring(tree_of(text)) or "").strip() else [f"{module} has no docstring"]
    )


def test_modules_and_functions_are_short() -> None:
    assert complaints(lambda text, path: too_long(text, name_of(path))) == []


def test_most_functions_are_very_short() -> None:
    sizes = [size for path in SOURCES for _, size in functions_of(path.read_text())]
    assert statistics.median(sizes) <= FUNCTION_LINES_MEDIAN_MAX


def test_the_core_and_each_part_stay_small() -> None:
    core = (PACKAGE / "core").rglob("*.py")
    assert sum(len(path.read_text().splitlines()) for path in core) < CORE_LINES_MAX
    found: Counter[str] = Counter()
    for path in SOURCES:
        folder = path.relative_to(PACKAGE).parts[0]
        part = folder if folder in CODE_LINES_MAX else ENGINE
        found[part] += code_lines(path.read_text())
    assert {part: size for part, size in found.items() if size >= CODE_LINES_MAX[part]} == {}


def test_every_module_says_what_it_is_for() -> None:
    """Ours everywhere; only an empty `__init__.py` may be silent."""
    modules = [
        path
        for folder in ("src", "tests", "examples", "benchmarks")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    spoken = [path for path in modules if path.is_relative_to(SRC) or path.read_text().strip()]
    assert [
        complaint
        for path in spoken
        for complaint in undocumented(path.read_text(), str(path.relative_to(ROOT)))
    ] == []


def test_what_is_too_long_is_found() -> None:
    assert too_long("\n" * MODULE_LINES_MAX, "perdure.bad") == ["perdure.bad has 500 lines"]
    body = "    pass\n"
    assert too_long("def f():\n" + body * FUNCTION_LINES_MAX, "perdure.bad") == [
        "perdure.bad.f has 61 lines"
    ]
    assert too_long("class A:\n    async def f(self):\n" + f"    {body}" * 60, "perdure.bad") == [
        "perdure.bad.f has 61 lines"
    ]
    assert too_long("def f():\n" + body * (FUNCTION_LINES_MAX - 1), "perdure.good") == []


def test_code_lines_leave_out_what_is_not_code() -> None:
    assert (
        code_lines(
            '"""What it is\nfor."""\n\n# why\nx = 1  # one\n\n\ndef f():\n    """Two."""\n  '
            '  return """a\nb"""\n'
        )
        == 4
    )


def test_a_missing_docstring_is_found() -> None:
    assert undocumented("# a comment\nx = 1\n", "perdure.bad") == ["perdure.bad has no docstring"]
    assert undocumented('"""   """\n', "perdure.bad") == ["perdure.bad has no docstring"]
    assert undocumented('"""Says it."""\n', "perdure.good") == []


# SQL ----------------------------------------------------------------------------------------------

STATEMENT = (
    r"SELECT\b.+\bFROM\b|INSERT\s+(OR\s+\w+\s+)?INTO\b|REPLACE\s+INTO\b|UPDATE\s+\S+\s+SET\b|DELETE\s+FROM\b|WITH\s+\w+\s+AS\s*\("
    r"|(CREATE|DROP|ALTER)\s+(UNIQUE\s+)?(TABLE|INDEX|VIEW|TRIGGER)\b"
)
SHOUTED = re.compile(rf"\b({STATEMENT})", re.DOTALL)
WHISPERED = re.compile(
    rf"\s*({STATEMENT})", re.DOTALL | re.IGNORECASE
)  # only where a string begins: English selects things from lists


def strings_of(text: str) -> Iterator[tuple[str, int]]:
    """Every string of a program but its docstrings, with its line; what an f-string
    fills in is a `?`."""
    tree = tree_of(text)
    docstrings = {id(node) for node in docstrings_of(tree)}
    parts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield (
                "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "?"
                    for part in node.values
                ),
                node.lineno,
            )
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in parts | docstrings
        ):
            yield node.value, node.lineno


def sql_in(text: str, module: str) -> list[str]:
    """Statements that belong into a .sql file, where they have a name; pragmas and
    BEGIN are the connection's own."""
    return [
        f"{module}:{line} holds SQL"
        for string, line in strings_of(text)
        if SHOUTED.search(string) or WHISPERED.match(string)
    ]


def test_sql_lives_in_sql_files() -> None:
    assert complaints(lambda text, path: sql_in(text, name_of(path))) == []


@pytest.mark.parametrize(
    "line",
    [
        'db.execute("select id from runs")',
        'db.execute("SELECT id\\nFROM runs")',
        'db.execute(f"select {columns} from {table}")',
        'q = "EXPLAIN SELECT 1 FROM runs"',
        'q = "insert or ignore into runs values (1)"',
        'q = "update runs set status = 1"',
        'q = "  delete from runs"',
        'q = "CREATE TABLE IF NOT EXISTS runs (id)"',
        'q = "with due as (values (1)) table due"',
    ],
)
def test_sql_in_a_string_is_found(line: str) -> None:
    assert sql_in(line, "perdure.bad") == ["perdure.bad:1 holds SQL"]


def test_prose_and_docstrings_are_not_sql() -> None:
    prose = (
        '"""select x from y"""\ndef f():\n    """Update runs set aside."""\n    return "It can '
        'select one from many", "BEGIN IMMEDIATE"\n'
    )
    assert sql_in(prose, "perdure.good") == []


# The repository -----------------------------------------------------------------------------------

# Folders that exist on the machine where something was written, and on no reader's. Put together
# here so as not to be found.
ELSEWHERE = re.compile(
    r"(?<![\w.:/-])/(?:"
    + "|".join(["wo" + "rk", "tmp/" + "w", "ro" + "ot", "home/" + r"\w+", "Users/" + r"\w+"])
    + r")(?![\w-])"
)


def machine_paths(text: str, name: str) -> list[str]:
    """Lines that name a folder of one particular machine."""
    return [
        f"{name}:{number}: {line.strip()}"
        for number, line in enumerate(text.splitlines(), 1)
        if ELSEWHERE.search(line)
    ]


def ours(root: Path = ROOT) -> Iterator[Path]:
    """The text files of this repository, whether or not git is here to list them: not
    what tools and examples leave in it."""
    litter = {
        ".git",
        *(line.strip().rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()),
    }
    for path in sorted(root.iterdir()):
        if any(path.match(pattern) for pattern in litter) or (path / "pyvenv.cfg").exists():
            continue
        if path.is_dir():
            yield from ours(path)
        elif path.suffix in TEXT:
            yield path


def test_no_file_names_a_folder_of_one_machine() -> None:
    found = [
        line
        for path in ours()
        for line in machine_paths(path.read_text(errors="replace"), str(path.relative_to(ROOT)))
    ]
    assert found == []


def test_what_tools_and_examples_leave_behind_is_not_ours(tmp_path: Path) -> None:
    for left in (
        ".venv/x.py",
        "env/pyvenv.cfg",
        "env/x.py",
        "perdure.db",
        "a/b.db-wal",
        "survey-report.md",
        "a/build/x.py",
        "a/__pycache__/x.py",
    ):
        (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / left).touch()
    (tmp_path / "a" / "ours.md").touch()
    assert list(ours(tmp_path)) == [tmp_path / "a" / "ours.md"]
    assert {ROOT / "README.md", ROOT / ".ci" / "run", Path(__file__)} <= set(ours())


def test_a_folder_of_one_machine_is_found() -> None:
    for folder in ("/wo" + "rk/x.py", "/tmp/" + "w", "'/ro" + "ot/.cache'", "(/home/" + "ann/x)"):
        assert len(machine_paths(f"see {folder}", "bad.md")) == 1
    for fine in (
        "/workflows",
        "docs" + "/wo" + "rk",
        "https://example.org" + "/wo" + "rk",
        "/tmp/perdure.db",
        "~/my-project",
    ):
        assert machine_paths(f"see {fine}", "good.md") == []


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def names_in(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w-]", requirement)[0] for requirement in requirements}


def test_the_dependencies_are_the_four_that_were_chosen() -> None:
    assert names_in(project()["project"]["dependencies"]) == DIRECT_DEPENDENCIES


def test_pip_and_dependency_groups_install_the_same_for_development() -> None:
    data = project()
    assert data["project"]["optional-dependencies"]["dev"] == data["dependency-groups"]["dev"]


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        ".gitignore",
        ".ci/run",
        "justfile",
        "src/perdure/py.typed",
    ],
)
def test_what_a_reader_looks_for_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


def test_the_licence_is_what_the_package_says() -> None:
    assert project()["project"]["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]


def test_the_version_is_told_once() -> None:
    version = project()["project"]["version"]
    told = re.search(r'^__version__ = "(.+)"$', (PACKAGE / "__init__.py").read_text(), re.MULTILINE)
    assert told is not None
    assert told[1] == version
    assert re.search(
        rf"^## \[?{re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
