"""The agent's report on its own Node: at once when it changed, else once a minute, and never more.

One thread writes, and waits for nothing but the newest report: what came in between is not kept. How long it waits is
measured by the monotonic clock, for a BlueField may boot years in the past; the time in the report is told from the
wall clock at the moment of writing, by when the clock may have been set.
"""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import logging
import random
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from dpu_agent import kubelet
from dpu_agent.kubelet import KubeletError
from dpu_agent.node_patch import TIMEOUT, NodePatcher, PatchError
from dpu_shared.node_report import NodeReport

logger = logging.getLogger(__name__)

MESSAGE_LIMIT = 2048
"""Characters of a message on the Node; all annotations of a Node together have 256 KiB, and most are others'."""
STOP_WITHIN = 0.8
"""Seconds that a cancelled `run` waits for its thread, which only the resolving of a name can hold up longer."""


@dataclass(frozen=True, slots=True)
class Pacing:
    """How often is written, in seconds."""

    heartbeat: float = 60.0
    """From one write to the next that says the same."""
    spacing: float = 5.0
    """From one write to the next at least, however often the report changes."""
    first_delay: float = 1.0
    """Until the second attempt at most; doubled for each further one."""
    longest_delay: float = 60.0
    """Between two attempts at most while the API server does not take the report."""
    local_delay: float = 10.0
    """The same where the cause is on the DPU (the kubelet has not joined, the clock is wrong) and asking is cheap."""
    longest_retry_after: float = 600.0
    """Of what an API server asks for in `Retry-After`; more is a mistake of somebody's."""


@dataclass(frozen=True, slots=True)
class ReportStatus:
    """How reporting goes."""

    last_success_age: float | None = None
    """Seconds since the Node had our report; None: not since this agent runs."""
    error: str = ""
    """Why the last attempt did not work, in two sentences; empty where it did or there was none."""
    failures: int = 0
    """Attempts in a row that did not work."""


@dataclass(slots=True)
class Pace:
    """When the next write is due, in monotonic seconds. It knows no clock and does not wait."""

    pacing: Pacing = field(default_factory=Pacing)
    written: float | None = None
    """When the Node last had our report."""
    failures: int = 0
    _not_before: float = 0.0

    def due(self, *, changed: bool) -> float:
        """When to write next; `changed`: whether there is something that the Node has not got yet."""
        if self.failures or self.written is None:
            return self._not_before
        return self.written + (self.pacing.spacing if changed else self.pacing.heartbeat)

    def wrote(self, now: float) -> None:
        """The Node has it."""
        self.written = now
        self.failures = 0

    def failed(self, now: float, *, retry_after: float = 0.0, local: bool = False) -> None:
        """It has not, or that is not known. Jitter spreads the DPUs that an outage has brought into step."""
        longest = self.pacing.local_delay if local else self.pacing.longest_delay
        delay = min(longest, self.pacing.first_delay * 2.0 ** min(self.failures, 30))
        asked = min(retry_after, self.pacing.longest_retry_after)
        jitter = random.random()  # noqa: S311 - no secret
        self._not_before = now + max(delay * (1 - jitter / 2), asked * (1 + jitter / 4))
        self.failures += 1


class NodeReporter:
    """Keeps the agent's annotations on its own Node, with the kubelet's credentials.

    The first report of a run is written whatever the Node says: what stands there may be of the boot before.

    Args:
        root: the folder under which the host's file system is seen.
        kubeconfig: the kubelet's, as a path on the host.
        pacing: how often is written.
        timeout: seconds for one write.

    """

    def __init__(
        self,
        root: Path,
        *,
        kubeconfig: str = kubelet.KUBECONFIG,
        pacing: Pacing | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self._root = root
        self._kubeconfig = kubeconfig
        self._timeout = timeout
        self._pace = Pace(pacing or Pacing())
        self._wake = threading.Condition()  # guards all that follows, and the pace
        self._newest: tuple[NodeReport, float] | None = None
        self._on_node: NodeReport | None = None
        self._error = ""
        self._patcher: NodePatcher | None = None

    def submit(self, report: NodeReport) -> None:
        """Have this report written; from any thread, at no cost. Its `time` is not used: now is meant.

        To be called after every look at the machine, changed or not: the time that a heartbeat writes is that of the
        newest report, so that the Node does not look alive when nobody has looked.
        """
        plain = dataclasses.replace(report, message=_short(report.message), time=None)
        with self._wake:
            self._newest = plain, time.monotonic()
            if plain != self._on_node:
                self._wake.notify()

    @property
    def status(self) -> ReportStatus:
        """How reporting goes; from any thread."""
        with self._wake:
            written = self._pace.written
            age = None if written is None else max(time.monotonic() - written, 0.0)
            return ReportStatus(age, self._error, self._pace.failures)

    async def run(self) -> None:
        """Write until cancelled, which ends it within a second. Nothing that an API server does ends it."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        patcher = NodePatcher(timeout=self._timeout)

        def work() -> None:
            try:
                self._work(patcher)
            finally:
                with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                    loop.call_soon_threadsafe(ended.set)

        with self._wake:
            if self._patcher is not None:
                raise RuntimeError("this reporter runs already")
            self._patcher = patcher
            self._on_node = None
        # A daemon: a name that is not resolved in time must not keep the process from ending.
        threading.Thread(target=work, name="node-report", daemon=True).start()
        try:
            await ended.wait()
        finally:
            with self._wake:
                self._patcher = None
                self._wake.notify()
            patcher.abort()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_WITHIN):
                    await ended.wait()

    def _work(self, patcher: NodePatcher) -> None:
        while (taken := self._next(patcher)) is not None:
            report, looked_at = taken
            try:
                self._write(patcher, report, looked_at)
            except (KubeletError, PatchError) as error:
                self._failed(patcher, str(error), error)
            except Exception as error:
                # A mistake of ours: it must not end the reports for the rest of the DPU's life.
                logger.exception("Writing the report failed. Please report it; it is tried again.")
                self._failed(
                    patcher, f"Writing the report failed ({type(error).__name__}). See the agent's log.", error
                )
            else:
                self._wrote(patcher, report)

    def _next(self, patcher: NodePatcher) -> tuple[NodeReport, float] | None:
        """The newest report as soon as a write is due; None once it is over."""
        with self._wake:
            while self._patcher is patcher:
                if self._newest is None:
                    self._wake.wait()
                    continue
                wait = self._pace.due(changed=self._newest[0] != self._on_node) - time.monotonic()
                if wait <= 0:
                    return self._newest
                self._wake.wait(wait)
        return None

    def _write(self, patcher: NodePatcher, report: NodeReport, looked_at: float) -> None:
        credentials = kubelet.read(self._root, self._kubeconfig)
        age = dt.timedelta(seconds=time.monotonic() - looked_at)
        patcher.send(credentials, dataclasses.replace(report, time=dt.datetime.now(dt.UTC) - age).to_annotations())

    def _wrote(self, patcher: NodePatcher, report: NodeReport) -> None:
        with self._wake:
            if self._patcher is not patcher:
                return
            self._pace.wrote(time.monotonic())
            self._on_node = report
            said, self._error = self._error, ""
        if said:
            logger.info("The API server takes the report again: %s.", report.state)

    def _failed(self, patcher: NodePatcher, sentence: str, error: Exception) -> None:
        with self._wake:
            if self._patcher is not patcher:  # it is our own hanging up that failed it
                return
            said, self._error = self._error, sentence
            patching = error if isinstance(error, PatchError) else None
            self._pace.failed(
                time.monotonic(),
                retry_after=patching.retry_after if patching else 0.0,
                local=patching.mends_soon if patching else isinstance(error, KubeletError),
            )
        # Once for each sentence, not for each attempt: an outage lasts hours.
        if sentence != said:
            logger.warning("The report is not on the Node: %s", sentence)


def _short(message: str) -> str:
    return message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…"
