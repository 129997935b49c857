"""udev as the agent sees it: whether its rules count, and what it has udev do."""

import stat
import threading
from pathlib import Path

import pytest

from dpu_agent.host import udev
from dpu_agent.host.commands import Commands
from dpu_agent.host.events import Events
from dpu_agent.host.paths import Paths
from dpu_agent.host.services import Systemd
from dpu_agent.host.udev import RULES, MachineUdev, packaged_rules, worth_waking
from dpu_agent.machine import HostError, Services, Udev
from dpu_agent.world import Rules

NAME = "82-dpu-network-operator.rules"
LATER = "a rule of another release\n"


class Host:
    """A machine's folders, and commands that note how they are called."""

    def __init__(self, folder: Path) -> None:
        self.paths = Paths(folder / "root", folder / "sys", folder / "proc", folder / "run")
        self.commands = folder / "bin"
        self.log = folder / "log"
        for each in (self.paths.root, self.paths.run, self.commands):
            each.mkdir()
        self.says("udevadm")
        self.says("systemctl")

    def says(self, command: str, rest: str = "") -> None:
        script = self.commands / command
        script.write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\necho "{command} $*" >> {self.log}\n{rest}\n')
        script.chmod(0o755)

    def runner(self) -> Commands:
        return Commands(Path("/"), path=str(self.commands))

    @property
    def udev(self) -> MachineUdev:
        return MachineUdev(self.paths, self.runner())

    @property
    def called(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def rules(self, folder: str, text: str | bytes) -> Path:
        base = self.paths.run if folder == "run" else self.paths.root / folder
        path = base / "udev/rules.d" / NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_they_are_the_udev_and_services_of_the_contract(host: Host) -> None:
    parts: tuple[Udev, Services] = (host.udev, Systemd(host.runner()))
    assert all(parts)


def test_the_machineconfig_carries_the_very_same_rules() -> None:
    """Else the agent would take the MachineConfig's file for one that somebody edited."""
    tree = Path(__file__).parents[2] / "systemd" / "etc/udev/rules.d"
    assert RULES.name == NAME
    assert (tree / NAME).read_bytes() == packaged_rules()


@pytest.mark.parametrize("folder", ["etc", "run", "usr/local/lib", "usr/lib", "lib"])
def test_the_same_rules_count_in_every_folder_that_udev_reads(host: Host, folder: str) -> None:
    assert host.udev.rules() is Rules.ABSENT
    host.rules(folder, packaged_rules())
    assert host.udev.rules() is Rules.PRESENT


def test_other_text_in_etc_is_an_edit_whatever_else_there_is(host: Host) -> None:
    host.rules("etc", LATER)
    host.rules("run", packaged_rules())
    assert host.udev.rules() is Rules.EDITED


def test_rules_masked_in_etc_are_an_edit(host: Host) -> None:
    path = host.rules("etc", "")
    path.unlink()
    path.symlink_to("/dev/null")
    (host.paths.root / "dev").mkdir()
    (host.paths.root / "dev/null").write_text("")
    assert host.udev.rules() is Rules.EDITED


def test_only_the_first_file_of_the_name_counts(host: Host) -> None:
    host.rules("run", LATER)
    host.rules("usr/lib", packaged_rules())
    assert host.udev.rules() is Rules.ABSENT
    host.rules("etc", packaged_rules())
    assert host.udev.rules() is Rules.PRESENT


def test_rules_that_cannot_be_read_are_an_error_and_not_absent(host: Host) -> None:
    host.rules("etc", "").unlink()
    (host.paths.root / "etc/udev/rules.d" / NAME).mkdir()
    with pytest.raises(HostError, match="cannot be read"):
        host.udev.rules()


def test_rules_are_installed_in_run_and_read_by_udevd(host: Host) -> None:
    host.rules("run", LATER)
    host.udev.install_rules()
    folder = host.paths.run / "udev/rules.d"
    assert [path.name for path in folder.iterdir()] == [NAME]
    assert (folder / NAME).read_bytes() == packaged_rules()
    assert stat.S_IMODE((folder / NAME).stat().st_mode) == 0o644
    assert host.called == ["udevadm control --reload"]
    assert host.udev.rules() is Rules.PRESENT
    assert list(host.paths.root.iterdir()) == [], "nothing of the MachineConfig's is touched"


def test_a_netdev_is_triggered_as_if_it_were_added_and_waited_for(host: Host) -> None:
    host.udev.trigger("enp3s0f0nc1pf0")
    assert host.called == [
        "udevadm trigger --action=add /sys/class/net/enp3s0f0nc1pf0",
        "udevadm settle --timeout=50",
    ]


def test_only_ovs_vswitchd_is_restarted(host: Host) -> None:
    Systemd(host.runner()).restart_vswitchd()
    assert host.called == ["systemctl restart ovs-vswitchd.service"]


def test_in_a_container_commands_are_the_machines_own(host: Host) -> None:
    host.says("chroot")
    root = host.paths.root
    Systemd(Commands(root, path=str(host.commands))).restart_vswitchd()
    assert host.called == [f"chroot {root} systemctl restart ovs-vswitchd.service"]


def test_a_command_that_fails_is_quoted(host: Host) -> None:
    host.says("systemctl", "echo first; echo 'Job for ovs-vswitchd.service failed.' >&2; exit 3")
    with pytest.raises(HostError) as caught:
        Systemd(host.runner()).restart_vswitchd()
    assert caught.value.message == (
        "`systemctl restart` failed with exit status 3: Job for ovs-vswitchd.service failed."
    )
    assert "journalctl -u ovs-vswitchd.service" in caught.value.hint


def test_a_command_that_is_missing_is_named(host: Host) -> None:
    (host.commands / "udevadm").unlink()
    with pytest.raises(HostError, match="`udevadm control` cannot be run: No such file or directory"):
        host.udev.install_rules()


def test_a_command_that_hangs_is_not_waited_for_for_ever(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.says("udevadm", "exec sleep 600")
    monkeypatch.setattr(udev, "TRIGGER_SECONDS", 0.3)
    with pytest.raises(HostError, match=r"`udevadm trigger` did not end within 0\.3 s"):
        host.udev.trigger("p0")


def test_without_udev_its_database_is_an_error_and_not_an_answer(host: Host) -> None:
    with pytest.raises(HostError, match="database is not there"):
        host.udev.unmanaged("lo")
    with pytest.raises(HostError, match="udev does not run"):
        host.udev.watch(print)


def test_a_netdev_that_udev_has_nothing_about_is_not_unmanaged(host: Host) -> None:
    """Its database is read by libudev from the real /run, which has nothing about these two anywhere."""
    (host.paths.run / "udev/data").mkdir(parents=True)
    assert host.udev.unmanaged("lo") is False
    assert host.udev.unmanaged("nosuchlink0") is False


@pytest.mark.parametrize(
    ("path", "wakes"),
    [
        ("/devices/pci0000:00/0000:00:00.0/0000:03:00.0/net/c1pf0hpf", True),
        ("/devices/platform/MLNXBF17:00/net/oob_net0", True),
        ("/devices/virtual/net/veth1234", False),
    ],
)
def test_a_pods_netdev_wakes_nobody(path: str, *, wakes: bool) -> None:
    assert worth_waking(path) is wakes


def test_a_watch_ends_when_it_is_closed(host: Host) -> None:
    host.rules("run", "")
    (host.paths.run / "udev/control").write_text("")
    before = threading.active_count()
    watch = host.udev.watch(lambda _: None)
    assert watch.alive
    for _ in range(2):
        watch.close()
    assert isinstance(watch, Events)
    assert not watch._thread.is_alive()
    assert threading.active_count() == before
