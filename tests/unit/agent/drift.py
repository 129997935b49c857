"""Random machines: a healthy one that things happened to, and heaps of garbage."""

import os
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from dpu_agent.world import (
    OWNER,
    Bridge,
    Configuration,
    EswitchMode,
    Flavour,
    Interface,
    Netdev,
    Ovs,
    OvsPort,
    PciFunction,
    Platform,
    Port,
    Rules,
    Unseen,
    World,
)
from dpu_shared.host_config import HostConfig, Mode, Offload
from dpu_shared.steps import Disruption
from tests.unit.agent import worlds as w

CASES = int(os.environ.get("DPU_TEST_CASES", "800"))
"""Random machines in all; `DPU_TEST_CASES=100000` for a long run, some 20 minutes on one core."""


def cases(share: float) -> int:
    """How many of them one property has."""
    return max(1, round(CASES * share))


# A healthy machine that things happened to: possible worlds, from which the plan must lead back.

CARDS = (w.healthy(), w.first_boot(), w.one_port())


@st.composite
def drifted(draw: st.DrawFn) -> World:
    world = draw(st.sampled_from(CARDS))
    for happens in draw(st.lists(st.sampled_from(MISHAPS), max_size=6, unique=True)):
        world = happens(world)
    return world


def _netdevs_of(world: World, flavour: Flavour) -> list[str]:
    return [port.netdev for function in world.functions for port in function.ports if port.flavour is flavour]


def rules_lost(world: World) -> World:
    return replace(world, rules=Rules.ABSENT)


def reverted(world: World) -> World:
    return w.legacy(world, world.functions[-1].address)


def reverted_under_traffic(world: World) -> World:
    return w.legacy(world, world.functions[0].address)


def without_a_mode(world: World) -> World:
    world = w.legacy(world, world.functions[0].address)
    return w.with_function(world, world.functions[0].address, mode=EswitchMode.NONE)


def renamed_by_hand(world: World) -> World:
    """While it is on a bridge: Open vSwitch has lost it."""
    for name in _netdevs_of(world, Flavour.PCI_PF)[:1]:
        function = next(one for one in world.functions if name in {port.netdev for port in one.ports})
        ports = tuple(replace(port, netdev="eth9") if port.netdev == name else port for port in function.ports)
        world = w.with_function(w.with_netdev(world, name, name="eth9", up=False), function.address, ports=ports)
        world = w.lost(world, {name})
    return world


def taken_by_networkmanager(world: World) -> World:
    for name in (*_netdevs_of(world, Flavour.PCI_PF), *_netdevs_of(world, Flavour.PCI_VF)):
        world = w.with_netdev(world, name, unmanaged=False)
    return world


def vf_misnamed(world: World) -> World:
    for name in _netdevs_of(world, Flavour.PCI_VF)[:1]:
        if name != "eth3":
            world = w.renamed(world, name, "eth3")
    return world


def down(world: World) -> World:
    for name in _netdevs_of(world, Flavour.PCI_PF):
        world = w.with_netdev(world, name, up=False)
    return world


def jumbo(world: World) -> World:
    for name in _netdevs_of(world, Flavour.PHYSICAL):
        world = w.with_netdev(world, name, mtu=9000)
    return world


def _on_bridges(world: World) -> dict[str, tuple[str, OvsPort]]:
    bridges = world.ovs.bridges if world.ovs else ()
    return {port.name: (bridge.name, port) for bridge in bridges for port in bridge.ports}


def _host_ports(world: World) -> list[tuple[str, OvsPort]]:
    hosts = set(_netdevs_of(world, Flavour.PCI_PF))
    return [place for name, place in _on_bridges(world).items() if name in hosts]


def port_removed(world: World) -> World:
    for bridge, port in _host_ports(world):
        world = w.without_port(world, bridge, port.name)
    return world


def port_moved_away(world: World) -> World:
    for bridge, port in _host_ports(world):
        if bridge == "br-ex":
            world = w.with_port(w.without_port(world, bridge, port.name), "br-int", port)
    return world


def port_of_somebody(world: World) -> World:
    for bridge, port in _host_ports(world):
        world = w.with_port(world, bridge, replace(port, owner=""))
    return world


def port_broken(world: World) -> World:
    return w.lost(world, {port.name for _, port in _host_ports(world) if port.owner == OWNER})


def old_port(world: World) -> World:
    if "pf0hpf" in _on_bridges(world):
        return world
    return w.with_port(world, "br-ex", w.our_port("pf0hpf", -1, "could not open network device pf0hpf"))


def offload_unset(world: World) -> World:
    return w.with_ovs(world, hw_offload="", offload_set_under="")


def offload_set_live(world: World) -> World:
    return w.with_ovs(world, hw_offload="true", offload_set_under=world.ovs.vswitchd if world.ovs else "")


def offload_unwanted(world: World) -> World:
    config = world.configuration.current or HostConfig()
    return replace(world, configuration=Configuration(current=replace(config, hardware_offload=Offload.DISABLED)))


def host_vf_added(world: World) -> World:
    function = world.functions[-1]
    if function.mode is not EswitchMode.SWITCHDEV or any(one.name == "eth17" for one in world.netdevs):
        return world
    number = int(function.address[-1])
    world = w.with_function(world, function.address, ports=(*function.ports, w.host_vf_port(number, 17, "eth17")))
    new = w.netdev("eth17", 170, function.address, f"c1pf{number}vf17", up=False)
    return replace(world, netdevs=(*world.netdevs, new))


MISHAPS: tuple[Any, ...] = (
    rules_lost,
    reverted,
    reverted_under_traffic,
    without_a_mode,
    renamed_by_hand,
    taken_by_networkmanager,
    vf_misnamed,
    down,
    jumbo,
    port_removed,
    port_moved_away,
    port_of_somebody,
    port_broken,
    old_port,
    offload_unset,
    offload_set_live,
    offload_unwanted,
    host_vf_added,
)

# Garbage: names from a small heap, so that they meet; nothing need fit to anything.

_NAMES = st.sampled_from(
    ["", "p0", "p1", "c1pf0hpf", "pf0hpf", "c1pf0vf0", "br-ex", "br-int", "bond0", "eth3", "x" * 300]
)
_ADDRESSES = st.sampled_from(["", w.F0, w.F1, "0000:03:00.7", "0001:05:00.0", "no address", "0000:03:00.x"])
_NUMBERS = st.sampled_from([None, 0, 1, 2, 7])
_PORT_NAMES = st.sampled_from(
    ["", "p0", "p1", "c1pf0", "pf1", "c2pf0", "c1pf0vf0", "pf0vf3", "pf0sf0", "-1", "ünïcode"]
)

_ports = st.builds(
    Port,
    index=st.integers(0, 3),
    flavour=st.sampled_from(Flavour),
    netdev=_NAMES,
    controller=_NUMBERS,
    external=st.booleans(),
    pf=_NUMBERS,
    vf=_NUMBERS,
    number=_NUMBERS,
    hw_addr=st.sampled_from(["", "00:00:00:00:00:00", "08:C0:EB:CB:0E:B0", "no mac"]),
)
_functions = st.builds(
    PciFunction,
    address=_ADDRESSES,
    device=st.sampled_from(["a2d6", ""]),
    driver=st.sampled_from(["mlx5_core", "mlx5_core", "mlx5_core", "", "vfio-pci"]),
    mode=st.sampled_from(EswitchMode),
    ports=st.lists(_ports, max_size=4).map(tuple),
)
_netdevs = st.builds(
    Netdev,
    name=_NAMES,
    ifindex=st.integers(0, 9),
    mtu=st.sampled_from([0, 1500, 9000]),
    up=st.booleans(),
    phys_port_name=_PORT_NAMES,
    function=_ADDRESSES,
    carries_host=st.booleans(),
    unmanaged=st.booleans(),
)
_interfaces = st.builds(
    Interface,
    name=_NAMES,
    type=st.sampled_from(["", "system", "internal", "patch", "dpdk"]),
    ofport=st.sampled_from([None, -1, 0, 1, 65534]),
    error=st.sampled_from(["", "", "could not open it"]),
)
_ovs_ports = st.builds(
    OvsPort,
    name=_NAMES,
    interfaces=st.lists(_interfaces, max_size=2).map(tuple),
    owner=st.sampled_from(["", OWNER, "somebody"]),
    transient=st.booleans(),
    network_manager=st.booleans(),
)
_bridges = st.builds(
    Bridge,
    name=st.sampled_from(["br-ex", "br-ex", "br-int", "br-wan", ""]),
    datapath_type=st.sampled_from(["", "", "system", "netdev"]),
    ports=st.lists(_ovs_ports, max_size=4).map(tuple),
)
_ovs = st.builds(
    Ovs,
    bridges=st.lists(_bridges, max_size=3).map(tuple),
    hw_offload=st.sampled_from(["", "true", "false", "TRUE", "maybe"]),
    offload_set_under=st.sampled_from(["", w.VSWITCHD, "another"]),
    vswitchd=st.sampled_from(["", w.VSWITCHD]),
    pending=st.booleans(),
)
configs = st.builds(
    HostConfig,
    bridge=st.sampled_from(["br-ex", "br-wan"]),
    hardware_offload=st.sampled_from(Offload),
    max_disruption=st.sampled_from(Disruption),
    mode=st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.REPORT_ONLY]),
)
_configurations = st.builds(
    Configuration,
    current=st.one_of(configs, configs, st.none()),
    problem=st.sampled_from(["", "It is no JSON."]),
    hint=st.sampled_from(["", "Restore it."]),
    last_good=st.one_of(st.none(), configs),
)
_platforms = st.sampled_from([w.BLUEFIELD, w.BLUEFIELD, w.BLUEFIELD, w.SERVER, Platform(), Platform("aarch64")])
_unseen = st.builds(
    Unseen,
    what=st.sampled_from(["devlink", "ovsdb", "sysfs", "udev", w.F0, "links"]),
    message=st.sampled_from(["It did not answer.", "x" * 3000]),
    hint=st.sampled_from(["Look after it.", ""]),
)
garbage = st.builds(
    World,
    boot_id=st.sampled_from(["", "7c0ffee0"]),
    platform=_platforms,
    functions=st.lists(_functions, max_size=3).map(tuple),
    netdevs=st.lists(_netdevs, max_size=5).map(tuple),
    ovs=st.one_of(st.none(), _ovs, _ovs),
    rules=st.sampled_from(Rules),
    configuration=_configurations,
    other_managers=st.sampled_from([(), (), (), ("NVIDIA DPF's agent",)]),
    unseen=st.lists(_unseen, max_size=2).map(tuple),
)


@st.composite
def half_garbage(draw: st.DrawFn) -> World:
    """A healthy machine of which some parts are garbage: nearer to the steps than garbage alone."""
    heap = draw(garbage)
    parts = draw(st.sets(st.sampled_from(["functions", "netdevs", "ovs", "rules", "configuration", "unseen"])))
    base = draw(st.sampled_from(CARDS))
    for happens in draw(st.lists(st.sampled_from(MISHAPS), max_size=2, unique=True)):
        base = happens(base)
    return replace(base, **{part: getattr(heap, part) for part in parts})
