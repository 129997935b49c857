"""QEMU's command line: one machine, the same for booting, saving and restoring."""

import os
from dataclasses import dataclass
from pathlib import Path

PRODUCT = "BlueField-2 DPU 25GbE Dual-Port SFP56"
MANAGEMENT_MAC = "52:54:00:00:00:01"

_SSDT = b"\x08VBF_\x0dMLNXBF22\x00"
"""AML: Name (VBF_, "MLNXBF22"). NVIDIA's own tools look for this text in the SSDT to tell which BlueField they run on."""


@dataclass(frozen=True)
class Machine:
    """The files that a machine is made of, and the folder of its sockets and logs."""

    folder: Path
    vmlinux: Path
    initrd: Path
    root: Path
    payload: Path
    root_format: str = "raw"
    keep_root: bool = False
    incoming: Path | None = None

    @property
    def console(self) -> Path:
        """All that the guest wrote on its serial line."""
        return self.folder / "console.log"

    @property
    def serial(self) -> Path:
        """The socket of that line."""
        return self.folder / "serial.sock"

    @property
    def guest_agent(self) -> Path:
        """The socket of qemu-guest-agent."""
        return self.folder / "qga.sock"

    @property
    def qmp(self) -> Path:
        """QEMU's control socket."""
        return self.folder / "qmp.sock"

    def command(self) -> list[str]:
        """The command line. Unless `keep_root`, what the guest writes lasts as long as this QEMU: resets included."""
        ssdt = self.folder / "ssdt.bin"
        ssdt.write_bytes(_SSDT)
        return self.words(ssdt)

    def words(self, ssdt: Path) -> list[str]:
        """The command line, with that ACPI table."""
        snapshot = "off" if self.keep_root else "on"
        incoming = [] if self.incoming is None else ["-incoming", f"exec:cat {self.incoming}"]
        return [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-name", "dpu", "-machine", "q35", *accelerator(),
            "-smp", "2", "-m", "1024", "-display", "none",
            "-kernel", str(self.vmlinux), "-initrd", str(self.initrd), "-append", KERNEL_ARGUMENTS,
            "-drive", f"if=none,id=root,file={self.root},format={self.root_format},snapshot={snapshot},cache=unsafe",
            "-device", "virtio-blk-pci,drive=root",
            "-drive", f"if=none,id=payload,file={self.payload},format=raw,readonly=on",
            "-device", "virtio-blk-pci,drive=payload",
            "-netdev", "user,id=oob,ipv6=off",
            "-device", f"virtio-net-pci,netdev=oob,mac={MANAGEMENT_MAC},romfile=",
            "-device", "virtio-rng-pci",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=qga,path={self.guest_agent},server=on,wait=off",
            "-device", "virtserialport,chardev=qga,name=org.qemu.guest_agent.0",
            "-chardev", f"socket,id=serial,path={self.serial},server=on,wait=off,logfile={self.console},logappend=on",
            "-serial", "chardev:serial",
            "-qmp", f"unix:{self.qmp},server=on,wait=off",
            # A comma is doubled in QEMU's options.
            "-smbios", f"type=1,manufacturer=Nvidia,product={PRODUCT.replace(',', ',,')}",
            "-acpitable", f"sig=SSDT,rev=2,oem_id=MLNX,oem_table_id=VBF,oem_rev=1,asl_compiler_id=VBF,data={ssdt}",
            *incoming,
        ]  # fmt: skip


KERNEL_ARGUMENTS = "console=ttyS0 quiet panic=-1 mitigations=off systemd.show_status=0 audit=0"


def accelerator() -> list[str]:
    """KVM where it truly works, which a node in /dev alone does not show; TCG else."""
    if os.environ.get("DPU_VM_ACCEL") == "kvm":
        return ["-accel", "kvm", "-cpu", "max"]
    return ["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"]
