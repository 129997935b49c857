"""The machine that this process runs on, behind the Protocols of `machine.py`.

Which file goes where is in `paths.py`: /sys, /proc, /run and /dev as they are, all else below `root`.

| part | goes to |
| --- | --- |
| devlink, links | the kernel, in the network namespace of this process (`--net=host`) |
| ovsdb | /run/openvswitch/db.sock, or in the folder $OVS_RUNDIR |
| sysfs | /sys, /proc, /run/openvswitch; other agents' files below root |
| udev | /run/udev, /sys; rules in /run/udev/rules.d, and below root in /etc and /usr; `udevadm` of the machine |
| services | `systemctl` of the machine |
"""

import os
from pathlib import Path

from dpu_agent.host.paths import Paths, default_root
from dpu_agent.machine import Machine

__all__ = ["default_root", "machine"]


def machine(root: Path) -> Machine:
    """The machine whose root is mounted at `root` (see `default_root`). Nothing is opened or asked yet."""
    # Here and not above: they bring pyroute2, ovs and pyudev, for which `dpu-agent plan --from FILE` has no use.
    from dpu_agent.host.commands import Commands  # noqa: PLC0415
    from dpu_agent.host.devlink import KernelDevlink  # noqa: PLC0415
    from dpu_agent.host.links import KernelLinks  # noqa: PLC0415
    from dpu_agent.host.ovsdb import OvsDatabase, remote  # noqa: PLC0415
    from dpu_agent.host.services import Systemd  # noqa: PLC0415
    from dpu_agent.host.sysfs import MachineSysfs  # noqa: PLC0415
    from dpu_agent.host.udev import MachineUdev  # noqa: PLC0415

    paths = Paths(root)
    commands = Commands(root)
    elsewhere = os.environ.get("OVS_RUNDIR")  # as for Open vSwitch's own programs, and for `remote`
    return Machine(
        devlink=KernelDevlink(),
        ovsdb=OvsDatabase(remote()),
        sysfs=MachineSysfs(paths, ovs=Path(elsewhere) if elsewhere else None),
        udev=MachineUdev(paths, commands),
        links=KernelLinks(),
        services=Systemd(commands),
    )
