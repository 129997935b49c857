"""The loop: events wake it, the timer is behind them, SIGTERM ends it, and nothing else does."""

import asyncio
import dataclasses
import logging
import os
import signal
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from dpu_agent.daemon import Daemon, Pace
from dpu_agent.engine import Engine
from dpu_agent.machine import HostError
from dpu_agent.report import ReportStatus
from dpu_agent.retries import Retries
from dpu_agent.steps import Action
from dpu_agent.world import World
from dpu_shared.host_config import HostConfig
from dpu_shared.node_report import NodeReport, State
from dpu_shared.steps import Disruption
from tests.unit.agent import worlds as w
from tests.unit.agent.fakes import BUSY, Part, Rooms, blocking, configured

REBOOT = HostConfig(max_disruption=Disruption.REBOOT)
PATIENCE = 20.0


class Operator:
    """Takes reports."""

    def __init__(self) -> None:
        self.reports: list[NodeReport] = []
        self.runs = 0
        self.fails = False

    @property
    def status(self) -> ReportStatus:
        return ReportStatus(error="The API server is away.")

    def submit(self, report: NodeReport) -> None:
        self.reports.append(report)

    async def run(self) -> None:
        self.runs += 1
        if self.fails:
            raise ValueError("a mistake")
        await asyncio.Event().wait()


class Service:
    """One daemon on a fake machine, in the test's own loop."""

    def __init__(self, tmp_path: Path, world: World, **pace: float) -> None:
        self.part = Part(world)
        self.operator = Operator()
        self.root = configured(tmp_path / "root", REBOOT)
        self.lock = tmp_path / "lock"
        usual: dict[str, Any] = {"period": 3600.0, "gap": 0.0, "task_retry": 0.01, "grace": 0.3}
        self.daemon = Daemon(
            engine=self.engine,
            machine=self.part.machine(),
            reporter=self.operator,
            serve=None,
            pace=Pace(**(usual | pace)),
        )

    def engine(self, daemon: Daemon) -> Engine:
        import time

        return Engine(
            root=self.root,
            machine=self.part.machine(),
            rooms=Rooms(self.part),
            retries=Retries(lambda: 0.0),
            clock=time.monotonic,
            publish=daemon.publish,
            lock_path=self.lock,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator["asyncio.Task[bool]"]:
        task = asyncio.create_task(self.daemon.run())
        try:
            yield task
        finally:
            self.daemon.stop()
            with suppress(asyncio.CancelledError):
                await asyncio.wait_for(task, PATIENCE)

    async def first_turn(self) -> None:
        await until(lambda: self.daemon.counters.turns > 0)

    @property
    def ready(self) -> bool:
        return self.daemon.verdict().ready


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110 - what is waited for is in another thread
            await asyncio.sleep(0.005)


def portless() -> World:
    return w.without_port(w.healthy(), "br-ex", "c1pf0hpf")


async def test_the_first_turn_comes_at_once_and_is_reported(tmp_path: Path) -> None:
    service = Service(tmp_path, portless())
    assert service.daemon.verdict().state is State.PROGRESSING
    async with service.running():
        await until(lambda: service.operator.reports)
    report = service.operator.reports[0]
    assert report.state is State.READY
    assert report.config_hash == REBOOT.config_hash()
    assert report.boot_id == w.healthy().boot_id
    assert set(report.host_pf_macs) == set(w.MACS.values())
    assert report.time is not None


@pytest.mark.parametrize("source", ["devlink", "ovsdb", "udev"])
async def test_each_source_of_events_brings_a_lost_port_back_without_the_timer(tmp_path: Path, source: str) -> None:
    service = Service(tmp_path, w.healthy())
    async with service.running():
        await service.first_turn()
        service.part.world = portless()
        await asyncio.to_thread(service.part.emit, source)
        await until(lambda: service.part.calls)
    assert service.daemon.counters.events[source] == 1


async def test_fifty_lost_ports_in_a_row_all_come_back(tmp_path: Path) -> None:
    service = Service(tmp_path, w.healthy())
    async with service.running():
        await service.first_turn()
        for number in range(50):

            def back(wanted: int = number + 1) -> bool:
                return len(service.part.calls) == wanted and service.ready

            service.part.world = portless()
            service.part.emit("ovsdb")
            await until(back)


async def test_without_events_the_timer_looks(tmp_path: Path) -> None:
    service = Service(tmp_path, w.healthy(), period=0.05)
    async with service.running():
        await service.first_turn()
        service.part.world = portless()
        await until(lambda: service.part.calls)


def without_vswitchd() -> World:
    world = w.healthy()
    assert world.ovs is not None
    return dataclasses.replace(world, ovs=dataclasses.replace(world.ovs, vswitchd=""))


async def test_while_something_is_wrong_that_may_mend_by_itself_it_looks_more_often(tmp_path: Path) -> None:
    service = Service(tmp_path, without_vswitchd(), unwell=0.05)
    async with service.running():
        await service.first_turn()
        assert service.daemon.verdict().state is State.DEGRADED
        service.part.world = w.healthy()
        await until(lambda: service.ready)
        turns = service.daemon.counters.turns
        await asyncio.sleep(0.3)
    assert service.daemon.counters.turns == turns, "and no longer when all is well"


async def test_a_burst_of_events_makes_few_turns(tmp_path: Path) -> None:
    service = Service(tmp_path, w.healthy(), gap=0.05)
    async with service.running():
        await service.first_turn()
        for _ in range(1000):
            service.part.emit("udev")
        await until(lambda: service.daemon.counters.events["udev"] == 1000)
        await asyncio.sleep(0.2)
    assert service.daemon.counters.turns <= 4


async def test_a_storm_of_events_is_slowed_down(tmp_path: Path) -> None:
    service = Service(tmp_path, w.healthy(), burst=20, rate=0.5)
    storm = threading.Event()

    def blow() -> None:
        while not storm.wait(0.001):
            service.part.emit("udev")

    async with service.running():
        await service.first_turn()
        blower = asyncio.create_task(asyncio.to_thread(blow))
        await until(lambda: service.daemon.counters.turns >= 20)
        await asyncio.sleep(0.5)
        storm.set()
        await blower
    assert service.daemon.counters.turns <= 24


async def test_a_step_that_failed_is_tried_again_when_its_time_has_come(tmp_path: Path) -> None:
    service = Service(tmp_path, portless())

    def refuse_once(_action: Action) -> None:
        if len(service.part.calls) == 1:
            raise BUSY

    service.part.before = refuse_once
    async with service.running():
        await until(lambda: service.ready)
    assert len(service.part.calls) == 2
    assert service.operator.reports[0].state is State.DEGRADED


async def test_a_sigterm_ends_it_cleanly_and_changes_nothing(tmp_path: Path) -> None:
    service = Service(tmp_path, w.healthy())
    async with service.running() as task:
        await service.first_turn()
        os.kill(os.getpid(), signal.SIGTERM)
        assert await asyncio.wait_for(task, PATIENCE) is True
    assert service.part.calls == []
    assert all(watch.closed for watches in service.part.watches.values() for watch in watches)
    assert service.part.closed


async def test_a_sigterm_ends_it_while_a_step_hangs(tmp_path: Path) -> None:
    service, released = Service(tmp_path, portless()), threading.Event()
    service.part.before = blocking(released)
    try:
        async with service.running() as task:
            await until(lambda: service.part.calls)
            os.kill(os.getpid(), signal.SIGTERM)
            assert await asyncio.wait_for(task, 5) is False
    finally:
        released.set()


async def test_a_step_that_hangs_is_seen_and_reported_while_it_hangs(tmp_path: Path) -> None:
    service, released = Service(tmp_path, portless(), hang=0.3, slow_turn=0.05), threading.Event()
    service.part.before = blocking(released)
    try:
        async with service.running():
            await until(lambda: [one for one in service.operator.reports if one.state is State.PROGRESSING])
            await until(lambda: [one for one in service.operator.reports if one.state is State.DEGRADED])
            verdict = service.daemon.verdict()
            assert (verdict.state, verdict.reason) == (State.DEGRADED, "LoopHangs")
            await asyncio.sleep(0.3)  # in which it would be told again
            released.set()
            await until(lambda: service.ready)
            await until(lambda: service.operator.reports[-1].state is State.READY)
    finally:
        released.set()
    told = [report for report in service.operator.reports if "no turn" in report.message]
    assert len(told) == 1


async def test_a_source_that_cannot_be_watched_is_said_once_and_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(tmp_path, w.healthy(), period=0.02, watch_retry=0.0)
    service.part.unwatchable["udev"] = HostError("udev does not run.", "Start it.")
    async with service.running():
        await until(lambda: service.daemon.counters.turns > 3)
        assert service.daemon.watching == {"devlink": True, "ovsdb": True, "udev": False}
        service.part.unwatchable.clear()
        await until(lambda: service.daemon.watching["udev"])
    assert len([line for line in caplog.messages if "udev does not run" in line]) == 1


async def test_a_source_that_died_is_watched_anew(tmp_path: Path) -> None:
    service = Service(tmp_path, w.healthy(), period=0.05, watch_retry=0.0)
    async with service.running():
        await service.first_turn()
        service.part.watches["ovsdb"][0].alive = False
        await until(lambda: len(service.part.watches["ovsdb"]) == 2)
        assert service.part.watches["ovsdb"][0].closed
        await until(lambda: service.daemon.watching["ovsdb"])


async def test_a_defect_of_ours_is_reported_and_the_next_turn_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service, broken = Service(tmp_path, w.healthy(), period=0.05), threading.Event()

    def looked(world: World) -> World:
        if broken.is_set():
            raise KeyError("ours")
        return world

    service.part.looked = looked
    async with service.running():
        await service.first_turn()
        broken.set()
        await until(lambda: service.daemon.counters.defects > 2)
        assert service.daemon.verdict().reason == "Defect"
        assert service.operator.reports[-1].state is State.DEGRADED
        broken.clear()
        await until(lambda: service.ready)
    assert len([record for record in caplog.records if record.exc_info]) == 1


async def test_a_reporter_that_ends_is_started_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    service = Service(tmp_path, w.healthy())
    service.operator.fails = True
    async with service.running():
        await until(lambda: service.operator.runs > 2)
        await service.first_turn()
    assert service.ready
    assert any("the report on the Node" in line for line in caplog.messages)


async def test_the_end_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    service = Service(tmp_path, w.healthy())
    async with service.running():
        await service.first_turn()
    assert caplog.messages[-1] == "Stops: it leaves the machine as it is."
    assert service.daemon.report_error == "The API server is away."
