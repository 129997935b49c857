"""The virtual card is what it says it is: everything that the agent's tests rest on."""

import errno
import json
import time
from collections.abc import Callable, Iterator

import pytest

from tests.host.vm import BRIDGE_ADDRESS, FUNCTIONS, HOST_ADDRESS, KNOBS, WIRE_ADDRESS, DpuVm
from tests.lab.waiting import eventually

UNTIL = 15.0


@pytest.fixture(scope="module")
def card(shared_dpu_vm: DpuVm) -> DpuVm:
    shared_dpu_vm.insert_card()
    return shared_dpu_vm


@pytest.fixture
def vm(card: DpuVm) -> Iterator[DpuVm]:
    """The card as new: legacy mode, knobs as they were."""
    yield card
    undo = "".join(
        f"cd {KNOBS}/{function}; echo legacy >mode; echo 0 >host_vfs; echo 1 >host_pf; echo 0 >host_pf_late_ms; echo '0 1' >fail_sets; "
        "echo '0 1' >fail_gets; echo 0 >ignore_sets; echo 0 >set_ms; echo 0 >revert_after_set_ms; echo 1 >busy_with_flows; "
        "echo 1 >carrier;"
        for function in FUNCTIONS
    )
    card.sh(undo + "udevadm settle")


def show(vm: DpuVm, function: int = 0) -> str:
    said = json.loads(vm.sh(f"devlink -j dev eswitch show pci/{FUNCTIONS[function]}"))
    return str(said["dev"][f"pci/{FUNCTIONS[function]}"]["mode"])


def change(vm: DpuVm, mode: str, function: int = 0, *, check: bool = True) -> str:
    """Ask by devlink for a mode; the text of a refusal."""
    result = vm.run(f"devlink dev eswitch set pci/{FUNCTIONS[function]} mode {mode}; rc=$?; udevadm settle; exit $rc")
    assert result.ok or not check, result.stderr
    return result.stderr


def ports(vm: DpuVm) -> dict[str, dict[str, object]]:
    """devlink's ports by netdev."""
    found: dict[str, dict[str, object]] = json.loads(vm.sh("devlink -j port"))["port"]
    return {str(port["netdev"]): port for port in found.values()}


def soon(probe: Callable[[], object], what: str) -> None:
    eventually(probe, what, timeout=UNTIL)


def test_the_machine_is_a_bluefield_2(vm: DpuVm) -> None:
    assert vm.read("/sys/class/dmi/id/product_name").startswith("BlueField-2")
    assert vm.run("grep -q MLNXBF22 /sys/firmware/acpi/tables/SSDT*").ok
    for function in FUNCTIONS:
        device = f"/sys/bus/pci/devices/{function}"
        told = vm.sh(f"cat {device}/vendor {device}/device; readlink {device}/driver; readlink -f {device}/..").split()
        assert told[:2] == ["0x15b3", "0xa2d6"]
        assert told[2].endswith("/mlx5_core")
        assert vm.sh(f"cat {told[3]}/vendor {told[3]}/device").split() == ["0x15b3", "0x1978"]


def test_in_legacy_mode_there_are_two_uplinks_and_nothing_else(vm: DpuVm) -> None:
    assert [show(vm, 0), show(vm, 1)] == ["legacy", "legacy"]
    assert {name: (port["flavour"], port["port"]) for name, port in ports(vm).items()} == {
        "p0": ("physical", 0),
        "p1": ("physical", 1),
    }


def test_switchdev_brings_representors_that_say_whose_they_are(vm: DpuVm) -> None:
    vm.knob(0, "host_vfs", 1)
    change(vm, "switchdev")
    assert [show(vm, 0), show(vm, 1)] == ["switchdev", "legacy"]
    host_pf = ports(vm)["c1pf0hpf"]
    assert {name: host_pf[name] for name in ("flavour", "controller", "pfnum", "external")} == {
        "flavour": "pcipf",
        "controller": 1,
        "pfnum": 0,
        "external": True,
    }
    assert host_pf["function"] == {"hw_addr": vm.read("/sys/class/net/hostpf0/address").strip()}
    vf = ports(vm)["c1pf0vf0"]
    assert (vf["flavour"], vf["vfnum"], vf["external"]) == ("pcivf", 0, True)
    told = vm.sh(
        "cd /sys/class/net; cat {p0,c1pf0hpf,c1pf0vf0}/phys_switch_id; cat {p0,c1pf0hpf,c1pf0vf0}/phys_port_name"
    ).split()
    assert len(set(told[:3])) == 1
    assert len(told[0]) == 16
    assert told[3:] == ["p0", "c1pf0", "c1pf0vf0"]
    change(vm, "legacy")
    assert set(ports(vm)) == {"p0", "p1"}


def test_host_vfs_come_and_go_while_in_switchdev(vm: DpuVm) -> None:
    change(vm, "switchdev", 1)
    vm.knob(1, "host_vfs", 2)
    vm.sh("udevadm settle")
    assert {"c1pf1vf0", "c1pf1vf1"} <= set(ports(vm))
    vm.knob(1, "host_vfs", 0)
    assert "c1pf1vf0" not in ports(vm)


def test_a_representor_can_be_renamed_and_cannot_leave_its_namespace(vm: DpuVm) -> None:
    change(vm, "switchdev")
    vm.sh("ip link set c1pf0hpf name pf0hpf")
    assert "pf0hpf" in ports(vm)
    assert not vm.run("ip netns add other; ip link set pf0hpf netns other").ok


def test_the_host_pf_may_be_absent_or_late(vm: DpuVm) -> None:
    vm.knob(0, "host_pf", 0)
    change(vm, "switchdev")
    assert "c1pf0hpf" not in ports(vm)
    vm.knob(0, "host_pf", 1)
    soon(lambda: "c1pf0hpf" in ports(vm), "the representor")
    change(vm, "legacy")
    vm.knob(0, "host_pf_late_ms", 1500)
    change(vm, "switchdev")
    assert "c1pf0hpf" not in ports(vm)
    soon(lambda: "c1pf0hpf" in ports(vm), "the late representor")


def test_sets_fail_as_often_as_ordered_with_the_whole_text(vm: DpuVm) -> None:
    text = (
        "mlx5_core: Can't change E-Switch mode to switchdev when netdev net namespace has diverged from the devlink's."
    )
    vm.knob(0, "fail_sets", (2, errno.EINVAL, text))
    for _ in range(2):
        said = change(vm, "switchdev", check=False)
        assert text in said
        assert "Invalid argument" in said
        assert vm.mode(0) == "legacy"
    change(vm, "switchdev")
    assert vm.mode(0) == "switchdev"


def test_a_failure_for_ever_lasts(vm: DpuVm) -> None:
    vm.knob(0, "fail_sets", (-1, errno.EOPNOTSUPP))
    results = vm.sh(f"for i in 1 2 3; do devlink dev eswitch set pci/{FUNCTIONS[0]} mode switchdev 2>&1 || true; done")
    assert results.count("Operation not supported") == 3


def test_gets_fail_and_mode_none_is_einval(vm: DpuVm) -> None:
    command = f"devlink dev eswitch show pci/{FUNCTIONS[0]}"
    vm.knob(0, "fail_gets", (1, errno.ENODEV))
    assert "No such device" in vm.run(command).stderr
    assert vm.run(command).ok
    vm.knob(0, "mode", "none")
    assert "Invalid argument" in vm.run(command).stderr
    change(vm, "switchdev")
    assert show(vm) == "switchdev"


def test_sets_may_be_slow_or_ignored(vm: DpuVm) -> None:
    vm.knob(0, "set_ms", 1200)
    vm.knob(0, "ignore_sets", 1)
    began = time.monotonic()
    change(vm, "switchdev")
    assert time.monotonic() - began > 1.2
    assert show(vm) == "legacy"
    vm.knob(0, "set_ms", 0)
    change(vm, "switchdev")
    assert show(vm) == "switchdev"


def test_the_mode_may_revert_by_itself(vm: DpuVm) -> None:
    vm.knob(0, "revert_after_set_ms", 1000)
    change(vm, "switchdev")
    assert show(vm) == "switchdev"
    soon(lambda: vm.mode(0) == "legacy", "the mode to revert")
    change(vm, "switchdev")
    vm.knob(0, "revert_ms", 0)
    soon(lambda: vm.mode(0) == "legacy", "the mode to revert at once")
    assert set(ports(vm)) == {"p0", "p1"}


def test_counters_and_knobs_can_be_read(vm: DpuVm) -> None:
    before = int(vm.knob_value(0, "sets"))
    change(vm, "legacy")
    assert int(vm.knob_value(0, "sets")) == before + 1
    vm.knob(0, "fail_sets", (3, errno.EBUSY, "why not"))
    assert vm.knob_value(0, "fail_sets") == "3 16 why not"


def test_without_carrier_the_uplink_says_so(vm: DpuVm) -> None:
    vm.sh("ip link set p0 up; ip link set wire0 up")
    vm.knob(0, "carrier", 0)
    assert vm.read("/sys/class/net/p0/carrier").strip() == "0"
    vm.knob(0, "carrier", 1)
    assert vm.read("/sys/class/net/p0/carrier").strip() == "1"


def test_frames_go_through_the_bridge_and_are_offloaded_and_keep_the_eswitch_busy(vm: DpuVm) -> None:
    change(vm, "switchdev")
    vm.wire_side()
    vm.host_side()
    vm.bridge()
    vm.sh("ovs-vsctl set open_vswitch . other_config:hw-offload=true; systemctl restart openvswitch-switch")
    vm.sh("ip link set c1pf0hpf up; ovs-vsctl add-port br-ex c1pf0hpf")
    vm.sh("ip link set br-ex up; ip address replace 172.31.0.10/24 dev br-ex")
    assert vm.sh("ovs-vsctl get interface c1pf0hpf error").strip() == "[]"
    vm.sh(f"ip netns exec host ping -c 1 -W 5 {BRIDGE_ADDRESS}")
    vm.sh(f"ip netns exec host ping -c 4 -i 0.2 -W 5 {WIRE_ADDRESS}")
    vm.sh(f"ip netns exec wire ping -c 1 -W 5 {HOST_ADDRESS}")
    flows = vm.sh("ovs-appctl dpctl/dump-flows -m type=offloaded")
    assert "offloaded:yes, dp:tc" in flows
    assert "in_hw" in vm.sh("tc -s filter show dev c1pf0hpf ingress")
    assert int(vm.knob_value(0, "flows")) > 0
    said = change(vm, "legacy", check=False)
    assert "E-Switch is busy" in said
    assert "busy" in change(vm, "switchdev", check=False), "the same mode is refused as well"
    vm.sh("ovs-vsctl del-br br-ex")
    soon(lambda: vm.knob_value(0, "flows") == "0", "the flows to go")
    change(vm, "legacy")
    vm.sh("ip netns del wire; ip netns del host; ovs-vsctl remove open_vswitch . other_config hw-offload")


def test_the_guest_reaches_this_machine_and_knows_the_time(vm: DpuVm) -> None:
    assert abs(float(vm.sh("date +%s.%N")) - time.time()) < 10
    assert "10.0.2." in vm.sh("ip -br address show oob_net0")


def test_the_agent_of_this_checkout_is_there(vm: DpuVm) -> None:
    assert vm.run("dpu-agent --version").stdout.startswith("dpu-agent ")


def test_at_the_end_the_card_goes_in_any_mode_and_the_kernel_had_nothing_to_say(vm: DpuVm) -> None:
    vm.knob(0, "host_vfs", 2)
    change(vm, "switchdev")
    vm.remove_card()
    assert vm.sh("devlink dev").strip() == ""
    vm.insert_card(legacy_switch_id=0)
    assert vm.run("cat /sys/class/net/p0/phys_switch_id").stdout.strip() == ""
    change(vm, "switchdev")
    assert vm.sh("cat /sys/class/net/p0/phys_switch_id").strip() == "c2cfc60003a1420c"
    log = vm.sh("dmesg")
    for bad in ("WARNING:", "BUG:", "Oops", "Call Trace", "lockdep", "refcount", "can't enable"):
        assert bad not in log
