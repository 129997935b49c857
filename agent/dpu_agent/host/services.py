"""systemd's services, by `systemctl`: it works in the early stage too, where there is no D-Bus yet."""

from dpu_agent.host.commands import Commands

VSWITCHD = "ovs-vswitchd.service"
"""The daemon's unit, in RHEL's packages and in Debian's; restarting openvswitch.service would stop ovsdb-server, too."""
RESTART_SECONDS = 120.0
"""Taking up a card's ports takes ovs-vswitchd up to ten seconds; its unit gives up after 90."""


class Systemd:
    """`machine.Services` of the machine's systemd."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    def restart_vswitchd(self) -> None:
        self._commands.run(
            "systemctl",
            "restart",
            VSWITCHD,
            seconds=RESTART_SECONDS,
            hint=f"See `systemctl status {VSWITCHD}` and `journalctl -u {VSWITCHD}` on the DPU.",
        )
