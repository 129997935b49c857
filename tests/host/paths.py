"""Where the virtual DPU's parts live."""

from pathlib import Path

from tests.lab import places

HERE = Path(__file__).resolve().parent
MODULE = HERE / "module"
GUEST = HERE / "guest"
CUSTOMIZE = GUEST / "customize.sh"
WRAPPER = GUEST / "payload" / "dpu-agent"


def host() -> Path:
    """The folder of what the virtual DPU is made of, in the lab's cache."""
    return places.cache() / "host"
