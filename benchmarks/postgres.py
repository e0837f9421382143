"""A Postgres server of its own for a peer, from the wheel that is installed beside the peer.

Rules: it lives in the folder of the measurement, listens on a socket there and on no port, keeps
its durability as it comes (`fsync` and `synchronous_commit` on), and ends with the measurement.
Postgres does not run as root: there it runs as `nobody`, from a copy that `nobody` may read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from driving import Failed

DATABASE = "bench"


@contextmanager
def postgres(python: str) -> Iterator[str]:
    """The address of a fresh database; `python` is the interpreter whose packages have the
    server.
    """
    programs = sorted(Path(python).parent.parent.glob("lib/*/site-packages/*/pginstall*/bin"))
    if not programs:
        raise Failed("no Postgres beside the peer")
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        folder = Path(name)
        os.chmod(folder, 0o755)
        user = "nobody" if os.geteuid() == 0 else None
        home = programs[-1].parent
        if user:
            home = _copy(home, folder)
        data = folder / "data"
        data.mkdir(mode=0o700)
        if user:
            shutil.chown(data, user)
        server = Server(home / "bin", data, user)
        server.run("initdb", "--auth=trust", "--encoding=utf8", "-U", "postgres")
        options = f"-h '' -k {data} -c max_connections=300"
        server.run("pg_ctl", "-w", "-l", str(data / "log"), "-o", options, "start")
        try:
            server.createdb(DATABASE)
            yield f"postgresql://postgres@/{DATABASE}?host={quote(str(data), safe='')}"
        finally:
            server.run("pg_ctl", "-m", "immediate", "stop")


def _copy(home: Path, folder: Path) -> Path:
    """The installation and, in the same place relative to it, the libraries that it needs."""
    package = home.parent
    for libraries in package.parent.glob(f"{package.name}.libs"):
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    return Path(shutil.copytree(home, folder / package.name / home.name, symlinks=True))


class Server:
    """The programs of one installation, on one folder of data."""

    def __init__(self, programs: Path, data: Path, user: str | None) -> None:
        self._programs, self._data, self._user = programs, data, user

    def run(self, program: str, *arguments: str) -> None:
        """A program of the server. Raises `Failed`."""
        self._call([str(self._programs / program), "-D", str(self._data), *arguments])

    def createdb(self, name: str) -> None:
        """Make a database."""
        self._call(
            [str(self._programs / "createdb"), "-h", str(self._data), "-U", "postgres", name]
        )

    def _call(self, command: list[str]) -> None:
        done = subprocess.run(
            command,
            user=self._user,
            cwd=self._data,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise Failed(f"{Path(command[0]).name} ended with {done.returncode}")
