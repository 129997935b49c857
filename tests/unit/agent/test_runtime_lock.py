"""One agent at a time changes the machine."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from dpu_agent import lock
from dpu_agent.machine import HostError
from tests.unit.agent.fakes import Clock

HOLDER = """
import sys, time
from pathlib import Path
from dpu_agent import lock
with lock.held(who="dpu-agent run", patience=0, clock=time.monotonic, wait=lambda _s: False, path=Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_waits_so_long_and_then_says_who_holds_it(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "lock"
    started = clock.now
    with (
        lock.held(who="dpu-agent run", patience=0, clock=clock, wait=clock.wait, path=path),
        pytest.raises(lock.HeldError, match=rf"dpu-agent run, process {os.getpid()}"),
        lock.held(who="dpu-agent apply", patience=7, clock=clock, wait=clock.wait, path=path),
    ):
        pytest.fail("two hold it")
    assert 7 <= clock.now - started < 7.5


def test_it_is_free_again_after_an_error(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "lock"
    with suppress(ZeroDivisionError), lock.held(who="a", patience=0, clock=clock, wait=clock.wait, path=path):
        raise ZeroDivisionError
    with lock.held(who="b", patience=0, clock=clock, wait=clock.wait, path=path):
        assert path.read_text() == f"b, process {os.getpid()}\n"


def test_the_death_of_its_holder_frees_it(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with (
                pytest.raises(lock.HeldError, match=f"process {holder.pid}"),
                lock.held(who="b", patience=0, clock=clock, wait=clock.wait, path=path),
            ):
                pytest.fail("two hold it")
        finally:
            holder.kill()
    with lock.held(who="b", patience=0, clock=clock, wait=clock.wait, path=path):
        assert path.read_text().startswith("b, ")


def test_the_waiting_ends_when_the_agent_is_stopped(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "lock"
    with (
        lock.held(who="a", patience=0, clock=clock, wait=clock.wait, path=path),
        pytest.raises(lock.HeldError),
        lock.held(who="b", patience=1e9, clock=clock, wait=lambda _seconds: True, path=path),
    ):
        pytest.fail("two hold it")


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    clock = Clock()
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with (
        pytest.raises(HostError, match="cannot be opened"),
        lock.held(who="a", patience=0, clock=clock, wait=clock.wait, path=tmp_path / "lock"),
    ):
        pytest.fail("it was held")
    assert not (tmp_path / "elsewhere").exists()
