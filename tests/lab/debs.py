"""Debian packages, unpacked into the cache and never installed.

apt works on a private view of the archive: its own list of sources, its own lists and archives. So the developer's system
stays as it is, another suite than the system's can be asked, and no rights are needed. Which mirror serves is the
system's own choice: it is read from apt's configuration.
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab import making, places
from tests.lab.errors import LabError

MANIFEST = ".packages.json"
"""In an unpacked folder: the file names of the packages, which tell their versions."""

_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_FORMAT = "$(ORIGIN)|$(CREATED_BY)|$(REPO_URI)|$(CODENAME)|$(LABEL)"


@dataclass(frozen=True)
class Source:
    """One suite at one mirror, as apt knows it."""

    mirror: str
    suite: str
    label: str

    def line(self) -> str:
        """As in a sources.list."""
        signed = f" [signed-by={_KEYRING}]" if _KEYRING.exists() else ""
        return f"deb{signed} {self.mirror} {self.suite} main\n"


def unpacked(packages: Sequence[str], *, suite: str | None = None, needs: bool = False) -> Path:
    """A folder in the cache with these packages unpacked; with `needs`, also those that they need and this system lacks."""
    request = json.dumps({"packages": sorted(packages), "suite": suite, "needs": needs})
    target = places.debs() / hashlib.sha256(request.encode()).hexdigest()[:16]
    view = View(suite)
    return making.made(
        target, f"unpacking {packages[0]}", lambda folder: _unpack(view, list(packages), folder, needs=needs)
    )


def names(folder: Path) -> list[str]:
    """The packages in an unpacked folder, as file names: name_version_architecture.deb."""
    found: list[str] = json.loads((folder / MANIFEST).read_text())
    return found


def installed(programs: dict[str, str]) -> None:
    """Install what is missing of {program, or pattern of a file: package}; the one thing here that changes the system."""
    missing = sorted({package for name, package in programs.items() if not _present(name)})
    if not missing:
        return
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        making.step("apt-get update", [*sudo, "apt-get", "update", "-qq"], env=environment)
        making.step(
            f"installing {' '.join(missing)}",
            [*sudo, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing],
            env=environment,
        )
    except LabError as error:
        raise LabError(error.problem, f"Install these packages, then try again: {' '.join(missing)}.") from error


def sources() -> list[Source]:
    """The Debian suites that this system's apt uses."""
    found = _sources()
    if not found:
        # A fresh machine or container has no lists yet, and apt doesn't tell its targets before.
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        making.step("apt-get update", [*sudo, "apt-get", "update", "-qq"])
        found = _sources()
    if not found:
        raise LabError("apt on this machine uses no Debian mirror.", "Use a Debian machine or container (12 or newer).")
    return found


class View:
    """apt with sources, lists and archives of its own."""

    def __init__(self, suite: str | None = None) -> None:
        self.suite = suite
        self.folder = places.debs() / f"view-{suite or 'own'}"
        self._updated = False

    def mirror(self) -> str:
        """The mirror of the system's main suite."""
        return next((source.mirror for source in sources() if source.label == "Debian"), sources()[0].mirror)

    def apt(self, what: str, *arguments: str, cwd: Path | None = None) -> str:
        """apt-get on this view."""
        self.ready()
        return making.step(what, ["apt-get", *self._options(), *arguments], cwd=cwd)

    def depends(self, package: str) -> list[str]:
        """What a package depends on directly: for a package that only names the newest one, that is its name."""
        self.ready()
        said = making.step(f"asking for {package}", ["apt-cache", *self._options(), "depends", package])
        return [line.split()[-1] for line in said.splitlines() if line.strip().startswith("Depends:")]

    def ready(self) -> None:
        """The lists are there, and of this run."""
        if not self._updated:
            self._updated = True
            self._prepare()

    def _prepare(self) -> None:
        lines = [source.line() for source in sources()]
        if self.suite is not None:
            lines = [Source(self.mirror(), self.suite, "Debian").line()]
        for part in ("lists/partial", "cache/archives/partial"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "view.list").write_text("".join(lines))
        self.apt(f"reading the package lists of {self.suite or 'this system'}", "update", "-q")

    def _options(self) -> list[str]:
        options = {
            "Dir::Etc::sourcelist": self.folder / "view.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": self.folder / "lists",
            "Dir::Cache": self.folder / "cache",
            "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
            "APT::Update::Post-Invoke-Success": "",
            "Debug::NoLocking": "1",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        return [f"-o{name}={value}" for name, value in options.items() if value != ""]


def _unpack(view: View, packages: list[str], folder: Path, *, needs: bool) -> None:
    fetched = folder.with_name(f"{folder.name}.debs")
    shutil.rmtree(fetched, ignore_errors=True)
    (fetched / "partial").mkdir(parents=True)
    try:
        what = f"fetching {' '.join(packages)}"
        if needs:
            view.apt(
                what, f"-oDir::Cache::archives={fetched}", "install", "--download-only", "--reinstall", "-y", "-q",
                "--no-install-recommends", *packages,
            )  # fmt: skip
        else:
            view.apt(what, "download", "-q", *packages, cwd=fetched)
        debs = sorted(fetched.glob("*.deb"))
        folder.mkdir()
        for deb in debs:
            making.step(f"unpacking {deb.name}", ["dpkg-deb", "-x", deb, folder])
        (folder / MANIFEST).write_text(json.dumps([deb.name for deb in debs]))
    finally:
        shutil.rmtree(fetched, ignore_errors=True)


def _sources() -> list[Source]:
    try:
        told = subprocess.run(
            ["apt-get", "indextargets", "--format", _FORMAT], capture_output=True, text=True, check=False, timeout=60
        ).stdout
    except FileNotFoundError as error:
        raise LabError("There is no apt-get here.", "Use a Debian machine or container (12 or newer).") from error
    found = []
    for line in told.splitlines():
        origin, created_by, mirror, codename, label = line.split("|")
        source = Source(mirror, codename, label)
        if origin == "Debian" and created_by == "Packages" and source not in found:
            found.append(source)
    return found


def _present(name: str) -> bool:
    if name.startswith("/"):
        return any(Path("/").glob(name.removeprefix("/")))
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin") is not None
