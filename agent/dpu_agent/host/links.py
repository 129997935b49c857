"""Links, addresses and routes of the machine, over rtnetlink.

Numbers are those of the kernel's uapi linux/rtnetlink.h, linux/if_link.h and linux/if_addr.h. pyroute2's own messages
for these know every attribute of every kind of link and take 40 ms and 2 MiB to import.
"""

import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dpu_agent.host import netlink
from dpu_agent.host.netlink import Message
from dpu_agent.machine import HostError

SECONDS = 2.0
"""For each question. The kernel holds no lock for long here, but a driver under reset may hold the one that all need."""
SET_SECONDS = 20.0
"""For a change: an mlx5 representor's new MTU makes its queues anew."""

_ROUTE = 0  # NETLINK_ROUTE
_NEWLINK, _GETLINK, _GETADDR, _GETROUTE = 16, 18, 22, 26
_MAIN = 254  # RT_TABLE_MAIN
_UNICAST = 1  # RTN_UNICAST
_SCOPE_LINK = 253  # RT_SCOPE_LINK; what is nearer (host, nowhere) has a higher number
_UP = 0x1  # IFF_UP
_NO_STATISTICS = 8  # RTEXT_FILTER_SKIP_STATS


class LinkMessage(netlink.nlmsg):  # type: ignore[misc]
    """`struct ifinfomsg`."""

    fields = (
        ("family", "B"), ("pad", "B"), ("device_type", "H"), ("index", "i"), ("flags", "I"), ("change", "I"),
    )  # fmt: skip
    nla_map = (
        (3, "IFNAME", "asciiz"),
        (4, "MTU", "uint32"),
        (5, "LINK", "uint32"),
        (10, "MASTER", "uint32"),
        (29, "EXT_MASK", "uint32"),
        (37, "LINK_NETNSID", "int32"),
    )


class AddressMessage(netlink.nlmsg):  # type: ignore[misc]
    """`struct ifaddrmsg`."""

    fields = (("family", "B"), ("prefixlen", "B"), ("flags", "B"), ("scope", "B"), ("index", "I"))


class RouteMessage(netlink.nlmsg):  # type: ignore[misc]
    """`struct rtmsg`."""

    fields = (
        ("family", "B"), ("dst_len", "B"), ("src_len", "B"), ("tos", "B"),
        ("table", "B"), ("proto", "B"), ("scope", "B"), ("type", "B"), ("flags", "I"),
    )  # fmt: skip
    nla_map = ((4, "OIF", "uint32"), (9, "MULTIPATH", "cdata"), (15, "TABLE", "uint32"))


_NEXTHOP = struct.Struct("=HBBi")  # struct rtnexthop: length, flags, hops, interface


@dataclass(frozen=True, slots=True)
class Link:
    """A link and the links that it rests on or belongs to, by index."""

    name: str
    below: int = 0
    """The link that a VLAN or the like is on."""
    master: int = 0
    """The bond or bridge that it is a port of."""


class KernelLinks:
    """`machine.Links` of this process's network namespace, which is the machine's."""

    def carrying(self) -> frozenset[str]:
        links = {each["index"]: _link(each) for each in self._list(LinkMessage(), _GETLINK)}
        addresses = self._list(AddressMessage(), _GETADDR)
        used = {each["index"] for each in addresses if each["scope"] < _SCOPE_LINK}
        for route in self._list(RouteMessage(), _GETROUTE):
            used.update(default_route(route))
        return frozenset(links[index].name for index in spread(used, links) if index in links)

    def set_link(self, netdev: str, *, up: bool, mtu: int | None) -> None:
        what = f"{netdev} cannot be set"
        try:
            index = socket.if_nametoindex(netdev)
        except OSError as error:
            raise HostError(f"{what}: there is no such network interface.", "Wait until it is there.") from error
        message: Message = LinkMessage()
        message["index"] = index
        message["flags"], message["change"] = (_UP, _UP) if up else (0, 0)
        message["attrs"] = [] if mtu is None else [("MTU", mtu)]
        try:
            with netlink.Channel(_ROUTE) as channel:
                channel.ask(message, _NEWLINK, LinkMessage, seconds=SET_SECONDS)
        except netlink.Refused as refused:
            raise HostError(
                f"{what} to MTU {mtu}: {refused}." if mtu is not None else f"{what} up: {refused}.",
                "See `dmesg` for what its driver says of it, and `ip -d link show` for the limits of its MTU.",
                errno=refused.code,
            ) from refused
        except (netlink.Silent, OSError) as error:
            raise _unanswered(what, SET_SECONDS, error) from error

    def _list(self, message: Message, kind: int) -> list[Message]:
        if kind == _GETLINK:
            message["attrs"] = [("EXT_MASK", _NO_STATISTICS)]
        try:
            with netlink.Channel(_ROUTE) as channel:
                return channel.dump(message, kind, type(message), seconds=SECONDS)
        except netlink.Refused as refused:
            raise HostError(
                f"The network interfaces cannot be listed: {refused}.", "Run the agent as root.", errno=refused.code
            ) from refused
        except (netlink.Silent, OSError) as error:
            raise _unanswered("The network interfaces cannot be listed", SECONDS, error) from error


def default_route(route: Message) -> frozenset[int]:
    """Indexes of the links that a default route of the main table goes through; none for any other route."""
    table = route.get_attr("TABLE") or route["table"]
    if route["dst_len"] or route["type"] != _UNICAST or table != _MAIN:
        return frozenset()
    single = route.get_attr("OIF")
    return frozenset([*([single] if single else []), *_nexthops(route.get_attr("MULTIPATH") or b"")])


def _nexthops(several: bytes) -> Iterator[int]:
    while len(several) >= _NEXTHOP.size:
        length, _, _, index = _NEXTHOP.unpack_from(several)
        yield index
        several = several[max(length + 3 & ~3, _NEXTHOP.size) :]


def spread(used: Iterable[int], links: Mapping[int, Link]) -> frozenset[int]:
    """The links that are used, and those that they rest on: a VLAN's parent, the ports of a bond or bridge.

    Not the ports of an Open vSwitch bridge: these have one master for all bridges, and no address is on that.
    """
    found: set[int] = set()
    todo = set(used)
    while todo:
        index = todo.pop()
        found.add(index)
        below = {links[index].below} if index in links else set()
        ports = {each for each, link in links.items() if link.master == index}
        todo |= ({each for each in below | ports if each in links}) - found
    return frozenset(found)


def _link(message: Message) -> Link:
    # A link's other half in another network namespace has an index there, which means something else here.
    below = 0 if message.get_attr("LINK_NETNSID") is not None else message.get_attr("LINK") or 0
    return Link(message.get_attr("IFNAME") or "", below=below, master=message.get_attr("MASTER") or 0)


def _unanswered(what: str, seconds: float, error: Exception) -> HostError:
    if isinstance(error, netlink.Silent):
        return HostError(
            f"{what}: the kernel did not answer within {seconds:g} s.",
            "Wait: a driver may be under reset. If it stays so, see `dmesg`, and reboot the DPU.",
        )
    return HostError(f"{what}: {error}.", "Run the agent as root, on the DPU's own kernel.")
