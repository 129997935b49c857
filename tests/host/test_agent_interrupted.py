"""Killed or without power after any step of a first configuration: the next run goes on from there, and repeats nothing."""

from collections.abc import Iterator

import pytest

from dpu_shared.steps import Disruption
from tests.host import dpu
from tests.host.vm import FUNCTIONS, DpuVm
from tests.lab.waiting import eventually

NOTES = "/root/performed"
ENDED = f"""
import os, signal
from dpu_agent import apply
from dpu_agent.documents import step_document
from dpu_agent.steps import Step

made, perform = 0, apply.perform

def performed(action, machine):
    global made
    perform(action, machine)
    made += 1
    step = step_document(Step(action, ""))
    with open("{NOTES}", "a") as notes:
        notes.write(" ".join([step["name"], *(str(v) for v in step["arguments"].values() if v is not None)]) + "\\n")
    if made == LAST:
        END

apply.perform = performed
"""
"""Ends the agent right after its change number LAST, before it can look at what it did. The agent itself is as it is."""


def killed_after(number: int) -> str:
    return ENDED.replace("LAST", str(number)).replace("END", "os.kill(os.getpid(), signal.SIGKILL)")


def waiting_after(number: int) -> str:
    return ENDED.replace("LAST", str(number)).replace("END", "signal.pause()")


RULES, OFFLOAD, RESTART = "InstallRules", "SetOffload True", "RestartVswitchd"
SWITCHDEV = [f"SetSwitchdev {function}" for function in FUNCTIONS]
PORT = ["SetLink c1pf0hpf True", "AddPort br-ex c1pf0hpf"]
ALL = [RULES, *SWITCHDEV, OFFLOAD, RESTART, *PORT]
EARLY = "--stage early --retry-for 0"


def performed(vm: DpuVm) -> list[str]:
    """The changes made so far, over all runs."""
    return vm.run(f"cat {NOTES}").stdout.splitlines()


@pytest.fixture
def vm(shared_dpu_vm: DpuVm) -> Iterator[DpuVm]:
    """A DPU with its configuration, and nothing of it done; whatever a step disturbs is allowed."""
    shared_dpu_vm.insert_card()
    dpu.configure(shared_dpu_vm, disruption=Disruption.LINK_FLAP)
    # Flows of the live bridge may be offloaded, since an ovs-vswitchd of the tests before may have that in force.
    shared_dpu_vm.knob(0, "busy_with_flows", 0)
    yield shared_dpu_vm
    shared_dpu_vm.sh(f"rm -f {NOTES}")
    dpu.as_new(shared_dpu_vm)


def test_killed_after_each_step_in_turn_the_next_run_goes_on_with_the_following_one(vm: DpuVm) -> None:
    vm.bridge()
    for number in range(1, len(ALL) + 1):
        result = dpu.command(vm, "apply --retry-for 0", setup=killed_after(1))
        assert result.rc == 128 + 9, result.stdout
        assert performed(vm) == ALL[:number]
    rows = dpu.database(vm)
    answer = dpu.configured(vm)
    assert answer.done == []
    assert dpu.database(vm) == rows, "the same rows, each with its identity"
    assert dpu.sets(vm) == [1, 1]
    assert dpu.ports(vm) == ["c1pf0hpf", "p0"]


def test_killed_while_the_card_changes_its_mode_the_next_run_waits_for_it_and_does_not_ask_again(vm: DpuVm) -> None:
    vm.knob(0, "set_ms", 4000)
    pid = dpu.begin(vm, "apply --stage early --retry-for 0", log="/run/first.log")
    # In the kernel, in a request that goes on whatever becomes of the process.
    eventually(
        lambda: "mode_set" in vm.run(f"cat /proc/{pid}/stack").stdout, "the request for a mode", timeout=dpu.SOON
    )
    vm.sh(f"kill -KILL {pid}")
    answer = dpu.apply(vm, "--stage early --retry-for 60")
    assert answer.rc == 0
    assert [step for step in answer.done if step.startswith("SetSwitchdev")] == [f"SetSwitchdev {FUNCTIONS[1]}"]
    assert dpu.sets(vm) == [1, 1]


def test_without_power_after_the_last_step_a_boot_leads_to_the_same_dpu(vm: DpuVm) -> None:
    """What survives on the disk: hw-offload with the mark of an ovs-vswitchd of the boot before, and a port without its netdev.

    Of the steps before these nothing is on the disk, so that a boot after one of them is a first one.
    """
    dpu.configure(vm)
    assert dpu.apply(vm, EARLY).rc == 0
    vm.bridge()
    dpu.begin(vm, "apply --retry-for 0", log="/run/cut.log", setup=waiting_after(3))
    eventually(lambda: performed(vm) == [OFFLOAD, *PORT], "three changes", timeout=dpu.SOON)
    vm.sh("sync")
    vm.reset()
    assert vm.sh("ovs-vsctl get open_vswitch . other_config:hw-offload").strip() == '"true"'
    assert dpu.ports(vm) == ["c1pf0hpf", "p0"]
    # A DPU has its card, and its early stage, before Open vSwitch.
    vm.sh("systemctl stop ovs-vswitchd ovsdb-server")
    vm.insert_card(rules=None)
    early = dpu.apply(vm, EARLY)
    assert (early.rc, early.done) == (0, [RULES, *SWITCHDEV])
    vm.sh("systemctl start ovsdb-server ovs-vswitchd")
    vm.sh("ip link set p0 up; ip link set br-ex up")
    late = dpu.configured(vm)
    assert RESTART not in late.done, "ovs-vswitchd has started with hw-offload"
    assert dpu.ports(vm) == ["c1pf0hpf", "p0"]
    assert vm.sh("ovs-vsctl get interface c1pf0hpf error").strip() == "[]"
    assert dpu.sets(vm) == [1, 1]
