"""What no step of ours mends: all of it is found before the first effect, and reported together."""

import re
from collections import defaultdict
from collections.abc import Iterator

from dpu_agent.bridge_problems import bridge_problems
from dpu_agent.decision import Blocks, Problem, Stage
from dpu_agent.identity import functions, is_dpu, says_two_ports, sight
from dpu_agent.reasons import Reason
from dpu_agent.world import Configuration, EswitchMode, PciFunction, Platform, Rules, World
from dpu_shared.host_config import HostConfig
from dpu_shared.node_report import State

DRIVER = "mlx5_core"
_ADDRESS = re.compile(r"(.+)\.([0-7])")
_OPERATING_MODE = (
    "Ask with `mstconfig -d {address} query INTERNAL_CPU_MODEL`, set it to EMBEDDED_CPU(1) if it is not, "
    "and power-cycle the host."
)


def problems(world: World, config: HostConfig | None, stage: Stage) -> tuple[Problem, ...]:
    """Everything that stands in the way, in the order in which it is best looked at.

    On a machine that is no DPU nothing is said of a DPU's parts. In the early stage nothing is said of Open vSwitch,
    which is not up then.
    """
    found = [*_platform(world), *_configuration(world.configuration), *_managers(world)]
    if is_dpu(world.platform):
        found += [*_functions(world), *_eswitches(world), *_rules(world)]
        if stage is Stage.LATE:
            found += bridge_problems(world, config)
    found += _unseen(world, stage)
    return tuple(dict.fromkeys(found))


def _configuration(configuration: Configuration) -> Iterator[Problem]:
    if configuration.current is not None:
        return
    old = configuration.last_good is not None
    yield Problem(
        Reason.CONFIG_INVALID if configuration.problem else Reason.CONFIG_MISSING,
        (configuration.problem or "There is no configuration file on this machine.")
        + (" The last good configuration stays in force." if old else ""),
        configuration.hint
        or "Wait until the MachineConfig of the DPU Network Operator is applied; it brings the file.",
        State.DEGRADED if old else State.BLOCKED,
        Blocks.NOTHING if old else Blocks.ALL,
    )


def _platform(world: World) -> Iterator[Problem]:
    if is_dpu(world.platform):
        return
    unseen = sight(world, "sysfs")
    if world.functions:
        yield Problem(
            Reason.HOST_WITH_CARD,
            f"This is an {world.platform.architecture or 'unknown'} host that holds a BlueField card "
            f"({functions(world)[0].address}), not the DPU on it{_product(world.platform)}.",
            "Run the agent on the card's own ARM system, and take this node out of the DPUs' MachineConfigPool.",
            State.BLOCKED,
        )
    elif unseen:
        yield Problem(
            Reason.PLATFORM_UNSEEN,
            f"Whether this machine is a DPU could not be found out: {_inner(unseen.message)}",
            unseen.hint,
            State.DEGRADED,
        )
    else:
        yield Problem(
            Reason.NOT_A_DPU,
            f"This machine is no BlueField DPU: neither its firmware nor its PCI bus says so{_product(world.platform)}.",
            "Run the agent on a DPU's ARM system, and take this node out of the DPUs' MachineConfigPool.",
            State.BLOCKED,
        )


def _product(platform: Platform) -> str:
    return f" (product {platform.product_name[:60]!r})" if platform.product_name else ""


def _managers(world: World) -> Iterator[Problem]:
    if world.other_managers:
        yield Problem(
            Reason.OTHER_MANAGER,
            f"Another program manages this DPU: {', '.join(world.other_managers)}.",
            "Remove one of the two: a DPU belongs either to NVIDIA DPF or to the DPU Network Operator.",
            State.BLOCKED,
        )


def _functions(world: World) -> Iterator[Problem]:
    """One PF in switchdev mode and its neighbour gone or left behind: the neighbour's driver times out.

    The Go operator met that (commit 217331f), hence nothing is done until the card is whole. A card with one port has
    function .0 alone, so a lone .0 is taken for whole unless the firmware's product name tells of two ports.
    """
    found = functions(world)
    missing = [] if sight(world, "sysfs") else _missing(found, world.platform)
    if missing:
        yield Problem(
            Reason.FUNCTION_MISSING,
            f"A physical function of the card is not on the PCI bus: {', '.join(missing)}.",
            "Look for mlx5_core and PCI errors in `journalctl -k`, and power-cycle the host; in NIC mode "
            "(INTERNAL_CPU_MODEL or INTERNAL_CPU_OFFLOAD_ENGINE of mstconfig) the ARM side has no functions to see.",
            State.BLOCKED,
        )
    for function in found:
        if function.driver != DRIVER:
            yield Problem(
                Reason.FUNCTION_WITHOUT_DRIVER,
                f"Function {function.address} "
                + (
                    f"is driven by {function.driver}, not {DRIVER}."
                    if function.driver
                    else f"is not driven by {DRIVER}."
                ),
                f"See `journalctl -k -g {DRIVER}` for why, and bind the function to {DRIVER}.",
                State.BLOCKED,
            )


def _missing(found: tuple[PciFunction, ...], platform: Platform) -> list[str]:
    if not found:
        return ["there is none at all"]
    slots: dict[str, set[int]] = defaultdict(set)
    for function in found:
        match = _ADDRESS.fullmatch(function.address)
        if match:
            slots[match[1]].add(int(match[2]))
    gaps = [
        f"{slot}.{number}" for slot, numbers in slots.items() for number in range(max(numbers)) if number not in numbers
    ]
    if not gaps and len(found) == 1 and says_two_ports(platform):
        return [f"the second, of a card that calls itself {platform.product_name[:60]!r}"]
    return gaps


def _eswitches(world: World) -> Iterator[Problem]:
    for function in functions(world):
        if function.mode is EswitchMode.UNSUPPORTED:
            yield Problem(
                Reason.NOT_ESWITCH_MANAGER,
                f"Function {function.address} manages no eswitch: the card is in separated-host or NIC mode.",
                _OPERATING_MODE.format(address=function.address),
                State.BLOCKED,
            )
        elif (
            function.mode is EswitchMode.UNKNOWN
            and function.driver == DRIVER
            and not sight(world, "devlink", function.address)
        ):
            yield Problem(
                Reason.ESWITCH_UNSEEN,
                f"The eswitch mode of {function.address} could not be read.",
                f"See what `devlink dev eswitch show pci/{function.address}` says.",
                State.DEGRADED,
                Blocks.NOTHING,
            )


def _rules(world: World) -> Iterator[Problem]:
    if world.rules is Rules.EDITED:
        yield Problem(
            Reason.UDEV_RULES_EDITED,
            "The udev rules for representors in /etc/udev/rules.d are not those of this program.",
            "Restore the file from the MachineConfig; the agent does not overwrite it, nor judge what it does.",
            State.DEGRADED,
            Blocks.NOTHING,
        )
    elif world.rules is Rules.UNKNOWN and not sight(world, "udev"):
        yield Problem(
            Reason.UNSEEN,
            "The udev rules for representors could not be looked at.",
            "See that /etc/udev/rules.d and /run/udev/rules.d can be read.",
            State.DEGRADED,
            Blocks.NOTHING,
        )


def _unseen(world: World, stage: Stage) -> Iterator[Problem]:
    """What the look itself says that it missed: nobody may take a plan for whole that is not."""
    addresses = {function.address for function in world.functions}
    for unseen in world.unseen:
        if unseen.what == "ovsdb":
            if stage is Stage.EARLY:
                continue
            # On a DPU, `bridge_problems` says the very same; elsewhere it is worth no more than the words.
            reason, blocks = Reason.OVS_UNAVAILABLE, Blocks.BRIDGE
        elif unseen.what == "devlink" or unseen.what in addresses:
            reason, blocks = Reason.ESWITCH_UNSEEN, Blocks.NOTHING
        else:
            reason, blocks = Reason.UNSEEN, Blocks.NOTHING
        yield Problem(reason, unseen.message, unseen.hint, State.DEGRADED, blocks)


def _inner(sentence: str) -> str:
    """A sentence as the second half of another: in lower case, unless it starts with a name."""
    head = sentence[:2]
    return sentence[:1].lower() + sentence[1:] if head[1:] != head[1:].upper() else sentence
