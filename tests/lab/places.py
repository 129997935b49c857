"""Where the lab keeps things: all of it outside the clone, so that a clone stays clean and a cache outlives it."""

import os
from pathlib import Path

LAB = Path(__file__).resolve().parent
REPOSITORY = LAB.parent.parent
MODULES = LAB / "modules"
TENANTS = LAB / "tenants"


def cache() -> Path:
    """The folder of what is expensive to make (binaries, Go's module and build caches)."""
    base = os.environ.get("DPU_LAB_CACHE")
    return Path(base) if base else Path.home() / ".cache" / "dpu-network-operator"


def state() -> Path:
    """The folder of the lab that `dpu-lab up` leaves running."""
    chosen = os.environ.get("DPU_LAB_DIR")
    return Path(chosen) if chosen else cache() / "lab"


def debs() -> Path:
    """The folder of Debian packages that are unpacked, never installed."""
    return cache() / "debs"
