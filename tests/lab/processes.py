"""Starting and ending programs, so that nothing is left behind and nothing foreign is ever ended.

A started program is remembered in a small JSON file with its pid *and* its start time from /proc: a pid alone may have
been given to someone else since. Programs die with the process that started them (PR_SET_PDEATHSIG through
setpriv), except when `detach` asks them to outlive it, as `dpu-lab up` does.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab.errors import LabError

# PR_SET_PDEATHSIG fires when the *thread* that started a program ends. One thread that lives as long as this
# process starts them all, so that a test may call the lab from a short-lived thread.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dpu-lab-starter")
_children: dict[tuple[int, int], subprocess.Popen[bytes]] = {}


@dataclass(frozen=True)
class Process:
    """A program that the lab started."""

    name: str
    pid: int
    started: int
    log: Path
    note: Path

    def alive(self) -> bool:
        """True while the very process that was started still runs."""
        child = self._child()
        if child is not None and child.poll() is not None:
            return False
        if start_time(self.pid) == self.started:
            return True
        if child is not None:
            child.wait()  # it has just become a zombie: reap it
        return False

    def _child(self) -> "subprocess.Popen[bytes] | None":
        return _children.get((self.pid, self.started))

    def signal(self, number: int) -> None:
        """Send a signal, if it still is our process."""
        if self.alive():
            os.kill(self.pid, number)

    def wait(self, timeout: float) -> bool:
        """Whether it has ended within the time."""
        deadline = time.monotonic() + timeout
        while self.alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def stop(self, grace: float = 5) -> None:
        """SIGTERM, then SIGKILL after the grace time; forget it."""
        self.signal(signal.SIGTERM)
        if not self.wait(grace):
            self.signal(signal.SIGKILL)
            self.wait(5)
        _children.pop((self.pid, self.started), None)
        self.note.unlink(missing_ok=True)

    def kill(self) -> None:
        """SIGKILL at once; forget it."""
        self.signal(signal.SIGKILL)
        self.wait(5)
        self.note.unlink(missing_ok=True)

    def exit_code(self) -> int | None:
        """The exit status, if it has ended and was started by this process."""
        child = self._child()
        return child.poll() if child is not None else None

    def resident_mib(self) -> float:
        """Resident memory, from /proc."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0

    def cpu_seconds(self) -> float:
        """CPU time used so far, user and system."""
        fields = _stat_fields(self.pid)
        ticks = int(fields[11]) + int(fields[12]) if fields else 0
        return ticks / os.sysconf("SC_CLK_TCK")

    def log_tail(self, lines: int = 15) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def _stat_fields(pid: int) -> list[str]:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def start_time(pid: int) -> int | None:
    """When a process started, in the kernel's ticks; None where there is none, or only a zombie."""
    fields = _stat_fields(pid)
    if not fields or fields[0] == "Z":
        return None
    return int(fields[19])


def tied(argv: Sequence[str]) -> list[str]:
    """A command that the kernel ends when the thread that starts it does, however hard that end is."""
    setpriv = shutil.which("setpriv")
    return list(argv) if setpriv is None else [setpriv, "--pdeathsig", "KILL", "--", *argv]


def start(
    name: str,
    argv: Sequence[str],
    folder: Path,
    *,
    env: Mapping[str, str] | None = None,
    detach: bool = False,
    cwd: Path | None = None,
) -> Process:
    """Start a program in a session of its own; its output goes to FOLDER/NAME.log, its note to FOLDER/NAME.pid.json."""
    return _starter.submit(_start, name, list(argv), folder, env=env, detach=detach, cwd=cwd).result()


def _start(
    name: str,
    argv: list[str],
    folder: Path,
    *,
    env: Mapping[str, str] | None,
    detach: bool,
    cwd: Path | None,
) -> Process:
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    command = argv if detach else tied(argv)
    try:
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=dict(os.environ) | dict(env or {}),
                cwd=cwd or folder,
            )
    except OSError as error:
        raise LabError(f"{argv[0]} cannot be started: {error.strerror}.", "Run `dpu-lab build`.") from error
    process = Process(name, child.pid, start_time(child.pid) or 0, log, folder / f"{name}.pid.json")
    _children[process.pid, process.started] = child
    process.note.write_text(json.dumps(asdict(process) | {"argv": argv}, default=str, indent=1))
    return process


def remembered(folder: Path) -> list[Process]:
    """The programs noted in a folder, running or not."""
    found = []
    for note in sorted(folder.glob("*.pid.json")):
        data = json.loads(note.read_text())
        found.append(Process(data["name"], data["pid"], data["started"], Path(data["log"]), note))
    return found
