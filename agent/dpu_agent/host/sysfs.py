"""What /sys, /proc and the machine's files tell: the platform, the card's functions, netdevs, processes, other agents."""

import os
import re
from pathlib import Path

from dpu_agent.host.paths import Paths
from dpu_agent.machine import HostError
from dpu_agent.world import Netdev, Platform

MELLANOX = "15b3"
FUNCTIONS = frozenset({"a2d2", "a2d6", "a2dc", "a2df"})
"""PCI ids of the network functions of BlueField-1, -2, -3 and -4 (mlx5_core_pci_table); VFs have others."""
_ACPI_MARKS = (b"MLNXBF22", b"MLNXBF33")  # bfscripts' bffamily: BlueField-2, BlueField-3
_PCI_ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_UP = 0x1  # IFF_UP

_VSWITCHD = "ovs-vswitchd"
_OURS = b"dpu-network-operator"
"""In a path that every file of this project on a DPU has in its text (see systemd/)."""
_FOREIGN = (
    ("NVIDIA DPF's agent", "/opt/dpf/dpuagent"),
    ("another dpu-agent.service", "/etc/systemd/system/dpu-agent.service"),
    ("another dpu-agent.service", "/run/systemd/system/dpu-agent.service"),
    ("another dpu-agent.service", "/usr/local/lib/systemd/system/dpu-agent.service"),
    ("another dpu-agent.service", "/usr/lib/systemd/system/dpu-agent.service"),
    ("another dpu-agent", "/usr/local/bin/dpu-agent"),
)
"""Where NVIDIA's DPF puts its agent on BFB (the first) and on RHCOS (the others), by the names that are ours, too."""
_ENOUGH = 65536  # bytes of a file that are looked through for _OURS; it stands in the first lines


class MachineSysfs:
    """`machine.Sysfs` of the machine whose folders `paths` has.

    Args:
        paths: the machine's folders.
        ovs: Open vSwitch's own in /run; None for where it is by default.

    """

    def __init__(self, paths: Paths, *, ovs: Path | None = None) -> None:
        self._paths = paths
        self._ovs = ovs or paths.run / "openvswitch"

    def boot_id(self) -> str:
        path = self._paths.proc / "sys/kernel/random/boot_id"
        found = _text(path)
        if not found:
            raise HostError(f"The boot id cannot be read from {path}.", "Give the agent the machine's own /proc.")
        return found

    def platform(self) -> Platform:
        sys = self._paths.sys
        return Platform(
            architecture=os.uname().machine,
            product_name=_text(sys / "class/dmi/id/product_name"),
            acpi_bluefield=any(
                mark in _bytes(table, limit=-1)
                for table in sys.glob("firmware/acpi/tables/SSDT*")
                for mark in _ACPI_MARKS
            ),
            root_port_vendor=_hex(sys / "bus/pci/devices/0000:00:00.0/vendor"),
        )

    def functions(self) -> tuple[tuple[str, str, str], ...]:
        found = []
        for folder in self._listing(self._paths.sys / "bus/pci/devices"):
            device = _hex(folder / "device")
            if device not in FUNCTIONS or _hex(folder / "vendor") != MELLANOX or (folder / "physfn").exists():
                continue
            found.append((folder.name, device, _linked(folder / "driver")))
        return tuple(sorted(found))

    def netdevs(self) -> tuple[Netdev, ...]:
        folders = self._listing(self._paths.sys / "class/net")
        # Beside links there are files (bonding_masters); and a netdev may be gone before it is looked at.
        looked = [_netdev(folder) for folder in folders if folder.is_dir()]
        return tuple(sorted((each for each in looked if each is not None), key=lambda each: each.ifindex))

    def vswitchd(self) -> str:
        pid = _text(self._ovs / f"{_VSWITCHD}.pid")
        if not pid.isdecimal():
            return ""
        # `pid (comm) state …`, where comm may hold anything; the 22nd word is the start (proc(5)).
        before, _, after = _text(self._paths.proc / pid / "stat").rpartition(")")
        words = after.split()
        if before.partition("(")[2] != _VSWITCHD or len(words) < 20 or words[0] in ("Z", "X"):
            return ""  # it died without removing its file, and the number may be another's by now
        return f"{self.boot_id()}/{pid}/{words[19]}"

    def other_managers(self) -> tuple[str, ...]:
        found: dict[tuple[int, int], str] = {}
        for what, where in _FOREIGN:
            below_run = where.startswith("/run/")
            path = self._paths.run / where.removeprefix("/run/") if below_run else self._paths.host(where)
            try:
                state = path.stat()
            except OSError:
                continue
            # The same file by two of these paths is one sign; a masked unit (a link to /dev/null) and an empty file
            # are none.
            if not path.is_file() or not state.st_size or _OURS in _bytes(path):
                continue
            found.setdefault((state.st_dev, state.st_ino), f"{what} ({where})")
        return tuple(found.values())

    def _listing(self, folder: Path) -> list[Path]:
        try:
            return sorted(folder.iterdir())
        except FileNotFoundError:
            return []  # a machine without a PCI bus, say
        except OSError as error:
            raise HostError(
                f"{folder} cannot be read: {error.strerror}.",
                "Give the agent the machine's own /sys, and run it as root.",
            ) from error


def _netdev(folder: Path) -> Netdev | None:
    index = _text(folder / "ifindex")
    if not index.isdecimal():
        return None
    device = folder / "device"
    physical = device.exists()
    flags = _text(folder / "flags")
    mtu = _text(folder / "mtu")
    return Netdev(
        name=folder.name,
        ifindex=int(index),
        mac=_text(folder / "address").lower(),
        mtu=int(mtu) if mtu.isdecimal() else 0,
        up=bool(int(flags, 16) & _UP) if flags else False,
        operstate=_text(folder / "operstate"),
        # Both files are always there; a driver that has no such name answers EOPNOTSUPP. Virtual netdevs, of which a
        # node has hundreds, are not asked.
        phys_port_name=_text(folder / "phys_port_name") if physical else "",
        phys_switch_id=_text(folder / "phys_switch_id") if physical else "",
        function=_function(device) if physical else "",
    )


def _function(device: Path) -> str:
    """The PCI function that a netdev's device is; none for a device on another bus that is itself on a PCI function."""
    name = device.resolve().name
    return name if _PCI_ADDRESS.fullmatch(name) else ""


def _linked(link: Path) -> str:
    try:
        return link.readlink().name
    except OSError:
        return ""


def _hex(path: Path) -> str:
    """`0x15b3` as `15b3`."""
    return _text(path).removeprefix("0x").lower()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _bytes(path: Path, *, limit: int = _ENOUGH) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limit)
    except OSError:
        return b""
