"""All parts of the virtual DPU, made where they are missing, and the booted machine that every start restores."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tests.host import guestkernel, kernel, needs, paths, payload, rootfs
from tests.host.guestagent import GuestAgent, GuestSilentError, Result
from tests.host.keys import digest
from tests.host.machine import Machine
from tests.host.qmp import Qmp
from tests.lab import making, processes
from tests.lab.errors import LabError
from tests.lab.gobuild import SILENCE, Progress

BOOT_TIMEOUT = 240.0
"""A boot takes 13 s on an idle machine and ten times that on a crowded one."""


@dataclass(frozen=True)
class Parts:
    """The files of a machine that can be started."""

    vmlinux: Path
    initrd: Path
    root: Path
    payload: Path
    saved: Path

    def restored(self, folder: Path) -> Machine:
        """The booted machine, as it was saved."""
        return replace(
            self.fresh(folder), root=self.saved / "root.qcow2", root_format="qcow2", incoming=self.saved / "state"
        )

    def fresh(self, folder: Path) -> Machine:
        """The machine before its first boot."""
        return Machine(folder, self.vmlinux, self.initrd, self.root, self.payload)


def parts() -> Parts:
    """Everything; from nothing this takes minutes, otherwise the time of hashing some sources."""
    _needs()
    guest = _kernel()
    vmlinux = guestkernel.vmlinux(guest)
    initrd = guestkernel.initrd(guest)
    root = rootfs.image(guest)
    disk = payload.image(guest)
    shown = Machine(Path("/folder"), vmlinux, initrd, root, Path("/payload"))
    folder = paths.host() / f"saved-{digest(_qemu(), *shown.words(Path('ssdt')))}"
    found = Parts(vmlinux, initrd, root, disk, folder)
    making.made(folder, "booting the virtual DPU once", lambda target: _save(found, target))
    making.forget_old(folder, "saved-*", keep=1)
    making.forget_old(root, "root-*.ext4", keep=1)
    return found


class Turn:
    """The right to run a virtual DPU: two at a time take up to five times as long. One for the whole process."""

    def __init__(self) -> None:
        self._holders = 0
        self._lock: AbstractContextManager[None] | None = None

    def take(self) -> None:
        """Wait until no other process runs one."""
        if self._holders == 0:
            self._lock = making.locked(paths.host() / "running", "a virtual DPU is running")
            self._lock.__enter__()
        self._holders += 1

    def give_back(self) -> None:
        """As often as it was taken."""
        self._holders -= 1
        if self._holders == 0 and self._lock is not None:
            self._lock.__exit__(None, None, None)
            self._lock = None


turn = Turn()


def wait_running(agent: GuestAgent, *, timeout: float = BOOT_TIMEOUT) -> None:
    """Until systemd says that the guest is up; a unit that failed is named."""
    progress = Progress("[boot]", time.monotonic())
    deadline = time.monotonic() + timeout
    said = time.monotonic()
    while True:
        try:
            state = agent.run(["systemctl", "is-system-running"], timeout=30).stdout.strip()
        except GuestSilentError:
            state = "not there yet"
        if state == "running":
            return
        if state == "degraded":
            failed = agent.run(["systemctl", "--failed", "--plain", "--no-legend"]).stdout
            raise LabError(f"In the guest, units failed:\n{failed}", "See the console's log.")
        if time.monotonic() > deadline:
            raise LabError(f"The guest was {state} after {timeout:g} s.", "See the console's log.")
        if time.monotonic() - said > SILENCE:
            progress.say("waiting for the virtual DPU to boot")
            said = time.monotonic()
        time.sleep(0.1)


@contextmanager
def running(what: Machine) -> Iterator[tuple[Qmp, GuestAgent]]:
    """QEMU with this machine, ended with the block."""
    qemu = start(what)
    agent = GuestAgent(what.guest_agent)
    try:
        yield Qmp(what.qmp), agent
    except LabError as error:
        raise LabError(f"{error.problem} The console's end:\n{tail(what.console)}\n", error.remedy) from error
    finally:
        agent.close()
        qemu.kill()


def start(what: Machine) -> processes.Process:
    """QEMU, up to the point where its sockets are there."""
    qemu = processes.start("qemu", what.command(), what.folder)
    deadline = time.monotonic() + 60
    while not what.qmp.exists():
        if not qemu.alive():
            raise LabError(f"QEMU ended at once:\n{qemu.log_tail()}\n", "Mend that and try again.")
        if time.monotonic() > deadline:
            qemu.kill()
            raise LabError(
                "QEMU did not offer its control socket within 60 s.", "See that the machine isn't overloaded."
            )
        time.sleep(0.005)
    return qemu


def tail(log: Path, lines: int = 25) -> str:
    """The end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "(nothing)"


def _save(found: Parts, target: Path) -> None:
    """Boot once and write down the machine: its memory, and what its root disk became."""
    target.mkdir()
    overlay = target / "root.qcow2"
    making.step(
        "making the disk of the saved machine",
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", found.root, "-F", "raw", overlay],
    )
    folder = Path(tempfile.mkdtemp(prefix="dpu-boot-"))
    progress = Progress("[boot]", time.monotonic())
    turn.take()
    progress.say("booting the virtual DPU once")
    try:
        what = replace(found.fresh(folder), root=overlay, root_format="qcow2", keep_root=True)
        with running(what) as (qmp, agent):
            wait_running(agent)
            progress.say("saving the booted machine")
            _settle(agent)
            agent.close()
            qmp.ask("stop")
            qmp.migrate(f"exec:cat > {target / 'state'}", timeout=120)
            qmp.ask("quit")
        progress.say("the booted machine is saved")
    finally:
        turn.give_back()
        shutil.rmtree(folder, ignore_errors=True)


def _settle(agent: GuestAgent) -> None:
    """Warm what each test will run, and leave no work behind that a restored machine would go on with."""
    script = "udevadm settle; ovs-vsctl show >/dev/null; python3 -c 'import json, asyncio, socket'; devlink dev; sync; echo 3 >/proc/sys/vm/drop_caches"
    result: Result = agent.run(["/bin/bash", "-c", script], timeout=60)
    if not result.ok:
        raise LabError(f"The guest is up, but not well: {result.stderr.strip()}", "See the console's log.")


@cache
def _needs() -> None:
    needs.install()


@cache
def _kernel() -> kernel.Kernel:
    return kernel.kernel()


@cache
def _qemu() -> str:
    said = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=False).stdout
    return said.partition("\n")[0]
