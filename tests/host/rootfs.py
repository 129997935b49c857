"""The guest's root disk: Debian by mmdebstrap, made into a DPU, as an ext4 image."""

import os
import shlex
import shutil
from pathlib import Path

from tests.host import guestkernel, paths
from tests.host.kernel import Kernel
from tests.host.keys import digest, of_files, tree
from tests.lab import debs, making

RELEASE = "bookworm"
PACKAGES = (
    "systemd-sysv", "udev", "dbus", "kmod", "iproute2", "iputils-ping", "ethtool", "procps", "openvswitch-switch", "python3",
    "qemu-guest-agent", "tcpdump", "pciutils", "less",
)  # fmt: skip
SIZE = "1G"


def image(kernel: Kernel) -> Path:
    """The root disk; it holds neither the card's module nor the agent, so that these may change without it."""
    parts = [
        RELEASE,
        *PACKAGES,
        SIZE,
        of_files([paths.CUSTOMIZE, *tree(paths.GUEST / "root")], paths.GUEST),
        kernel.named(),
        *guestkernel.NEEDED,
    ]
    target = paths.host() / f"root-{digest(*parts)}.ext4"
    return making.made(target, "making the guest's root disk", lambda file: _make(kernel, file))


def _make(kernel: Kernel, target: Path) -> None:
    modules = guestkernel.modules(kernel)
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    root = target.with_name(f"{target.name}.root")
    lines = target.with_name(f"{target.name}.list")
    lines.write_text("".join(source.line() for source in _sources()))
    hook = f'{shlex.quote(str(paths.CUSTOMIZE))} "$1" {shlex.quote(str(paths.GUEST))} {shlex.quote(str(modules))}'
    if root.exists():  # of a run that was killed
        making.step("clearing up", [*sudo, "rm", "-rf", root])
    try:
        making.step(
            "installing the guest's packages into a folder",
            [
                *sudo, "mmdebstrap", "--quiet", "--variant=essential", "--mode=root", "--format=directory",
                f"--include={','.join(PACKAGES)}", "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
                '--aptopt=Acquire::Languages "none"', f"--customize-hook={hook}", RELEASE, root, lines,
            ],
        )  # fmt: skip
        mke2fs = shutil.which("mke2fs") or "/sbin/mke2fs"
        # With a journal, since tests cut the power.
        making.step(
            "writing the guest's root disk",
            [
                *sudo,
                mke2fs,
                "-q",
                "-t",
                "ext4",
                "-J",
                "size=8",
                "-m",
                "0",
                "-E",
                "lazy_itable_init=0",
                "-d",
                root,
                target,
                SIZE,
            ],
        )
        if sudo:
            making.step("making it yours", ["sudo", "chown", f"{os.getuid()}:{os.getgid()}", target])
    finally:
        making.step("clearing up", [*sudo, "rm", "-rf", root, lines])


def _sources() -> list[debs.Source]:
    """The suites of the guest's release, at the mirrors that this system uses."""
    mirrors = {source.label: source.mirror for source in debs.sources()}
    found = [debs.Source(debs.View().mirror(), RELEASE, "Debian")]
    if "Debian-Security" in mirrors:
        found.append(debs.Source(mirrors["Debian-Security"], f"{RELEASE}-security", "Debian-Security"))
    return found
