"""The folder `systemd/` from disk, as plan's data."""

from collections.abc import Mapping
from pathlib import Path

from dpu_operator.plan.machineconfig import Tree, TreeFile
from dpu_shared.errors import UserError

VARIABLE = "DPU_SYSTEMD_TREE"
INSTALLED = Path("/usr/share/dpu-network-operator/systemd")
"""Where the operator's image has it: a wheel carries only its package, and the folder stands beside the packages."""
CHECKOUT = Path(__file__).resolve().parents[3] / "systemd"


def load_tree(environment: Mapping[str, str]) -> Tree:
    """Every file of the tree but its README, by its absolute path on the DPU.

    Of a file's mode only the executable bit is taken: the others are whatever the clone's umask was, and a changed
    mode would reboot every DPU.

    Args:
        environment: of the process; `DPU_SYSTEMD_TREE` names another folder.

    Raises:
        UserError: no such folder, nothing in it, or a file that cannot be read.

    """
    chosen = environment.get(VARIABLE)
    root = Path(chosen) if chosen else next((p for p in (CHECKOUT, INSTALLED) if p.is_dir()), INSTALLED)
    remedy = f"Set {VARIABLE} to the folder systemd/ of the DPU Network Operator's source."
    if not root.is_dir():
        raise UserError(f"The DPU's files are not at {root}.", remedy)
    tree: dict[str, TreeFile] = {}
    for path in sorted(root.rglob("*")):
        where = "/" + path.relative_to(root).as_posix()
        if path.is_dir() or where == "/README.md":
            continue
        try:
            executable = bool(path.stat().st_mode & 0o100)
            tree[where] = TreeFile(mode=0o755 if executable else 0o644, contents=path.read_bytes())
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}.", remedy) from error
    if not tree:
        raise UserError(f"The folder {root} holds no file for the DPU.", remedy)
    return tree
