"""udev: its database and events through pyudev, and the agent's rules.

pyudev reads; it has nothing for rules. Having udevd read them again and apply them is `udevadm`'s.
"""

from pathlib import Path
from typing import Any

from dpu_agent.host.commands import Commands
from dpu_agent.host.events import Events
from dpu_agent.host.paths import Paths
from dpu_agent.machine import HostError, Wake, Watch
from dpu_agent.world import Rules

RULES = Path(__file__).resolve().parents[1] / "rules" / "82-dpu-network-operator.rules"
RELOAD_SECONDS = 20.0
TRIGGER_SECONDS = 60.0
"""For all events up to one netdev's. udevd itself gives up on one after 180 s; by then there will have been another look."""
_REMEDY = "See `systemctl status systemd-udevd.service` on the DPU; the agent's container needs the machine's /run."
_FOLDERS = ("/run/udev/rules.d", "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d")
"""Those after /etc/udev/rules.d, in the order of udev(7): of several files of one name only the first counts."""


def packaged_rules() -> bytes:
    """The text of the rules file that this agent brings."""
    return RULES.read_bytes()


class MachineUdev:
    """`machine.Udev` of the machine whose folders `paths` has."""

    def __init__(self, paths: Paths, commands: Commands) -> None:
        self._paths = paths
        self._commands = commands
        self._context: Any = None

    def rules(self) -> Rules:
        wanted = packaged_rules()
        administrators = self._read("/etc/udev/rules.d")
        if administrators is not None:
            return Rules.PRESENT if administrators == wanted else Rules.EDITED
        effective = next((found for folder in _FOLDERS if (found := self._read(folder)) is not None), None)
        # Another text than ours, yet not the administrator's, is that of another release: it is replaced in /run.
        return Rules.PRESENT if effective == wanted else Rules.ABSENT

    def unmanaged(self, netdev: str) -> bool:
        pyudev = _pyudev()
        if not (self._paths.run / "udev/data").is_dir():
            raise HostError("udev's database is not there.", _REMEDY)
        try:
            self._context = self._context or pyudev.Context()
            device = pyudev.Devices.from_name(self._context, "net", netdev)
            return bool(device.properties.get("NM_UNMANAGED") == "1")
        except pyudev.DeviceNotFoundError:
            return False
        except (ImportError, OSError) as error:
            raise HostError(f"udev's database cannot be read: {error}.", _REMEDY) from error

    def install_rules(self) -> None:
        folder = self._paths.run / "udev/rules.d"
        fresh = folder / f".{RULES.name}.new"  # udevd reads only names that end with .rules
        try:
            folder.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(packaged_rules())
            fresh.chmod(0o644)
            fresh.replace(folder / RULES.name)
        except OSError as error:
            raise HostError(
                f"The udev rules cannot be written to {folder}: {error.strerror}.", "Run the agent as root."
            ) from error
        self._commands.run("udevadm", "control", "--reload", seconds=RELOAD_SECONDS, hint=_REMEDY)

    def trigger(self, netdev: str) -> None:
        # `add`, since names are given only then. Not with `--settle`: of a netdev that gets another name by it, udevadm
        # (252) waits for the end for ever.
        where = f"/sys/class/net/{netdev}"
        self._commands.run("udevadm", "trigger", "--action=add", where, seconds=TRIGGER_SECONDS, hint=_REMEDY)
        self._commands.run("udevadm", "settle", "--timeout=50", seconds=TRIGGER_SECONDS, hint=_REMEDY)

    def watch(self, wake: Wake) -> Watch:
        """Wake at every event of a netdev that is a device's, after udev has handled it.

        Raises:
            HostError: udev does not run, or cannot be listened to.

        """
        pyudev = _pyudev()
        if not (self._paths.run / "udev/control").exists():
            raise HostError("udev does not run.", _REMEDY)
        try:
            monitor = pyudev.Monitor.from_netlink(pyudev.Context(), source="udev")
            monitor.filter_by("net")
            monitor.start()
        except (ImportError, OSError) as error:
            raise HostError(f"udev's events cannot be listened to: {error}.", _REMEDY) from error
        return Events("udev", monitor.fileno(), lambda: _next_matters(monitor), wake, lambda: None)

    def _read(self, folder: str) -> bytes | None:
        """The rules file in that folder; None where there is none, and nothing where it is masked with /dev/null."""
        name = f"{folder}/{RULES.name}"
        path = self._paths.run / name.removeprefix("/run/") if name.startswith("/run/") else self._paths.host(name)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HostError(f"{path} cannot be read: {error.strerror}.", "Run the agent as root.") from error


def _next_matters(monitor: Any) -> bool:
    device = monitor.poll(timeout=0)
    return device is not None and worth_waking(device.device_path)


def worth_waking(device_path: str) -> bool:
    """Whether a netdev's event may matter. Those of pods come and go all the time and are no device's."""
    return not device_path.startswith("/devices/virtual/")


def _pyudev() -> Any:
    try:
        import pyudev  # noqa: PLC0415 - it looks for libudev, which a machine that only plans need not have
    except ImportError as error:
        raise HostError("pyudev is not installed.", "Use the agent's image.") from error
    return pyudev
