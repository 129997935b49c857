"""What /proc says about a process, and a child that cannot outlive us."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.lab import places

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def machine_ticks() -> tuple[int, int]:
    """Ticks that all processors were busy, and ticks in all; the difference of two readings tells the load between."""
    ticks = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def busy_percent(before: tuple[int, int]) -> float:
    """How busy the machine has been since a reading: with foreign load, figures are no better than rumours."""
    busy, total = machine_ticks()
    return round(100 * (busy - before[0]) / max(1, total - before[1]), 1)


def resident_mib(pid: int, entry: str = "VmRSS") -> float:
    """Resident memory; `VmHWM` for the most that it ever was."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{entry}:"):
            return round(int(line.split()[1]) / 1024, 1)
    raise ValueError(f"process {pid} has no {entry}")


class Floor:
    """`tests.bench.floor` as a process; it ends when its standard input closes, at the latest with this process."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.floor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=places.REPOSITORY,
            text=True,
            start_new_session=True,  # Ctrl-C is for the bench, which then ends this in its own time
        )
        if self._told(config) != "ready":
            self.close()
            raise RuntimeError("the floor did not start; its traceback is above")

    @property
    def pid(self) -> int:
        return self._process.pid

    def apply(self, writes: list[tuple[str, Any]]) -> list[float]:
        """The seconds of each of these writes, done in sequence."""
        answer = self._told(writes)
        if not answer:
            raise RuntimeError("the floor has ended; its traceback is above")
        took: list[float] = json.loads(answer)
        return took

    def _told(self, line: object) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
