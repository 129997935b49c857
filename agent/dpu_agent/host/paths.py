"""Where the machine's files are for this process: on the machine itself, or in the agent's container.

/sys, /proc, /run and /dev are bound into the container (and into the early stage's root) as themselves, so they are
read where they are. All else, above all /etc, /usr and /opt, is the machine's only below its root, which is mounted at
/host there. /host/run is not used: the early stage's bind of / does not bring what is mounted below it.
"""

import os
from dataclasses import dataclass
from pathlib import Path

_INIT_ROOT = Path("/proc/1/root")
_MOUNTED = Path("/host")
_LINKS = 40  # as many symbolic links as the kernel follows for one path (ELOOP)


@dataclass(frozen=True, slots=True)
class Paths:
    """The machine's folders.

    Args:
        root: the machine's root; `/`, or `/host` in the container.
        sys: the machine's /sys.
        proc: the machine's /proc, of the process ids of the machine.
        run: the machine's /run.

    """

    root: Path
    sys: Path = Path("/sys")
    proc: Path = Path("/proc")
    run: Path = Path("/run")

    def host(self, path: str | Path) -> Path:
        """A path of the machine, below its root, with its symbolic links followed as the machine would follow them.

        An absolute link (`/etc/systemd/system/x -> /usr/lib/…`) would lead into the container's own files otherwise.
        The path need not exist.
        """
        parts = [part for part in Path(path).parts if part != "/"]
        found: list[str] = []
        budget = _LINKS
        while parts:
            part = parts.pop(0)
            if part == "..":
                found = found[:-1]
                continue
            here = self.root.joinpath(*found, part)
            if budget and here.is_symlink():
                budget -= 1
                target = here.readlink()
                found = [] if target.is_absolute() else found
                parts = [each for each in target.parts if each != "/"] + parts
            else:
                found.append(part)
        return self.root.joinpath(*found)


def default_root() -> Path:
    """`/host` in a container (or the early stage's root) where the machine's root is mounted there, else `/`.

    Process 1 is the machine's own (the container shares its process ids), so its root tells which is which.
    """
    return _MOUNTED if _same(_INIT_ROOT, _MOUNTED) and not _same(_INIT_ROOT, Path("/")) else Path("/")


def command_prefix(root: Path) -> tuple[str, ...]:
    """What runs a command among the machine's own files, with its mounts.

    `chroot` comes with coreutils, which every image has; `nsenter` does not. It goes to the root of process 1 and not to
    /host, although both are the same folder: all the machine's mounts are below the former, and udevadm and systemctl,
    which do nothing in a chroot, take it for the root that it is (newer systemd compares mounts, not only inodes).
    """
    if root == Path("/"):
        return ()
    return ("chroot", str(_INIT_ROOT if _same(_INIT_ROOT, root) else root))


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samestat(one.stat(), other.stat())
    except OSError:
        return False  # not there, or (of process 1) not ours to look at
