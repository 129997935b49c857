"""What the agent sees of a DPU: frozen data, decided by nobody yet.

`observe.py` fills it, `plan.py` reads it, and `dpu-agent observe -o json` writes it for a replay elsewhere. Whatever
could not be seen is None or empty here and has its sentence in `World.unseen`.
"""

import enum
from dataclasses import dataclass

from dpu_shared.host_config import HostConfig


class EswitchMode(enum.StrEnum):
    """What the kernel answers to `devlink dev eswitch show`."""

    LEGACY = "legacy"
    SWITCHDEV = "switchdev"
    NONE = "none"
    """EINVAL: an embedded function whose eswitch has no mode yet, as right after boot. Setting one is worth a try."""
    UNSUPPORTED = "unsupported"
    """EOPNOTSUPP: this function manages no eswitch, as in separated-host and NIC mode."""
    UNKNOWN = "unknown"
    """It could not be asked; `World.unseen` says why."""


class Flavour(enum.StrEnum):
    """`enum devlink_port_flavour` of the kernel's linux/devlink.h, as far as it matters here."""

    PHYSICAL = "physical"
    PCI_PF = "pcipf"
    PCI_VF = "pcivf"
    PCI_SF = "pcisf"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Port:
    """One devlink port of a function: what a representor's netdev stands for."""

    index: int
    flavour: Flavour
    netdev: str = ""
    """Name of its netdev now; empty while it has none. Never an identity: rules and people rename it."""
    controller: int | None = None
    """PCI controller the function is on; the host's is not the DPU's own. None from kernels before 5.10."""
    external: bool = False
    """Whether that controller is the host's."""
    pf: int | None = None
    vf: int | None = None
    number: int | None = None
    """Of a physical port: which one."""
    hw_addr: str = ""
    """MAC address of the function behind the port (lower case): of the host's PF, for a PCI-PF port."""


@dataclass(frozen=True, slots=True)
class PciFunction:
    """One physical function of a BlueField on this machine's PCI bus."""

    address: str
    """Domain, bus, device and function, as in `0000:03:00.0`; its devlink handle is `pci/` and this."""
    device: str
    """PCI device id in four lower-case hex digits, as in `a2d6`."""
    driver: str = ""
    mode: EswitchMode = EswitchMode.UNKNOWN
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True)
class Netdev:
    """One network interface in the machine's own network namespace."""

    name: str
    ifindex: int
    mac: str = ""
    mtu: int = 0
    up: bool = False
    """Administratively up (IFF_UP)."""
    operstate: str = ""
    phys_port_name: str = ""
    phys_switch_id: str = ""
    """Eight bytes in hex. Not a proof of switchdev: mlx5 of 6.12 shows an uplink's in legacy mode too."""
    function: str = ""
    """PCI address of the function that it belongs to; representors share their PF's."""
    carries_host: bool = False
    """Whether the machine's own traffic needs it: it has a global address or a default route goes through it."""
    unmanaged: bool = False
    """Whether udev's database tells NetworkManager to leave it alone (`NM_UNMANAGED=1`)."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A row of OVSDB's table Interface."""

    name: str
    type: str = ""
    ofport: int | None = None
    """Above 0: in force in the datapath. -1: refused. None: ovs-vswitchd has not yet looked at it."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class OvsPort:
    """A row of OVSDB's table Port."""

    name: str
    interfaces: tuple[Interface, ...] = ()
    owner: str = ""
    """`external_ids:owner`; ours is `OWNER`."""
    transient: bool = False
    """`other_config:transient`: RHEL's ovs-delete-transient-ports removes such ports before ovs-vswitchd starts."""
    network_manager: bool = False
    """Whether NetworkManager made it (`external_ids:NM.connection.uuid`)."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """A row of OVSDB's table Bridge."""

    name: str
    datapath_type: str = ""
    ports: tuple[OvsPort, ...] = ()


@dataclass(frozen=True, slots=True)
class Ovs:
    """Open vSwitch, as its database tells it."""

    bridges: tuple[Bridge, ...] = ()
    hw_offload: str = ""
    """`other_config:hw-offload`, verbatim; empty where it is not set."""
    offload_set_under: str = ""
    """The ovs-vswitchd (see `vswitchd`) that ran when this agent last changed hw-offload; `external_ids:OFFLOAD_MARK`."""
    vswitchd: str = ""
    """Names the ovs-vswitchd that runs now: `<boot id>/<pid>/<start time in clock ticks since boot>`; empty: none does."""
    version: str = ""
    pending: bool = False
    """Whether ovs-vswitchd has yet to take up a change of the database (`next_cfg` ahead of `cur_cfg`)."""


OWNER = "dpu-agent"
"""`external_ids:owner` of the ports that this agent adds."""
OFFLOAD_MARK = "dpu-agent-hw-offload-set-under"
"""Key in Open_vSwitch's external_ids, written in the same transaction as hw-offload: who ran then knows it only live."""


class Rules(enum.StrEnum):
    """The agent's udev rules on this machine."""

    ABSENT = "absent"
    EDITED = "edited"
    """A file of their name in /etc/udev/rules.d has another content; it is the MachineConfig's, so it is not overwritten."""
    PRESENT = "present"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Platform:
    """What tells the DPU's ARM side from a host that merely holds the card (bfscripts' `bffamily`, mlnx-tools)."""

    architecture: str = ""
    product_name: str = ""
    """`/sys/class/dmi/id/product_name`; starts with BlueField on the ARM side."""
    acpi_bluefield: bool = False
    """Whether an SSDT of the firmware has `MLNXBF22` (BlueField-2) or `MLNXBF33` (BlueField-3)."""
    root_port_vendor: str = ""
    """PCI vendor of 0000:00:00.0 in four lower-case hex digits; 15b3 on the ARM side."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """The configuration file, read; and the one that was last found good."""

    current: HostConfig | None = None
    problem: str = ""
    """Why `current` is None: what is wrong with the file. One sentence."""
    hint: str = ""
    last_good: HostConfig | None = None


@dataclass(frozen=True, slots=True)
class Unseen:
    """Something that could not be looked at: what, why not, and what to do. An observation goes on without it."""

    what: str
    """`devlink`, `ovsdb`, `sysfs`, `udev`, `links` or a function's address."""
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class World:
    """All that one look at the machine gave."""

    boot_id: str = ""
    platform: Platform = Platform()
    functions: tuple[PciFunction, ...] = ()
    netdevs: tuple[Netdev, ...] = ()
    ovs: Ovs | None = None
    """None: the database did not answer; `unseen` says why."""
    rules: Rules = Rules.UNKNOWN
    configuration: Configuration = Configuration()
    other_managers: tuple[str, ...] = ()
    """Signs that another program manages this DPU, each a short noun phrase with a path (NVIDIA DPF's own agent)."""
    unseen: tuple[Unseen, ...] = ()
