"""The real udev judging rules, in a room of its own: private mounts, an empty network and a /sys that the test writes.

`udevadm test` reads rules as udevd does and says which properties and which name an event gives. It would rename a netdev
of this machine if there were one of that index; in the room there is none.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import debs

NET_SETUP_LINK = "80-net-setup-link.rules"
FUNCTION = "devices/pci0000:00/0000:00:00.0/0000:03:00.0"
_FOLDERS = ("/etc/udev", "/usr/lib/udev/rules.d", "/lib/udev/rules.d", "/usr/local/lib/udev/rules.d")
INDEX = 2147480000  # of no netdev


@dataclass(frozen=True)
class Verdict:
    """What udev made of an event."""

    name: str
    """Of the netdev afterwards."""
    properties: dict[str, str]
    given: list[str]
    """Names that the rules under test gave it. At other events than `add` this udev takes none of them."""
    complaints: list[str]
    """What udev says of the rules file itself."""

    @property
    def unmanaged(self) -> bool:
        return self.properties.get("NM_UNMANAGED") == "1"


@dataclass
class Room:
    """A netdev and the rules that meet it.

    Args:
        folder: empty, for the room's files.
        rules: texts by file name; systemd's own 80-net-setup-link.rules is always among them.

    """

    folder: Path
    rules: dict[str, str]
    phys_port_name: str | None = "c1pf0"
    name: str = "eth4"
    systemd_name: str = ""
    """What systemd's net_setup_link would say (ID_NET_NAME); it cannot look at a netdev that is not there."""
    vendor: str = "0x15b3"
    driver: str = "mlx5_core"
    others: Mapping[str, str] = field(default_factory=dict)

    def event(self, action: str = "add") -> Verdict:
        for name in ("sys", "run", "empty"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir()
        self._sys()
        rules = self.folder / "run/udev/rules.d"
        rules.mkdir(parents=True)
        own = part(f"lib/udev/rules.d/{NET_SETUP_LINK}")
        # The builtin finds no netdev; what it would have said is said instead.
        imports = 'IMPORT{builtin}="net_setup_link"'
        text = own.read_text()
        assert imports in text
        said = f'ENV{{ID_NET_NAME}}="{self.systemd_name}"' if self.systemd_name else ""
        (rules / NET_SETUP_LINK).write_text(text.replace(imports, said))
        for name, content in {**self.rules, **self.others}.items():
            (rules / name).write_text(content)
        return self._judge(action)

    def _sys(self) -> None:
        sys = self.folder / "sys"
        function = sys / FUNCTION
        netdev = function / "net" / self.name
        netdev.mkdir(parents=True)
        for path in ("class/net", "bus/pci", f"bus/pci/drivers/{self.driver}"):
            (sys / path).mkdir(parents=True, exist_ok=True)
        _files(function, vendor=self.vendor, device="0xa2d6", uevent=f"DRIVER={self.driver}")
        _files(function.parent, vendor="0x15b3", device="0x1978", uevent="DRIVER=pcieport")
        _files(netdev, uevent=f"INTERFACE={self.name}\nIFINDEX={INDEX}", ifindex=str(INDEX), type="1")
        if self.phys_port_name is not None:
            _files(netdev, phys_port_name=self.phys_port_name)
        (function / "driver").symlink_to(f"/sys/bus/pci/drivers/{self.driver}")
        for device in (function, function.parent):
            (device / "subsystem").symlink_to("/sys/bus/pci")
        (netdev / "subsystem").symlink_to("/sys/class/net")
        (netdev / "device").symlink_to(f"/sys/{FUNCTION}")
        (sys / "class/net" / self.name).symlink_to(f"/sys/{FUNCTION}/net/{self.name}")

    def _judge(self, action: str) -> Verdict:
        script = ["set -e", "mount --make-rprivate /"]
        script += [f'[ ! -d {folder} ] || mount --bind "$ROOM/empty" {folder}' for folder in _FOLDERS]
        script += ['mount --bind "$ROOM/sys" /sys', 'mount --bind "$ROOM/run" /run']
        script.append('exec "$UDEVADM" test --action="$ACTION" "/sys/class/net/$NETDEV"')
        own = [] if os.geteuid() == 0 else ["--map-root-user"]
        done = subprocess.run(
            ["unshare", "--mount", "--net", *own, "sh", "-c", "\n".join(script)],
            env={
                "PATH": os.environ["PATH"],
                "LD_LIBRARY_PATH": ":".join(sorted({str(each.parent) for each in udev().rglob("*.so*")})),
                "SYSTEMD_DEVICE_VERIFY_SYSFS": "0",
                "ROOM": str(self.folder),
                "UDEVADM": str(part("bin/udevadm")),
                "ACTION": action,
                "NETDEV": self.name,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        lines = (line.partition("=") for line in done.stdout.splitlines())
        properties = {key: value for key, equals, value in lines if equals}
        # `/run/udev/rules.d/FILE:LINE what is wrong`, and without the colon what it read or did
        complaints = [
            line
            for line in done.stderr.splitlines()
            if any(f"{name}:" in line for name in self.rules)
            and any(word in line for word in ("nvalid", "nknown", "ignoring", "xpected", "unused", "No "))
        ]
        given = [name for file in self.rules for name in re.findall(rf"{re.escape(file)}:\d+ NAME '(.*)'", done.stderr)]
        return Verdict(properties["INTERFACE"], properties, given, complaints)


def udev() -> Path:
    """The package udev of this system's Debian, unpacked; nothing is installed."""
    return debs.unpacked(["udev"], needs=True)


def part(path: str) -> Path:
    """A file of that package, which is below /usr in newer releases."""
    return next(found for found in (udev() / path, udev() / "usr" / path) if found.exists())


def _files(folder: Path, **contents: str) -> None:
    for name, text in contents.items():
        (folder / name).write_text(text + "\n")
