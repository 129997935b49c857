"""/metrics: what the running agent knows of itself, in Prometheus' text format. Made when asked, from memory."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from dpu_agent import __version__
from dpu_agent.snapshot import Agent
from dpu_agent.world import EswitchMode
from dpu_shared.node_report import State

CONTENT_TYPE = CONTENT_TYPE_LATEST
_PREFIX = "dpu_agent_"


class Metrics:
    """The agent's metrics, with a registry of their own.

    Args:
        agent: whose they are.

    """

    def __init__(self, agent: Agent) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_AgentCollector(agent))
        ProcessCollector(registry=self._registry)  # its resident set and CPU time, under their usual names

    def text(self) -> bytes:
        """All of them, now."""
        return generate_latest(self._registry)


class _AgentCollector(Collector):
    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def collect(self) -> Iterable[Metric]:
        yield from self._state()
        yield from self._counters()
        yield from self._machine()

    def _state(self) -> Iterable[Metric]:
        verdict = self._agent.verdict()
        about = GaugeMetricFamily(_PREFIX + "info", "The running release.", labels=["version"])
        about.add_metric([__version__], 1)
        yield about
        state = GaugeMetricFamily(_PREFIX + "state", "1 for the state that the DPU is in.", labels=["state"])
        for one in State:
            state.add_metric([str(one)], float(one is verdict.state))
        yield state
        yield GaugeMetricFamily(
            _PREFIX + "heartbeat_age_seconds", "Time since the loop last got on.", value=self._agent.age()
        )
        watched = GaugeMetricFamily(
            _PREFIX + "watching", "1 where events of the source are received.", labels=["source"]
        )
        for source, alive in sorted(self._agent.watching.items()):
            watched.add_metric([source], float(alive))
        yield watched

    def _counters(self) -> Iterable[Metric]:
        counters = self._agent.counters
        for name, text, label, values in (
            ("steps_done", "Steps done and verified.", "step", counters.done),
            ("steps_failed", "Attempts at a step that failed.", "step", counters.failed),
            ("events", "Times that a source of events woke the loop.", "source", counters.events),
        ):
            family = CounterMetricFamily(_PREFIX + name, text, labels=[label])
            for key, value in sorted(values.copy().items()):
                family.add_metric([key], value)
            yield family
        yield CounterMetricFamily(_PREFIX + "turns", "Turns of the loop.", value=counters.turns)
        yield CounterMetricFamily(_PREFIX + "turn_seconds", "Time that they took together.", value=counters.seconds)
        yield CounterMetricFamily(_PREFIX + "defects", "Turns ended by a defect of the agent.", value=counters.defects)

    def _machine(self) -> Iterable[Metric]:
        snapshot = self._agent.snapshot
        if snapshot is None:
            return
        modes = GaugeMetricFamily(
            _PREFIX + "eswitch_mode", "1 for the mode that the function's eswitch is in.", labels=["function", "mode"]
        )
        for function in snapshot.world.functions:
            for mode in EswitchMode:
                modes.add_metric([function.address, str(mode)], float(mode is function.mode))
        yield modes
        steps = GaugeMetricFamily(_PREFIX + "steps", "Steps of the last plan.", labels=["kind"])
        steps.add_metric(["needed"], len(snapshot.plan.steps))
        steps.add_metric(["held"], len(snapshot.plan.held))
        steps.add_metric(["failing"], len(snapshot.failures))
        yield steps
        yield GaugeMetricFamily(_PREFIX + "problems", "Problems of the last plan.", value=len(snapshot.plan.problems))
