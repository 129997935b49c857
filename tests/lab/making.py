"""Making what is expensive, once: a lock, a folder beside the target, and a rename when it is whole.

Everything here talks on stderr at least every few seconds, since a silent build looks like a hung one.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.lab import processes
from tests.lab.errors import LabError
from tests.lab.gobuild import SILENCE, Progress

LINES = 12
"""How much of a failed program's output is worth showing."""


def made(target: Path, what: str, make: Callable[[Path], None]) -> Path:
    """The target, made by `make(unfinished)` where it isn't there yet; two runs never make it at the same time."""
    if target.exists():
        return target
    with locked(target, what):
        if target.exists():
            return target
        unfinished = target.parent / f".{target.name}.new"
        _remove(unfinished)
        make(unfinished)
        unfinished.rename(target)
    return target


@contextmanager
def locked(target: Path, what: str) -> Iterator[None]:
    """Alone with this target, of all processes on the machine; those that wait get it in turn."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # A thread stands in the kernel's queue, so that nobody is passed over, while this one tells so.
            waiter = threading.Thread(target=fcntl.flock, args=(lock, fcntl.LOCK_EX), daemon=True)
            waiter.start()
            waiting = Progress("[wait]", time.monotonic())
            while waiter.is_alive():
                waiting.say(f"another process is at it: {what}")
                waiter.join(SILENCE)
        yield


def step(
    what: str,
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    accept: Callable[[int], bool] = lambda code: code == 0,
) -> str:
    """Run one program to its end, with a line every SILENCE seconds; what it wrote is returned, or told if it failed."""
    progress = Progress("[make]", time.monotonic())
    output = _scratch()
    try:
        with output.open("wb") as sink:
            child = subprocess.Popen(
                processes.tied([str(word) for word in argv]),
                stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, cwd=cwd, env=dict(os.environ) | dict(env or {}),
            )  # fmt: skip
            try:
                while True:
                    progress.say(what)
                    with suppress(subprocess.TimeoutExpired):
                        child.wait(timeout=SILENCE)
                        break
            finally:
                if child.poll() is None:
                    child.terminate()
                    child.wait()
        said = output.read_text(errors="replace")
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]} isn't there, and {what} needs it.", "Install it, then try again.") from error
    finally:
        output.unlink(missing_ok=True)
    if not accept(child.returncode):
        tail = "\n".join(said.strip().splitlines()[-LINES:])
        raise LabError(
            f"This failed: {what} ({argv[0]}, exit code {child.returncode}):\n{tail}\n", "Mend that and try again."
        )
    return said


def forget_old(current: Path, pattern: str, *, keep: int) -> None:
    """Remove what was made for other sources than the present ones, but for the newest few: branches change back and forth."""
    os.utime(current)
    others = sorted(
        (path for path in current.parent.glob(pattern) if path != current), key=lambda path: path.stat().st_mtime
    )
    for path in others[: max(0, len(others) - keep)]:
        _remove(path)


def _scratch() -> Path:
    descriptor, name = tempfile.mkstemp(prefix="dpu-lab-", suffix=".log")
    os.close(descriptor)
    return Path(name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
