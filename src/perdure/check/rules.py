"""Lint rules as tables, with the names of libraries that break them.

Rules: a name is listed once, in full, as it would be imported; what Perdure makes deterministic
(asyncio) and what only computes is not listed, so that no correct code is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["error", "note"]


@dataclass(frozen=True, slots=True)
class Rule:
    """A lint rule: `why` follows what was found, `instead` says what to write."""

    level: Level
    why: str
    instead: str


RULES = {
    "wall-clock": Rule(
        "error", "is another time on replay", "Use perdure.now(), or read the clock in a @step."
    ),
    "random": Rule(
        "error",
        "gives something else on replay",
        "Use perdure.random(), which is seeded for each run.",
    ),
    "uuid": Rule("error", "gives something else on replay", "Use perdure.uuid4()."),
    "set-order": Rule(
        "error",
        "follows the order of a set, which differs from process to process",
        "Use sorted(...), a list or a dict.",
    ),
    "identity": Rule(
        "error",
        "differs from process to process",
        "Use a key of the value's own; hashlib gives a stable digest.",
    ),
    "io": Rule(
        "error",
        "reaches outside, and would do so again on every replay",
        "Do it in a @step and await that.",
    ),
    "thread": Rule(
        "error",
        "is not part of the recorded order",
        "Use a plain `def` @step, which runs in a thread, and asyncio.gather.",
    ),
    "forgotten-await": Rule(
        "error",
        "is never carried out, it has no `await`",
        "Write `await` in front of it, or pass it to asyncio.gather().",
    ),
    "event-loop": Rule(
        "error",
        "starts an event loop inside the workflow's own",
        "Await the coroutine, or do it in a @step.",
    ),
    "sleep": Rule(
        "error",
        "blocks the process and every run in it",
        "Use `await asyncio.sleep(...)`, which is durable.",
    ),
    "global": Rule(
        "error",
        "is not in the history and not there after a restart",
        "Keep state in local variables and arguments.",
    ),
    "shared-state": Rule(
        "note",
        "is changed again on every replay, and by every run",
        "Keep state in local variables.",
    ),
    "environment": Rule(
        "note",
        "may be another value after a restart or on another machine",
        "Pass it as an argument, or read it in a @step.",
    ),
    "print": Rule(
        "note",
        "prints again on every replay",
        "Use logging, which is muted on replay, or perdure.emit().",
    ),
    "syntax": Rule("error", "can't be read", "Python says why."),
}

_CALLS = {
    "wall-clock": """
        time.time time.time_ns time.monotonic time.monotonic_ns time.perf_counter
        time.perf_counter_ns time.process_time
        time.process_time_ns time.thread_time datetime.datetime.now datetime.datetime.utcnow
        datetime.datetime.today datetime.date.today
        pendulum.now arrow.now arrow.utcnow django.utils.timezone.now""",
    "random": "os.urandom os.getrandom random.* secrets.* numpy.random.*",
    "uuid": "uuid.uuid1 uuid.uuid4 uuid.uuid6 uuid.uuid7 uuid.uuid8",
    "identity": "builtins.id builtins.hash",
    "io": """
        builtins.open builtins.input io.open os.open os.read os.write os.listdir os.scandir os.walk
        os.mkdir os.makedirs os.remove
        os.unlink os.rename os.replace os.rmdir os.stat os.system os.popen os.fork os.kill
        os.path.exists os.path.isfile os.path.isdir
        os.path.getsize os.path.getmtime shutil.* tempfile.* glob.glob glob.iglob subprocess.*
        socket.socket socket.create_connection
        socket.create_server socket.getaddrinfo socket.gethostbyname urllib.request.urlopen
        urllib.request.urlretrieve http.client.*
        requests.* httpx.* urllib3.PoolManager urllib3.request aiohttp.ClientSession
        aiohttp.request websockets.connect smtplib.SMTP
        smtplib.SMTP_SSL ftplib.FTP sqlite3.connect apsw.Connection psycopg.connect
        psycopg.AsyncConnection.connect psycopg2.connect
        asyncpg.connect asyncpg.create_pool redis.Redis redis.from_url boto3.client boto3.resource
        openai.OpenAI openai.AsyncOpenAI
        anthropic.Anthropic anthropic.AsyncAnthropic asyncio.open_connection
        asyncio.open_unix_connection asyncio.start_server
        asyncio.create_subprocess_exec asyncio.create_subprocess_shell perdure.connect
        perdure.Engine perdure.SyncEngine""",
    "thread": """
        threading.Thread threading.Timer asyncio.to_thread asyncio.run_coroutine_threadsafe
        concurrent.futures.ThreadPoolExecutor
        concurrent.futures.ProcessPoolExecutor multiprocessing.Process multiprocessing.Pool""",
    "event-loop": "asyncio.run asyncio.Runner asyncio.new_event_loop perdure.run",
    "sleep": "time.sleep",
    "environment": "os.getenv os.getcwd os.getpid os.cpu_count socket.gethostname platform.*",
    "print": "builtins.print",
}

CALLS = {name: rule for rule, names in _CALLS.items() for name in names.split()}
"""Calls by their full name; `module.*` is every function and class of a module."""

COROUTINES = frozenset(
    {
        "perdure.gather_limited",
        "perdure.poll_until",
        "perdure.receive",
        "perdure.receive_request",
        "perdure.send",
        "perdure.start",
        "asyncio.sleep",
        "asyncio.wait",
        "asyncio.wait_for",
        "asyncio.to_thread",
    }
)
"""Do nothing before they are awaited, as the calls of a module's own steps, workflows and async
functions do not.
"""

METHODS = {
    "io": frozenset({"read_text", "write_text", "read_bytes", "write_bytes", "iterdir"}),
    "thread": frozenset({"run_in_executor"}),
    "event-loop": frozenset({"run_until_complete", "run_forever"}),
}
"""Methods whose name alone breaks a rule."""

PATH_METHODS = frozenset(
    """chmod exists glob hardlink_to is_dir is_file lstat mkdir open rename replace resolve rglob
    rmdir samefile stat symlink_to
    touch unlink""".split()  # noqa: SIM905
)
"""Methods that reach outside where the object is known to be a pathlib.Path."""

HARMLESS = frozenset(
    {"random.Random", "httpx.URL", "httpx.Limits", "httpx.Headers", "httpx.QueryParams"}
)
"""Listed above by `module.*`, and only values. random.Random counts only with a seed."""

UNORDERED = frozenset(
    f"builtins.{name}"
    for name in ("all", "any", "bool", "frozenset", "len", "max", "min", "set", "sorted", "sum")
)
"""Give the same whatever the order of what they are given."""

WALKERS = frozenset(
    f"builtins.{name}"
    for name in (
        "dict",
        "dict.fromkeys",
        "enumerate",
        "filter",
        "iter",
        "list",
        "map",
        "next",
        "reversed",
        "tuple",
        "zip",
    )
)
"""Walk what they are given, in its order."""

SET_TYPES = frozenset(
    {"builtins.set", "builtins.frozenset", "collections.abc.Set", "typing.AbstractSet"}
)

SET_METHODS = frozenset({"union", "intersection", "difference", "symmetric_difference", "copy"})
"""Give a set for a set."""

MUTATORS = frozenset(
    "add append appendleft clear discard extend insert pop popitem remove setdefault update".split()  # noqa: SIM905
)
