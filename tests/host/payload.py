"""The second disk: the card's module, and the agent of this checkout with what it needs, compiled.

The saved machine has this disk attached but not mounted, so that a change of the agent or of the module costs seconds: no
root disk is made anew and no machine is booted. Its size never changes, since a saved machine remembers it.
"""

import compileall
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

from tests.host import paths
from tests.host.kernel import Kernel
from tests.host.keys import digest, of_files, tree
from tests.lab import making, places
from tests.lab.errors import LabError

SIZE = "256M"
PYTHON = "3.11"
"""The guest's."""

MEMBERS = ("agent/dpu_agent", "shared/dpu_shared")


def image(kernel: Kernel) -> Path:
    """The disk for what this checkout has now."""
    module = card(kernel)
    site = packages()
    members = [places.REPOSITORY / member for member in MEMBERS]
    sources = [file for member in members for file in tree(member)]
    key = digest(module.parent.name, site.name, of_files(sources, places.REPOSITORY), SIZE, paths.WRAPPER.read_bytes())
    target = paths.host() / "payload" / f"{key}.ext4"
    made = making.made(target, "writing the disk with the agent", lambda file: _make(module, site, members, file))
    making.forget_old(target, "*.ext4", keep=4)
    return made


def card(kernel: Kernel) -> Path:
    """The card's module, built for the guest's kernel."""
    files = [file for file in tree(paths.MODULE) if file.suffix in {".c", ".h"} or file.name == "Kbuild"]
    folder = paths.host() / f"card-{digest(kernel.named(), of_files(files, paths.MODULE))}"
    return (
        making.made(folder, "building the card's module", lambda target: _card(kernel, files, target))
        / "virtual_bluefield.ko"
    )


def packages() -> Path:
    """What the agent needs of other people, as wheels for the guest's Python; the hashes in the lock say which."""
    lock = places.REPOSITORY / "requirements" / "agent.txt"
    target = paths.host() / f"site-{digest(PYTHON, lock.read_bytes())}"
    return making.made(target, "fetching what the agent needs", lambda folder: _packages(lock, folder))


def _card(kernel: Kernel, files: list[Path], folder: Path) -> None:
    folder.mkdir()
    for file in files:
        shutil.copy(file, folder / file.name)
    making.step(
        "building the card's module",
        ["make", "-C", kernel.build, f"M={folder}", "CONFIG_DEBUG_INFO_BTF_MODULES=", "KCFLAGS=-Werror", "modules"],
    )
    making.step("stripping it", ["strip", "-g", folder / "virtual_bluefield.ko"])


def _packages(lock: Path, folder: Path) -> None:
    uv = subprocess.run(
        [places.REPOSITORY / "requirements" / "uv.sh"], capture_output=True, text=True, check=False
    ).stdout.strip()
    if not uv:
        raise LabError("There is no uv.", "Run `make setup`.")
    folder.mkdir()
    making.step(
        "fetching what the agent needs",
        [
            uv, "pip", "install", "--quiet", "--target", folder, "--python-version", PYTHON, "--python-platform", "x86_64-manylinux_2_28",
            "--only-binary", ":all:", "--no-binary", "ovs", "--no-deps", "--require-hashes", "-r", lock,
        ],
    )  # fmt: skip
    _compile(folder)


def _make(module: Path, site: Path, members: list[Path], target: Path) -> None:
    folder = target.with_name(f"{target.name}.tree")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        (folder / "site").mkdir(parents=True)
        shutil.copytree(site, folder / "site", dirs_exist_ok=True)
        for member in members:
            shutil.copytree(member, folder / "site" / member.name, ignore=shutil.ignore_patterns("__pycache__"))
            _compile(folder / "site" / member.name)
        shutil.copy(module, folder)
        shutil.copy(paths.WRAPPER, folder)
        mke2fs = shutil.which("mke2fs") or "/sbin/mke2fs"
        making.step(
            "writing the disk with the agent",
            [
                mke2fs, "-q", "-t", "ext4", "-O", "^has_journal,^metadata_csum", "-m", "0", "-E", "lazy_itable_init=1,root_owner=0:0",
                "-d", folder, target, SIZE,
            ],
        )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _compile(folder: Path) -> None:
    """Compiled for good: the disk can't be written, and comparing times costs more than importing."""
    if sys.version_info[:2] != tuple(int(part) for part in PYTHON.split(".")):
        return  # another version's files would be of no use to the guest, which then compiles at each start
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    compileall.compile_dir(
        str(folder), quiet=2, invalidation_mode=mode, stripdir=str(folder.parent), prependdir="/opt/dpu/site"
    )
