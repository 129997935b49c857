"""The virtual DPU: a machine that starts in seconds, and what a test does to it."""

import shlex
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tests.host import build
from tests.host.guestagent import GuestAgent, GuestSilentError, Result
from tests.host.qmp import Qmp
from tests.lab.errors import LabError

if TYPE_CHECKING:
    from tests.host.machine import Machine
    from tests.lab import processes

HOST = "10.0.2.2"
"""Where the guest finds what listens on this machine's loopback."""

FUNCTIONS = ("0000:03:00.0", "0000:03:00.1")
KNOBS = "/sys/kernel/debug/virtual_bluefield"

RULES = """\
# As a DPU's system names them: uplinks by their port's name, the host's PF with a suffix, VFs as they are.
SUBSYSTEM=="net", ACTION=="add", DRIVERS=="mlx5_core", ATTR{phys_port_name}=="p[0-9]", NAME="$attr{phys_port_name}"
SUBSYSTEM=="net", ACTION=="add", DRIVERS=="mlx5_core", ATTR{phys_port_name}=="c[0-9]pf[0-9]", NAME="$attr{phys_port_name}hpf"
SUBSYSTEM=="net", ACTION=="add", DRIVERS=="mlx5_core", ATTR{phys_port_name}=="c[0-9]pf[0-9]vf*", NAME="$attr{phys_port_name}"
"""
RULES_FILE = "/etc/udev/rules.d/82-net-setup-link.rules"

BRIDGE_ADDRESS = "172.31.0.10"
WIRE_ADDRESS = "172.31.0.1"
HOST_ADDRESS = "172.31.0.20"


class GuestCommandError(LabError):
    """A command in the guest that had to work did not."""


class DpuVm:
    """One virtual DPU. As a context manager it is started, and it is gone afterwards."""

    def __init__(self, folder: Path | None = None) -> None:
        """Sockets and logs go to the folder, which must be a short path; without one, it is made and removed again."""
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="dpu-vm-"))
        self._machine: Machine | None = None
        self._qemu: processes.Process | None = None
        self._agent: GuestAgent | None = None
        self._has_turn = False
        self.started_in = 0.0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    @property
    def console(self) -> Path:
        """The log of the guest's serial line, over all starts."""
        return self.folder / "console.log"

    @property
    def serial(self) -> Path:
        """The socket of the guest's serial line, on which root is logged in."""
        return self.folder / "serial.sock"

    def start(self) -> None:
        """The saved machine, running: booted, OVS started, no card inserted. Missing parts are built first."""
        parts = build.parts()
        if not self._has_turn:
            build.turn.take()
            self._has_turn = True
        began = time.monotonic()
        self.folder.mkdir(parents=True, exist_ok=True)
        machine = parts.restored(self.folder)
        for socket in (machine.qmp, machine.guest_agent, machine.serial):
            socket.unlink(missing_ok=True)
        self._machine = machine
        self._qemu = build.start(machine)
        try:
            qmp = Qmp(machine.qmp)
            qmp.wait_status("paused", "postmigrate", "prelaunch", "running", timeout=60)
            qmp.ask("cont")
            qmp.close()
            self._agent = GuestAgent(machine.guest_agent)
            self._wake(timeout=60)
        except LabError as error:
            message = (
                f"{error.problem} QEMU said:\n{self._qemu.log_tail()}\nThe console's end:\n{self.console_tail()}\n"
            )
            self.stop()
            raise LabError(message, error.remedy) from error
        self.started_in = time.monotonic() - began

    def stop(self) -> None:
        """End QEMU; what the guest wrote is gone. Another process may run a virtual DPU now."""
        self._end()
        if self._has_turn:
            self._has_turn = False
            build.turn.give_back()

    def _end(self) -> None:
        if self._agent is not None:
            self._agent.close()
            self._agent = None
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu = None

    def remove(self) -> None:
        """End it, and remove the folder that was made for it."""
        self.stop()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def running(self) -> bool:
        """Whether QEMU runs."""
        return self._qemu is not None and self._qemu.alive()

    def cold(self) -> None:
        """Another DPU, fresh from the saved machine."""
        self._end()
        self.start()

    def reset(self, *, timeout: float = build.BOOT_TIMEOUT) -> None:
        """Power loss and a boot: memory and the card are gone, the disk is as it was. Ends when the guest is up again."""
        before = self.boot_id()
        self._control("system_reset")
        deadline = time.monotonic() + timeout
        while True:
            self.agent.close()
            try:
                if self.agent.run(["cat", "/proc/sys/kernel/random/boot_id"], timeout=5).stdout.strip() != before:
                    break
            except GuestSilentError:
                time.sleep(0.1)
            if time.monotonic() > deadline:
                raise LabError(f"The guest did not boot again within {timeout:g} s:\n{self.console_tail()}\n", "")
        build.wait_running(self.agent, timeout=timeout)
        self._wake(timeout=30)

    @property
    def agent(self) -> GuestAgent:
        """The channel into the guest."""
        if self._agent is None:
            raise LabError("This virtual DPU isn't running.", "Start it.")
        return self._agent

    def run(self, command: str, *, timeout: float = 60, stdin: str | None = None) -> Result:
        """A shell command in the guest, to its end, whatever it says."""
        return self.agent.run(
            ["/bin/bash", "-c", command], timeout=timeout, stdin=None if stdin is None else stdin.encode()
        )

    def sh(self, command: str, *, timeout: float = 60) -> str:
        """The output of a shell command that has to succeed."""
        result = self.run(command, timeout=timeout)
        if not result.ok:
            raise GuestCommandError(
                f"In the guest this exited with {result.rc}: {command}\n{result.stderr or result.stdout}", ""
            )
        return result.stdout

    def read(self, path: str) -> str:
        """A file of the guest."""
        return self.sh(f"cat {shlex.quote(path)}")

    def write(self, path: str, text: str, *, mode: int = 0o644) -> None:
        """A file of the guest; the folders above it are made."""
        quoted = shlex.quote(path)
        command = f'mkdir -p "$(dirname {quoted})" && cat >{quoted} && chmod {mode:o} {quoted}'
        result = self.run(command, stdin=text)
        if not result.ok:
            raise GuestCommandError(f"The guest's {path} can't be written: {result.stderr}", "")

    def service(self, name: str, command: str, *, environment: Mapping[str, str] | None = None) -> None:
        """Start a command in the guest as a transient unit, and go on; `journal` has its output."""
        settings = " ".join(f"--setenv={shlex.quote(f'{key}={value}')}" for key, value in (environment or {}).items())
        self.sh(
            f"systemd-run --quiet --collect --unit={shlex.quote(name)} {settings} /bin/bash -c {shlex.quote(command)}"
        )

    def journal(self, unit: str) -> str:
        """What a unit said, in this boot."""
        return self.sh(f"journalctl --boot --no-pager --output=cat --unit={shlex.quote(unit)}")

    def boot_id(self) -> str:
        """Which boot of the guest this is."""
        return self.read("/proc/sys/kernel/random/boot_id").strip()

    def console_tail(self, lines: int = 25) -> str:
        """The end of what the guest wrote on its serial line."""
        return build.tail(self.console, lines)

    # the card

    def insert_card(self, *, rules: str | None = RULES, **parameters: str | int) -> None:
        """Put the card in: both functions in legacy mode, the host's PFs present, no VFs. Rules must be there before it."""
        if rules is not None:
            self.write(RULES_FILE, rules)
        words = " ".join(f"{name}={value}" for name, value in parameters.items())
        # An uplink gets no second `add`, so that a rule that comes later never renames it.
        self.sh(f"udevadm control --reload && insmod /opt/dpu/virtual_bluefield.ko {words} && udevadm settle")

    def remove_card(self) -> None:
        """Pull the card, in whichever mode it is."""
        self.sh("rmmod virtual_bluefield && udevadm settle")

    def knob(self, function: int, name: str, value: str | float | tuple[str | int, ...]) -> None:
        """Turn a knob of function 0 or 1; tests/host/module/README.md lists them."""
        words = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
        self.sh(f"printf %s {shlex.quote(words)} >{KNOBS}/{FUNCTIONS[function]}/{name}")

    def knob_value(self, function: int, name: str) -> str:
        """How a knob stands."""
        return self.read(f"{KNOBS}/{FUNCTIONS[function]}/{name}").strip()

    def mode(self, function: int) -> str:
        """The eswitch's mode as the card has it: legacy, switchdev or none. It isn't asked by devlink, so no knob applies."""
        return self.knob_value(function, "mode")

    # the network around the card

    def bridge(self, uplink: str = "p0") -> None:
        """br-ex over an uplink with the node's address and default route, as OpenShift's configure-ovs leaves it."""
        self.sh(f"""set -e
            id=$(cat /proc/sys/kernel/random/uuid)
            mac=$(cat /sys/class/net/{uplink}/address)
            ovs-vsctl --timeout=15 add-br br-ex -- set bridge br-ex other_config:hwaddr="$mac" external_ids:NM.connection.uuid="$id" \
                -- add-port br-ex {uplink} -- set port {uplink} external_ids:NM.connection.uuid="$id" \
                -- set interface {uplink} external_ids:NM.connection.uuid="$id"
            ip link set {uplink} up
            ip link set br-ex up
            ip address replace {BRIDGE_ADDRESS}/24 dev br-ex
            ip route replace default via {WIRE_ADDRESS} dev br-ex""")

    def wire_side(self, function: int = 0) -> None:
        """Something to talk to at the other end of an uplink's cable: a namespace `wire` with WIRE_ADDRESS."""
        self._far("wire", f"wire{function}", WIRE_ADDRESS)

    def host_side(self, function: int = 0) -> None:
        """The host's PF put to use: a namespace `host` with HOST_ADDRESS, reached through the representor."""
        self._far("host", f"hostpf{function}", HOST_ADDRESS)

    def _far(self, namespace: str, netdev: str, address: str) -> None:
        self.sh(f"""set -e
            ip netns add {namespace}
            ip link set {netdev} netns {namespace}
            ip -n {namespace} link set lo up
            ip -n {namespace} link set {netdev} up
            ip -n {namespace} address add {address}/24 dev {netdev}""")

    def _wake(self, *, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                result = self.agent.run(["/usr/local/sbin/wake", f"{time.time():.3f}"], timeout=timeout)
                break
            except GuestSilentError:
                if time.monotonic() > deadline:
                    raise
        if not result.ok:
            raise LabError(f"The restored guest did not wake: {result.stderr}", "")

    def _control(self, command: str) -> None:
        if self._machine is None:
            raise LabError("This virtual DPU isn't running.", "Start it.")
        qmp = Qmp(self._machine.qmp)
        qmp.ask(command)
        qmp.close()
