"""`make demo` as a person runs it: what it shows, that it never falls silent, and that nothing is left of it."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab import binaries, demo, places, processes
from tests.lab.waiting import eventually

CONDITIONS = (
    "MachineConfigApplied", "OvnKubeReady", "TenantClusterApiServerUnreachable", "TenantObjectsSynced",
    "TenantCredentialsValid", "NodesMapped", "HostsConfigured", "VersionAligned", "Available", "Progressing", "Degraded",
)  # fmt: skip
SILENCE = 15
"""Seconds without a line. It promises 10; the rest is for a machine that does other things as well."""


@dataclass
class Run:
    """A demo whose every program can be found, since all of them inherit its TMPDIR."""

    tmp: Path

    def start(self) -> "subprocess.Popen[str]":
        # A test run in the background may ignore SIGINT, and its children would inherit that.
        argv = ["env", "--default-signal=INT", sys.executable, "-m", "tests.lab.demo"]
        kept = {key: value for key, value in os.environ.items() if key not in {"KEEP", "COLUMNS", "DPU_LAB_DIR"}}
        return subprocess.Popen(
            processes.tied(argv), cwd=places.REPOSITORY, env=kept | {"TMPDIR": str(self.tmp)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def left(self) -> list[str]:
        """Command lines of what still runs."""
        mark = f"TMPDIR={self.tmp}".encode()
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:  # it has ended, or is somebody else's
                continue
        return found


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    binaries.find()  # built once for all, and not within the demo's time
    made = Run(tmp_path)
    yield made
    assert made.left() == []


def test_it_shows_every_condition_and_leaves_nothing(run: Run) -> None:
    began = time.monotonic()
    with run.start() as process:
        assert process.stdout is not None
        lines = [(time.monotonic() - began, line.rstrip("\n")) for line in process.stdout]
    text = "\n".join(line for _, line in lines)
    assert process.returncode == 0, text
    times = [0.0, *(when for when, _ in lines)]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert max(gaps) < SILENCE, text
    steps = re.findall(r"^ +([0-9.]+) s  (?!…)(.*)$", text, re.MULTILINE)
    assert len(steps) == 9
    assert [float(when) for when, _ in steps] == sorted(float(when) for when, _ in steps)
    assert re.search(r"^NAMESPACE +NAME +POOL +MACHINECONFIG +OVNKUBE +UNREACHABLE +AGE$", text, re.MULTILINE)
    assert re.search(r"^tenant-1 +cluster +dpu +True +True +False +\d+s$", text, re.MULTILINE)
    rows = dict(re.findall(r"^  (\w+) +(True|False|Unknown) +[A-Z]\w+ {2,}\S", text, re.MULTILINE))
    assert tuple(rows) == CONDITIONS
    assert rows.items() >= demo.WANTED.items()
    assert re.search(r"\brendered-dpu-[0-9a-f]{32}\.$", text, re.MULTILINE), "a name is never cut in two"
    assert "MachineConfig 99-dpu-dpu-network-operator" in text
    assert lines[-1][1].endswith("everything that was started has ended")
    assert list(run.tmp.iterdir()) == []


def test_ctrl_c_in_the_middle_ends_what_was_started(run: Run) -> None:
    with run.start() as process:
        # Both API servers are starting: much runs, and little is noted yet of what it all is.
        eventually(lambda: list(run.tmp.glob("*/tenant/kube-apiserver.pid.json")), "the API servers", timeout=60)
        assert len(run.left()) >= 5, "the demo itself, and two of etcd and of the API server"
        process.send_signal(signal.SIGINT)
        text = process.communicate(timeout=60)[0]
    assert process.returncode == 130, text
    assert "Interrupted: what was started is being ended." in text
    assert "Traceback" not in text
    assert list(run.tmp.iterdir()) == []


def test_a_message_is_wrapped_between_words_whatever_the_width() -> None:
    name = "rendered-dpu-fa611897a4824be14be930f97180bcc4"
    row: dict[str, Any] = {
        "type": "MachineConfigApplied", "status": "True", "reason": "Applied",
        "message": f"All 3 machines of pool dpu run {name}.",
    }  # fmt: skip
    for width in (40, 80, 100, 120):
        lines = demo.table([row], width)
        assert any(name in line for line in lines)
        assert max(len(line) for line in lines) <= max(width, len(f"      {name}."))
    assert len(demo.table([row], 200)) == 2, "a head and one line"
