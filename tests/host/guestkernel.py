"""What the guest boots from: the kernel as QEMU starts it directly, its modules, and a small initial file system."""

import gzip
import lzma
import shutil
import stat
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.host import paths
from tests.host.kernel import Kernel
from tests.host.keys import digest
from tests.lab import making
from tests.lab.errors import LabError

BOOT = ("virtio_pci", "virtio_blk", "ext4", "crc32c_generic")
"""What it takes to mount the root disk."""

NEEDED = (
    *BOOT, "virtio_net", "virtio_console", "virtio_rng", "openvswitch", "cls_flower", "cls_matchall", "sch_ingress",
    "act_mirred", "act_gact", "act_ct", "act_csum", "act_pedit", "act_skbedit", "act_tunnel_key", "act_vlan", "act_police",
    "act_mpls", "act_sample", "geneve", "vxlan", "veth", "dummy", "bridge", "tun", "bonding", "8021q", "nf_conntrack",
    "nf_tables", "overlay", "sch_fq_codel", "9p", "9pnet_virtio", "button", "udp_diag", "tcp_diag", "fuse", "autofs4",
)  # fmt: skip

_ZSTD = b"\x28\xb5\x2f\xfd"
_INIT = """\
#!/bin/busybox sh
/bin/busybox mkdir -p /dev /proc /sys /root
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
for module in $(/bin/busybox cat /order); do /bin/busybox insmod /modules/$module; done
n=0
until [ -b /dev/vda ] || [ $n = 200 ]; do n=$((n+1)); /bin/busybox usleep 50000; done
/bin/busybox mount -t ext4 -o rw,noatime /dev/vda /root || exec /bin/busybox sh
/bin/busybox umount /proc /sys
exec /bin/busybox switch_root /root /sbin/init
"""


def vmlinux(kernel: Kernel) -> Path:
    """The kernel as an ELF file, which QEMU starts without a boot loader and without unpacking it on a slow CPU."""
    target = paths.host() / f"vmlinux-{digest(kernel.named())}"
    return making.made(target, "unpacking the guest's kernel", lambda file: _extract(kernel.vmlinuz, file))


def modules(kernel: Kernel) -> Path:
    """A folder with RELEASE/ in it: the modules that the guest needs, those that they need, and the index of them."""
    target = paths.host() / f"modules-{digest(kernel.named(), *NEEDED)}"
    return making.made(target, "picking the guest's modules", lambda folder: _pick(kernel, folder))


def initrd(kernel: Kernel) -> Path:
    """A static busybox and what it takes to mount the root disk."""
    busybox = Path(shutil.which("busybox") or "/bin/busybox")
    target = paths.host() / f"initrd-{digest(kernel.named(), _INIT, *BOOT, busybox.read_bytes())}.gz"
    return making.made(target, "making the initial file system", lambda file: _initrd(kernel, busybox, file))


def _extract(vmlinuz: Path, target: Path) -> None:
    packed = vmlinuz.read_bytes()
    at = packed.find(_ZSTD)
    while at >= 0:
        # What follows the packed kernel makes zstd exit with an error: only the result counts.
        result = subprocess.run(["zstd", "-dqc"], input=packed[at:], capture_output=True, check=False).stdout
        if result.startswith(b"\x7fELF"):
            target.write_bytes(result)
            return
        at = packed.find(_ZSTD, at + 1)
    raise LabError(
        f"{vmlinuz.name} isn't packed with zstd.",
        "Look which packing this kernel uses, and teach it to guestkernel.py.",
    )


def _pick(kernel: Kernel, folder: Path) -> None:
    base = folder / kernel.release
    for path in closure(kernel, NEEDED):
        unpacked = base / path.removesuffix(".xz")
        unpacked.parent.mkdir(parents=True, exist_ok=True)
        unpacked.write_bytes(_plain(kernel.modules / path))
    for index in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        shutil.copy(kernel.modules / index, base / index)
    # depmod wants the tree of a root.
    (folder / "lib").mkdir()
    (folder / "lib" / "modules").symlink_to("..")
    making.step("indexing the guest's modules", [_depmod(), "-b", folder, kernel.release])
    shutil.rmtree(folder / "lib")


def closure(kernel: Kernel, names: Iterable[str]) -> list[str]:
    """Modules and their needs as paths, each after what it needs; those that are built in are left out."""
    table = _table(kernel)
    paths_of = {_name(path): path for path in table}
    found: list[str] = []
    for name in names:
        path = paths_of.get(name.replace("-", "_"))
        if path is not None:
            found += [need for need in [*reversed(table[path]), path] if need not in found]
    return found


def _table(kernel: Kernel) -> dict[str, list[str]]:
    index = kernel.modules / "modules.dep"
    if not index.exists():
        making.step("indexing the kernel's modules", [_depmod(), "-b", kernel.image, kernel.release])
    lines = (line.partition(":") for line in index.read_text().splitlines())
    return {path: needs.split() for path, _, needs in lines}


def _depmod() -> str:
    return shutil.which("depmod") or "/sbin/depmod"


def _name(path: str) -> str:
    return Path(path).name.partition(".ko")[0].replace("-", "_")


def _plain(path: Path) -> bytes:
    return lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()


def _initrd(kernel: Kernel, busybox: Path, target: Path) -> None:
    wanted = closure(kernel, BOOT)
    names = [_name(path) + ".ko" for path in wanted]
    archive = Archive()
    for folder in ("bin", "dev", "modules", "proc", "sys", "root"):
        archive.add(folder, stat.S_IFDIR | 0o755)
    archive.add("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes())
    archive.add("init", stat.S_IFREG | 0o755, _INIT.encode())
    archive.add("order", stat.S_IFREG | 0o644, "\n".join(names).encode())
    for name, path in zip(names, wanted, strict=True):
        archive.add(f"modules/{name}", stat.S_IFREG | 0o644, _plain(kernel.modules / path))
    target.write_bytes(gzip.compress(archive.finished(), compresslevel=6, mtime=0))


class Archive:
    """A cpio archive in the format that the kernel unpacks; written here because cpio is rarely installed."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._entries = 0

    def add(self, name: str, mode: int, content: bytes = b"") -> None:
        """One file or folder."""
        self._entries += 1
        encoded = name.encode() + b"\0"
        fields = (self._entries, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields)
        self._parts += [_padded(header + encoded), _padded(content)]

    def finished(self) -> bytes:
        """The whole archive."""
        self.add("TRAILER!!!", 0)
        return b"".join(self._parts)


def _padded(part: bytes) -> bytes:
    return part + b"\0" * (-len(part) % 4)
