"""Whatever the card does when it is asked for switchdev mode, the agent tells it in the card's own words and never storms it."""

import errno
from collections.abc import Iterator
from functools import partial

import pytest

from dpu_shared.host_config import Offload
from tests.host import dpu
from tests.host.vm import FUNCTIONS, KNOBS, DpuVm
from tests.lab.waiting import eventually

SWITCHDEV = [f"SetSwitchdev {function}" for function in FUNCTIONS]
EARLY = "--stage early --retry-for 0"
BUSY = "mlx5_core: Can't change mode, E-Switch is busy."
TRAPS = "mlx5_core: Can't change mode while devlink traps are active"
NEVER = [
    pytest.param(errno.EOPNOTSUPP, TRAPS, "devlink trap set", id="traps"),
    pytest.param(
        errno.EOPNOTSUPP,
        "mlx5_core: Can't change eswitch mode when IPsec SA and/or policies are configured",
        "ip xfrm state flush",
        id="ipsec",
    ),
    pytest.param(
        errno.EINVAL,
        "mlx5_core: Can't change E-Switch mode to switchdev when netdev net namespace has diverged from the devlink's.",
        "back into the network namespace of the DPU",
        id="namespace",
    ),
    pytest.param(
        errno.EINVAL,
        "mlx5_core: Can't set offloads mode, SRIOV legacy not enabled",
        "run the agent on the ARM side of the card",
        id="not the ARM side",
    ),
    pytest.param(errno.EOPNOTSUPP, "", "INTERNAL_CPU_MODEL=EMBEDDED_CPU", id="no eswitch manager"),
    pytest.param(errno.EINVAL, "", "update the card's firmware", id="firmware"),
]
PASSING = [
    pytest.param(errno.EBUSY, "mlx5_core: Can't change eswitch mode during firmware reset", id="firmware reset"),
    pytest.param(errno.EINVAL, "mlx5_core: Failed setting eswitch to offloads", id="rolled back"),
]
DEVLINK_EVENTS = 'dpu_agent_events_total{source="devlink"}'
QUICK = "import time; sleep = time.sleep; time.sleep = lambda seconds: sleep(seconds / 20)"
"""Makes the pauses of a command twenty times shorter."""


@pytest.fixture(scope="module")
def card(shared_dpu_vm: DpuVm) -> DpuVm:
    shared_dpu_vm.insert_card()
    return shared_dpu_vm


@pytest.fixture
def vm(card: DpuVm) -> Iterator[DpuVm]:
    """The card as new, a configuration that wants nothing of Open vSwitch itself, no bridge, and no agent running."""
    dpu.configure(card, offload=Offload.DISABLED)
    yield card
    dpu.stop(card)
    undo = "".join(
        f"cd {KNOBS}/{function}; echo legacy >mode; echo 0 >host_vfs; echo 1 >host_pf; echo 0 >host_pf_late_ms; echo '0 1' >fail_sets; "
        "echo '0 1' >fail_gets; echo 0 >ignore_sets; echo 0 >set_ms; echo 0 >revert_after_set_ms;"
        for function in FUNCTIONS
    )
    card.sh(f"ovs-vsctl --if-exists del-br br-ex; {undo} udevadm settle")


def set_times(vm: DpuVm, before: list[int], times: int) -> bool:
    return asked(vm, before) == [1, times] and vm.mode(1) == "switchdev"


def asked(vm: DpuVm, before: list[int]) -> list[int]:
    """How often each function was asked for a mode since."""
    return [now - then for now, then in zip(dpu.sets(vm), before, strict=True)]


def test_ten_times_busy_and_then_not_is_no_failure(vm: DpuVm) -> None:
    before = dpu.sets(vm)
    vm.knob(0, "fail_sets", (10, errno.EBUSY, BUSY))
    result = dpu.command(vm, "apply --stage early --retry-for 60", setup=QUICK)
    assert result.rc == 0, result.stdout
    assert BUSY in result.stdout
    assert asked(vm, before) == [11, 1]
    assert dpu.modes(vm) == ["switchdev", "switchdev"]


def test_a_busy_eswitch_is_reported_by_the_running_agent_which_goes_on_trying(vm: DpuVm) -> None:
    before = dpu.sets(vm)
    vm.knob(0, "fail_sets", (2, errno.EBUSY, BUSY))
    dpu.quick_start(vm)
    document = dpu.status(vm, lambda s: bool(s["failures"]), "the failure")
    assert document["failures"][0]["terminal"] is False
    assert BUSY in document["message"]
    dpu.status(vm, lambda s: s["reason"] == "BridgeAbsent", "the mode to be set")
    assert asked(vm, before) == [3, 1]


@pytest.mark.parametrize(("number", "text", "remedy"), NEVER)
def test_a_refusal_that_stays_is_told_in_the_kernels_words_after_one_attempt(
    vm: DpuVm, number: int, text: str, remedy: str
) -> None:
    before = dpu.sets(vm)
    vm.knob(0, "fail_sets", (-1, number, text) if text else (-1, number))
    result = dpu.command(vm, "apply --stage early --retry-for 30")
    assert result.rc == 1
    assert (
        text or {errno.EINVAL: "Invalid argument", errno.EOPNOTSUPP: "Operation not supported"}[number]
    ) in result.stdout
    assert remedy in result.stdout
    assert asked(vm, before) == [1, 0], "and the other function is left as it is"


@pytest.mark.parametrize(("number", "text"), PASSING)
def test_a_refusal_that_may_pass_is_tried_again(vm: DpuVm, number: int, text: str) -> None:
    before = dpu.sets(vm)
    vm.knob(0, "fail_sets", (1, number, text))
    answer = dpu.apply(vm, "--stage early --retry-for 30")
    assert answer.rc == 0
    assert text in answer.stderr
    assert asked(vm, before) == [2, 1]


def test_a_refusal_that_stays_makes_no_storm_whatever_happens_on_the_machine(vm: DpuVm) -> None:
    before = dpu.sets(vm)
    vm.knob(0, "fail_sets", (-1, errno.EOPNOTSUPP, TRAPS))
    dpu.quick_start(vm)
    document = dpu.status(vm, lambda s: bool(s["failures"]), "the failure")
    assert (document["state"], document["reason"]) == ("Degraded", "StepFailed")
    assert document["failures"][0]["terminal"] is True
    for said in (document["message"], dpu.get(vm, "/readyz").body, dpu.command(vm, "status").stdout):
        assert TRAPS in said
    assert dpu.get(vm, "/readyz").code == 503
    turns = dpu.metric(vm, "dpu_agent_turns_total")
    vm.sh("for i in $(seq 20); do udevadm trigger --action=change --settle /sys/class/net/p0; done")
    eventually(
        lambda: dpu.metric(vm, "dpu_agent_turns_total") >= turns + 3, "the agent to look again", timeout=dpu.SOON
    )
    assert asked(vm, before) == [1, 0]
    assert dpu.get(vm, "/livez").code == 200


def test_a_mode_that_does_not_take_is_noticed_and_set_again(vm: DpuVm) -> None:
    before = dpu.sets(vm)
    vm.knob(0, "ignore_sets", 1)
    answer = dpu.apply(vm, "--stage early --retry-for 30")
    assert answer.rc == 0
    assert (
        f"Nothing refused to put the eswitch of {FUNCTIONS[0]} into switchdev mode, yet it is still needed"
        in answer.stderr
    )
    assert asked(vm, before) == [2, 1]


def test_a_mode_that_reverts_is_set_again_at_once_and_after_the_third_time_reported(vm: DpuVm) -> None:
    before = dpu.sets(vm)
    dpu.quick_start(vm)
    for times in (1, 2, 3):
        eventually(partial(set_times, vm, before, times), f"the mode to be set for time {times}", timeout=dpu.SOON)
        vm.knob(1, "revert_ms", 0)
    document = dpu.status(vm, lambda s: bool(s["failures"]), "the report")
    assert (
        f"It worked 3 times within 10 min to put the eswitch of {FUNCTIONS[1]} into switchdev mode"
        in document["message"]
    )
    assert asked(vm, before) == [1, 3]
    assert dpu.modes(vm) == ["switchdev", "legacy"]


def test_a_mode_that_reverts_under_a_live_bridge_is_reported_and_left_for_a_boot(vm: DpuVm) -> None:
    assert dpu.apply(vm, EARLY).rc == 0
    vm.bridge()
    dpu.quick_start(vm)
    dpu.ready(vm)
    before = dpu.sets(vm)
    vm.knob(0, "revert_ms", 0)
    document = dpu.status(vm, lambda s: s["state"] == "RebootRequired", "the reverted mode to be reported")
    assert [dpu.short(step) for step in document["held"]] == SWITCHDEV[:1]
    assert f"put the eswitch of {FUNCTIONS[0]} into switchdev mode" in dpu.get(vm, "/readyz").body
    assert asked(vm, before) == [0, 0]
    vm.knob(0, "mode", "switchdev")
    dpu.ready(vm)
    assert "c1pf0hpf" in dpu.ports(vm)


def test_an_eswitch_without_a_mode_is_given_one(vm: DpuVm) -> None:
    for function in (0, 1):
        vm.knob(function, "mode", "none")
    answer = dpu.dry_run(vm, "--stage early")
    assert answer.steps[-2:] == SWITCHDEV
    assert answer.document["steps"][-1]["why"].startswith("It has no mode yet")
    assert dpu.apply(vm, EARLY).rc == 0
    assert dpu.modes(vm) == ["switchdev", "switchdev"]


def test_a_function_that_cannot_be_asked_is_left_alone_with_its_neighbour(vm: DpuVm) -> None:
    before = dpu.sets(vm)
    vm.knob(0, "fail_gets", (-1, errno.ENODEV))
    answer = dpu.apply(vm, EARLY)
    assert (answer.rc, [step for step in answer.done if step in SWITCHDEV]) == (1, [])
    assert f"The eswitch of {FUNCTIONS[0]} cannot be read: No such device (ENODEV)." in answer.document["message"]
    vm.knob(0, "fail_gets", (-1, errno.EOPNOTSUPP))
    answer = dpu.apply(vm, EARLY)
    assert answer.rc == 1
    assert answer.reasons == ["NotEswitchManager"]
    assert answer.document["state"] == "Blocked"
    assert "INTERNAL_CPU_MODEL" in answer.document["message"]
    assert asked(vm, before) == [0, 0]
    vm.knob(0, "fail_gets", (2, errno.ENODEV))
    assert dpu.apply(vm, "--stage early --retry-for 30").rc == 0, "a device that is only coming is waited for"


def test_representors_that_come_five_seconds_late_are_waited_for(vm: DpuVm) -> None:
    for function in (0, 1):
        vm.knob(function, "host_pf_late_ms", 5000)
    dpu.launch(vm)
    document = dpu.status(
        vm,
        lambda s: "HostPfAbsent" in [problem["reason"] for problem in s["problems"]],
        "the agent to miss the host's PFs",
    )
    assert document["state"] == "Progressing"
    assert "show no port of the host's PF, though in switchdev mode." in document["message"]
    before = dpu.metric(vm, DEVLINK_EVENTS)
    vm.bridge()
    dpu.ready(vm)
    assert dpu.metric(vm, DEVLINK_EVENTS) > before, "devlink's own event woke it"
    assert "c1pf0hpf" in dpu.ports(vm)


def test_without_a_host_pf_the_sentence_says_what_may_be_and_what_to_do(vm: DpuVm) -> None:
    vm.knob(0, "host_pf", 0)
    assert dpu.apply(vm, EARLY).rc == 0
    vm.bridge()
    answer = dpu.apply(vm)
    assert answer.rc == 1
    assert answer.reasons == ["HostPfAbsent"]
    for part in ("Power the host on", "separated-host mode", "EMBEDDED_CPU(1)"):
        assert part in answer.document["message"]
    vm.knob(0, "host_pf", 1)
    vm.sh("udevadm settle")
    assert "AddPort br-ex c1pf0hpf" in dpu.apply(vm).done


def test_a_representor_that_somebody_renamed_is_known_all_the_same_and_keeps_its_name(vm: DpuVm) -> None:
    assert dpu.apply(vm, EARLY).rc == 0
    vm.sh("ip link set c1pf0hpf name renamed; udevadm settle")
    vm.bridge()
    assert dpu.configured(vm).done == ["SetLink renamed True", "AddPort br-ex renamed"]
    assert dpu.ports(vm) == ["p0", "renamed"]
    # Renamed while on the bridge, it stays in the kernel's datapath, and Open vSwitch says so until ovs-vswitchd starts anew.
    vm.sh("ip link set renamed name inuse; udevadm settle")
    answer = dpu.apply(vm)
    assert (answer.rc, answer.done) == (1, ["RemovePort br-ex renamed", "AddPort br-ex inuse"])
    assert "could not add network device inuse to ofproto (File exists)" in answer.document["message"]
    assert dpu.ports(vm) == ["inuse", "p0"]


def test_a_slow_change_of_one_function_holds_up_neither_the_other_nor_the_answers(vm: DpuVm) -> None:
    vm.knob(0, "set_ms", 6000)
    dpu.launch(vm)
    begun = f"Begins to put the eswitch of {FUNCTIONS[0]} into switchdev mode"
    eventually(lambda: begun in vm.run(f"cat {dpu.LOG}").stdout, "the change to begin", timeout=dpu.SOON)
    assert dpu.get(vm, "/livez").code == 200
    seen = dpu.said(vm, "observe").document["world"]
    modes = {function["address"]: function["mode"] for function in seen["functions"]}
    assert modes == {FUNCTIONS[0]: "unknown", FUNCTIONS[1]: "legacy"}
    said = [unseen["message"] for unseen in seen["unseen"] if unseen["what"] == FUNCTIONS[0]]
    assert said == [f"The kernel did not answer a devlink request about the eswitch of {FUNCTIONS[0]} within 2 s."]
    dpu.status(vm, lambda s: s["reason"] == "BridgeAbsent" and not s["steps"], "the end of both changes")
    assert dpu.modes(vm) == ["switchdev", "switchdev"]
