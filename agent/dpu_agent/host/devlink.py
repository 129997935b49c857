"""devlink: eswitches and their ports, over generic netlink.

Attribute numbers are those of the kernel's uapi linux/devlink.h. pyroute2's own table ends at 148 and has neither the
external flag nor the controller, and its PORT_FUNCTION is decoded with the wrong names; so the few attributes that
matter are written down here.
"""

import enum
import errno
from collections.abc import Sequence

from dpu_agent.host import netlink
from dpu_agent.host.devlink_refusals import refusal
from dpu_agent.host.events import Events
from dpu_agent.host.netlink import Message
from dpu_agent.machine import HostError, Wake, Watch
from dpu_agent.world import EswitchMode, Flavour, Port

GET_SECONDS = 2.0
"""For a question. A device that is changing its mode answers none until it is done, and a look must not wait for it."""
SET_SECONDS = 80.0
"""For a change of mode. It takes seconds on a card that is well. Firmware that is not may take minutes to say so; below the
90 s of the heartbeat's limit, the agent says so itself before anybody takes it for hung."""
_GENERIC = 16  # NETLINK_GENERIC


class Command(enum.IntEnum):
    """`enum devlink_command`."""

    NEW = 3
    DEL = 4
    PORT_GET = 5
    PORT_NEW = 7
    PORT_DEL = 8
    ESWITCH_GET = 29
    ESWITCH_SET = 30


_EVENTS = {Command.NEW, Command.DEL, Command.PORT_NEW, Command.PORT_DEL}
"""There is none for the eswitch itself; ports that come or go with its mode stand for it."""

_LEGACY, _SWITCHDEV, _SWITCHDEV_INACTIVE = 0, 1, 2  # enum devlink_eswitch_mode
_MODES = {
    _LEGACY: EswitchMode.LEGACY,
    _SWITCHDEV: EswitchMode.SWITCHDEV,
    # It has its representors but lets nothing through until somebody sets the mode, as we do where it has none.
    _SWITCHDEV_INACTIVE: EswitchMode.NONE,
}
_FLAVOURS = {0: Flavour.PHYSICAL, 3: Flavour.PCI_PF, 4: Flavour.PCI_VF, 7: Flavour.PCI_SF}  # enum devlink_port_flavour


class DevlinkMessage(netlink.genlmsg):  # type: ignore[misc]
    """A devlink message, as far as this agent reads and writes it."""

    nla_map = (
        (1, "BUS_NAME", "asciiz"),
        (2, "DEV_NAME", "asciiz"),
        (3, "PORT_INDEX", "uint32"),
        (7, "PORT_NETDEV_NAME", "asciiz"),
        (25, "ESWITCH_MODE", "uint16"),
        (77, "PORT_FLAVOUR", "uint16"),
        (78, "PORT_NUMBER", "uint32"),
        (127, "PORT_PCI_PF_NUMBER", "uint16"),
        (128, "PORT_PCI_VF_NUMBER", "uint16"),
        (145, "PORT_FUNCTION", "port_function"),
        (149, "PORT_EXTERNAL", "uint8"),
        (150, "PORT_CONTROLLER_NUMBER", "uint32"),
    )

    class port_function(netlink.nla):  # type: ignore[misc] # noqa: N801 - pyroute2 finds it by this name
        """`enum devlink_port_function_attr`."""

        nla_map = ((1, "HW_ADDR", "cdata"),)


def request(command: Command, function: str, *attributes: tuple[str, int]) -> Message:
    """A devlink request about one PCI function, not yet encoded."""
    message: Message = DevlinkMessage()
    message["cmd"], message["version"] = int(command), 1
    message["attrs"] = [("BUS_NAME", "pci"), ("DEV_NAME", function), *attributes]
    return message


def port(message: Message) -> Port:
    """The port that a devlink message tells of."""
    behind = message.get_attr("PORT_FUNCTION")
    address = behind.get_attr("HW_ADDR") if behind is not None else None
    return Port(
        index=message.get_attr("PORT_INDEX"),
        flavour=_FLAVOURS.get(message.get_attr("PORT_FLAVOUR"), Flavour.OTHER),
        netdev=message.get_attr("PORT_NETDEV_NAME") or "",
        controller=message.get_attr("PORT_CONTROLLER_NUMBER"),
        external=bool(message.get_attr("PORT_EXTERNAL")),
        pf=message.get_attr("PORT_PCI_PF_NUMBER"),
        vf=message.get_attr("PORT_PCI_VF_NUMBER"),
        number=message.get_attr("PORT_NUMBER"),
        hw_addr=address.hex(":") if address else "",
    )


class KernelDevlink:
    """`machine.Devlink` of this kernel. A socket for each call costs nothing next to the call, and binds no thread."""

    def __init__(self) -> None:
        self._family: netlink.Family | None = None

    def mode(self, function: str) -> EswitchMode:
        try:
            answers = self._ask(request(Command.ESWITCH_GET, function), GET_SECONDS)
        except netlink.Refused as refused:
            mode = mode_of_refusal(refused)
            if mode is None:
                raise refusal(f"The eswitch of {function} cannot be read", refused) from refused
            return mode
        except (netlink.Silent, OSError) as error:
            raise _unanswered(f"about the eswitch of {function}", GET_SECONDS, error) from error
        said = answers[0].get_attr("ESWITCH_MODE") if answers else None
        if said not in _MODES:
            raise HostError(
                f"The kernel says that the eswitch of {function} is in mode {said}, which this agent does not know.",
                "Use an agent that is as new as the kernel.",
            )
        return _MODES[said]

    def set_switchdev(self, function: str) -> None:
        message = request(Command.ESWITCH_SET, function, ("ESWITCH_MODE", _SWITCHDEV))
        try:
            self._ask(message, SET_SECONDS)
        except netlink.Refused as refused:
            raise refusal(
                f"The kernel does not put the eswitch of {function} into switchdev mode", refused
            ) from refused
        except (netlink.Silent, OSError) as error:
            raise _unanswered(f"about the new mode of {function}", SET_SECONDS, error) from error

    def ports(self, function: str) -> tuple[Port, ...]:
        # Kernels from 6.6 on list only this device's ports. An older one lists all devices' and waits for each device
        # that is changing its mode; that is what the deadline is for.
        try:
            kind = self._kind(GET_SECONDS)
            with netlink.Channel(_GENERIC) as channel:
                found = channel.dump(request(Command.PORT_GET, function), kind, DevlinkMessage, seconds=GET_SECONDS)
        except netlink.Refused as refused:
            raise refusal(f"The ports of {function} cannot be listed", refused) from refused
        except (netlink.Silent, OSError) as error:
            raise _unanswered(f"about the ports of {function}", GET_SECONDS, error) from error
        mine = [each for each in found if (each.get_attr("BUS_NAME"), each.get_attr("DEV_NAME")) == ("pci", function)]
        return tuple(sorted((port(each) for each in mine), key=lambda each: each.index))

    def watch(self, wake: Wake) -> Watch:
        """Wake at every device or port that comes or goes.

        Raises:
            HostError: this kernel has no devlink.

        """
        try:
            group = netlink.family("devlink", seconds=GET_SECONDS).groups["config"]
            channel = netlink.Channel(_GENERIC)
            channel.join(group)
            return Events("devlink", channel.fileno(), lambda: worth_waking(channel.events()), wake, channel.close)
        except netlink.Refused as refused:
            raise refusal("devlink cannot be watched", refused, no_family=True) from refused
        except (netlink.Silent, OSError) as error:
            raise _unanswered("about devlink", GET_SECONDS, error) from error

    def _ask(self, message: Message, seconds: float) -> list[Message]:
        kind = self._kind(GET_SECONDS)
        with netlink.Channel(_GENERIC) as channel:
            return channel.ask(message, kind, DevlinkMessage, seconds=seconds)

    def _kind(self, seconds: float) -> int:
        if self._family is None:
            try:
                self._family = netlink.family("devlink", seconds=seconds)
            except netlink.Refused as refused:
                raise refusal("devlink cannot be asked", refused, no_family=True) from refused
        return self._family.kind


def worth_waking(messages: Sequence[bytes]) -> bool:
    """Whether a device or port came or went. The same group also tells of health reports, flashing and traps."""
    return any(len(message) > 16 and message[16] in _EVENTS for message in messages)


def mode_of_refusal(refused: netlink.Refused) -> EswitchMode | None:
    """What a refused question about the mode says of it; None where it is an error like any other."""
    return {errno.EINVAL: EswitchMode.NONE, errno.EOPNOTSUPP: EswitchMode.UNSUPPORTED}.get(refused.code)


def _unanswered(about: str, seconds: float, error: Exception) -> HostError:
    if isinstance(error, netlink.Silent):
        return HostError(
            f"The kernel did not answer a devlink request {about} within {seconds:g} s.",
            "Wait: a change of mode may be under way. If it stays so, look into the kernel's log and reboot the DPU.",
        )
    return HostError(f"devlink cannot be asked {about}: {error}.", "Run the agent as root, on the DPU's own kernel.")
