"""A status must be able to turn false, and true again: every condition, by changing the world and nothing else."""

import copy
import dataclasses
import datetime as dt
from collections.abc import Callable
from functools import cache

import pytest

from dpu_operator.plan.machineconfig import ref_of
from dpu_operator.world import Condition, Credential, LinkState, Plan, Seen, Sight, TenantKey, Truth
from dpu_shared.node_report import State
from tests.unit.core.worlds import (
    GOOD,
    NAMESPACE,
    NOW,
    OPERAND,
    POOL,
    World,
    config_map,
    foreign,
    healthy,
)

Break = Callable[[World], object]


def without_machines(world: World) -> None:
    for ref in world.nodes():
        world.edit(ref, lambda node: node["metadata"]["labels"].pop("node-role.kubernetes.io/dpu"))


def first_node(world: World, **marks: str) -> None:
    world.edit(world.nodes()[0], lambda node: node["metadata"]["annotations"].update(marks))


def replaced(world: World, name: str) -> None:
    world.server.remove(config_map(name))
    world.server.put(foreign("ConfigMap", name))


def credential(world: World, **fields: object) -> None:
    world.tenant = dataclasses.replace(
        world.tenant,
        credential=dataclasses.replace(world.tenant.credential, **fields),  # type: ignore[arg-type]
    )


def forgotten(world: World, *keys: TenantKey, sight: Sight = Sight.UNSEEN) -> None:
    for key in keys or tuple(TenantKey):
        world.tenant_object(key, Seen(sight))


def of_release(world: World, version: str) -> None:
    for key in (TenantKey.NODE_DAEMON_SET, TenantKey.DPU_HOST_DAEMON_SET):
        world.edit_tenant(
            key, lambda obj: obj["metadata"]["annotations"].update({"release.openshift.io/version": version})
        )


def observed(world: World, **fields: object) -> None:
    world.infra_changes |= fields


MCO = "machineconfiguration.openshift.io/"

# condition, status, reason, and what has happened
TURNS: list[tuple[str, str, str, Break]] = [
    ("MachineConfigApplied", "False", "WaitingForRender", lambda w: w.server.remove(ref_of(w.infra()))),
    ("MachineConfigApplied", "False", "Updating", lambda w: first_node(w, **{MCO + "currentConfig": "rendered-old"})),
    ("MachineConfigApplied", "False", "NodeDegraded", lambda w: first_node(w, **{MCO + "state": "Degraded"})),
    ("MachineConfigApplied", "False", "NoMachines", without_machines),
    ("MachineConfigApplied", "False", "PoolNotFound", lambda w: w.server.remove(POOL)),
    ("MachineConfigApplied", "False", "PoolInvalid", lambda w: w.edit(POOL, lambda p: p["spec"].pop("nodeSelector"))),
    ("MachineConfigApplied", "False", "InvalidMachineConfig", lambda w: observed(w, images={})),
    ("MachineConfigApplied", "Unknown", "NotObservedYet", lambda w: observed(w, pool=Seen())),
    ("MachineConfigApplied", "Unknown", "Forbidden", lambda w: observed(w, pool=Seen(Sight.FORBIDDEN))),
    ("OvnKubeReady", "False", "NotCreated", lambda w: w.server.remove(OPERAND)),
    ("OvnKubeReady", "False", "NoMachines", lambda w: w.daemon_set_controller(wanted=0, updated=0, ready=0)),
    ("OvnKubeReady", "False", "NoPodReady", lambda w: w.daemon_set_controller(ready=0)),
    ("OvnKubeReady", "False", "SomePodsNotReady", lambda w: w.daemon_set_controller(ready=2)),
    ("OvnKubeReady", "False", "RollingOut", lambda w: w.daemon_set_controller(updated=1)),
    ("OvnKubeReady", "False", "RollingOut", lambda w: w.edit(OPERAND, lambda d: d["status"].update(observedGeneration=0))),
    ("OvnKubeReady", "False", "Outdated", lambda w: w.edit(OPERAND, lambda d: d["spec"]["template"].update(spec={}))),
    ("OvnKubeReady", "False", "ForeignObject", lambda w: w.edit(OPERAND, lambda d: d["metadata"].pop("labels"))),
    ("TenantClusterApiServerUnreachable", "True", "Unreachable", lambda w: w.link(LinkState.DOWN, "refused")),
    ("TenantClusterApiServerUnreachable", "Unknown", "NotProbedYet", lambda w: w.link(LinkState.UNTRIED)),
    ("TenantClusterApiServerUnreachable", "Unknown", "NoCredential", lambda w: credential(w, problem="No.", hint="Do.")),
    ("TenantObjectsSynced", "False", "Syncing", lambda w: w.server.remove(config_map("ovnkube-config"))),
    ("TenantObjectsSynced", "False", "ForeignObject", lambda w: replaced(w, "ovnkube-config")),
    ("TenantObjectsSynced", "False", "TenantObjectMissing", lambda w: forgotten(w, TenantKey.ROOT_CA, sight=Sight.ABSENT)),
    ("TenantObjectsSynced", "False", "TenantAccessDenied", lambda w: forgotten(w, TenantKey.ROOT_CA, sight=Sight.FORBIDDEN)),
    ("TenantObjectsSynced", "False", "NamespaceForbidden", lambda w: observed(w, unreadable=("secrets",), live_complete=False)),
    ("TenantObjectsSynced", "False", "UnsupportedRelease", lambda w: of_release(w, "4.16.1")),
    ("TenantObjectsSynced", "Unknown", "TenantNotRead", forgotten),
    ("TenantObjectsSynced", "Unknown", "TenantNotAnswering", lambda w: w.link(LinkState.DOWN)),
    ("TenantCredentialsValid", "False", "SecretNotFound", lambda w: credential(w, seen=Sight.ABSENT)),
    ("TenantCredentialsValid", "False", "SecretForbidden", lambda w: credential(w, seen=Sight.FORBIDDEN)),
    ("TenantCredentialsValid", "False", "KubeconfigRefused", lambda w: credential(w, problem="No.", hint="Do.")),
    ("TenantCredentialsValid", "False", "Unauthorized", lambda w: w.link(LinkState.REFUSED)),
    ("TenantCredentialsValid", "False", "Expired", lambda w: credential(w, expires=NOW - dt.timedelta(seconds=1))),
    ("TenantCredentialsValid", "False", "ExpiresSoon", lambda w: credential(w, expires=NOW + dt.timedelta(days=1))),
    ("TenantCredentialsValid", "Unknown", "NotVerified", lambda w: w.link(LinkState.DOWN)),
    ("NodesMapped", "False", "NotMapped", lambda w: first_node(w, **{"dpu.openshift.io/tenant-node": ""})),
    ("NodesMapped", "False", "NotMapped", lambda w: first_node(w, **{"dpu.openshift.io/tenant-node": "dpu-host-1"})),
    ("NodesMapped", "False", "NoMachines", without_machines),
    ("NodesMapped", "Unknown", "NotObservedYet", lambda w: observed(w, nodes=(), nodes_sight=Sight.UNSEEN)),
    ("HostsConfigured", "False", "Degraded", lambda w: w.agents(State.DEGRADED)),
    ("HostsConfigured", "False", "Blocked", lambda w: w.agents(State.BLOCKED)),
    ("HostsConfigured", "False", "RebootRequired", lambda w: w.agents(State.REBOOT_REQUIRED)),
    ("HostsConfigured", "False", "Progressing", lambda w: w.agents(State.PROGRESSING)),
    ("HostsConfigured", "False", "StaleReport", lambda w: first_node(w, **{"dpu.openshift.io/agent-boot-id": "before"})),
    ("HostsConfigured", "False", "NotReported", lambda w: first_node(w, **{"dpu.openshift.io/agent-state": ""})),
    ("HostsConfigured", "False", "NoMachines", without_machines),
    ("VersionAligned", "False", "VersionDiffers", lambda w: of_release(w, "4.20.9")),
    ("VersionAligned", "Unknown", "TenantVersionUnknown", forgotten),
    ("Available", "False", "NoPodReady", lambda w: w.daemon_set_controller(ready=0)),
    ("Available", "False", "NotCreated", lambda w: w.server.remove(OPERAND)),
    ("Progressing", "True", "RollingOut", lambda w: w.daemon_set_controller(updated=1)),
    ("Progressing", "True", "Updating", lambda w: first_node(w, **{MCO + "currentConfig": "rendered-old"})),
    ("Degraded", "True", "Unreachable", lambda w: w.link(LinkState.DOWN)),
    ("Degraded", "True", "ForeignObject", lambda w: replaced(w, "ovnkube-config")),
    ("Degraded", "True", "Unauthorized", lambda w: w.link(LinkState.REFUSED)),
]  # fmt: skip


@cache
def broken(number: int) -> Plan:
    """What is planned and said after one of the turns."""
    world = healthy()
    world.report()
    TURNS[number][3](world)
    return world.plan()


def condition_of(world: World, kind: str) -> Condition:
    return next(c for c in world.plan().conditions if c.type == kind)


def test_in_a_healthy_world_every_condition_is_good() -> None:
    assert healthy().report() == GOOD


@pytest.mark.parametrize(
    ("kind", "status", "reason", "happens"), TURNS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_condition_turns_and_turns_back(kind: str, status: str, reason: str, happens: Break) -> None:
    """The status of before stays in the resource all the time: nothing is remembered that is no longer so."""
    world = healthy()
    assert world.report()[kind] == GOOD[kind]
    server, tenant = world.server.clone(), world.tenant
    happens(world)
    found = condition_of(world, kind)
    assert (str(found.status), found.reason) == (status, reason)
    world.report()
    world.server, world.tenant, world.infra_changes = server, tenant, {}
    assert world.report() == GOOD


@pytest.mark.parametrize("number", range(len(TURNS)))
def test_every_sentence_can_be_shown(number: int) -> None:
    """A message on all of them, also when all is well; one line, bounded, and a reason that the API server takes."""
    for c in broken(number).conditions:
        assert c.message.endswith((".", "…")), c
        assert c.message == " ".join(c.message.split()), c
        assert 0 < len(c.message) < 1024, c
        assert c.reason.isascii(), c
        assert c.reason.isalnum(), c
        assert c.reason[0].isalpha(), c


def test_each_type_is_judged_once_and_always() -> None:
    for number in range(len(TURNS)):
        assert sorted(c.type for c in broken(number).conditions) == sorted(GOOD)


def test_every_condition_is_shown_to_turn() -> None:
    assert {kind for kind, *_ in TURNS} == set(GOOD)


def test_a_reason_that_may_last_a_while_turns_degraded_true_when_it_does() -> None:
    world = healthy()
    world.daemon_set_controller(ready=2)
    assert world.report()["Degraded"] == "False"
    wake = world.plan().wake_at
    assert wake is not None
    assert wake > NOW
    for condition in world.config["status"]["conditions"]:
        condition["lastTransitionTime"] = "2026-05-20T11:00:00Z"
    assert world.report()["Degraded"] == "True"
    world.daemon_set_controller()
    assert world.report() == GOOD


def test_nothing_of_the_status_but_the_topology_leads_the_plan() -> None:
    """A status that somebody wrote by hand changes no step."""
    world = healthy()
    world.server.remove(config_map("ovnkube-config"))
    steps = world.plan().steps
    world.report()
    status = copy.deepcopy(world.config["status"])
    for condition in status["conditions"]:
        condition |= {"status": "True", "reason": "Painted", "message": "All is well."}
    world.config["status"] = status | {"image": "painted", "tenantVersion": "9.9.9"}
    assert world.plan().steps == steps
    assert str(condition_of(world, "TenantObjectsSynced").status) == "False"


def test_the_counts_name_the_nodes_that_are_not_well_and_at_most_twenty() -> None:
    world = healthy()
    assert (world.plan().counts.total, world.plan().counts.mapped, world.plan().counts.configured) == (3, 3, 3)
    first_node(world, **{"dpu.openshift.io/tenant-node": "", "dpu.openshift.io/agent-state": "Blocked"})
    counts = world.plan().counts
    assert (counts.total, counts.mapped, counts.configured, counts.unwell) == (3, 2, 2, ("dpu-0",))
    template = world.live(world.nodes()[0])
    for number in range(30):
        node = copy.deepcopy(template)
        node["metadata"] |= {"name": f"more-{number}"}
        world.server.put(node)
    assert len(world.plan().counts.unwell) == 20


def test_time_alone_is_waited_for_where_it_will_turn_a_condition() -> None:
    world = healthy()
    assert world.plan().wake_at is None
    end = NOW + dt.timedelta(days=30)
    world.tenant = dataclasses.replace(
        world.tenant, credential=Credential(seen=Sight.PRESENT, what="token", expires=end)
    )
    wake = world.plan().wake_at
    assert wake is not None
    assert NOW < wake < end
    world.infra_changes["now"] = wake
    assert condition_of(world, "TenantCredentialsValid").reason == "ExpiresSoon"
    assert world.plan().wake_at == end
    world.infra_changes["now"] = end
    assert condition_of(world, "TenantCredentialsValid").reason == "Expired"
    assert world.plan().wake_at is None


def test_the_namespace_of_the_messages_is_the_resources_own() -> None:
    world = healthy()
    credential(world, seen=Sight.FORBIDDEN)
    assert f"Secret {NAMESPACE}/tenant-kubeconfig" in condition_of(world, "TenantCredentialsValid").message
    assert condition_of(world, "TenantCredentialsValid").status is Truth.FALSE
