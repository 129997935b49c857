"""A DPU becomes as its configuration wants it: early and late, once, and no further than is allowed."""

from collections.abc import Iterator

import pytest

from dpu_shared.host_config import Mode, Offload
from dpu_shared.steps import Disruption
from tests.host import dpu
from tests.host.vm import FUNCTIONS, DpuVm
from tests.lab.waiting import eventually

RULES = "InstallRules"
SWITCHDEV = [f"SetSwitchdev {function}" for function in FUNCTIONS]
OFFLOAD, RESTART = "SetOffload True", "RestartVswitchd"
PORT = ["SetLink c1pf0hpf True", "AddPort br-ex c1pf0hpf"]


@pytest.fixture
def vm(shared_dpu_vm: DpuVm) -> Iterator[DpuVm]:
    """A DPU that nobody has configured: the card in legacy mode, Open vSwitch without a bridge."""
    shared_dpu_vm.insert_card()
    # Flows of the live bridge may be offloaded, since an ovs-vswitchd of the tests before may have that in force.
    shared_dpu_vm.knob(0, "busy_with_flows", 0)
    yield shared_dpu_vm
    dpu.as_new(shared_dpu_vm)


def before_ovs(vm: DpuVm) -> None:
    """As at boot: Open vSwitch isn't up yet."""
    vm.sh("systemctl stop ovs-vswitchd ovsdb-server")


def ovs_up(vm: DpuVm) -> None:
    vm.sh("systemctl start ovsdb-server ovs-vswitchd")


def vswitchd(vm: DpuVm) -> str:
    """Which ovs-vswitchd runs."""
    return vm.read("/run/openvswitch/ovs-vswitchd.pid").strip()


def state(vm: DpuVm) -> str:
    """All that a dry run could change: the card, netdevs, the files of udev and of the agent, Open vSwitch's database."""
    database = (
        dpu.database(vm)
        if vm.run("pidof ovsdb-server").ok
        else vm.sh("sha256sum $(readlink -f /etc/openvswitch/conf.db)")
    )
    return database + vm.sh(
        "ip -o link; ip -4 -o address; ip route; devlink port; "
        "for knob in /sys/kernel/debug/virtual_bluefield/*/sets; do cat $knob; done; "
        "find /etc /run/udev/rules.d /run/dpu-agent /var/lib -xdev -not -path '*/openvswitch/*' -not -path '*/libuuid/*' -printf '%p %T@ %s\\n' 2>/dev/null | sort; "
        "cat /run/udev/data/n*; cat /run/openvswitch/ovs-vswitchd.pid 2>/dev/null || true"
    )


def test_a_fresh_dpu_is_configured_in_two_stages_and_a_frame_of_the_host_crosses_its_bridge_in_hardware(
    vm: DpuVm,
) -> None:
    vm.wire_side()
    vm.host_side()
    dpu.configure(vm)
    before_ovs(vm)
    before = state(vm)
    tells_what_it_does_not_see(vm)
    assert state(vm) == before
    early = dpu.apply(vm, "--stage early --retry-for 0")
    assert (early.rc, early.done) == (0, [RULES, *SWITCHDEV])
    assert dpu.modes(vm) == ["switchdev", "switchdev"]
    ovs_up(vm)
    vm.bridge()
    sets_hw_offload_live_and_waits_for_a_restart(vm)
    restarts_once_where_that_is_allowed(vm)
    assert dpu.ports(vm) == ["c1pf0hpf", "p0"]
    told = vm.sh("ovs-vsctl get port c1pf0hpf external_ids:owner other_config:transient").split()
    assert told == ["dpu-agent", '"true"']
    dpu.pings(vm)
    assert "offloaded:yes, dp:tc" in vm.sh("ovs-appctl dpctl/dump-flows -m type=offloaded")
    assert int(vm.knob_value(0, "flows")) > 0
    assert dpu.sets(vm) == [1, 1]
    assert vm.run("dpu-agent status").rc == 0


def sets_hw_offload_live_and_waits_for_a_restart(vm: DpuVm) -> None:
    first = vswitchd(vm)
    late = dpu.apply(vm)
    assert (late.rc, late.done, late.held) == (2, [OFFLOAD, *PORT], [RESTART])
    assert late.document["state"] == "RebootRequired"
    assert "Reboot the DPU, or set spec.hostConfig.maxDisruption to OVSRestart." in late.document["message"]
    assert len(late.document["hostPfMacs"]) == 2
    assert vm.sh("ovs-vsctl get open_vswitch . other_config:hw-offload").strip() == '"true"'
    again = dpu.apply(vm)
    assert (again.rc, again.done, again.held) == (2, [], [RESTART])
    assert vswitchd(vm) == first


def restarts_once_where_that_is_allowed(vm: DpuVm) -> None:
    first = vswitchd(vm)
    dpu.configure(vm, disruption=Disruption.OVS_RESTART)
    assert dpu.configured(vm).done == [RESTART]
    second = vswitchd(vm)
    assert second != first
    for _ in range(2):
        assert dpu.configured(vm).done == []
    assert vswitchd(vm) == second


def tells_what_it_does_not_see(vm: DpuVm) -> None:
    """A dry run, with Open vSwitch down."""
    answer = dpu.dry_run(vm)
    assert (answer.rc, answer.steps) == (2, [RULES, *SWITCHDEV])
    assert [unseen["what"] for unseen in answer.document["unseen"]] == ["ovsdb"]
    assert answer.reasons == ["OvsUnavailable"]
    text = vm.run("dpu-agent apply --dry-run")
    assert text.rc == 2
    assert "ovsdb-server is not there: /run/openvswitch/db.sock: No such file or directory." in text.stdout
    assert "systemctl start openvswitch" in text.stdout


def test_the_running_agent_configures_a_dpu_whose_bridge_comes_late_and_one_that_follows_its_sudden_death_changes_nothing(
    vm: DpuVm,
) -> None:
    dpu.configure(vm, offload=Offload.DISABLED)
    dpu.quick_start(vm)
    dpu.status(vm, lambda s: s["reason"] == "BridgeAbsent" and not s["steps"], "the agent to wait for the bridge")
    assert dpu.modes(vm) == ["switchdev", "switchdev"]
    answer = dpu.get(vm, "/readyz")
    assert answer.code == 503
    assert "Open vSwitch has no bridge br-ex" in answer.body
    vm.bridge()
    dpu.ready(vm)
    assert dpu.get(vm, "/readyz").code == 200
    assert dpu.ports(vm) == ["c1pf0hpf", "p0"]
    rows, sets = dpu.database(vm), dpu.sets(vm)
    vm.sh(f"kill -KILL $(cat {dpu.PID})")
    eventually(lambda: dpu.get(vm, "/livez").code == 0, "its end", timeout=dpu.SOON)
    dpu.quick_start(vm)
    dpu.ready(vm)
    assert "dpu_agent_steps_done_total{" not in dpu.get(vm, "/metrics").body
    assert (dpu.database(vm), dpu.sets(vm)) == (rows, sets)


def test_a_dry_run_says_what_it_would_do_in_its_order_and_changes_nothing(vm: DpuVm) -> None:
    bare = vm.run("dpu-agent apply --dry-run")
    assert bare.rc == 1, "no configuration, so there is nothing that could be done"
    assert "ConfigMissing: There is no configuration file" in bare.stdout
    dpu.configure(vm, disruption=Disruption.LINK_FLAP)
    vm.bridge()
    before = state(vm)
    answer = dpu.dry_run(vm)
    assert answer.rc == 2
    assert answer.steps == [RULES, *SWITCHDEV, OFFLOAD, RESTART]
    disruptions = [step["disruption"] for step in answer.document["steps"]]
    assert disruptions == ["None", "LinkFlap", "None", "None", "OVSRestart"]
    assert all(step["why"].endswith(".") for step in answer.document["steps"])
    text = vm.run("dpu-agent apply --dry-run")
    assert text.rc == 2
    places = [text.stdout.index(step["what"]) for step in answer.document["steps"]]
    assert places == sorted(places)
    assert dpu.dry_run(vm, "--stage early").steps == [RULES, *SWITCHDEV]
    assert vm.run("dpu-agent observe -o json >/run/dpu.json").rc == 0
    assert state(vm) == before
    replayed = dpu.said(vm, "plan --from /run/dpu.json")
    assert (replayed.rc, replayed.document) == (2, answer.document)
    dpu.configure(vm, offload=Offload.DISABLED, disruption=Disruption.LINK_FLAP)
    dpu.configured(vm)
    before = state(vm)
    assert dpu.dry_run(vm).rc == 0
    assert state(vm) == before


def test_an_eswitch_under_a_live_bridge_waits_for_the_next_boot_and_its_neighbour_with_it(vm: DpuVm) -> None:
    vm.bridge()
    dpu.configure(vm, offload=Offload.DISABLED, disruption=Disruption.OVS_RESTART)
    answer = dpu.apply(vm)
    assert (answer.rc, answer.held) == (2, SWITCHDEV)
    assert answer.document["state"] == "RebootRequired"
    assert "its p0 is on the bridge br-ex" in answer.document["message"]
    assert dpu.sets(vm) == [0, 0]
    dpu.configure(vm, offload=Offload.DISABLED, disruption=Disruption.LINK_FLAP)
    assert dpu.configured(vm).done == [*SWITCHDEV, *PORT]
    assert dpu.sets(vm) == [1, 1]


def test_report_only_changes_nothing_and_reports_the_drift(vm: DpuVm) -> None:
    vm.bridge()
    dpu.configure(vm, mode=Mode.REPORT_ONLY, disruption=Disruption.REBOOT)
    dpu.quick_start(vm)
    before = state(vm)
    document = dpu.status(vm, lambda s: s["reason"] == "ReportOnly", "the drift to be reported")
    assert document["state"] == "Blocked"
    assert [dpu.short(step) for step in document["held"]] == [RULES, *SWITCHDEV, OFFLOAD, RESTART]
    assert all(step["heldBecause"] == "The mode is ReportOnly, so nothing is changed." for step in document["held"])
    answer = dpu.get(vm, "/readyz")
    assert answer.code == 503
    assert "Needed, and not done in the mode ReportOnly: install the udev rules for representors;" in answer.body
    dpu.stop(vm)
    once = dpu.apply(vm, "--retry-for 0")
    assert (once.rc, once.done) == (2, [])
    assert state(vm) == before
    assert dpu.sets(vm) == [0, 0]
