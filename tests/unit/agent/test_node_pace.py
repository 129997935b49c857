"""How often is written, in simulated time: nothing here waits."""

import ast
import asyncio
import dataclasses
import datetime as dt
import itertools
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpu_agent.kubelet import KubeletError
from dpu_agent.node_patch import NodePatcher, PatchError
from dpu_agent.report import MESSAGE_LIMIT, NodeReporter, Pace, Pacing
from dpu_shared.node_report import NodeReport, State

PACING = Pacing()
HOUR = 3600.0


def simulate(
    *, until: float, changes: list[float], answers: Callable[[float], dict[str, Any] | None]
) -> tuple[list[tuple[float, int]], list[float]]:
    """Run a Pace as the reporter does; the writes (when, which version) and the attempts that failed.

    Args:
        until: when to stop.
        changes: when the report changes; the first is its first version.
        answers: by time, the arguments of `failed`, or None for a success.

    """
    pace, now, writes, failures = Pace(PACING), 0.0, [], []
    on_node = 0
    coming = sorted(changes)
    while now <= until:
        version = sum(change <= now for change in coming)
        if not version:
            now = coming[0]
            continue
        due = pace.due(changed=version != on_node)
        following = next((change for change in coming if change > now), until + 1)
        if due > now:
            now = min(due, following)
            continue
        refusal = answers(now)
        if refusal is None:
            pace.wrote(now)
            writes.append((now, version))
            on_node = version
        else:
            pace.failed(now, **refusal)
            failures.append(now)
    return writes, failures


def test_at_rest_there_is_one_write_a_minute() -> None:
    writes, _ = simulate(until=HOUR, changes=[0.0], answers=lambda _: None)
    assert [at for at, _ in writes] == [60.0 * index for index in range(61)]


def test_a_change_is_written_at_once_and_counts_as_the_heartbeat() -> None:
    writes, _ = simulate(until=200, changes=[0.0, 30.0], answers=lambda _: None)
    assert writes == [(0.0, 1), (30.0, 2), (90.0, 2), (150.0, 2)]


def test_what_changes_all_the_time_is_written_every_few_seconds_and_the_last_always() -> None:
    changes = [index / 10 for index in range(1, 300)]
    writes, _ = simulate(until=100, changes=changes, answers=lambda _: None)
    times = [at for at, _ in writes]
    assert min(after - before for before, after in itertools.pairwise(times)) >= PACING.spacing
    assert len(times) <= 9
    assert writes[-1][1] == len(changes)


def test_an_api_server_that_is_away_for_hours_is_asked_seldom_and_has_the_newest_report_soon_after() -> None:
    away: Callable[[float], dict[str, Any] | None] = lambda now: {} if now < 5 * HOUR else None  # noqa: E731
    writes, failures = simulate(until=5 * HOUR + 300, changes=[float(at) for at in range(0, 18_000, 7)], answers=away)
    assert len(failures) < 5 * HOUR / 30 + 10
    assert 5 * HOUR <= writes[0][0] <= 5 * HOUR + PACING.longest_delay
    assert writes[0][1] == 2572  # nothing of what came in between
    assert [version for _, version in writes[1:]] == [2572] * (len(writes) - 1)


def test_the_first_attempts_follow_within_seconds() -> None:
    _, failures = simulate(until=20, changes=[0.0], answers=lambda _: {})
    assert len(failures) >= 4
    assert failures[1] <= PACING.first_delay


def test_a_kubelet_that_has_not_joined_is_looked_for_every_few_seconds() -> None:
    _, failures = simulate(until=HOUR, changes=[0.0], answers=lambda _: {"local": True})
    gaps = [after - before for before, after in itertools.pairwise(failures)]
    assert PACING.local_delay / 2 <= max(gaps) <= PACING.local_delay


@pytest.mark.parametrize(("asked", "least", "most"), [(0, 0.5, 1), (30, 30, 37.5), (1e9, 600, 750)])
def test_an_api_server_is_left_alone_for_as_long_as_it_asks_within_reason(
    asked: float, least: float, most: float
) -> None:
    pace = Pace(PACING)
    pace.failed(100.0, retry_after=asked)
    assert 100 + least <= pace.due(changed=True) <= 100 + most


def test_dpus_that_an_outage_has_brought_into_step_spread() -> None:
    delays = set()
    for _ in range(50):
        pace = Pace(PACING)
        for _ in range(8):
            pace.failed(0.0)
        delays.add(round(pace.due(changed=True)))
    assert len(delays) > 10


@settings(max_examples=200, deadline=None)
@given(
    changes=st.lists(st.floats(0, 900), min_size=1, max_size=40),
    outages=st.lists(st.tuples(st.floats(0, 1200), st.floats(0, 300)), max_size=5),
)
def test_whatever_happens_no_write_comes_too_soon_and_the_newest_report_gets_out(
    changes: list[float], outages: list[tuple[float, float]]
) -> None:
    def answers(now: float) -> dict[str, Any] | None:
        return {} if any(begin <= now < begin + length for begin, length in outages) else None

    until = 1600.0
    writes, failures = simulate(until=until, changes=changes, answers=answers)
    for (before, old), (after, new) in itertools.pairwise(writes):
        unsure = any(before < at < after for at in failures)
        assert after - before >= (PACING.spacing if unsure or old != new else PACING.heartbeat) - 1e-6
    assert writes[-1][1] == sum(change <= writes[-1][0] for change in changes) == len(changes)
    assert until - writes[-1][0] <= PACING.heartbeat


READY = NodeReport(State.READY, "All is as configured.", "c0ffee", "boot-2", version="0.1.0")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What would have been sent, without any API server."""
    notes: list[dict[str, str]] = []

    def send(self: NodePatcher, credentials: object, annotations: dict[str, str]) -> None:
        notes.append(dict(annotations))

    monkeypatch.setattr(NodePatcher, "send", send)
    monkeypatch.setattr("dpu_agent.kubelet.read", lambda root, kubeconfig: None)
    return notes


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another thread
            await asyncio.sleep(0.005)


async def ended(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_time_is_told_when_writing_by_a_clock_that_may_have_been_set_since(
    sent: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A BlueField boots in the past. The report is made before the clock is set, and written afterwards."""
    reporter = NodeReporter(Path("/"))
    reporter.submit(dataclasses.replace(READY, time=None))

    class Set(dt.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Set":
            return cls(2031, 5, 6, 7, 8, 9, tzinfo=tz)

    monkeypatch.setattr("dpu_agent.report.dt", types.SimpleNamespace(datetime=Set, UTC=dt.UTC, timedelta=dt.timedelta))
    task = asyncio.create_task(reporter.run())
    await until(lambda: sent)
    await ended(task)
    assert sent[0]["dpu.openshift.io/agent-time"].startswith("2031-05-06T07:08:0")


async def test_a_heartbeat_has_the_time_of_the_newest_look_and_not_its_own(
    sent: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent whose loop hangs must not look alive on the Node because another of its threads is."""
    clock = [1000.0]
    monkeypatch.setattr("dpu_agent.report.time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    reporter = NodeReporter(Path("/"))
    reporter.submit(READY)
    clock[0] += 3600
    task = asyncio.create_task(reporter.run())
    await until(lambda: sent)
    await ended(task)
    at = dt.datetime.fromisoformat(sent[0]["dpu.openshift.io/agent-time"])
    age = (dt.datetime.now(dt.UTC) - at).total_seconds()
    assert 3599 <= age <= 3700


async def test_a_long_message_is_cut(sent: list[dict[str, str]]) -> None:
    reporter = NodeReporter(Path("/"))
    reporter.submit(dataclasses.replace(READY, message="a" * 10 * MESSAGE_LIMIT))
    task = asyncio.create_task(reporter.run())
    await until(lambda: sent)
    await ended(task)
    message = sent[0]["dpu.openshift.io/agent-message"]
    assert len(message) == MESSAGE_LIMIT
    assert message.endswith("a…")


async def test_a_report_that_is_there_before_it_runs_is_written_and_then_only_changes_are(
    sent: list[dict[str, str]],
) -> None:
    reporter = NodeReporter(Path("/"), pacing=Pacing(spacing=0.0))
    reporter.submit(READY)
    task = asyncio.create_task(reporter.run())
    await until(lambda: len(sent) == 1)
    reporter.submit(READY)
    reporter.submit(dataclasses.replace(READY, state=State.DEGRADED))
    await until(lambda: len(sent) == 2)
    await ended(task)
    assert [each["dpu.openshift.io/agent-state"] for each in sent] == ["Ready", "Degraded"]


async def test_a_mistake_of_ours_is_logged_and_tried_again(
    sent: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing = [ZeroDivisionError()]

    def read(root: Path, kubeconfig: str) -> None:
        if failing:
            raise failing.pop()

    monkeypatch.setattr("dpu_agent.kubelet.read", read)
    reporter = NodeReporter(Path("/"), pacing=Pacing(first_delay=0.01))
    reporter.submit(READY)
    task = asyncio.create_task(reporter.run())
    await until(lambda: sent)
    await ended(task)
    assert "Please report it" in caplog.text


async def test_an_outage_is_logged_once_for_each_sentence_and_its_end_once(
    sent: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    outcomes: list[Exception] = [KubeletError("It is not there yet.", "Wait.")] * 5 + [PatchError("No.", "Wait.")] * 5

    def read(root: Path, kubeconfig: str) -> None:
        if outcomes:
            raise outcomes.pop(0)

    monkeypatch.setattr("dpu_agent.kubelet.read", read)
    reporter = NodeReporter(Path("/"), pacing=Pacing(first_delay=0.001, longest_delay=0.001, local_delay=0.001))
    reporter.submit(READY)
    task = asyncio.create_task(reporter.run())
    await until(lambda: sent)
    await until(lambda: reporter.status.failures == 0)
    assert reporter.status.error == ""
    await ended(task)
    assert [record.message for record in caplog.records if record.name == "dpu_agent.report"] == [
        "The report is not on the Node: It is not there yet. Wait.",
        "The report is not on the Node: No. Wait.",
        "The API server takes the report again: Ready.",
    ]


async def test_the_status_tells_the_age_of_the_last_success_and_the_last_error(
    sent: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = NodeReporter(Path("/"), pacing=Pacing(spacing=0.0, first_delay=100.0))
    assert (reporter.status.last_success_age, reporter.status.error) == (None, "")
    reporter.submit(READY)
    task = asyncio.create_task(reporter.run())
    await until(lambda: reporter.status.last_success_age is not None)

    def fail(root: Path, kubeconfig: str) -> None:
        raise KubeletError("It is gone.", "Look.")

    monkeypatch.setattr("dpu_agent.kubelet.read", fail)
    reporter.submit(dataclasses.replace(READY, state=State.BLOCKED))
    await until(lambda: reporter.status.failures == 1)
    status = reporter.status
    await ended(task)
    assert status.error == "It is gone. Look."
    assert status.last_success_age is not None
    assert status.last_success_age >= 0


async def test_submitting_waits_for_nothing_even_while_a_write_hangs(
    sent: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, over = threading.Event(), threading.Event()

    def hang(self: NodePatcher, credentials: object, annotations: dict[str, str]) -> None:
        begun.set()
        over.wait(30)

    monkeypatch.setattr(NodePatcher, "send", hang)
    reporter = NodeReporter(Path("/"))
    reporter.submit(READY)
    task = asyncio.create_task(reporter.run())
    await until(begun.is_set)
    for index in range(10_000):
        reporter.submit(dataclasses.replace(READY, message=str(index)))
        assert reporter.status.failures == 0
    assert not over.is_set()
    over.set()
    await ended(task)


async def test_a_name_that_is_never_resolved_does_not_hold_up_the_end(
    sent: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, over = threading.Event(), threading.Event()

    def hang(self: NodePatcher, credentials: object, annotations: dict[str, str]) -> None:
        begun.set()
        over.wait(30)

    monkeypatch.setattr(NodePatcher, "send", hang)
    reporter = NodeReporter(Path("/"))
    reporter.submit(READY)
    task = asyncio.create_task(reporter.run())
    await until(begun.is_set)
    before = time.monotonic()
    await ended(task)
    assert time.monotonic() - before < 5  # `hang` would last 30
    assert not over.is_set()
    over.set()


async def test_one_reporter_runs_once_at_a_time(sent: list[dict[str, str]]) -> None:
    reporter = NodeReporter(Path("/"))
    task = asyncio.create_task(reporter.run())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="runs already"):
        await reporter.run()
    await ended(task)
    reporter.submit(READY)
    task = asyncio.create_task(reporter.run())
    await until(lambda: sent)
    await ended(task)


def test_nothing_but_the_newest_report_is_kept() -> None:
    reporter = NodeReporter(Path("/"))
    for index in range(1000):
        reporter.submit(dataclasses.replace(READY, message=str(index)))
    assert reporter._newest is not None
    assert reporter._newest[0].message == "999"
    holders = [name for name, value in vars(reporter).items() if isinstance(value, list | dict | set)]
    assert holders == []


@pytest.mark.parametrize("module", ["certificate", "kubelet", "node_patch", "report"])
def test_reporting_needs_no_host_library_and_no_client_of_kubernetes(module: str) -> None:
    code = f"import sys, dpu_agent.{module}; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded & {"pyroute2", "ovs", "pyudev", "kubernetes", "fastapi", "uvicorn", "pydantic", "yaml"} == set()
    tree = ast.parse(Path(sys.modules["dpu_agent.report"].__file__ or "").with_name(f"{module}.py").read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import) and node.names[0].name == "subprocess"]
