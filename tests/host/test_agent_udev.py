"""The agent's udev rules: representors have names that people know, and NetworkManager leaves them alone."""

from collections.abc import Iterator

import pytest

from dpu_agent.host.udev import RULES as PACKAGED
from dpu_shared.host_config import Offload
from tests.host import dpu
from tests.host.vm import FUNCTIONS, DpuVm

OURS = PACKAGED.read_text()
NAME = PACKAGED.name
INSTALLED = f"/run/udev/rules.d/{NAME}"
IN_ETC = f"/etc/udev/rules.d/{NAME}"
VENDORS = """\
# As MLNX_OFED's do: `c1pf0` becomes `pf0hpf`.
SUBSYSTEM=="net", ACTION=="add", DRIVERS=="mlx5_core", ATTR{phys_port_name}=="p[0-9]", NAME="$attr{phys_port_name}"
SUBSYSTEM=="net", ACTION=="add", DRIVERS=="mlx5_core", ATTR{phys_port_name}=="c1pf0", NAME="pf0hpf"
SUBSYSTEM=="net", ACTION=="add", DRIVERS=="mlx5_core", ATTR{phys_port_name}=="c1pf1", NAME="pf1hpf"
"""
SWITCHDEV = [f"SetSwitchdev {function}" for function in FUNCTIONS]


@pytest.fixture
def vm(shared_dpu_vm: DpuVm) -> Iterator[DpuVm]:
    """A DPU without a card yet."""
    yield shared_dpu_vm
    dpu.as_new(shared_dpu_vm)


def netdevs(vm: DpuVm) -> set[str]:
    return set(vm.sh("ls /sys/class/net").split())


def unmanaged(vm: DpuVm, netdev: str) -> bool:
    """What NetworkManager reads."""
    return "NM_UNMANAGED=1" in vm.sh(f"udevadm info /sys/class/net/{netdev}")


def test_absent_rules_are_installed_before_the_representors_come_which_then_have_their_names(vm: DpuVm) -> None:
    vm.insert_card(rules=None)
    vm.knob(0, "host_vfs", 2)
    dpu.configure(vm, offload=Offload.DISABLED)
    answer = dpu.apply(vm, "--stage early --retry-for 0")
    assert (answer.rc, answer.done) == (0, ["InstallRules", *SWITCHDEV])
    assert vm.read(INSTALLED) == OURS
    named = {"c1pf0hpf", "c1pf1hpf", "c1pf0vf0", "c1pf0vf1"}
    assert named <= netdevs(vm)
    assert all(unmanaged(vm, netdev) for netdev in named)
    uplinks = [name for name in netdevs(vm) if name.endswith(("np0", "np1"))]
    assert len(uplinks) == 2, "the uplinks keep their names"
    assert not any(unmanaged(vm, uplink) for uplink in uplinks)
    vm.sh("ip link set c1pf0vf0 name c1pf0vfx; udevadm settle")
    assert unmanaged(vm, "c1pf0vfx"), "not even a renaming gives it back to NetworkManager"
    vm.bridge(next(name for name in uplinks if name.endswith("f0np0")))
    dpu.configured(vm)
    assert "c1pf0hpf" in dpu.ports(vm)


def test_representors_that_were_there_before_the_rules_get_name_and_mark_all_the_same(vm: DpuVm) -> None:
    vm.insert_card(rules=None)
    vm.sh(f"for f in {' '.join(FUNCTIONS)}; do devlink dev eswitch set pci/$f mode switchdev; done; udevadm settle")
    before = netdevs(vm)
    assert "c1pf0hpf" not in before
    dpu.configure(vm, offload=Offload.DISABLED)
    answer = dpu.apply(vm, "--stage early --retry-for 0")
    assert answer.rc == 0, answer.document["message"]
    assert [step.split()[0] for step in answer.done] == ["InstallRules", "TriggerUdev", "TriggerUdev"]
    assert {"c1pf0hpf", "c1pf1hpf"} <= netdevs(vm)
    assert all(unmanaged(vm, netdev) for netdev in ("c1pf0hpf", "c1pf1hpf"))


def test_rules_of_the_machine_config_are_taken_as_they_are(vm: DpuVm) -> None:
    vm.write(IN_ETC, OURS)
    vm.insert_card()
    dpu.configure(vm, offload=Offload.DISABLED)
    answer = dpu.apply(vm, "--stage early --retry-for 0")
    assert (answer.rc, answer.done) == (0, SWITCHDEV)
    assert not vm.run(f"test -e {INSTALLED}").ok
    assert unmanaged(vm, "c1pf0hpf")


def test_edited_rules_are_reported_and_never_overwritten(vm: DpuVm) -> None:
    edited = OURS + "# A person was here.\n"
    vm.write(IN_ETC, edited)
    vm.insert_card()
    dpu.configure(vm, offload=Offload.DISABLED)
    answer = dpu.apply(vm, "--stage early --retry-for 0")
    assert answer.rc == 1
    assert answer.done == SWITCHDEV, "the rest is done all the same"
    assert answer.reasons == ["UdevRulesEdited"]
    assert answer.document["state"] == "Degraded"
    assert "in /etc/udev/rules.d are not those of this program" in answer.document["message"]
    assert "Restore the file from the MachineConfig" in answer.document["message"]
    assert vm.read(IN_ETC) == edited
    assert not vm.run(f"test -e {INSTALLED}").ok
    vm.write(IN_ETC, OURS)
    assert dpu.apply(vm, "--stage early --retry-for 0").rc == 0


def test_the_vendors_names_are_as_good_as_ours(vm: DpuVm) -> None:
    vm.insert_card(rules=VENDORS)
    dpu.configure(vm, offload=Offload.DISABLED)
    answer = dpu.apply(vm, "--stage early --retry-for 0")
    assert (answer.rc, answer.done) == (0, ["InstallRules", *SWITCHDEV])
    assert {"pf0hpf", "pf1hpf"} <= netdevs(vm)
    assert unmanaged(vm, "pf0hpf")
    vm.bridge()
    late = dpu.apply(vm)
    assert (late.rc, late.done) == (0, ["SetLink pf0hpf True", "AddPort br-ex pf0hpf"])
    assert dpu.ports(vm) == ["p0", "pf0hpf"]
