"""One agent at a time changes the machine: a lock that the kernel drops when its holder dies."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dpu_agent.machine import HostError

PATH = Path("/run/dpu-agent/lock")
"""/run is the machine's own everywhere, in the agent's container and in its early stage."""
_POLL = 0.1


class HeldError(HostError):
    """Another process holds the lock; trying again later helps."""


@contextmanager
def held(
    *, who: str, patience: float, clock: Callable[[], float], wait: Callable[[float], bool], path: Path = PATH
) -> Iterator[None]:
    """Hold the lock.

    Args:
        who: the command that holds it, for the message that another one gives (`dpu-agent run`).
        patience: how long to wait for another holder, in seconds.
        clock: monotonic seconds.
        wait: pauses for so many seconds; True ends the waiting.
        path: of the lock.

    Raises:
        HeldError: another process still holds it.
        HostError: /run is not writable.

    """
    descriptor = _open(path)
    try:
        end = clock() + patience
        while not _taken(descriptor):
            if clock() >= end or wait(_POLL):
                raise HeldError(
                    f"Another agent changes this machine now: {_holder(descriptor)}.",
                    "Wait until it is done, or see what holds it up with `dpu-agent status`.",
                )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{who}, process {os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)  # which drops the lock, as the death of the process does


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise HostError(
            f"The lock {path} cannot be opened: {error.strerror or error}.",
            "Run as root, with the machine's /run writable.",
            errno=error.errno,
        ) from error


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(descriptor: int) -> str:
    """What the holder wrote; the file is ours, yet another's words are cut to a line."""
    text = os.pread(descriptor, 200, 0).decode("utf-8", "replace").strip()
    return text.splitlines()[0] if text else "one that has only just begun"
