"""The real process on this machine, which is no DPU: it says so, serves that, and ends when told."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dpu_agent import cli
from dpu_agent.address import Address
from dpu_agent.commands import status as status_command
from dpu_agent.commands.client import NobodyError, get
from dpu_shared.errors import UserError
from tests.unit.agent.fakes import configured

PATIENCE = 40.0


class Process:
    """`dpu-agent run` with its socket and its log in a folder of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.address = Address(path=str(folder / "http.sock"))
        self.log = folder / "log"
        self.root = folder / "root"
        self.root.mkdir(exist_ok=True)
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dpu_agent.cli", "run", "--socket", self.address.path,
                 "--host-root", str(self.root), "--log-format", "json", *arguments],
                stderr=log,
            )  # fmt: skip

    def get(self, path: str) -> tuple[int, str]:
        code, body = get(self.address, path, patience=PATIENCE, limit=1 << 20)
        return code, body.decode()

    def until_looked(self) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                if self.get("/status")[0] == 200:
                    return
            except (NobodyError, UserError):
                pass
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.02)

    def lines(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One for all the tests that leave it running."""
    running = Process(tmp_path_factory.mktemp("agent"))
    try:
        running.until_looked()
        yield running
    finally:
        running.process.kill()
        running.process.wait()


def status(process: Process, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "dpu_agent.cli", "status", "--socket", process.address.path,
         "--host-root", str(process.root), *arguments],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def test_on_a_machine_that_is_no_dpu_it_lives_and_is_blocked_and_says_why(process: Process) -> None:
    assert process.get("/livez")[0] == 200
    code, sentence = process.get("/readyz")
    assert code == 503
    assert "no BlueField DPU" in sentence
    document = json.loads(process.get("/status")[1])
    assert (document["state"], document["reason"], document["steps"]) == ("Blocked", "NotADpu", [])
    assert "process_resident_memory_bytes" in process.get("/metrics")[1]
    told = status(process, "-o", "json")
    assert told.returncode == 1
    assert json.loads(told.stdout)["source"] == "agent"
    assert "The running agent says so" in status(process).stdout
    assert list(process.root.iterdir()) == []


def test_it_says_its_state_once_and_logs_lines_of_json(process: Process) -> None:
    said = [line for line in process.lines() if line["message"].startswith("Blocked: ")]
    assert len(said) == 1
    assert {"time", "level", "logger", "message"} <= set(said[0])


def test_an_agent_that_is_stopped_in_its_tracks_is_told_from_none(
    process: Process, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status_command, "_PATIENCE", 0.2)
    os.kill(process.process.pid, signal.SIGSTOP)
    try:
        assert cli.main(["status", "--socket", process.address.path]) == 1
    finally:
        os.kill(process.process.pid, signal.SIGCONT)
    told = capsys.readouterr().err
    assert "does not answer" in told
    assert len(told.splitlines()) == 2


def test_sigkill_then_another_then_sigterm(tmp_path: Path) -> None:
    """What a killed one left behind is no hindrance; what is told to end does so in time, with 0, and leaves nothing."""
    first = Process(tmp_path)
    first.until_looked()
    first.process.kill()
    first.process.wait()
    assert Path(first.address.path).exists()
    second = Process(tmp_path)
    try:
        second.until_looked()
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(5) == 0
    finally:
        second.process.kill()
        second.process.wait()
    assert not Path(second.address.path).exists()
    assert second.lines()[-1]["message"] == "Stops: it leaves the machine as it is."
    told = status(second, "-o", "json")
    assert told.returncode == 1
    assert json.loads(told.stdout)["source"] == "observation"


HANGS = """
import contextlib, sys, threading
from dpu_agent import cli, lock
from dpu_agent.commands import rooms
from dpu_agent.host import real
from tests.unit.agent import worlds as w
from tests.unit.agent.fakes import Part

def hang(action):
    print(action, flush=True)
    threading.Event().wait()

part = Part(w.without_port(w.healthy(), "br-ex", "c1pf0hpf"), before=hang)
real.machine = lambda _root: part.machine()
rooms.observe = part.observe
lock.held = lambda **_: contextlib.nullcontext()
sys.exit(cli.main(["run", "--host-root", sys.argv[1], "--socket", sys.argv[1] + "/http.sock"]))
"""


def test_sigterm_ends_it_within_five_seconds_with_zero_while_a_step_hangs(tmp_path: Path) -> None:
    """The step is in a thread that nothing can end; a part of the machine is a fake here, all else is the program."""
    configured(tmp_path)
    with subprocess.Popen([sys.executable, "-c", HANGS, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert "AddPort" in process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
        finally:
            process.kill()
    assert not (tmp_path / "http.sock").exists()
