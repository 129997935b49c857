"""What the kernel says when devlink is refused, and what a person does about it.

The texts are those of mlx5's eswitch_offloads.c; a kernel that words them otherwise gets the sentence of its errno.
"""

import errno as errnos
import os
from dataclasses import dataclass

from dpu_agent.host.netlink import Refused
from dpu_agent.machine import HostError


@dataclass(frozen=True, slots=True)
class Known:
    """One known refusal: its errno, a part of its text that tells it from others, and what follows from it."""

    code: int
    said: str
    terminal: bool
    """Whether it stays so until somebody changes the machine."""
    hint: str


KNOWN = (
    Known(
        errnos.EBUSY,
        "E-Switch is busy",
        terminal=False,
        hint="Offloaded flows hold it; the agent tries again. If it stays so, stop ovs-vswitchd and delete what is left "
        "with `tc qdisc del dev NETDEV clsact`, or reboot the DPU.",
    ),
    Known(
        errnos.EBUSY,
        "firmware reset",
        terminal=False,
        hint="Wait until the reset of the card's firmware is done; the agent tries again.",
    ),
    Known(
        errnos.EOPNOTSUPP,
        "devlink traps are active",
        terminal=True,
        hint="Turn the card's devlink traps off with `devlink trap set`, and restart the agent.",
    ),
    Known(
        errnos.EOPNOTSUPP,
        "IPsec",
        terminal=True,
        hint="Stop the IPsec service of the DPU, delete what is left with `ip xfrm state flush` and `ip xfrm policy "
        "flush`, and restart the agent.",
    ),
    Known(
        errnos.EINVAL,
        "net namespace has diverged",
        terminal=True,
        hint="Move the uplink's network interface back into the network namespace of the DPU, and restart the agent.",
    ),
    Known(
        errnos.EINVAL,
        "Failed setting eswitch to offloads",
        terminal=False,
        hint="The card's firmware refused and the kernel went back to legacy mode; the agent tries again. If it stays "
        "so, see `dmesg` for the firmware's syndrome, and reset or update the firmware.",
    ),
    Known(
        errnos.EINVAL,
        "SRIOV legacy not enabled",
        terminal=True,
        hint="This is no DPU's own function: run the agent on the ARM side of the card, on a kernel of 5.0 or newer.",
    ),
    Known(
        errnos.EOPNOTSUPP,
        "",
        terminal=True,
        hint="The function manages no eswitch, as in separated-host and NIC mode: set INTERNAL_CPU_MODEL=EMBEDDED_CPU "
        "with mstconfig, and power-cycle the host.",
    ),
    Known(
        errnos.EINVAL,
        "",
        terminal=True,
        hint="See `dmesg` for the firmware's syndrome, and reset or update the card's firmware.",
    ),
    Known(
        errnos.EBUSY,
        "",
        terminal=False,
        hint="The agent tries again. If it stays so, see `dmesg` for what uses the card.",
    ),
    Known(
        errnos.ENODEV,
        "",
        terminal=False,
        hint="Its driver is starting anew, or is not loaded; the agent tries again. If it stays so, see `dmesg` for "
        "mlx5_core.",
    ),
    Known(errnos.EPERM, "", terminal=True, hint="Run the agent as root, with the capability CAP_NET_ADMIN."),
)

NO_FAMILY = "Run the agent on the DPU, with a kernel that has devlink (CONFIG_NET_DEVLINK) and the driver mlx5_core."
_OTHERWISE = "See `dmesg` for what the driver says of it; the agent tries again."


def refusal(what: str, refused: Refused, *, no_family: bool = False) -> HostError:
    """The error that a person reads.

    Args:
        what: what does not work; the begin of a sentence.
        refused: the kernel's answer.
        no_family: whether it was the question for devlink itself that the kernel refused.

    """
    if no_family and refused.code == errnos.ENOENT:
        return HostError(f"{what}: this kernel has no devlink.", NO_FAMILY, errno=refused.code, terminal=True)
    said = f'"{refused.said}"' if refused.said else os.strerror(refused.code)
    code = "EOPNOTSUPP" if refused.code == errnos.EOPNOTSUPP else errnos.errorcode.get(refused.code, str(refused.code))
    known = next((each for each in KNOWN if each.code == refused.code and each.said in refused.said), None)
    return HostError(
        f"{what}: {said} ({code}).",
        known.hint if known else _OTHERWISE,
        errno=refused.code,
        terminal=known.terminal if known else False,
    )
