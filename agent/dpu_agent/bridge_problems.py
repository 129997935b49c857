"""Problems of Open vSwitch, of the bridge, and of the host PF's port on it; part of the preconditions."""

from collections.abc import Iterator

from dpu_agent.bridging import Place, Scene, in_kernel, scene
from dpu_agent.decision import Blocks, Problem
from dpu_agent.identity import functions, host_pfs, renamed_next, sight
from dpu_agent.reasons import Reason
from dpu_agent.world import EswitchMode, Ovs, PciFunction, World
from dpu_shared.host_config import HostConfig
from dpu_shared.node_report import State

_SEPARATED_HOST = (
    "Power the host on and see that its BlueField driver loads; if it is on, the card may be in separated-host mode: "
    "ask with `mstconfig -d {address} query INTERNAL_CPU_MODEL`, set it to EMBEDDED_CPU(1), and power-cycle the host."
)


def bridge_problems(world: World, config: HostConfig | None) -> Iterator[Problem]:
    """Why the host PF's representor can't be put on the bridge, or does not work there."""
    if world.ovs is None:
        said = sight(world, "ovsdb")
        yield _on_bridge(
            Reason.OVS_UNAVAILABLE,
            said.message if said else "Open vSwitch's database does not answer.",
            said.hint if said else "See `systemctl status ovsdb-server`, and start it.",
            State.DEGRADED,
        )
    elif not world.ovs.vswitchd:
        yield _on_bridge(
            Reason.VSWITCHD_DOWN,
            "ovs-vswitchd does not run, so nobody can tell whether a port works.",
            "See `systemctl status ovs-vswitchd`, and start it.",
            State.DEGRADED,
        )
    if config is None:
        return
    seen = scene(world, config.bridge)
    if world.ovs is not None:
        yield from _bridge(world, seen, config.bridge)
    yield from _host_pf(world, seen)
    if world.ovs is not None and world.ovs.vswitchd and seen.place and seen.place.bridge == config.bridge:
        yield from _port(world.ovs, seen.place)


def _bridge(world: World, seen: Scene, name: str) -> Iterator[Problem]:
    if seen.bridge is None:
        others = ", ".join(sorted({bridge.name for bridge in world.ovs.bridges} if world.ovs else ())) or "none"
        yield _on_bridge(
            Reason.BRIDGE_ABSENT,
            f"Open vSwitch has no bridge {name} (it has: {others}).",
            "Wait for ovs-configuration.service, which builds it at each boot; see `journalctl -u ovs-configuration`.",
            State.PROGRESSING,
        )
        return
    if not in_kernel(seen.bridge):
        yield _on_bridge(
            Reason.BRIDGE_NOT_KERNEL,
            f"Bridge {name} has the datapath type {seen.bridge.datapath_type!r}; only the kernel's is supported.",
            "Make the bridge without a datapath_type, or name another one in spec.hostConfig.bridge.",
            State.BLOCKED,
        )
    if not world.functions and sight(world, "sysfs"):
        return  # which netdevs are the card's is not known
    if not seen.uplinks:
        yield _without_uplink(seen, name)
    elif seen.uplink is None:
        yield _on_bridge(
            Reason.SEVERAL_UPLINKS,
            f"Bridge {name} has several ports of the card: {', '.join(uplink.name for uplink in seen.uplinks)}.",
            "Leave one of them on the bridge; a bond of the card's ports is not supported.",
            State.BLOCKED,
        )


def _without_uplink(seen: Scene, name: str) -> Problem:
    if seen.strangers:
        return _on_bridge(
            Reason.UPLINK_ABSENT,
            f"Bridge {name} has no port of the card, but {', '.join(seen.strangers)}.",
            "Put a physical port of the card on the bridge itself; a bond, a VLAN or the management port won't do.",
            State.BLOCKED,
        )
    return _on_bridge(
        Reason.UPLINK_ABSENT,
        f"Bridge {name} has no port of the card yet.",
        "Wait for ovs-configuration.service, which adds it; see `journalctl -u ovs-configuration`.",
        State.PROGRESSING,
    )


def _host_pf(world: World, seen: Scene) -> Iterator[Problem]:
    """Of the uplink's function; where there is no one uplink, of all functions together."""
    subjects = (seen.uplink.function,) if seen.uplink else functions(world)
    if not subjects or any(_dark(world, function) for function in subjects):
        return
    first = subjects[0].address
    unset = [function.address for function in subjects if function.mode is not EswitchMode.SWITCHDEV]
    if unset:
        if seen.uplink:
            yield _on_bridge(
                Reason.HOST_PF_PENDING,
                f"The representor of the host's PF comes with switchdev mode, in which {first} is not yet.",
                "It is added to the bridge as soon as it is there.",
                State.PROGRESSING,
            )
        return
    hosts = [port for function in subjects for port in host_pfs(world, function)]
    if not hosts:
        yield _on_bridge(
            Reason.HOST_PF_ABSENT,
            f"{' and '.join(f.address for f in subjects)} {'shows' if len(subjects) == 1 else 'show'} no port of the "
            "host's PF, though in switchdev mode.",
            _SEPARATED_HOST.format(address=first),
            State.PROGRESSING,
        )
    elif seen.uplink and len(hosts) > 1:
        yield _on_bridge(
            Reason.SEVERAL_HOST_PFS,
            f"{first} has {len(hosts)} PFs of hosts ({', '.join(port.netdev or str(port.index) for port in hosts)}), "
            "and nothing says which one belongs on the bridge.",
            "Use a card with one host; multi-host and Socket Direct cards are not supported.",
            State.BLOCKED,
        )
    elif seen.uplink and seen.representor is None:
        yield _on_bridge(
            Reason.HOST_PF_ABSENT,
            f"The port of the host's PF on {first} has no network interface (in this network namespace).",
            "See `devlink port show` and `ip netns`; the interface belongs in the machine's own namespace.",
            State.PROGRESSING,
        )
    elif seen.uplink and seen.representor and renamed_next(world, seen.representor):
        yield _on_bridge(
            Reason.HOST_PF_PENDING,
            f"{seen.representor.netdev.name}, the representor of the host's PF, gets its name from the udev rules first.",
            "It is added to the bridge under that name.",
            State.PROGRESSING,
        )


def _dark(world: World, function: PciFunction) -> bool:
    """Whether nothing can be said of the function's ports, or another problem says it better."""
    untold = sight(world, "devlink", function.address) is not None or function.mode is EswitchMode.UNKNOWN
    return function.mode is EswitchMode.UNSUPPORTED or (untold and not host_pfs(world, function))


def _port(ovs: Ovs, place: Place) -> Iterator[Problem]:
    if place.broken:
        if not place.ours:
            why = place.interface.error or f"it has ofport {place.interface.ofport}"
            yield Problem(
                Reason.FOREIGN_PORT_BROKEN,
                f"Port {place.port.name} of {place.bridge}, which somebody else added, does not work: {why}.",
                f"Remove it with `ovs-vsctl del-port {place.bridge} {place.port.name}`; the agent then adds its own.",
                State.DEGRADED,
                Blocks.NOTHING,
            )
    elif place.interface.ofport is None:
        yield _on_bridge(
            Reason.PORT_PENDING,
            f"ovs-vswitchd has not yet opened {place.interface.name} on {place.bridge}"
            + (", nor taken up the last change of its database." if ovs.pending else "."),
            "Wait; if it stays so, see `journalctl -u ovs-vswitchd`.",
            State.PROGRESSING,
        )


def _on_bridge(reason: Reason, message: str, hint: str, state: State) -> Problem:
    return Problem(reason, message, hint, state, Blocks.BRIDGE)
