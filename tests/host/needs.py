"""What the build machine itself needs; apt brings what is missing, and nothing else here changes the system."""

from tests.lab import debs

PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "mmdebstrap": "mmdebstrap",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "gcc": "gcc",
    "make": "make",
    "mke2fs": "e2fsprogs",
    "zstd": "zstd",
    "/usr/include/stdio.h": "libc6-dev",
    "/usr/lib/*/libelf.so.1": "libelf1",
}


def install() -> None:
    """Each of them is there."""
    debs.installed(PROGRAMS)
