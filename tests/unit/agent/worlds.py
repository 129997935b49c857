"""Machines to plan for, each in words of its own, and small changes of them."""

from dataclasses import replace
from typing import Any

from dpu_agent.decision import Blocks, Plan, Problem
from dpu_agent.reasons import REASONS
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
from dpu_shared.host_config import HostConfig

F0, F1 = "0000:03:00.0", "0000:03:00.1"
VSWITCHD = "7c0ffee0/812/4711"
BLUEFIELD = Platform("aarch64", "BlueField-2 DPU 25GbE, 2-port", acpi_bluefield=True, root_port_vendor="15b3")
SERVER = Platform("x86_64", "PowerEdge R750", root_port_vendor="8086")
MACS = {0: "08:c0:eb:cb:0e:b0", 1: "08:c0:eb:cb:0e:b1"}
"""Of the host's PFs."""


def uplink_port(number: int, name: str = "") -> Port:
    return Port(((3 + number) << 16) | 0xFFFF, Flavour.PHYSICAL, name or f"p{number}", number=number)


def host_pf_port(number: int, name: str = "") -> Port:
    return Port(
        (3 + number) << 16,
        Flavour.PCI_PF,
        name or f"c1pf{number}hpf",
        controller=1,
        external=True,
        pf=number,
        hw_addr=MACS[number],
    )


def host_vf_port(number: int, vf: int, name: str = "") -> Port:
    index = ((3 + number) << 16) + 1 + vf
    name = name or f"c1pf{number}vf{vf}"
    return Port(index, Flavour.PCI_VF, name, controller=1, external=True, pf=number, vf=vf)


def netdev(name: str, ifindex: int, function: str = "", phys_port_name: str = "", **more: Any) -> Netdev:
    usual: dict[str, Any] = {"mac": f"02:00:00:00:00:{ifindex:02x}", "mtu": 1500, "up": True, "operstate": "up"}
    if function and phys_port_name:
        usual["phys_switch_id"] = f"aceb0e00cbc0c00{function[-1]}"
    return Netdev(name, ifindex, function=function, phys_port_name=phys_port_name, **(usual | more))


def uplink_on(name: str) -> OvsPort:
    return OvsPort(name, (Interface(name, "system", 1),), network_manager=True)


def our_port(name: str = "c1pf0hpf", ofport: int | None = 3, error: str = "") -> OvsPort:
    return OvsPort(name, (Interface(name, "", ofport, error),), owner=OWNER, transient=True)


def somebodys_port(name: str = "c1pf0hpf", ofport: int | None = 3, error: str = "") -> OvsPort:
    return OvsPort(name, (Interface(name, "", ofport, error),), transient=True)


def internal(name: str) -> OvsPort:
    return OvsPort(name, (Interface(name, "internal", 65534),), network_manager=True)


def patch(name: str) -> OvsPort:
    return OvsPort(name, (Interface(name, "patch", 2),))


def healthy() -> World:
    """A two-port card in service: one uplink on br-ex with the host's PF beside it, one VF in a pod's hands."""
    functions = (
        PciFunction(
            F0, "a2d6", "mlx5_core", EswitchMode.SWITCHDEV, (uplink_port(0), host_pf_port(0), host_vf_port(0, 0))
        ),
        PciFunction(F1, "a2d6", "mlx5_core", EswitchMode.SWITCHDEV, (uplink_port(1), host_pf_port(1))),
    )
    netdevs = (
        netdev("lo", 1, mtu=65536),
        netdev("oob_net0", 2, carries_host=True),
        netdev("tmfifo_net0", 3),
        netdev("p0", 4, F0, "p0"),
        netdev("p1", 5, F1, "p1"),
        netdev("c1pf0hpf", 6, F0, "c1pf0", unmanaged=True),
        netdev("c1pf1hpf", 7, F1, "c1pf1", unmanaged=True, up=False),
        netdev("c1pf0vf0", 8, F0, "c1pf0vf0", unmanaged=True),
        netdev("br-ex", 9, carries_host=True),
    )
    br_ex = Bridge("br-ex", ports=(internal("br-ex"), uplink_on("p0"), patch("patch-br-ex-to-br-int"), our_port()))
    br_int = Bridge("br-int", "system", (internal("br-int"), somebodys_port("c1pf0vf0", 7)))
    return World(
        boot_id="7c0ffee0",
        platform=BLUEFIELD,
        functions=functions,
        netdevs=netdevs,
        ovs=Ovs((br_ex, br_int), hw_offload="true", vswitchd=VSWITCHD, version="3.5.0"),
        rules=Rules.PRESENT,
        configuration=Configuration(current=HostConfig()),
    )


def first_boot() -> World:
    """The same card as the kernel leaves it: legacy eswitches, systemd's names, no rules, NetworkManager's br-ex."""
    functions = (
        PciFunction(F0, "a2d6", "mlx5_core", EswitchMode.LEGACY, (uplink_port(0, "enp3s0f0np0"),)),
        PciFunction(F1, "a2d6", "mlx5_core", EswitchMode.LEGACY, (uplink_port(1, "enp3s0f1np1"),)),
    )
    netdevs = (
        netdev("lo", 1, mtu=65536),
        netdev("enp3s0f0np0", 4, F0, "p0"),
        netdev("enp3s0f1np1", 5, F1, "p1"),
        netdev("br-ex", 9, carries_host=True),
    )
    br_ex = Bridge("br-ex", ports=(internal("br-ex"), uplink_on("enp3s0f0np0")))
    return replace(
        healthy(),
        functions=functions,
        netdevs=netdevs,
        ovs=Ovs((br_ex,), vswitchd=VSWITCHD, version="3.5.0"),
        rules=Rules.ABSENT,
    )


def early_boot() -> World:
    """That card before NetworkManager and Open vSwitch: nothing is up, and nobody has asked the database."""
    world = first_boot()
    netdevs = tuple(replace(one, up=False, operstate="down") for one in world.netdevs if one.function)
    return replace(world, netdevs=netdevs, ovs=None, rules=Rules.PRESENT)


def ofed_names() -> World:
    """The healthy card as MLNX_OFED's rules name it, listed by a kernel that tells no controllers."""
    world = healthy()
    for old, new in (("c1pf0hpf", "pf0hpf"), ("c1pf1hpf", "pf1hpf"), ("c1pf0vf0", "pf0vf0")):
        world = renamed(world, old, new)
    functions = tuple(
        replace(function, ports=tuple(replace(port, controller=None, external=False) for port in function.ports))
        for function in world.functions
    )
    netdevs = tuple(replace(one, phys_port_name=one.phys_port_name.removeprefix("c1")) for one in world.netdevs)
    return replace(world, functions=functions, netdevs=netdevs)


def untold() -> World:
    """The healthy card where devlink answers with modes and no ports: netdevs and their port names are all there is."""
    world = healthy()
    return replace(world, functions=tuple(replace(function, ports=()) for function in world.functions))


def one_port() -> World:
    """A card with a single port."""
    world = healthy()
    return replace(
        world,
        platform=replace(BLUEFIELD, product_name="BlueField-2 E-Series DPU 100GbE, 1-port"),
        functions=world.functions[:1],
        netdevs=tuple(one for one in world.netdevs if one.function != F1),
    )


def server_with_card() -> World:
    """The x86 host that the card sits in: it sees the very same PCI ids."""
    function = PciFunction("0000:5e:00.0", "a2d6", "mlx5_core", EswitchMode.LEGACY)
    return World(
        boot_id="b007",
        platform=SERVER,
        functions=(function,),
        netdevs=(netdev("enp94s0f0np0", 2, function.address, "p0", carries_host=True),),
        ovs=Ovs(vswitchd=VSWITCHD),
        rules=Rules.PRESENT,
        configuration=Configuration(current=HostConfig()),
    )


# Small changes. Each gives another world.


def configured(world: World, **changes: Any) -> World:
    return replace(world, configuration=Configuration(current=replace(HostConfig(), **changes)))


def with_function(world: World, address: str, **changes: Any) -> World:
    assert any(function.address == address for function in world.functions)
    return replace(
        world,
        functions=tuple(
            replace(function, **changes) if function.address == address else function for function in world.functions
        ),
    )


def function_of(world: World, address: str) -> PciFunction:
    return next(function for function in world.functions if function.address == address)


def with_netdev(world: World, name: str, /, **changes: Any) -> World:
    assert any(one.name == name for one in world.netdevs)
    return replace(world, netdevs=tuple(replace(one, **changes) if one.name == name else one for one in world.netdevs))


def renamed(world: World, old: str, new: str) -> World:
    """The netdev under another name, everywhere, as if it never had the first."""
    world = with_netdev(world, old, name=new)
    functions = tuple(
        replace(
            function,
            ports=tuple(replace(port, netdev=new) if port.netdev == old else port for port in function.ports),
        )
        for function in world.functions
    )
    world = replace(world, functions=functions)
    if world.ovs is None:
        return world
    bridges = tuple(
        replace(
            bridge,
            ports=tuple(
                replace(
                    port,
                    name=new if port.name == old else port.name,
                    interfaces=tuple(replace(one, name=new) if one.name == old else one for one in port.interfaces),
                )
                for port in bridge.ports
            ),
        )
        for bridge in world.ovs.bridges
    )
    return with_ovs(world, bridges=bridges)


def with_ovs(world: World, **changes: Any) -> World:
    assert world.ovs is not None
    return replace(world, ovs=replace(world.ovs, **changes))


def with_bridge(world: World, name: str, /, **changes: Any) -> World:
    assert world.ovs is not None
    bridges = tuple(replace(one, **changes) if one.name == name else one for one in world.ovs.bridges)
    return with_ovs(world, bridges=bridges)


def ports_of(world: World, bridge: str) -> tuple[OvsPort, ...]:
    assert world.ovs is not None
    return next(one.ports for one in world.ovs.bridges if one.name == bridge)


def with_port(world: World, bridge: str, port: OvsPort) -> World:
    """The port on that bridge, in the place of any of its name there."""
    kept = tuple(one for one in ports_of(world, bridge) if one.name != port.name)
    return with_bridge(world, bridge, ports=(*kept, port))


def without_port(world: World, bridge: str, name: str) -> World:
    return with_bridge(world, bridge, ports=tuple(one for one in ports_of(world, bridge) if one.name != name))


def without_host_pf(world: World, address: str) -> World:
    """As if the host were off: its PF's representor is not there."""
    gone = {port.netdev for port in function_of(world, address).ports if port.flavour is Flavour.PCI_PF}
    ports = tuple(port for port in function_of(world, address).ports if port.flavour is not Flavour.PCI_PF)
    world = replace(world, netdevs=tuple(one for one in world.netdevs if one.name not in gone))
    return with_function(world, address, ports=ports)


def legacy(world: World, address: str) -> World:
    """The function back in legacy mode: its representors are gone, and Open vSwitch has lost their ports."""
    function = function_of(world, address)
    gone = {port.netdev for port in function.ports if port.flavour is not Flavour.PHYSICAL}
    world = with_function(
        world,
        address,
        mode=EswitchMode.LEGACY,
        ports=tuple(port for port in function.ports if port.flavour is Flavour.PHYSICAL),
    )
    return lost(replace(world, netdevs=tuple(one for one in world.netdevs if one.name not in gone)), gone)


def lost(world: World, names: set[str]) -> World:
    """What ovs-vswitchd says of ports whose netdev went away."""
    if world.ovs is None:
        return world
    bridges = tuple(
        replace(bridge, ports=tuple(_lost(port, names) for port in bridge.ports)) for bridge in world.ovs.bridges
    )
    return with_ovs(world, bridges=bridges)


def _lost(port: OvsPort, names: set[str]) -> OvsPort:
    interfaces = tuple(
        replace(one, ofport=-1, error=f"could not open network device {one.name} (No such device)")
        if one.name in names
        else one
        for one in port.interfaces
    )
    return replace(port, interfaces=interfaces)


def unseen(world: World, what: str) -> World:
    return replace(
        world,
        unseen=(*world.unseen, Unseen(what, f"The part {what} did not answer.", f"Look after {what}.")),
    )


# What plans and problems say.


def reasons(plan: Plan) -> list[str]:
    return [str(problem.reason) for problem in plan.problems]


def problem_of(plan: Plan, reason: str) -> Problem:
    """The one problem of that reason, which says what is wrong and what to do."""
    (found,) = [problem for problem in plan.problems if problem.reason == reason]
    assert two_sentences(found.message, found.hint)
    assert found.reason in REASONS
    return found


def two_sentences(message: str, hint: str) -> bool:
    return all(text[:1].strip() and text.endswith(".") and not text.endswith("..") for text in (message, hint))


def actions(plan: Plan) -> list[Any]:
    return [step.action for step in plan.steps]


def held(plan: Plan) -> list[Any]:
    return [step.action for step in plan.held]


def blocks(plan: Plan, reason: str) -> Blocks:
    return problem_of(plan, reason).blocks
