"""The guest's kernel: which one it is, its image and its headers, unpacked into the cache."""

import json
from dataclasses import dataclass
from pathlib import Path

from tests.host import paths
from tests.lab import debs, making
from tests.lab.errors import LabError

SUITE = "bookworm-backports"
"""Debian 12's own kernel, 6.1, lacks what the module needs of devlink; the one of the cloud image lacks switchdev."""


@dataclass(frozen=True)
class Kernel:
    """One kernel release and where its parts are unpacked."""

    release: str
    image: Path
    headers: Path

    @property
    def vmlinuz(self) -> Path:
        """As Debian ships it."""
        return self.image / "boot" / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        """Its own modules."""
        return self.image / "lib" / "modules" / self.release

    @property
    def build(self) -> Path:
        """Where `make -C` builds a module."""
        return self.headers / "usr" / "src" / f"linux-headers-{self.release}"

    def named(self) -> str:
        """What its packages are, for the keys of what is made from them."""
        return " ".join([*debs.names(self.image), *debs.names(self.headers)])


def kernel() -> Kernel:
    """The newest kernel of the suite at the time of the first build; it stays until the cache is emptied."""
    chosen = making.made(paths.host() / "kernel.json", "choosing the guest's kernel", _choose)
    choice = json.loads(chosen.read_text())
    image = debs.unpacked([choice["image"]], suite=SUITE)
    headers = debs.unpacked(choice["headers"], suite=SUITE)
    found = Kernel(choice["release"], image, headers)
    _relocate(found)
    return found


def _choose(target: Path) -> None:
    view = debs.View(SUITE)
    image = next((name for name in view.depends("linux-image-amd64") if name.startswith("linux-image-")), None)
    if image is None:
        raise LabError(f"{SUITE} has no kernel for amd64.", "See that apt's mirror carries this suite.")
    release = image.removeprefix("linux-image-")
    headers = f"linux-headers-{release}"
    wanted = [name for name in view.depends(headers) if name.startswith(("linux-headers-", "linux-kbuild-"))]
    target.write_text(json.dumps({"release": release, "image": image, "headers": [headers, *wanted]}))


def _relocate(found: Kernel) -> None:
    """Let the headers' Makefiles name the folder they were unpacked into: they name /usr/src."""
    here = str(found.headers / "usr" / "src")
    for makefile in found.headers.glob("usr/src/linux-headers-*/Makefile"):
        text = makefile.read_text()
        if " /usr/src/" in text:
            makefile.write_text(text.replace(" /usr/src/", f" {here}/"))
    kbuild = found.headers / "usr" / "lib" / f"linux-kbuild-{_numbers(found.release)}"
    for name in ("scripts", "tools"):
        link = found.headers / "usr" / "src" / f"linux-headers-{_numbers(found.release)}-common" / name
        if link.is_symlink() and not link.exists():
            link.unlink()
            link.symlink_to(kbuild / name)


def _numbers(release: str) -> str:
    return release.removesuffix("-amd64")
