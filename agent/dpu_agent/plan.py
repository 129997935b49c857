"""From what is seen to what is to be done: pure, so that it can be shown, replayed elsewhere, and tested whole.

Any prefix of a plan may have been done when the power fails: what is planned then from what is seen goes on from there.
"""

from collections.abc import Iterable, Iterator

from dpu_agent.bridging import Place, Scene, scene, stale_ports
from dpu_agent.decision import Blocks, Plan, Stage
from dpu_agent.identity import (
    bridge_of,
    expected_names,
    functions,
    host_pf_macs,
    in_use,
    named_right,
    netdevs_of,
    representors,
    ruled,
)
from dpu_agent.preconditions import problems
from dpu_agent.steps import (
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
from dpu_agent.world import EswitchMode, Netdev, Ovs, PciFunction, Rules, World
from dpu_shared.host_config import HostConfig, Mode, Offload
from dpu_shared.steps import Disruption

_SETTABLE = (EswitchMode.LEGACY, EswitchMode.NONE)


def plan(world: World, stage: Stage = Stage.LATE) -> Plan:
    """What this machine needs.

    Args:
        world: one look at it.
        stage: how much of it is up. Early, only eswitches and udev rules are anybody's business.

    """
    config = world.configuration.current or world.configuration.last_good
    found = problems(world, config, stage)
    macs = host_pf_macs(world)
    blocked = {problem.blocks for problem in found}
    if config is None or Blocks.ALL in blocked:
        return Plan(config, found, host_pf_macs=macs)
    # The rules come first: representors that come with switchdev mode then get their names as they appear.
    needed = [*_rules(world), *_eswitches(world, stage), *_names(world, stage)]
    if stage is Stage.LATE and world.ovs is not None:
        needed += _offload(world.ovs, config)
        if Blocks.BRIDGE not in blocked:
            needed += _bridge(world, scene(world, config.bridge), config.bridge)
    steps, held = _sort(needed, config)
    return Plan(config, found, steps, held, macs)


def waits(step: Step, config: HostConfig) -> bool:
    """Whether the configuration keeps the step from being done now."""
    return config.mode is Mode.REPORT_ONLY or step.disruption.exceeds(config.max_disruption)


def _sort(needed: Iterable[Step], config: HostConfig) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Steps that are done, and those that wait.

    The eswitches wait for each other: one PF in switchdev mode beside one that isn't makes the other's driver time out
    (Go operator, 217331f).
    """
    steps = tuple(needed)
    eswitches_wait = any(isinstance(step.action, SetSwitchdev) and waits(step, config) for step in steps)
    held = tuple(
        step for step in steps if waits(step, config) or (eswitches_wait and isinstance(step.action, SetSwitchdev))
    )
    return tuple(step for step in steps if step not in held), held


def _rules(world: World) -> Iterator[Step]:
    if world.rules is Rules.ABSENT:
        yield Step(InstallRules(), "They name representors and keep NetworkManager from them, and they are not there.")


def _eswitches(world: World, stage: Stage) -> Iterator[Step]:
    """Every function, or none: while one can't be asked, the others are left as they are."""
    found = functions(world)
    if any(function.mode is EswitchMode.UNKNOWN for function in found):
        return
    for function in found:
        if function.mode in _SETTABLE:
            now = "It has no mode yet" if function.mode is EswitchMode.NONE else "It is in legacy mode"
            used = _used(world, function, stage)
            yield Step(
                SetSwitchdev(function.address),
                f"{now}, in which the card's flows can't be offloaded{f'; {used}' if used else ''}.",
                Disruption.LINK_FLAP if used else Disruption.NONE,
                # An early stage that must wait was at boot already: another boot would find the same.
                at_boot=stage is Stage.LATE or not used,
            )


def _used(world: World, function: PciFunction, stage: Stage) -> str:
    """Whose traffic a change of mode would interrupt; empty: nobody's.

    Where that can't be seen, what is up counts as in use: OVSDB may be dead, and the kernel's datapath full of traffic.
    """
    harmless = {"devlink", "udev", "ovsdb", *(one.address for one in world.functions)}
    blind = any(unseen.what not in harmless for unseen in world.unseen) or (stage is Stage.LATE and world.ovs is None)
    for one in netdevs_of(world, function):
        bridge = bridge_of(world, one.name)
        if bridge:
            return f"its {one.name} is on the bridge {bridge}"
        if one.carries_host:
            return f"the machine's own traffic needs its {one.name}"
        if blind and one.up:
            return f"its {one.name} is up, and who needs it can't be seen"
    return ""


def _names(world: World, stage: Stage) -> Iterator[Step]:
    for one in representors(world):
        if not ruled(world, one):
            continue
        if named_right(one):
            if not one.netdev.unmanaged:
                yield Step(TriggerUdev(one.netdev.name), "NetworkManager does not leave it alone.")
        else:
            used = in_use(world, one.netdev)
            names = " or ".join(expected_names(one.port)) or "what the rules say"
            yield Step(
                TriggerUdev(one.netdev.name),
                f"It is not called {names}{'; it is in use, and loses its traffic with its name' if used else ''}.",
                Disruption.LINK_FLAP if used else Disruption.NONE,
                at_boot=stage is Stage.LATE or not used,
            )


def _offload(ovs: Ovs, config: HostConfig) -> Iterator[Step]:
    """hw-offload, and the start of ovs-vswitchd that it needs: vswitch.xml says `requires restarting the daemon`."""
    wanted = config.hardware_offload is Offload.ENABLED
    differs = (ovs.hw_offload.lower() == "true") is not wanted
    if differs:
        now = f"is {ovs.hw_offload!r}" if ovs.hw_offload else "is not set"
        yield Step(SetOffload(enabled=wanted), f"hw-offload {now}, and {config.hardware_offload} is configured.")
    if ovs.vswitchd and (differs or ovs.offload_set_under == ovs.vswitchd):
        yield Step(
            RestartVswitchd(),
            "It has run since before hw-offload was changed, and takes that up only at its start (vswitch.xml).",
            Disruption.OVS_RESTART,
            at_boot=True,
        )


def _bridge(world: World, seen: Scene, bridge: str) -> Iterator[Step]:
    """The host PF's representor beside the uplink. The preconditions have found both, one of each."""
    if seen.uplink is None or seen.representor is None:
        return
    wanted = seen.representor.netdev
    for stale in stale_ports(world, wanted.name):
        yield Step(
            RemovePort(stale.bridge, stale.port.name),
            f"The agent added it, and the host PF's representor is {wanted.name} now.",
        )
    yield from _link(wanted, seen.uplink.netdev)
    if seen.place is None:
        yield Step(AddPort(bridge, wanted.name), f"It stands for the host's PF, and {seen.uplink.name} is on {bridge}.")
    elif seen.place.bridge != bridge:
        yield _move(seen.place, bridge, wanted.name)
    elif seen.place.broken and seen.place.ours:
        why = seen.place.interface.error or f"it has ofport {seen.place.interface.ofport}"
        yield Step(RecreatePort(bridge, wanted.name), f"Open vSwitch could not open it: {why.rstrip('.')}.")


def _link(wanted: Netdev, uplink: Netdev | None) -> Iterator[Step]:
    """Up, and an MTU that lets through what the uplink does; a larger one is somebody's wish and stays."""
    short = uplink is not None and wanted.mtu < uplink.mtu
    if short or not wanted.up:
        reasons = ["it is down"] if not wanted.up else []
        if short and uplink is not None:
            reasons.append(f"its MTU {wanted.mtu} is below the {uplink.mtu} of {uplink.name}")
        why = " and ".join(reasons)
        mtu = uplink.mtu if short and uplink is not None else None
        yield Step(SetLink(wanted.name, up=True, mtu=mtu), f"{why[:1].upper()}{why[1:]}.")


def _move(place: Place, bridge: str, name: str) -> Step:
    if place.ours:
        return Step(MovePort(place.bridge, bridge, name), f"The agent added it to {place.bridge} before.")
    return Step(
        MovePort(place.bridge, bridge, name),
        f"Somebody else added it to {place.bridge}, and may lose traffic.",
        Disruption.LINK_FLAP,
    )
