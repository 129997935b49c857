"""The machine as the other rooms see it: a few small Protocols. `host/` has the real ones; tests may bring their own.

All calls block, are bounded in time, and come from one thread. Each raises `HostError` where the machine says no, does
not answer, or lacks the part; a write whose answer was lost may or may not have happened, so it is followed by a look.
"""

import errno as errnos
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dpu_agent.world import EswitchMode, Netdev, Ovs, Platform, Port, Rules
from dpu_shared.errors import UserError

Wake = Callable[[str], None]
"""Called from any thread when something changed; the argument names it for the log (`ovsdb`, `udev`, `devlink`)."""


class HostError(UserError):
    """The machine refused or did not answer.

    Args:
        message: what is wrong, with the kernel's or the database's own words; one sentence.
        hint: what to do; one sentence.
        errno: the kernel's error number, where there is one.
        terminal: whether trying again without a change of the machine is pointless.

    """

    def __init__(self, message: str, hint: str, *, errno: int | None = None, terminal: bool = False) -> None:
        super().__init__(message, hint)
        self.errno = errno
        self.terminal = terminal

    @property
    def code(self) -> str:
        """The error number's name (`EBUSY`), or an empty string."""
        if self.errno == errnos.EOPNOTSUPP:
            return "EOPNOTSUPP"  # Python prefers ENOTSUP, which is the same number on Linux; the kernel says this
        return errnos.errorcode.get(self.errno, "") if self.errno is not None else ""


class Watch(Protocol):
    """A source of events that has been started."""

    def close(self) -> None:
        """End it; no event comes afterwards."""
        ...

    @property
    def alive(self) -> bool:
        """False once it has ended by itself: no event comes any more, and it is to be started anew."""
        ...


class Devlink(Protocol):
    """Eswitches and their ports, by PCI address."""

    def mode(self, function: str) -> EswitchMode: ...
    def set_switchdev(self, function: str) -> None:
        """Takes seconds on hardware. The kernel's extended error is in the HostError verbatim."""
        ...

    def ports(self, function: str) -> tuple[Port, ...]: ...
    def watch(self, wake: Wake) -> Watch: ...


class Ovsdb(Protocol):
    """Open vSwitch's database. A write is safe to repeat: it changes nothing where all is as wanted."""

    def read(self) -> Ovs:
        """What the database says now; `Ovs.vswitchd` is left empty (see `Sysfs.vswitchd`)."""
        ...

    def set_offload(self, *, enabled: bool, under: str) -> None:
        """Set hw-offload, and in the same transaction the mark `OFFLOAD_MARK` to `under` (empty: remove the mark)."""
        ...

    def add_port(self, bridge: str, netdev: str) -> None: ...
    def move_port(self, source: str, bridge: str, netdev: str) -> None: ...
    def recreate_port(self, bridge: str, netdev: str) -> None: ...
    def remove_port(self, bridge: str, port: str) -> None: ...
    def watch(self, wake: Wake) -> Watch: ...
    def close(self) -> None: ...


class Sysfs(Protocol):
    """What /sys, /proc and the machine's files tell."""

    def boot_id(self) -> str: ...
    def platform(self) -> Platform: ...
    def functions(self) -> tuple[tuple[str, str, str], ...]:
        """BlueField functions on the PCI bus: address, device id, driver; in the order of their addresses."""
        ...

    def netdevs(self) -> tuple[Netdev, ...]:
        """All netdevs; `Netdev.unmanaged` and `carries_host` are left False (see `Udev` and `Links`)."""
        ...

    def vswitchd(self) -> str:
        """See `Ovs.vswitchd`; empty where no ovs-vswitchd runs."""
        ...

    def other_managers(self) -> tuple[str, ...]: ...


class Udev(Protocol):
    """udev: its database, and the agent's rules."""

    def rules(self) -> Rules: ...
    def unmanaged(self, netdev: str) -> bool: ...
    def install_rules(self) -> None: ...
    def trigger(self, netdev: str) -> None:
        """Apply the rules to it as if it were added now, and wait until udev has done so."""
        ...

    def watch(self, wake: Wake) -> Watch: ...


class Links(Protocol):
    """Links, addresses and routes, over rtnetlink."""

    def carrying(self) -> frozenset[str]:
        """Names of netdevs with a global address or a default route."""
        ...

    def set_link(self, netdev: str, *, up: bool, mtu: int | None) -> None: ...


class Services(Protocol):
    """systemd."""

    def restart_vswitchd(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Machine:
    """One machine's parts."""

    devlink: Devlink
    ovsdb: Ovsdb
    sysfs: Sysfs
    udev: Udev
    links: Links
    services: Services
