"""Finding the programs that the lab runs: prebuilt ones whose version fits, else built from their Go modules."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.lab import gobuild

NEEDED = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl", "kwok", "kubeconform")

# etcd below 3.5 lacks progress notifications on demand: the API server's watch cache goes stale, and kwok with it.
# Kubernetes below 1.30 lacks admission policies in v1.
MINIMUM = {
    "etcd": (3, 5),
    "kube-apiserver": (1, 30),
    "kube-controller-manager": (1, 30),
    "kube-scheduler": (1, 30),
    "kubectl": (1, 30),
    "kwok": (0, 6),
    "kubeconform": (0, 6),
}
_ASK = {"kubectl": ["version", "--client"], "kubeconform": ["-v"]}


@dataclass(frozen=True)
class Binary:
    """A program that fits, and where it came from."""

    name: str
    path: Path
    origin: str


@cache
def find() -> dict[str, Binary]:
    """All programs that the lab needs; what no folder offers is built, which takes minutes the first time."""
    found = {name: binary for name in NEEDED if (binary := prebuilt(name))}
    missing = [name for name in NEEDED if name not in found]
    for name, path in gobuild.ensure(missing).items() if missing else ():
        found[name] = Binary(name, path, "built")
    return found


def path(name: str) -> str:
    """The path of one program, as an argument for a command line."""
    return str(find()[name].path)


def prebuilt(name: str) -> Binary | None:
    """A program from KUBEBUILDER_ASSETS or PATH, if its version fits; one that doesn't fit is named and passed over."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    for origin, folder in (("KUBEBUILDER_ASSETS", assets), ("PATH", os.environ.get("PATH"))):
        candidate = shutil.which(name, path=folder) if folder else None
        if candidate is None:
            continue
        said = version(name, candidate)
        if said >= MINIMUM[name]:
            return Binary(name, Path(candidate), origin)
        wanted = ".".join(map(str, MINIMUM[name]))
        have = ".".join(map(str, said)) if said else "of an unknown version"
        print(f"dpu-lab: {candidate} is {have}, the lab wants {wanted} or newer: passed over", file=sys.stderr)
    return None


def version(name: str, binary: str) -> tuple[int, ...]:
    """What a program says its version is; () where it says nothing of the kind."""
    asked = [binary, *_ASK.get(name, ["--version"])]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(r"v?(\d+)\.(\d+)\.(\d+)", said.stdout + said.stderr)
    return tuple(int(part) for part in found.groups()) if found else ()
