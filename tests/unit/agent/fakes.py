"""A machine whose parts do what `model.py` says, or fail, hang and lie as told; a clock that only moves when asked."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from dpu_agent.decision import Failure, Plan, Stage, Verdict
from dpu_agent.engine import Engine
from dpu_agent.machine import HostError, Machine, Wake
from dpu_agent.plan import plan
from dpu_agent.retries import Retries
from dpu_agent.snapshot import Snapshot
from dpu_agent.steps import (
    Action,
    AddPort,
    InstallRules,
    MovePort,
    RecreatePort,
    RemovePort,
    RestartVswitchd,
    SetLink,
    SetOffload,
    SetSwitchdev,
    Step,
    TriggerUdev,
)
from dpu_agent.verdict import verdict
from dpu_agent.world import Configuration, World
from dpu_shared.host_config import PATH, HostConfig
from tests.unit.agent import worlds as w
from tests.unit.agent.model import after

BUSY = HostError("Can't change mode, E-Switch is busy.", "Take the flows away.", errno=16)
REFUSED = HostError("Operation not supported.", "Change the card's mode.", errno=95, terminal=True)


class Clock:
    """Monotonic seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return False


@dataclass
class Watch:
    """A source of events."""

    wake: Wake
    alive: bool = True
    closed: bool = False

    def close(self) -> None:
        self.closed = True
        self.alive = False


def _does_nothing(_action: Action) -> None:
    return None


@dataclass
class Part:
    """Every part of a machine at once: each call is the step that it serves."""

    world: World
    calls: list[Action] = field(default_factory=list)
    before: Callable[[Action], None] = _does_nothing
    """May raise or block: the part says no, or hangs."""
    lies: set[type] = field(default_factory=set)
    """Actions that are accepted and have no effect."""
    lost: set[type] = field(default_factory=set)
    """Actions that have their effect, yet whose answer is lost."""
    watches: dict[str, list[Watch]] = field(default_factory=dict)
    unwatchable: dict[str, HostError] = field(default_factory=dict)
    looks: int = 0
    looked: Callable[[World], World] = lambda world: world
    """What a look shows of the world."""
    closed: bool = False

    def act(self, action: Action) -> None:
        self.calls.append(action)
        self.before(action)
        if type(action) not in self.lies:
            self.world = after(self.world, Step(action, ""))
        if type(action) in self.lost:
            raise HostError("The answer was lost.", "Look again.")

    def observe(self, _machine: Machine, configuration: Configuration) -> World:
        self.looks += 1
        return self.looked(replace(self.world, configuration=configuration))

    def emit(self, source: str) -> None:
        for watch in self.watches[source]:
            watch.wake(source)

    def machine(self) -> Machine:
        parts = {name: _Face(self, name) for name in Machine.__dataclass_fields__}
        return Machine(**parts)  # type: ignore[arg-type] # one face for all Protocols


class _Face:
    def __init__(self, part: Part, name: str) -> None:
        self._part = part
        self._name = name

    def set_switchdev(self, function: str) -> None:
        self._part.act(SetSwitchdev(function))

    def set_offload(self, *, enabled: bool, under: str) -> None:
        assert under == self.vswitchd()
        self._part.act(SetOffload(enabled=enabled))

    def vswitchd(self) -> str:
        return self._part.world.ovs.vswitchd if self._part.world.ovs else ""

    def add_port(self, bridge: str, netdev: str) -> None:
        self._part.act(AddPort(bridge, netdev))

    def move_port(self, source: str, bridge: str, netdev: str) -> None:
        self._part.act(MovePort(source, bridge, netdev))

    def recreate_port(self, bridge: str, netdev: str) -> None:
        self._part.act(RecreatePort(bridge, netdev))

    def remove_port(self, bridge: str, port: str) -> None:
        self._part.act(RemovePort(bridge, port))

    def install_rules(self) -> None:
        self._part.act(InstallRules())

    def trigger(self, netdev: str) -> None:
        self._part.act(TriggerUdev(netdev))

    def set_link(self, netdev: str, *, up: bool, mtu: int | None) -> None:
        self._part.act(SetLink(netdev, up=up, mtu=mtu))

    def restart_vswitchd(self) -> None:
        self._part.act(RestartVswitchd())

    def watch(self, wake: Wake) -> Watch:
        if self._name in self._part.unwatchable:
            raise self._part.unwatchable[self._name]
        watch = Watch(wake)
        self._part.watches.setdefault(self._name, []).append(watch)
        return watch

    def close(self) -> None:
        self._part.closed = True


@dataclass
class Rooms:
    """The pure rooms as they are, over a machine that isn't."""

    part: Part
    stage: Stage = Stage.LATE

    def observe(self, machine: Machine, configuration: Configuration) -> World:
        return self.part.observe(machine, configuration)

    def plan(self, world: World) -> Plan:
        return plan(world, self.stage)

    def verdict(self, plan: Plan, failures: tuple[Failure, ...] = ()) -> Verdict:
        return verdict(plan, failures)


def configured(root: Path, config: HostConfig | None = None) -> Path:
    """A root with the configuration's file; what the worlds of `worlds.py` have, if none is given."""
    wanted = config or w.healthy().configuration.current
    assert wanted is not None
    path = root / PATH.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(wanted.to_json())
    return root


class Bench:
    """An engine over a fake machine, and all that it published."""

    def __init__(self, root: Path, world: World, *, clock: Clock | None = None) -> None:
        self.root = configured(root / "root")
        self.clock = clock or Clock()
        self.part = Part(world)
        self.published: list[Snapshot] = []
        self.retries = Retries(lambda: 0.0)
        self.lock = root / "run" / "lock"
        self.engine = Engine(
            root=self.root,
            machine=self.part.machine(),
            rooms=Rooms(self.part),
            retries=self.retries,
            clock=self.clock,
            publish=self.published.append,
            wait=self.clock.wait,
            lock_path=self.lock,
        )

    def turn(self, seconds: float = 0.0) -> Snapshot:
        self.clock.now += seconds
        self.engine.turn()
        return self.published[-1]


def blocking(event: threading.Event) -> Callable[[Action], None]:
    """A part that hangs until the event is set."""

    def hang(_action: Action) -> None:
        event.wait(60)

    return hang
