"""A real ovsdb-server with Open vSwitch's schema, and a real ovs-vswitchd in user space: private, and ill-treated on demand.

Its sockets, database and pid files are all in one folder. The programs are the system's where they are new enough, else
those of Debian's packages, unpacked into the cache.
"""

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import debs, processes

PATIENCE = 8.0
"""Seconds that a test waits for what must happen."""
OLDEST = (2, 17)
PACKAGES = ("openvswitch-switch", "openvswitch-common")
_SBIN = ":/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Programs:
    """Where Open vSwitch's programs are, and what they need to run."""

    folders: str
    schema: Path
    environment: Mapping[str, str]

    def path(self, name: str) -> str:
        found = shutil.which(name, path=self.folders)
        assert found is not None, f"{name} is not in {self.folders}"
        return found


@functools.cache
def programs() -> Programs:
    """The system's, or the cache's."""
    return _system() or _unpacked()


def _system() -> Programs | None:
    folders = os.environ.get("PATH", "") + _SBIN
    server = shutil.which("ovsdb-server", path=folders)
    schema = Path("/usr/share/openvswitch/vswitch.ovsschema")
    if server is None or not schema.exists() or shutil.which("ovs-vswitchd", path=folders) is None:
        return None
    said = subprocess.run([server, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"(\d+)\.(\d+)", said)
    if version is None or (int(version[1]), int(version[2])) < OLDEST:
        return None
    return Programs(folders, schema, {})


def _unpacked() -> Programs:
    root = debs.unpacked(PACKAGES, needs=True)
    libraries = sorted({str(path.parent) for path in root.rglob("*.so*")})
    return Programs(
        folders=":".join(str(root / folder) for folder in ("usr/sbin", "usr/bin", "usr/lib/openvswitch-switch")),
        schema=root / "usr" / "share" / "openvswitch" / "vswitch.ovsschema",
        environment={"LD_LIBRARY_PATH": ":".join(libraries)},
    )


class OvsServer:
    """One ovsdb-server, and what a person does with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = programs()
        self.database = folder / "conf.db"
        self.socket = folder / "db.sock"
        self.remote = f"unix:{self.socket}"
        self.server: processes.Process | None = None
        self.vswitchd: processes.Process | None = None
        self.environment = dict(self.programs.environment) | {
            "OVS_RUNDIR": str(folder),
            "OVS_LOGDIR": str(folder),
            "OVS_DBDIR": str(folder),
        }

    def create(self, schema: Path | None = None) -> None:
        """A new database, without any row, in place of the one that is there."""
        self.database.unlink(missing_ok=True)
        self.run("ovsdb-tool", "create", str(self.database), str(schema or self.programs.schema))

    def start(self) -> None:
        """Returns when it answers the door."""
        self.socket.unlink(missing_ok=True)
        self.server = processes.start(
            "ovsdb-server",
            [
                self.programs.path("ovsdb-server"), str(self.database), f"--remote=punix:{self.socket}",
                f"--unixctl={self.folder}/ovsdb.ctl", "--no-chdir",
            ],
            self.folder,
            env=self.environment,
        )  # fmt: skip
        until(self.listens)

    def listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def kill(self) -> None:
        """SIGKILL, as a crash has it: the socket's file stays."""
        if self.server is not None:
            self.server.kill()
            self.server = None

    def restart(self) -> None:
        self.kill()
        self.start()

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """Stopped, so that connections are still accepted, by the kernel, and nothing is answered."""
        assert self.server is not None
        self.server.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.server.signal(signal.SIGCONT)

    def start_vswitchd(self) -> None:
        """In user space, with netdevs and datapath of its own making; returns when it has taken up the database."""
        self.vswitchd = processes.start(
            "ovs-vswitchd",
            [
                self.programs.path("ovs-vswitchd"), self.remote, "--enable-dummy=override", "--disable-system",
                f"--unixctl={self.folder}/vswitchd.ctl", "--no-chdir",
            ],
            self.folder,
            env=self.environment,
        )  # fmt: skip
        self.vsctl("init", wait=True)

    def stop(self) -> None:
        for process in (self.vswitchd, self.server):
            if process is not None:
                process.kill()
        self.vswitchd = self.server = None

    def vsctl(self, *words: str, wait: bool = False) -> str:
        """What a person at the console would do; `wait`: until ovs-vswitchd has done it."""
        return self.run(
            "ovs-vsctl", f"--db={self.remote}", f"--timeout={PATIENCE:g}", *([] if wait else ["--no-wait"]), *words
        )

    def control(self, *words: str) -> str:
        """ovs-appctl to ovsdb-server."""
        return self.run("ovs-appctl", "-t", f"{self.folder}/ovsdb.ctl", *words)

    def run(self, name: str, *words: str) -> str:
        done = subprocess.run(
            [self.programs.path(name), *words],
            env=dict(os.environ) | self.environment,
            capture_output=True, text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{name} {' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def commits(self) -> int:
        """How many transactions have changed the database since it was created: each is two lines of its file."""
        return self.run("ovsdb-tool", "show-log", str(self.database)).count("record ")

    def ports(self, bridge: str) -> list[str]:
        return sorted(self.vsctl("list-ports", bridge).split())

    def column(self, table: str, record: str, column: str) -> Any:
        """A value as JSON."""
        said = json.loads(self.vsctl("--format=json", f"--columns={column}", "list", table, record))
        return said["data"][0][0]


@functools.cache
def _fresh() -> bytes:
    """A database as `ovs-vsctl init` leaves it."""
    with tempfile.TemporaryDirectory() as folder:
        made = OvsServer(Path(folder))
        made.create()
        row = ["Open_vSwitch", {"op": "insert", "table": "Open_vSwitch", "row": {}}]
        made.run("ovsdb-tool", "transact", str(made.database), json.dumps(row))
        return made.database.read_bytes()


@contextlib.contextmanager
def ovs_server(folder: Path, *, vswitchd: bool = False) -> Iterator[OvsServer]:
    """Started, with a fresh database that has its one row."""
    made = OvsServer(folder)
    made.database.write_bytes(_fresh())
    try:
        made.start()
        if vswitchd:
            made.start_vswitchd()
        yield made
    finally:
        made.stop()


def until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait until something has come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come true in time"
        time.sleep(0.005)
