"""What the rows of Open vSwitch's database mean, and how each change is made of them.

A change is composed on a replica that is up to date and touches nothing where all is as wanted. It inserts into and
deletes from a set instead of replacing it, so nobody else's port is lost, and it names what it relies on: where that
has changed meanwhile, the server refuses the whole of it.
"""

from collections.abc import Iterator
from typing import Any

from dpu_agent.machine import HostError
from dpu_agent.world import OFFLOAD_MARK, OWNER, Bridge, Interface, Ovs, OvsPort

_OFFLOAD = "hw-offload"
_AGAIN = "Look again and plan anew: it has changed since."


def ovs(idl: Any) -> Ovs:
    """The replica as data, everything in the order of its name."""
    row = _root(idl)
    if row is None:  # a database that nobody has set up yet
        return Ovs()
    pending = _value(row, "next_cfg", 0) > _value(row, "cur_cfg", 0)
    return Ovs(
        bridges=tuple(_bridge(bridge) for bridge in _named(row.bridges)),
        hw_offload=row.other_config.get(_OFFLOAD, ""),
        offload_set_under=row.external_ids.get(OFFLOAD_MARK, ""),
        version=_first(_value(row, "ovs_version", []), ""),
        pending=pending,
    )


def set_offload(idl: Any, _transaction: Any, *, enabled: bool, under: str) -> None:
    """Set hw-offload and the mark, each where it differs."""
    row = _root(idl)
    if row is None:
        raise HostError(
            "The database of Open vSwitch has no configuration yet.",
            "Start Open vSwitch, which makes one: `systemctl start openvswitch`.",
        )
    wanted = "true" if enabled else "false"
    if row.other_config.get(_OFFLOAD) != wanted:
        row.verify("other_config")
        row.setkey("other_config", _OFFLOAD, wanted)
    if row.external_ids.get(OFFLOAD_MARK, "") != under:
        row.verify("external_ids")
        if under:
            row.setkey("external_ids", OFFLOAD_MARK, under)
        else:
            row.delkey("external_ids", OFFLOAD_MARK)


def add_port(idl: Any, transaction: Any, *, bridge: str, netdev: str) -> None:
    """Add it where it is on no bridge; a port of that name on this bridge, whoever made it, is as good."""
    target = _find_bridge(idl, bridge)
    place = _place(idl, netdev)
    if place is None:
        _insert(idl, transaction, target, netdev)
    else:
        _expect(place, bridge, netdev)


def move_port(idl: Any, transaction: Any, *, source: str, bridge: str, netdev: str) -> None:
    """Take it from the source and add it anew, with our tags and without what it had there."""
    target = _find_bridge(idl, bridge)
    place = _place(idl, netdev)
    if place is None:
        raise HostError(f"{netdev} is on no bridge, and was to be moved from {source}.", _AGAIN)
    if place[0].name == source and source != bridge:
        _expect(place, source, netdev)
        _delete(transaction, *place)
        _insert(idl, transaction, target, netdev)
    else:
        _expect(place, bridge, netdev)


def recreate_port(idl: Any, transaction: Any, *, bridge: str, netdev: str) -> None:
    """Delete ours and add it anew, where Open vSwitch could not open it."""
    target = _find_bridge(idl, bridge)
    place = _place(idl, netdev)
    if place is not None:
        _expect(place, bridge, netdev)
        if not any(_failed(interface) for interface in place[1].interfaces):
            return
        _expect_ours(*place)
        _delete(transaction, *place)
    _insert(idl, transaction, target, netdev)


def remove_port(idl: Any, transaction: Any, *, bridge: str, port: str) -> None:
    """Delete ours from the bridge; a port that is not there needs nothing."""
    for row in _root_bridges(idl):
        for candidate in row.ports:
            if row.name == bridge and candidate.name == port:
                _expect_ours(row, candidate)
                _delete(transaction, row, candidate)


def _bridge(row: Any) -> Bridge:
    return Bridge(row.name, _value(row, "datapath_type", ""), tuple(_port(port) for port in _named(row.ports)))


def _port(row: Any) -> OvsPort:
    return OvsPort(
        name=row.name,
        interfaces=tuple(_interface(interface) for interface in _named(row.interfaces)),
        owner=row.external_ids.get("owner", ""),
        transient=row.other_config.get("transient") == "true",
        network_manager="NM.connection.uuid" in row.external_ids,
    )


def _interface(row: Any) -> Interface:
    return Interface(row.name, row.type, _first(row.ofport, None), _first(_value(row, "error", []), ""))


def _failed(row: Any) -> bool:
    interface = _interface(row)
    return bool(interface.error) or (interface.ofport is not None and interface.ofport < 1)


def _root(idl: Any) -> Any:
    return next(iter(idl.tables["Open_vSwitch"].rows.values()), None)


def _root_bridges(idl: Any) -> list[Any]:
    row = _root(idl)
    return _named(row.bridges) if row is not None else []


def _named(rows: list[Any]) -> list[Any]:
    return sorted(rows, key=lambda row: str(row.name))


def _find_bridge(idl: Any, name: str) -> Any:
    for row in _root_bridges(idl):
        if row.name == name:
            return row
    raise HostError(
        f"Open vSwitch has no bridge {name}.",
        "Wait until ovs-configuration.service or nmstate has built it, or name another in spec.hostConfig.bridge.",
    )


def _place(idl: Any, netdev: str) -> tuple[Any, Any] | None:
    """The bridge and the port that hold a netdev: as the port of its name, or as one of a port's several interfaces."""
    for bridge, port in _ports(idl):
        if port.name == netdev or any(interface.name == netdev for interface in port.interfaces):
            return bridge, port
    return None


def _ports(idl: Any) -> Iterator[tuple[Any, Any]]:
    for bridge in _root_bridges(idl):
        for port in _named(bridge.ports):
            yield bridge, port


def _expect(place: tuple[Any, Any], bridge: str, netdev: str) -> None:
    row, port = place
    if row.name != bridge:
        raise HostError(f"{netdev} is on the bridge {row.name}, not on {bridge}.", _AGAIN)
    if port.name != netdev:
        raise HostError(
            f"{netdev} is one of several interfaces of the port {port.name} on {bridge}.",
            f"Take it out of {port.name}, or leave the bridge as it is: this agent does not touch bonds.",
        )


def _expect_ours(bridge: Any, port: Any) -> None:
    if port.external_ids.get("owner") != OWNER:
        raise HostError(
            f"The port {port.name} on {bridge.name} is not of this agent, so it is not removed.",
            f"Remove it by hand if nothing needs it: `ovs-vsctl del-port {bridge.name} {port.name}`.",
        )


def _delete(transaction: Any, bridge: Any, port: Any) -> None:
    """Take a port from its bridge: the server removes a port that no bridge names, and then its interfaces."""
    bridge.verify("name")  # without it, a change of a row that is gone would succeed and do nothing
    bridge.delvalue("ports", port)
    # Whose it is must still hold. `port.verify` would be left out: the client sends it only with a change of that row.
    transaction.add_op(
        {
            "op": "wait",
            "timeout": 0,
            "table": "Port",
            "where": [["_uuid", "==", ["uuid", str(port.uuid)]]],
            "columns": ["external_ids"],
            "until": "==",
            "rows": [{"external_ids": ["map", [list(pair) for pair in port.external_ids.items()]]}],
        }
    )


def _insert(idl: Any, transaction: Any, bridge: Any, netdev: str) -> None:
    interface = transaction.insert(idl.tables["Interface"])
    interface.name = netdev
    port = transaction.insert(idl.tables["Port"])
    port.name = netdev
    port.interfaces = [interface]
    port.external_ids = {"owner": OWNER}
    port.other_config = {"transient": "true"}
    bridge.verify("name")
    bridge.addvalue("ports", port)


def _value(row: Any, column: str, default: Any) -> Any:
    """Of a column that not every schema has."""
    return getattr(row, column, default)


def _first(values: list[Any], default: Any) -> Any:
    return values[0] if values else default
