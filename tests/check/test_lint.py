"""The lint: one bad workflow for each rule, and good ones that look bad."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from perdure.check.lint import Finding, lint_file, lint_source
from perdure.check.rules import CALLS, RULES
from perdure.cli.check import files_in

ROOT = Path(__file__).resolve().parents[2]

HEAD = """
import asyncio, concurrent.futures, contextlib, datetime as dates, httpx, logging, numpy as np
import os, pathlib, random, requests
import secrets, socket, sqlite3, subprocess, threading, time, urllib.request, uuid
from collections.abc import Set
from datetime import date, datetime
from os import environ
from pathlib import Path
from time import time as clock
import perdure
from perdure import now, receive, step, workflow

CACHE = {}
COUNT = 0

@step
def fetch(url: str) -> str:
    return open(url).read() + str(time.time())

@workflow
async def flow(
    names: set[str], numbers: frozenset[int], path: Path, urls: list[str], items: dict, others: dict
):
"""
HEAD_LINES = HEAD.count("\n")


def lint(body: str, head: str = HEAD) -> list[Finding]:
    return lint_source(
        head + textwrap.indent(textwrap.dedent(body).strip("\n"), "    ") + "\n", "flow.py"
    )


def rules(body: str) -> list[str]:
    return [finding.rule for finding in lint(body)]


BAD = {
    "wall-clock": [
        "time.time()",
        "time.monotonic()",
        "clock()",
        "datetime.now()",
        "datetime.now(tz=None)",
        "dates.datetime.utcnow()",
        "date.today()",
        "time.perf_counter_ns()",
        "import time as t\nt.time()",
        "from time import monotonic\nmonotonic()",
        "await receive('a', time.time)",
    ],
    "random": [
        "random.random()",
        "random.choice(urls)",
        "random.Random()",
        "np.random.rand()",
        "secrets.token_hex()",
        "os.urandom(8)",
        "random.shuffle(urls)",
    ],
    "uuid": [
        "uuid.uuid4()",
        "uuid.uuid1()",
        "dict(id=str(uuid.uuid4()))",
        "[*map(str, map(uuid.uuid4, ()))]",
    ],
    "set-order": [
        "for n in {'a', 'b'}: await fetch(n)",
        "for n in set(urls): await fetch(n)",
        "for n in names: await fetch(n)",
        "[await fetch(n) for n in names]",
        "found = frozenset(urls)\nawait asyncio.gather(*(fetch(n) for n in found))",
        "found = {u.lower() for u in urls}\nlist(found)",
        "found: set[str] = set()\nfor n in found: await fetch(n)",
        "for n in names | {'x'}: await fetch(n)",
        "for n in names.union(urls): await fetch(n)",
        "for n in items.keys() & others.keys(): await fetch(n)",
        "await asyncio.gather(*map(fetch, names))",
        "await asyncio.gather(*[fetch(n) for n in names])",
        "names.pop()",
        "', '.join(names)",
        "dict.fromkeys(names)",
        "next(iter(names))",
        "print_all = [*names]",
        "{n: 1 for n in names}",
        "sorted([await fetch(n) for n in names])",
        "for i, n in enumerate(names): await fetch(n)",
        "found = names if urls else set()\nfor n in found: await fetch(n)",
        "for n in (found := set(urls)): await fetch(n)",
        "def inner():\n    yield from names\n[*inner()]",
        "async def inner(some: Set[str]):\n    for n in some: await fetch(n)\nawait inner(names)",
    ],
    "identity": ["id(urls)", "hash('a') % 4", "sorted(urls, key=hash)"],
    "io": [
        "open('a')",
        "input()",
        "Path('a').read_text()",
        "path.exists()",
        "(path / 'a').mkdir()",
        "pathlib.Path('a').resolve().unlink()",
        "here = Path.cwd()\nhere.glob('*')",
        "path.parent.touch()",
        "requests.get('u')",
        "httpx.AsyncClient()",
        "socket.socket()",
        "urllib.request.urlopen('u')",
        "sqlite3.connect('a')",
        "subprocess.run(['ls'])",
        "os.listdir('.')",
        "os.path.exists('a')",
        "os.system('ls')",
        "await asyncio.create_subprocess_exec('ls')",
        "async with perdure.Engine('a'): ...",
        "items['p'].write_bytes(b'')",
        "with open('a') as file: ...",
    ],
    "thread": [
        "threading.Thread(target=print)",
        "await asyncio.to_thread(fetch.fn, 'a')",
        "concurrent.futures.ThreadPoolExecutor()",
        "asyncio.get_running_loop().run_in_executor(None, fetch.fn)",
    ],
    "forgotten-await": [
        "fetch('a')",
        "answer = fetch('a')",
        "answer: str = fetch('a')",
        "fetch.options(timeout=5)('a')",
        "[fetch(u) for u in urls]",
        "urls and fetch('a')",
        "flow(names)",
        "perdure.receive('go', bool)",
        "answer = receive('go')",
        "perdure.gather_limited(map(fetch, urls), limit=2)",
        "answer = perdure.poll_until(fetch('a'), until=bool)",
        "asyncio.sleep(5)",
        "if fetch('a'): ...",
        "while not fetch('a'): ...",
        "urls.append(fetch('a') + 'b')",
        "urls.append(f'{fetch(urls[0])}')",
        "await receive('a') == fetch('a')",
        "for letter in fetch('a'): ...",
        "urls.append(fetch('a')[0])",
        "assert fetch('a')",
        "def inner():\n    fetch('a')\ninner()",
        "try:\n    fetch('a')\nfinally: ...",
        "await fetch('a') if urls else fetch('b')",
    ],
    "event-loop": [
        "asyncio.run(fetch('a'))",
        "asyncio.new_event_loop()",
        "loop.run_until_complete(fetch('a'))",
        "perdure.run(flow())",
    ],
    "sleep": ["time.sleep(1)", "from time import sleep\nsleep(1)"],
    "global": ["global COUNT\nCOUNT += 1"],
    "shared-state": ["CACHE['a'] = 1", "CACHE.update(a=1)", "CACHE['a'] += 1"],
    "environment": [
        "os.environ['HOME']",
        "environ.get('HOME')",
        "os.getenv('HOME')",
        "os.getpid()",
    ],
    "print": ["print('a')"],
}


@pytest.mark.parametrize(
    ("rule", "body"), [(rule, body) for rule, bodies in BAD.items() for body in bodies]
)
def test_what_is_wrong_is_found(rule: str, body: str) -> None:
    findings = [finding for finding in lint(body) if finding.rule == rule]
    assert len(findings) == 1
    assert findings[0].level == RULES[rule].level
    assert HEAD_LINES < findings[0].line <= HEAD_LINES + body.count("\n") + 1


def test_every_rule_has_a_bad_workflow() -> None:
    assert set(BAD) | {"syntax"} == set(RULES)
    assert set(CALLS.values()) <= set(RULES)


GOOD = [
    "await asyncio.sleep(1)\nasync with asyncio.timeout(9): await receive('a')",
    "async with asyncio.TaskGroup() as group: group.create_task(fetch('a'))",
    (
        "done, pending = await asyncio.wait([asyncio.create_task(fetch(u)) for u in urls])\nfor "
        "task in done: task.result()"
    ),
    "tasks = {asyncio.create_task(fetch(u)) for u in urls}\nfor task in tasks: task.cancel()",
    "tasks = set()\ntasks.add(asyncio.create_task(fetch('a')))\nfor task in tasks: task.cancel()",
    (
        "tasks = set()\nfor u in urls:\n    one = asyncio.create_task(fetch(u))\n    "
        "tasks.add(one)\nfor task in tasks: await task"
    ),
    "tasks: set[asyncio.Task[str]] = set()\nfor task in tasks: task.cancel()",
    (
        "tasks = [asyncio.create_task(fetch(u)) for u in urls]\npending = set(tasks)\nfor task "
        "in pending: task.cancel()"
    ),
    (
        "pending = set(urls)\ndone, pending = await asyncio.wait(pending)\nfor task in pending: "
        "task.cancel()"
    ),
    "queue = asyncio.Queue()\nawait queue.put(1)\nlock = asyncio.Lock()\nasync with lock: ...",
    (
        "tasks = []\nfor u in urls: tasks.append(asyncio.create_task(fetch(u)))\npending = "
        "set(tasks)\nfor one in pending: one.cancel()"
    ),
    "for n in sorted(names): await fetch(n)",
    (
        "one = fetch('a')\nawait one\nother = [fetch(u) for u in urls]\nawait "
        "asyncio.gather(one, *other, fetch('b'))"
    ),
    (
        "one = None\nasync def inner():\n    nonlocal one\n    one = fetch('a')\nawait "
        "inner()\nawait one"
    ),
    (
        "def make(url): return fetch(url)\nawait make('a')\ncalls = {}\ncalls['a'] = "
        "fetch('a')\nurls.append(fetch('a'))"
    ),
    "fetch = len\nfetch('a')",
    "@step\nasync def inside(): fetch('a')\nawait inside()",
    (
        "(await fetch('a'))[0]\nif await fetch('a') and not await fetch('b'): "
        "...\nasyncio.create_task(fetch('c'))"
    ),
    "fetch('a')  # perdure: allow forgotten-await",
    "first = names.pop()  # perdure: allow set-order\nlist(first)",
    "n = set(urls)\nfor n in urls: list(n)",
    "isinstance(urls, subprocess.Popen)",
    (
        "sorted(n for n in names)\nsorted(list(names))\nmax(names)\nlen(names)\n'a' in "
        "names\nany(n for n in names)"
    ),
    "for n in numbers: await fetch(str(n))\nfor n in {1, 2, 3}: await fetch(str(n))",
    "found = set(urls)\nfound = sorted(found)\nfor n in found: await fetch(n)",
    "seen: set[int] = set()\nfor n in seen: await fetch(str(n))",
    (
        "seen = set()\nfor u in urls:\n    if u not in seen: seen.add(u)\nbigger = {n.upper() "
        "for n in names}"
    ),
    "calls = {fetch(u) for u in urls}\nawait asyncio.gather(*calls)",
    (
        "now()\nperdure.now()\nperdure.random().choice(urls)\nperdure.uuid4()\nuuid.UUID(int=1)\n"
        "uuid.uuid5(uuid.NAMESPACE_DNS, "
        "'a')"
    ),
    (
        "random.Random(4).random()\nrng: random.Random = perdure.random()\nisinstance(rng, "
        "random.Random)"
    ),
    (
        "datetime.fromtimestamp(0)\ndatetime(2020, 1, "
        "1)\ndates.timedelta(days=1)\ntime.strftime('%Y', time.gmtime(0))"
    ),
    "logging.getLogger('a').info('b')",
    "Path('a') / 'b'\npath.name\npath.with_suffix('.x')\nos.path.join('a', 'b')",
    (
        "try: await fetch('a')\nexcept (requests.RequestException, "
        "subprocess.CalledProcessError): raise"
    ),
    "raise subprocess.CalledProcessError(1, 'a')",
    "httpx.Timeout(5)\nhttpx.URL('a')",
    "open = print_it = len\nopen(urls)",
    "def hash(text): return text\nhash('a')",
    "results = {}\nresults['a'] = 1\nresults.update(b=2)\nCACHE.get('a')",
    "@step\ndef inside(): return time.time()\nawait inside()",
    "time = await fetch('a')\ntime.time()",
]


@pytest.mark.parametrize("body", GOOD)
def test_what_is_right_is_not_found(body: str) -> None:
    assert lint(body) == []


def test_a_parameter_hides_what_its_name_means_elsewhere() -> None:
    head = "from perdure import workflow\nimport time\n@workflow\nasync def flow(open, time):\n"
    assert lint("open('a')\ntime.time()", head) == []


@pytest.mark.parametrize(
    "head",
    [
        "from .files import open",
        "from mine import open",
        "def open(path): ...",
        "open = len",
        "class open: ...",
    ],
)
def test_a_name_of_the_module_is_not_the_builtin(head: str) -> None:
    assert (
        lint("open('a')", f"from perdure import workflow\n{head}\n@workflow\nasync def flow():\n")
        == []
    )


def test_steps_and_workflows_of_classes_are_known() -> None:
    """A step called `add` was taken for a change of the class that it is in."""
    head = (
        "from perdure import step, workflow\nclass Jobs:\n    @staticmethod\n    @step\n    def "
        "add(n: int) -> int: ...\n"
    )
    head += "@workflow\nasync def flow(n):\n"
    assert (
        lint(
            (
                "await Jobs.add(n)\nawait Jobs.add.options(timeout=5)(n)\n[await one for one in "
                "{Jobs.add(i) for i in n}]"
            ),
            head,
        )
        == []
    )
    assert [found.rule for found in lint("Jobs.add(n)", head)] == ["forgotten-await"]
    assert [found.rule for found in lint("Jobs.add.options(timeout=5)(n)", head)] == [
        "forgotten-await"
    ]
    assert lint("def Jobs(): ...\nJobs.add(n)", head) == []


def test_a_default_is_computed_anew_in_every_process() -> None:
    text = (
        "import time\nfrom perdure import workflow\n@workflow\nasync def flow(at=time.time(), "
        "*, to=time.time()): ...\n"
    )
    assert [finding.column for finding in lint_source(text, "flow.py")] == [19, 38]


def test_helpers_may_call_each_other_in_circles_and_be_context_managers() -> None:
    text = (
        "import contextlib\nfrom mine import cached\nfrom perdure import workflow\n"
        "def one(n): return two(n)\ndef two(n): return one(n - 1)\n"
        "@contextlib.contextmanager\ndef three():\n    yield open('a')\n"
        "@cached\ndef four(): return open('b')\n"
        "@workflow\nasync def flow():\n    with three(): return one(9), four()\n"
    )
    assert [finding.line for finding in lint_source(text, "flow.py")] == [8]


@pytest.mark.parametrize(
    "head",
    [
        "import perdure\n@perdure.workflow\n",
        "import perdure as p\n@p.workflow(timeout=5)\n",
        "from perdure import workflow as durable\n@durable(name='x')\n",
        "from perdure.api.definitions import workflow\n@workflow\n",
        "from perdure import *\n@workflow\n",
        "from perdure import workflow\ndurable = workflow(timeout=5)\n@durable\n",
        "try:\n    from perdure import workflow\nexcept ImportError:\n    raise\n@workflow\n",
    ],
)
def test_workflows_are_known_however_they_are_imported(head: str) -> None:
    (finding,) = lint_source(f"{head}async def flow():\n    open('a')\n", "flow.py")
    assert finding.rule == "io"


def test_a_workflow_that_is_made_by_a_call() -> None:
    assert (
        len(
            lint_source(
                (
                    "import perdure\nasync def flow():\n    open('a')\ndurable = "
                    "perdure.workflow(flow)\n"
                ),
                "flow.py",
            )
        )
        == 1
    )


def test_a_decorator_of_somebody_else_counts_where_the_line_is_known() -> None:
    text = "from mine import durable\n\n@durable\nasync def flow():\n    open('a')\n"
    assert lint_source(text, "flow.py") == []
    assert len(lint_source(text, "flow.py", frozenset({3}))) == 1


def test_functions_that_are_no_workflow_are_left_alone() -> None:
    assert lint_source("import time\nasync def flow():\n    time.time()\n", "flow.py") == []
    assert (
        lint_source(
            "from celery import workflow\n@workflow\nasync def flow():\n    open('a')\n", "flow.py"
        )
        == []
    )


HELPERS = """
import time
from perdure import step, workflow

@step
def ask():
    return deep()

def deep():
    return time.time()

def unused():
    return open("a")

def bold(stamp):
    return f"<b>{stamp()}</b>"

def decides():
    return later()

def later():
    return time.monotonic()

def plain():
    return open("b")

wrapped = step(plain)

@workflow
async def flow():
    await ask()
    await wrapped()
    return bold(decides)
"""


def test_plain_functions_that_a_workflow_uses_are_read_and_steps_are_not() -> None:
    (finding,) = lint_source(HELPERS, "flow.py")
    assert finding.line == HELPERS.splitlines().index("    return time.monotonic()") + 1
    assert "later(), which workflow flow uses, is another time on replay" in finding.message


def test_a_comment_allows_a_rule_on_its_line() -> None:
    assert rules("time.time()  # perdure: allow wall-clock") == []
    assert rules("print(time.time())  # perdure: allow print, wall-clock") == []
    assert rules("print(time.time())  # perdure: allow print") == ["wall-clock"]
    assert rules("time.time()  # perdure: allow print") == ["wall-clock"]
    assert rules("print(\n    'a',\n    'b',  # perdure: allow print\n)") == []
    assert rules("# perdure: allow print\nprint('a')") == ["print"]


def test_a_finding_says_where_what_and_what_to_use_instead() -> None:
    (finding,) = lint("x = 1; time.time()")
    assert str(finding) == (
        f"flow.py:{HEAD_LINES + 1}:12: wall-clock: time.time() in workflow flow is another time "
        f"on replay. "
        "Use perdure.now(), or read the clock in a @step."
    )
    assert ": note: print: " in str(lint("print()")[0])


def test_findings_come_in_the_order_of_the_lines_and_once() -> None:
    assert rules("print(time.time())\nopen('a')\nfor _ in range(2): open('b')") == [
        "print",
        "wall-clock",
        "io",
        "io",
    ]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"def f(:\n", "this is not Python"),
        (b"x = '\xff\xfe'\n", "this is not Python"),
        (b"# coding: nonsense\n", "this is not Python"),
        (b"x = 1\x00\n", "this"),
        (b"x = " + b"(" * 5_000 + b")" * 5_000, "this"),
        (b"x = y" + b".a" * 100_000, "nested too deeply"),
    ],
    ids=["syntax", "bytes", "coding", "zero", "parentheses", "depth"],
)
def test_rubbish_is_a_finding(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "bad.py").write_bytes(data)
    (finding,) = lint_file(tmp_path / "bad.py")
    assert (finding.rule, finding.level) == ("syntax", "error")
    assert says in finding.message


def test_an_empty_file_is_fine(tmp_path: Path) -> None:
    (tmp_path / "empty.py").touch()
    assert lint_file(tmp_path / "empty.py") == []


def test_folders_are_walked_but_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.py", "a/c.py", ".venv/d.py", "a/e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert files_in([str(tmp_path)]) == [tmp_path / "a/c.py", tmp_path / "b.py"]


@pytest.mark.parametrize(
    "name",
    [
        "examples",
        "campaigns/corpus.py",
        "tests/cli/flows.py",
        "src/perdure/cli/templates",
        "benchmarks",
    ],
)
def test_our_own_workflows_have_nothing(name: str) -> None:
    paths = files_in([str(ROOT / name)])
    assert [str(finding) for path in paths for finding in lint_file(path)] == []


def test_the_code_of_the_docs_has_nothing_but_what_shows_a_mistake() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    blocks = [
        block
        for page in pages
        for block in re.findall(
            r"^```python[^\n]*\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL
        )
    ]
    found = [
        finding for block in blocks for finding in lint_source(block, "docs") if "perdure" in block
    ]
    assert [
        str(finding)
        for finding in found
        if not re.search(" in workflow (careless|tour|reads_the_clock) ", finding.message)
    ] == []
    assert len(found) == 4  # what the docs show as wrong
    assert len(blocks) > 10
