"""Which machine this is, and which port is what.

A port is known by devlink's flavour, controller and PF number, and by `phys_port_name` where devlink tells no ports;
never by its netdev's name, which rules, kernels and people choose.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from dpu_agent.world import EswitchMode, Flavour, Netdev, PciFunction, Platform, Port, Rules, Unseen, World

_UPLINK = re.compile(r"p(\d+)")
_HOSTS = re.compile(r"(?:c(\d+))?pf(\d+)(?:vf(\d+))?")  # the kernel's; without `c` before 5.10 and from MLNX_OFED
_TWO_PORTS = re.compile(r"\b(?:2|two|dual)[ -]?ports?\b", re.IGNORECASE)
_NO_MAC = "00:00:00:00:00:00"


@dataclass(frozen=True, slots=True)
class Representor:
    """A port that stands for one of the host's functions, and its netdev."""

    port: Port
    netdev: Netdev


def sight(world: World, *subjects: str) -> Unseen | None:
    """Why one of the subjects could not be looked at; None where nothing says so."""
    return next((unseen for unseen in world.unseen if unseen.what in subjects), None)


def is_dpu(platform: Platform) -> bool:
    """Whether this is the ARM side of a BlueField.

    The card's PCI id proves nothing: the host sees the same one. The signs are those of bfscripts' `bffamily` (SSDT,
    DMI) and of mlnx-tools' `mlnx_bf_configure` (Mellanox's root port).
    """
    return (
        platform.acpi_bluefield
        or platform.product_name.startswith("BlueField")
        or (platform.architecture == "aarch64" and platform.root_port_vendor == "15b3")
    )


def says_two_ports(platform: Platform) -> bool:
    """Whether the firmware's name of the product tells that the card has two ports."""
    return bool(_TWO_PORTS.search(platform.product_name))


def functions(world: World) -> tuple[PciFunction, ...]:
    """The card's functions by address, `.0` first, each once."""
    return tuple(sorted({function.address: function for function in world.functions}.values(), key=_address))


def ports(world: World, function: PciFunction) -> tuple[Port, ...]:
    """A function's ports as devlink tells them; where it tells none, as `phys_port_name` of its netdevs does."""
    if function.ports:
        return function.ports
    own = (netdev for netdev in world.netdevs if netdev.function == function.address)
    guessed = (_port_of(netdev, function.mode) for netdev in own)
    return tuple(port for port in guessed if port is not None)


def uplink_names(world: World) -> dict[str, PciFunction]:
    """The function behind each netdev that is a physical port of the card, by the netdev's name."""
    return {
        port.netdev: function
        for function in functions(world)
        for port in ports(world, function)
        if port.flavour is Flavour.PHYSICAL and port.netdev
    }


def host_pfs(world: World, function: PciFunction) -> tuple[Port, ...]:
    """The function's ports that stand for the host's PFs: one, on all but multi-host cards."""
    return tuple(port for port in ports(world, function) if port.flavour is Flavour.PCI_PF and _hosts(port))


def host_pf_macs(world: World) -> tuple[str, ...]:
    """MAC addresses of the host's PFs, sorted: they find the tenant's node that this DPU sits in."""
    macs = {port.hw_addr.lower() for function in functions(world) for port in host_pfs(world, function)}
    return tuple(sorted(macs - {"", _NO_MAC}))


def representors(world: World) -> tuple[Representor, ...]:
    """The netdevs that stand for the host's PFs and VFs, in the order of functions and port indices."""
    return tuple(dict.fromkeys(_representors(world)))


def netdev(world: World, name: str) -> Netdev | None:
    """The netdev of that name in the machine's own network namespace."""
    return next((one for one in world.netdevs if name and one.name == name), None)


def expected_names(port: Port) -> tuple[str, ...]:
    """The names that the udev rules in the field give such a port's netdev; none where it has no PF number to tell by.

    `c1pf0hpf` is what our rules and the earlier Go operator's make of the kernel's `c1pf0`, `pf0hpf` what MLNX_OFED's do.
    """
    if port.pf is None or (port.flavour is Flavour.PCI_VF and port.vf is None):
        return ()
    tail = f"pf{port.pf}hpf" if port.flavour is Flavour.PCI_PF else f"pf{port.pf}vf{port.vf}"
    return (f"c{1 if port.controller is None else port.controller}{tail}", tail)


def ruled(world: World, representor: Representor) -> bool:
    """Whether our rules are in force for it, or will be: not where somebody edited them, or udev could not be asked.

    They go by the kernel's name of the port, and know nothing of a name that they can't read.
    """
    return (
        world.rules in (Rules.ABSENT, Rules.PRESENT)
        and sight(world, "udev") is None
        and _HOSTS.fullmatch(representor.netdev.phys_port_name) is not None
    )


def named_right(representor: Representor) -> bool:
    """Whether our rules leave its name: they replace systemd's and the kernel's, and nobody else's.

    What a vendor's rule or a person chose is as good as ours, since nothing here goes by names.
    """
    return not representor.netdev.name.startswith(("en", "eth"))


def renamed_next(world: World, representor: Representor) -> bool:
    """Whether a step that disturbs nobody is about to give it another name: until then it is added to no bridge."""
    return ruled(world, representor) and not named_right(representor) and not in_use(world, representor.netdev)


def in_use(world: World, one: Netdev) -> bool:
    """Whether a representor may carry traffic, so that a new name would disturb somebody.

    Old kernels refuse to rename a netdev that is up; newer ones do it, and Open vSwitch loses the port.
    """
    return one.up or one.carries_host or bridge_of(world, one.name) != ""


def bridge_of(world: World, name: str) -> str:
    """The bridge that has an interface of that name; empty: none has, or the database did not answer."""
    if world.ovs is None:
        return ""
    for bridge in world.ovs.bridges:
        for port in bridge.ports:
            if any(interface.name == name for interface in port.interfaces):
                return bridge.name
    return ""


def netdevs_of(world: World, function: PciFunction) -> tuple[Netdev, ...]:
    """All netdevs of a function, by what sysfs and what devlink tell."""
    names = {port.netdev for port in function.ports if port.netdev}
    return tuple(one for one in world.netdevs if one.function == function.address or one.name in names)


def _representors(world: World) -> Iterator[Representor]:
    by_name = {one.name: one for one in world.netdevs if one.name}  # a node has hundreds of netdevs, and as many VFs
    for function in functions(world):
        for port in _by_index(ports(world, function)):
            one = by_name.get(port.netdev)
            if port.flavour in (Flavour.PCI_PF, Flavour.PCI_VF) and _hosts(port) and one is not None:
                yield Representor(port, one)


def _by_index(found: Iterable[Port]) -> list[Port]:
    return sorted(found, key=lambda port: (port.index, port.netdev))


def _hosts(port: Port) -> bool:
    """Kernels before 5.10 tell no controller; a BlueField's ARM side has no PCI-PF port but the host's, though."""
    return port.external or port.controller is None


def _port_of(one: Netdev, mode: EswitchMode) -> Port | None:
    """A port as told by its netdev alone; its index is the netdev's, which only keeps an order."""
    uplink = _UPLINK.fullmatch(one.phys_port_name)
    if uplink:
        return Port(one.ifindex, Flavour.PHYSICAL, one.name, number=int(uplink[1]))
    if not one.phys_port_name and mode is not EswitchMode.SWITCHDEV:
        # in legacy mode a function has no netdev but its uplink's, and old kernels give that no port name
        return Port(one.ifindex, Flavour.PHYSICAL, one.name)
    match = _HOSTS.fullmatch(one.phys_port_name)
    if match is None:
        return None
    controller, pf, vf = (None if group is None else int(group) for group in match.groups())
    flavour = Flavour.PCI_PF if vf is None else Flavour.PCI_VF
    return Port(one.ifindex, flavour, one.name, controller=controller, external=controller != 0, pf=pf, vf=vf)


def _address(function: PciFunction) -> str:
    return function.address
