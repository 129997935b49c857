"""A machine in pure data: what becomes of a world when one step is done, and which worlds can't be."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import assert_never

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
from dpu_agent.world import (
    OWNER,
    EswitchMode,
    Flavour,
    Interface,
    Netdev,
    Ovs,
    OvsPort,
    PciFunction,
    Port,
    Rules,
    World,
)
from tests.unit.agent import worlds


class ImpossibleError(AssertionError):
    """No machine is like this, or no machine would do this."""


class UselessError(AssertionError):
    """A step that changed nothing."""


def after(world: World, step: Step) -> World:
    """The world once the step was done and the machine has settled.

    Raises:
        ImpossibleError: the machine would refuse it.
        UselessError: there was nothing to do.

    """
    changed = settled(_after(world, step))
    check(changed)
    if changed == world:
        raise UselessError(step)
    return changed


def _after(world: World, step: Step) -> World:
    match step.action:
        case SetSwitchdev(function):
            return _switchdev(world, function)
        case InstallRules():
            _need(world.rules is not Rules.EDITED, "what is in /etc wins over /run")
            return replace(world, rules=Rules.PRESENT)
        case TriggerUdev(name):
            return _triggered(world, name)
        case SetOffload(enabled):
            ovs = _ovs(world)
            return worlds.with_ovs(world, hw_offload="true" if enabled else "false", offload_set_under=ovs.vswitchd)
        case RestartVswitchd():
            before = _ovs(world).vswitchd
            _need(bool(before), "nothing to restart")
            return _reopened(worlds.with_ovs(world, vswitchd=before + "+1"))
        case SetLink(name, up, mtu):
            one = _netdev(world, name)
            return worlds.with_netdev(world, name, up=up or one.up, mtu=one.mtu if mtu is None else mtu)
        case AddPort(bridge, name):
            _need(name not in _interfaces(world), f"{name} is on a bridge")
            return _added(world, bridge, name)
        case MovePort(source, bridge, name):
            (port,) = [port for port in worlds.ports_of(world, source) if name in {i.name for i in port.interfaces}]
            return _added(worlds.without_port(world, source, port.name), bridge, name)
        case RecreatePort(bridge, name):
            return _added(worlds.without_port(world, bridge, name), bridge, name)
        case RemovePort(bridge, port):
            _need(port in {one.name for one in worlds.ports_of(world, bridge)}, f"{port} is not there")
            return worlds.without_port(world, bridge, port)
        case _:
            assert_never(step.action)


def settled(world: World) -> World:
    """ovs-vswitchd takes up what it was told: a port whose netdev is there works."""
    if world.ovs is None or not world.ovs.vswitchd:
        return world
    there = {one.name for one in world.netdevs}
    bridges = tuple(
        replace(bridge, ports=tuple(_opened(port, there) for port in bridge.ports)) for bridge in world.ovs.bridges
    )
    return worlds.with_ovs(world, bridges=bridges)


def _reopened(world: World) -> World:
    """A start of ovs-vswitchd: all is tried once more."""
    bridges = tuple(
        replace(
            bridge,
            ports=tuple(
                replace(
                    port,
                    interfaces=tuple(
                        replace(one, ofport=None, error="") if one.type in ("", "system") else one
                        for one in port.interfaces
                    ),
                )
                for port in bridge.ports
            ),
        )
        for bridge in _ovs(world).bridges
    )
    return worlds.with_ovs(world, bridges=bridges)


def _opened(port: OvsPort, there: set[str]) -> OvsPort:
    def opened(one: Interface) -> Interface:
        if one.ofport is not None or one.error or one.type not in ("", "system"):
            return one
        if one.name in there:
            return replace(one, ofport=11)
        return replace(one, ofport=-1, error=f"could not open network device {one.name} (No such device)")

    return replace(port, interfaces=tuple(opened(one) for one in port.interfaces))


def _switchdev(world: World, address: str) -> World:
    function = worlds.function_of(world, address)
    _need(function.mode in (EswitchMode.LEGACY, EswitchMode.NONE), f"{address} is {function.mode}")
    number = int(address[-1])
    port = worlds.host_pf_port(number)
    kernel_name = f"enp3s0f{number}nc1pf{number}"
    ruled = world.rules is Rules.PRESENT
    name = f"c1pf{number}hpf" if ruled else kernel_name
    highest = max((one.ifindex for one in world.netdevs), default=1)
    new = worlds.netdev(name, highest + 1, address, f"c1pf{number}", up=False, unmanaged=ruled)
    world = worlds.with_function(
        world, address, mode=EswitchMode.SWITCHDEV, ports=(*function.ports, replace(port, netdev=name))
    )
    return replace(world, netdevs=(*world.netdevs, new))


def _triggered(world: World, name: str) -> World:
    """What our rules do to a representor: a name in the place of systemd's, and NetworkManager's hands off."""
    _need(world.rules is Rules.PRESENT, "no rules to apply")
    one = _netdev(world, name)
    function, port = _port_of(world, name)
    new = name
    if name.startswith(("en", "eth")):
        new = f"c1pf{port.pf}hpf" if port.flavour is Flavour.PCI_PF else f"c1pf{port.pf}vf{port.vf}"
    ports = tuple(replace(other, netdev=new) if other == port else other for other in function.ports)
    world = worlds.with_function(world, function.address, ports=ports)
    world = worlds.with_netdev(world, one.name, name=new, unmanaged=True)
    return worlds.lost(world, {name}) if new != name else world


def _port_of(world: World, name: str) -> tuple[PciFunction, Port]:
    for function in world.functions:
        for port in function.ports:
            if port.netdev == name and port.flavour in (Flavour.PCI_PF, Flavour.PCI_VF):
                return function, port
    raise ImpossibleError(f"{name} is no representor")


def _added(world: World, bridge: str, name: str) -> World:
    port = OvsPort(name, (Interface(name),), owner=OWNER, transient=True)
    _need(name not in {one.name for one in worlds.ports_of(world, bridge)}, f"a port {name} is on {bridge}")
    return worlds.with_port(world, bridge, port)


def _netdev(world: World, name: str) -> Netdev:
    for one in world.netdevs:
        if one.name == name:
            return one
    raise ImpossibleError(f"there is no {name}")


def _ovs(world: World) -> Ovs:
    if world.ovs is None:
        raise ImpossibleError("no database")
    return world.ovs


def _interfaces(world: World) -> list[str]:
    return [one.name for bridge in _ovs(world).bridges for port in bridge.ports for one in port.interfaces]


def _need(condition: bool, why: str) -> None:  # noqa: FBT001
    if not condition:
        raise ImpossibleError(why)


def check(world: World) -> None:
    """Refuse a world that no machine is in: a test about it would prove nothing.

    Raises:
        ImpossibleError: with what is wrong.

    """
    _once("function", (function.address for function in world.functions))
    _once("netdev", (one.name for one in world.netdevs))
    _once("ifindex", (one.ifindex for one in world.netdevs))
    _once("port of a netdev", (port.netdev for function in world.functions for port in function.ports if port.netdev))
    for function in world.functions:
        _once("port index", (port.index for port in function.ports))
        hosts = [port for port in function.ports if port.flavour in (Flavour.PCI_PF, Flavour.PCI_VF)]
        _need(not hosts or function.mode is EswitchMode.SWITCHDEV, f"representors in mode {function.mode}")
        _need(function.mode is EswitchMode.UNKNOWN or bool(function.driver), "an eswitch needs a driver")
    if world.ovs is None:
        return
    _once("bridge", (bridge.name for bridge in world.ovs.bridges))
    _once("port", (port.name for bridge in world.ovs.bridges for port in bridge.ports))
    _once("interface", _interfaces(world))
    there = {one.name for one in world.netdevs}
    for bridge in world.ovs.bridges:
        for port in bridge.ports:
            for one in port.interfaces:
                _need(not one.error or (one.ofport or -1) < 0, f"{one.name} has an error and works")
                works = one.ofport is not None and one.ofport > 0
                system = one.type in ("", "system")
                _need(not works or not system or one.name in there, f"{one.name} works without a netdev")


def _once(what: str, names: Iterable[object]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    _need(not twice, f"{what} twice: {twice}")
