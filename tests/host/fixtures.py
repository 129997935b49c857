"""Pytest fixtures: the virtual DPU, one at a time on this machine; whoever waits for it gets it in turn.

`dpu_vm` is for tests that each want a clean DPU, which takes a second or two. `shared_dpu_vm` is one for all tests of a module,
and `running_dpu_vm` is one with a card and an agent, handed on from module to module.
They fail, and never skip, where the machine does not come up. Use them by `from tests.host.fixtures import …` in a conftest.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.host.dpu import get, going, quick_start, ready
from tests.host.vm import DpuVm
from tests.lab.errors import LabError


@dataclass
class Place:
    """The one machine of a session, and which module has it for itself."""

    vm: DpuVm
    config: pytest.Config
    module: str | None = None
    configured: bool = False
    """Whether it is as `running_dpu_vm` gives it."""

    def start(self) -> None:
        """A fresh machine. What takes minutes the first time, or waits for others, tells so at once, not only on failure."""
        self.configured = False
        capture = self.config.pluginmanager.getplugin("capturemanager")
        if capture is None:
            self.vm.cold()
        else:
            with capture.global_and_fixture_disabled():
                self.vm.cold()


_shared: list[Place] = []


@pytest.fixture(scope="session")
def dpu_place(pytestconfig: pytest.Config) -> Iterator[Place]:
    """Where the session's machine is; nothing runs yet."""
    if _shared:
        # Another conftest.py has brought the fixture in as well: it owns the machine.
        yield _shared[0]
        return
    place = Place(DpuVm(), pytestconfig)
    _shared.append(place)
    try:
        yield place
    finally:
        _shared.remove(place)
        place.vm.remove()


@pytest.fixture
def dpu_vm(dpu_place: Place, request: pytest.FixtureRequest) -> Iterator[DpuVm]:
    """A DPU of this test's own: booted, OVS running, no card yet."""
    if dpu_place.module == request.node.nodeid.partition("::")[0]:
        pytest.fail(
            "This module shares one DPU by shared_dpu_vm, which dpu_vm would take away. Use one of them in a module."
        )
    dpu_place.start()
    yield dpu_place.vm
    dpu_place.vm.stop()


@pytest.fixture(scope="module")
def shared_dpu_vm(dpu_place: Place, request: pytest.FixtureRequest) -> Iterator[DpuVm]:
    """A DPU for all tests of a module: booted, OVS running, no card yet."""
    dpu_place.module = request.node.nodeid.partition("::")[0]
    dpu_place.start()
    yield dpu_place.vm
    dpu_place.vm.stop()
    dpu_place.module = None


@pytest.fixture(scope="module")
def running_dpu_vm(dpu_place: Place, request: pytest.FixtureRequest) -> Iterator[DpuVm]:
    """A DPU as configured, its agent running and its host and wire there: that of the module before, if it is still well.

    A module that uses it mends what it breaks; br-ex may have other ports, and Open vSwitch other bridges.
    """
    dpu_place.module = request.node.nodeid.partition("::")[0]
    failed = request.session.testsfailed
    if not (dpu_place.configured and _well(dpu_place.vm)):
        dpu_place.start()
        going(dpu_place.vm)
    dpu_place.configured = False
    yield dpu_place.vm
    dpu_place.configured = request.session.testsfailed == failed
    dpu_place.module = None


def _well(vm: DpuVm) -> bool:
    try:
        if not get(vm, "/livez").code:
            quick_start(vm)
        return bool(ready(vm)["ready"])
    except LabError:
        return False


def describe(vm: DpuVm) -> list[tuple[str, str]]:
    """What to look at when a test failed: sections of its report."""
    if not vm.running:
        return [("the virtual DPU's console", vm.console_tail())]
    journal = vm.run("journalctl --boot --no-pager --lines=60 --output=short-monotonic; dmesg | tail -n 25", timeout=20)
    return [("the virtual DPU's journal and kernel log", journal.stdout), ("its console", vm.console_tail())]
