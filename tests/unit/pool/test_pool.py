"""MachineConfigApplied by each of its reasons, both ways: every world here becomes Applied again when it is mended."""

import copy
import dataclasses
from collections.abc import Callable

import pytest

from dpu_operator.plan.pool import conflict, conflict_problem, machine_config_applied, validate_pool
from dpu_operator.world import Condition, InfraWorld, Obj, Seen, Sight, Truth
from dpu_shared.host_config import HostConfig, Mode
from tests.unit.pool.worlds import (
    OLD,
    ROLE,
    TARGET,
    config,
    configuration,
    edited,
    node,
    ours,
    rendered,
    well,
    with_live,
)

OTHER = HostConfig(mode=Mode.REPORT_ONLY)
ForeignLabels = {"labels": {ROLE: "dpu"}}


def judge(infra: InfraWorld) -> Condition:
    return machine_config_applied(infra, ours())


def replaced(**changes: object) -> Callable[[InfraWorld], InfraWorld]:
    return lambda infra: dataclasses.replace(infra, **changes)  # type: ignore[arg-type]


def pool_edit(edit: Callable[[Obj], object]) -> Callable[[InfraWorld], InfraWorld]:
    return lambda infra: edited(infra, edit)


def selector(*values: str) -> Obj:
    return {"matchExpressions": [{"key": ROLE, "operator": "In", "values": list(values)}]}


def render_failed(pool: Obj) -> None:
    pool["status"]["conditions"] = [{"type": "RenderDegraded", "status": "True", "message": "parse\n error of 99-x."}]


def half_way(infra: InfraWorld) -> InfraWorld:
    nodes = (infra.nodes[0], node("dpu-1", OLD, TARGET, "Working"), node("dpu-2", OLD, OLD))

    def behind(pool: Obj) -> None:
        pool["status"].update(updatedMachineCount=1, configuration=configuration(OLD, "00-worker"))

    return edited(dataclasses.replace(infra, nodes=nodes), behind)


def paused(infra: InfraWorld, by: str = "") -> InfraWorld:
    def pause(pool: Obj) -> None:
        pool["spec"]["paused"] = True
        if by:
            pool["metadata"]["annotations"] = {"sriovnetwork.openshift.io/state": by}

    return edited(half_way(infra), pause)


def degraded(infra: InfraWorld) -> InfraWorld:
    reason = {"machineconfiguration.openshift.io/reason": "disk full\non /"}
    nodes = (*infra.nodes[:2], node("dpu-2", OLD, TARGET, "Degraded", **reason))
    return dataclasses.replace(half_way(infra), nodes=nodes)


def foreign(infra: InfraWorld) -> InfraWorld:
    theirs = copy.deepcopy(ours())
    theirs["metadata"]["annotations"] = {}
    return with_live(infra, theirs)


BROKEN: dict[str, tuple[Callable[[InfraWorld], InfraWorld], str, Truth, str]] = {
    "another resource was first": (
        replaced(others=(config("first", "other", creationTimestamp="2026-10-01T00:00:00Z"),)),
        "PoolConflict", Truth.FALSE, "OVNKubeConfig other/first uses the pool dpu and was there first",
    ),
    "the pool is gone": (replaced(pool=Seen(Sight.ABSENT)), "PoolNotFound", Truth.FALSE, "MachineConfigPool dpu does not exist. Create"),
    "the cluster has no pools": (replaced(pool=Seen(Sight.UNSERVED)), "PoolNotFound", Truth.FALSE, "does not serve its type"),
    "the pool is not yet seen": (replaced(pool=Seen()), "NotObservedYet", Truth.UNKNOWN, "has not been looked at yet"),
    "the pool may not be seen": (replaced(pool=Seen(Sight.FORBIDDEN)), "Forbidden", Truth.UNKNOWN, "may not read"),
    "the pool has no node selector": (pool_edit(lambda p: p["spec"].pop("nodeSelector")), "PoolInvalid", Truth.FALSE, "has no nodeSelector"),
    "the pool has an empty node selector": (
        pool_edit(lambda p: p["spec"].update(nodeSelector={"matchLabels": {}})), "PoolInvalid", Truth.FALSE, "no nodeSelector",
    ),
    "the pool leaves out worker": (
        pool_edit(lambda p: p["spec"].update(machineConfigSelector=selector("dpu"))), "PoolInvalid", Truth.FALSE, "of the role worker",
    ),
    "the pool leaves us out": (
        pool_edit(lambda p: p["spec"].update(machineConfigSelector=selector("worker"))), "PoolDoesNotSelect", Truth.FALSE, "of the role dpu",
    ),
    "the pool selects nothing": (pool_edit(lambda p: p["spec"].update(machineConfigSelector={})), "PoolInvalid", Truth.FALSE, "role worker"),
    "our MachineConfig is missing": (lambda i: with_live(i, None), "WaitingForRender", Truth.FALSE, "is not there yet"),
    "nothing is listed": (
        lambda i: dataclasses.replace(with_live(i, None), live_complete=False), "NotObservedYet", Truth.UNKNOWN, "not been looked at",
    ),
    "our MachineConfig is old": (lambda i: with_live(i, ours(host=OTHER)), "WaitingForRender", Truth.FALSE, "not as it should be"),
    "our MachineConfig lost its role": (
        lambda i: with_live(i, {**ours(), "metadata": {**ours()["metadata"], "labels": {**ours()["metadata"]["labels"], ROLE: "x"}}}),
        "WaitingForRender", Truth.FALSE, "not as it should be",
    ),
    "somebody else's MachineConfig has our name": (foreign, "MachineConfigForeign", Truth.FALSE, "Rename or delete it."),
    "the pool cannot be rendered": (pool_edit(render_failed), "RenderFailed", Truth.FALSE, "parse error of 99-x. Mend"),
    "the pool has not taken us up": (
        pool_edit(lambda p: p["spec"].update(configuration=configuration(TARGET, "00-worker"))),
        "WaitingForRender", Truth.FALSE, "has not taken up MachineConfig 99-dpu-dpu-network-operator",
    ),
    "the rendered one is old though it names us": (
        replaced(rendered=Seen(Sight.PRESENT, rendered(ours(host=OTHER)))),
        "WaitingForRender", Truth.FALSE, "does not have file /etc/dpu-network-operator/host-config.json as it should be",
    ),
    "the rendered one is another": (
        replaced(rendered=Seen(Sight.PRESENT, rendered(ours(), name=OLD))), "NotObservedYet", Truth.UNKNOWN, TARGET,
    ),
    "the rendered one is gone": (replaced(rendered=Seen(Sight.ABSENT)), "RenderFailed", Truth.FALSE, "does not exist"),
    "the rendered one may not be read": (replaced(rendered=Seen(Sight.FORBIDDEN)), "Forbidden", Truth.UNKNOWN, "may not read"),
    "the pool has no machines": (replaced(nodes=()), "NoMachines", Truth.FALSE, "has no machines"),
    "the machines have other labels": (
        replaced(nodes=({"metadata": {"name": "x", "labels": {"a": "b"}}},)), "NoMachines", Truth.FALSE, "has no machines",
    ),
    "the pool updates": (half_way, "Updating", Truth.FALSE, "1 of 3 machines of pool dpu run rendered-dpu-1, not yet dpu-1, dpu-2."),
    "the pool is paused": (paused, "PoolPaused", Truth.FALSE, 'oc patch machineconfigpool dpu --type merge -p \'{"spec":{"paused":false}}\''),
    "sriov pauses the pool": (lambda i: paused(i, "Paused"), "PoolPaused", Truth.FALSE, "paused by sriov-network-operator. Wait"),
    "a person pauses a pool that sriov knows": (lambda i: paused(i, "Idle"), "PoolPaused", Truth.FALSE, "resume it: `oc patch"),
    "a node is degraded": (degraded, "NodeDegraded", Truth.FALSE, "Node dpu-2 is Degraded: disk full on /."),
    "a degraded node of a paused pool": (
        lambda i: dataclasses.replace(paused(i), nodes=degraded(i).nodes), "NodeDegraded", Truth.FALSE, "dpu-2",
    ),
    "a node drifted from what it runs": (
        replaced(nodes=(node("dpu-0", state="Degraded"),)), "NodeDegraded", Truth.FALSE, "Node dpu-0 is Degraded: no reason given.",
    ),
    "a node still reboots": (replaced(nodes=(node("dpu-0", OLD, TARGET, "Rebooting"),)), "Updating", Truth.FALSE, "0 of 1"),
    "a node is done with the old one": (replaced(nodes=(node("dpu-0", OLD, OLD),)), "Updating", Truth.FALSE, "0 of 1"),
    "the pool calls itself Updated while a node is not": (
        lambda i: dataclasses.replace(i, nodes=(*i.nodes, node("dpu-3", OLD, OLD))), "Updating", Truth.FALSE, "3 of 4",
    ),
}  # fmt: skip


def test_all_is_well_in_the_world_that_the_others_break() -> None:
    assert judge(well()) == Condition(
        "MachineConfigApplied", Truth.TRUE, "Applied", "All 3 machines of pool dpu run rendered-dpu-1."
    )


@pytest.mark.parametrize("case", BROKEN)
def test_it_is_not_applied_and_says_why(case: str) -> None:
    breaks, reason, status, words = BROKEN[case]
    judged = judge(breaks(well()))
    assert (judged.reason, judged.status) == (reason, status)
    assert words in judged.message


@pytest.mark.parametrize("case", BROKEN)
def test_each_message_is_one_or_two_sentences_that_start_with_a_capital_or_a_number_and_end_with_a_full_stop(
    case: str,
) -> None:
    message = judge(BROKEN[case][0](well())).message
    assert not message[0].islower()
    assert message.endswith(".")
    assert "\n" not in message


def test_a_machine_that_is_cordoned_or_not_ready_counts_when_it_runs_our_configuration() -> None:
    def behind(pool: Obj) -> None:
        pool["status"].update(updatedMachineCount=2, configuration=configuration(OLD, "00-worker"))

    assert judge(edited(well(), behind)).reason == "Applied"


def test_a_pool_that_was_paused_after_the_update_is_applied() -> None:
    assert judge(edited(well(), lambda p: p["spec"].update(paused=True))).status is Truth.TRUE


def test_a_machine_config_that_could_not_be_made_gives_the_reason() -> None:
    judged = machine_config_applied(well(), None, "The agent's image is not known. Set RELATED_IMAGE_AGENT.")
    assert (judged.status, judged.reason) == (Truth.FALSE, "InvalidMachineConfig")
    assert judged.message == "The agent's image is not known. Set RELATED_IMAGE_AGENT."
    assert (
        machine_config_applied(well(), None, "The tenant is new. Wait.", reason="WaitingForTenant").reason
        == "WaitingForTenant"
    )


COUNTERS: dict[str, tuple[Obj, str]] = {
    "all updated": ({}, "Applied"),
    "some not": ({"updatedMachineCount": 2}, "Updating"),
    "counted for an older generation": ({"observedGeneration": 2}, "Updating"),
    "another configuration": ({"configuration": configuration(OLD, "00-worker")}, "Updating"),
    "none at all": ({"machineCount": 0, "updatedMachineCount": 0}, "NoMachines"),
    "one degraded": ({"degradedMachineCount": 1, "updatedMachineCount": 2}, "NodeDegraded"),
}


@pytest.mark.parametrize("case", COUNTERS)
def test_without_sight_of_the_nodes_the_pools_counters_decide(case: str) -> None:
    status, reason = COUNTERS[case]
    blind = dataclasses.replace(well(), nodes=(), nodes_sight=Sight.FORBIDDEN)
    assert judge(edited(blind, lambda p: p["status"].update(status))).reason == reason


@pytest.mark.parametrize("name", ["master", "worker", "arbiter"])
def test_the_pools_of_other_machines_are_refused(name: str) -> None:
    infra = dataclasses.replace(well(), config=config(pool=name))
    assert judge(infra).reason == "PoolInvalid"
    assert f"The pool {name} has machines that are no DPUs" in str(validate_pool(infra))


def test_a_pool_that_has_not_been_seen_is_not_called_wrong() -> None:
    assert validate_pool(dataclasses.replace(well(), pool=Seen())) is None
    assert validate_pool(well()) is None


def test_a_pool_that_selects_by_plain_labels_or_all_roles_is_taken_when_worker_is_among_them() -> None:
    everything = {"matchExpressions": [{"key": ROLE, "operator": "Exists"}]}
    assert judge(edited(well(), lambda p: p["spec"].update(machineConfigSelector=everything))).reason == "Applied"


MINE = config()
RIVALS: dict[str, tuple[Obj, bool]] = {
    "older on the same pool": (config("a", "x", creationTimestamp="2026-10-31T00:00:00Z"), True),
    "younger on the same pool": (config("a", "x", creationTimestamp="2026-11-02T00:00:00Z"), False),
    "older in the same namespace": (config("a", pool="other", creationTimestamp="2026-10-31T00:00:00Z"), True),
    "younger in the same namespace": (config("a", pool="other", creationTimestamp="2026-11-02T00:00:00Z"), False),
    "as old, lower uid": (config("a", "x", uid="a"), True),
    "as old, higher uid": (config("a", "x", uid="z"), False),
    "older elsewhere": (config("a", "x", pool="other", creationTimestamp="2026-10-31T00:00:00Z"), False),
    "older and being deleted": (
        config("a", "x", creationTimestamp="2026-10-31T00:00:00Z", deletionTimestamp="2026-11-03T00:00:00Z"),
        True,
    ),
}


@pytest.mark.parametrize("case", RIVALS)
def test_of_two_resources_the_older_one_works(case: str) -> None:
    other, first = RIVALS[case]
    infra = dataclasses.replace(well(), others=(other,))
    assert (conflict(infra) == other) is first
    assert bool(conflict_problem(infra)) is first
    turned = dataclasses.replace(well(), config=other, others=(MINE,))
    if case != "older elsewhere":
        assert (conflict(turned) is None) is first, "exactly one of the two works"


def test_the_second_in_a_namespace_is_told_to_move() -> None:
    infra = dataclasses.replace(well(), others=(RIVALS["older in the same namespace"][0],))
    assert conflict_problem(infra).endswith(
        "Put each OVNKubeConfig into a namespace of its own, or delete one of the two."
    )


@pytest.mark.parametrize(("late", "named"), [(3, "dpu-0, dpu-1, dpu-2."), (4, "dpu-0, dpu-1, dpu-2 and others.")])
def test_at_most_three_machines_are_named(late: int, named: str) -> None:
    nodes = tuple(node(f"dpu-{i}", OLD, OLD) for i in range(late))
    assert f"not yet {named}" in judge(dataclasses.replace(well(), nodes=nodes)).message
