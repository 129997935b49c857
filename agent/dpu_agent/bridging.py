"""The bridge as it is: its uplink, the host PF's representor that belongs beside it, and where that is now."""

from collections.abc import Iterator
from dataclasses import dataclass

from dpu_agent.identity import Representor, host_pfs, netdev, representors, uplink_names
from dpu_agent.world import OWNER, Bridge, Interface, Netdev, Ovs, OvsPort, PciFunction, Port, World

_SYSTEM = ("", "system")
"""Types of an Interface that stands for a netdev, and datapath types of a bridge in the kernel (vswitch.xml)."""


@dataclass(frozen=True, slots=True)
class Uplink:
    """A physical port of the card on the bridge."""

    name: str
    function: PciFunction
    netdev: Netdev | None


@dataclass(frozen=True, slots=True)
class Place:
    """Where an interface is."""

    bridge: str
    port: OvsPort
    interface: Interface

    @property
    def ours(self) -> bool:
        return is_ours(self.port)

    @property
    def broken(self) -> bool:
        """Whether ovs-vswitchd tried it and could not."""
        return bool(self.interface.error) or (self.interface.ofport is not None and self.interface.ofport <= 0)


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is to know before a port is added. What does not apply, or is not one of a kind, is None."""

    bridge: Bridge | None
    uplinks: tuple[Uplink, ...] = ()
    host_pfs: tuple[Port, ...] = ()
    """The host's PFs behind the one uplink's function."""
    representor: Representor | None = None
    place: Place | None = None
    strangers: tuple[str, ...] = ()
    """Netdevs on the bridge that are not of the card: a bond, a VLAN, the management port."""

    @property
    def uplink(self) -> Uplink | None:
        return self.uplinks[0] if len(self.uplinks) == 1 else None


def scene(world: World, name: str) -> Scene:
    """Look at the bridge of that name."""
    bridge = next((one for one in (world.ovs.bridges if world.ovs else ()) if one.name == name), None)
    if world.ovs is None or bridge is None:
        return Scene(None)
    cards = uplink_names(world)
    on_bridge = [one.name for port in bridge.ports for one in port.interfaces if _stands(one)]
    uplinks = tuple(Uplink(one, cards[one], netdev(world, one)) for one in dict.fromkeys(on_bridge) if one in cards)
    if len(uplinks) != 1:
        known = {*cards, *(one.netdev.name for one in representors(world))}
        return Scene(bridge, uplinks, strangers=tuple(one for one in on_bridge if one not in known))
    hosts = host_pfs(world, uplinks[0].function)
    if len(hosts) != 1:
        return Scene(bridge, uplinks, hosts)
    representor = next((one for one in representors(world) if one.port == hosts[0]), None)
    place = _place(world.ovs, representor.netdev.name) if representor else None
    return Scene(bridge, uplinks, hosts, representor, place)


def in_kernel(bridge: Bridge) -> bool:
    """Whether the bridge's datapath is the kernel's, not DPDK's or DOCA's (`netdev`)."""
    return bridge.datapath_type in _SYSTEM


def is_ours(port: OvsPort) -> bool:
    """Whether this agent made the port; one that NetworkManager made is NetworkManager's, whatever its tags say."""
    return port.owner == OWNER and not port.network_manager


def stale_ports(world: World, wanted: str) -> tuple[Place, ...]:
    """Ports of ours that don't have the wanted netdev, as after a rename or a change of the uplink.

    A tag that got onto an uplink, or onto something that is no netdev, makes nobody remove that.
    """
    cards = uplink_names(world)
    found: dict[tuple[str, str], Place] = {}
    for place in _places(world.ovs) if world.ovs else ():
        names = {interface.name for interface in place.port.interfaces}
        plain = all(_stands(interface) for interface in place.port.interfaces)
        if place.ours and plain and wanted not in names and not names & set(cards):
            found.setdefault((place.bridge, place.port.name), place)
    return tuple(found.values())


def _place(ovs: Ovs, name: str) -> Place | None:
    """The one place: OVSDB has no two interfaces of a name."""
    return next((place for place in _places(ovs) if place.interface.name == name), None)


def _places(ovs: Ovs) -> Iterator[Place]:
    for bridge in ovs.bridges:
        for port in bridge.ports:
            for interface in port.interfaces:
                yield Place(bridge.name, port, interface)


def _stands(interface: Interface) -> bool:
    return interface.type in _SYSTEM
