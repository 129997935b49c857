"""The conditions that are judged from objects and reports, and the summary of all."""

import copy
import datetime as dt
from collections.abc import Callable

import pytest

from dpu_operator.plan import conditions as c
from dpu_operator.world import (
    CONFIG_MAP,
    FIELD_MANAGER,
    HASH_ANNOTATION,
    MANAGED_BY_LABEL,
    OWNER_ANNOTATION,
    Condition,
    Obj,
    Ref,
    Truth,
)
from dpu_shared.host_config import HostConfig
from dpu_shared.node_report import NodeReport, State
from tests.unit.pool.worlds import NOW, node

OWNER = "tenant-1/cluster"
HASH = HostConfig().config_hash()


def marked(obj: Obj, content: str = "1") -> Obj:
    meta = {
        "namespace": "tenant-1",
        "labels": {MANAGED_BY_LABEL: FIELD_MANAGER},
        "annotations": {OWNER_ANNOTATION: OWNER, HASH_ANNOTATION: content},
    }
    return {**obj, "metadata": {**obj["metadata"], **meta}}


def copied(name: str, value: str = "1") -> Obj:
    return marked({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": value}}, value)


def live(*objs: Obj) -> dict[Ref, Obj]:
    return {Ref(CONFIG_MAP, "tenant-1", obj["metadata"]["name"]): obj for obj in objs}


COPIES = [copied("ovnkube-config"), copied("ovn-ca")]
FOREIGN = {**copied("ovn-ca"), "metadata": {"name": "ovn-ca", "namespace": "tenant-1"}}


def synced(there: dict[Ref, Obj], **more: object) -> Condition:
    return c.tenant_objects_synced(COPIES, there, owner=OWNER, **more)  # type: ignore[arg-type]


SYNCS: dict[str, tuple[Condition, Truth, str, str]] = {
    "equal": (synced(live(*COPIES)), Truth.TRUE, "Synced", "All 2 copies are equal"),
    "one missing": (synced(live(COPIES[0])), Truth.FALSE, "Syncing", "ConfigMap ovn-ca not yet as in the tenant. It is about"),
    "both missing": (synced({}), Truth.FALSE, "Syncing", "ConfigMap ovnkube-config, ConfigMap ovn-ca not yet"),
    "one changed": (synced(live(COPIES[0], copied("ovn-ca", "2"))), Truth.FALSE, "Syncing", "ConfigMap ovn-ca"),
    "a key added here": (
        synced(live(COPIES[0], {**COPIES[1], "data": {"a": "1", "b": "2"}})), Truth.FALSE, "Syncing", "ConfigMap ovn-ca",
    ),
    "a foreign object": (synced(live(COPIES[0], FOREIGN)), Truth.FALSE, "ForeignObject", "ConfigMap ovn-ca exists here and is not of this"),
    "a tenant object missing": (
        synced(live(*COPIES), problems=[("TenantObjectMissing", "It is gone. Make it."), ("X", "Y.")]),
        Truth.FALSE, "TenantObjectMissing", "It is gone. Make it.",
    ),
    "a tenant object not read": (
        synced(live(*COPIES), problems=[("TenantNotRead", "Not read. Wait.")]), Truth.UNKNOWN, "TenantNotRead", "Not read.",
    ),
    "nothing listed": (synced({}, complete=False), Truth.UNKNOWN, "NotObservedYet", "not been listed"),
    "tenant away": (synced(live(*COPIES), reachable=False), Truth.UNKNOWN, "TenantNotAnswering", "when it last answered"),
    "tenant away and a copy lost": (synced(live(COPIES[0]), reachable=False), Truth.FALSE, "Syncing", "ovn-ca"),
}  # fmt: skip


def daemon_set(wanted: int = 3, updated: int = 3, ready: int = 3, *, observed: int = 2) -> Obj:
    made = marked({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "ovnkube-node", "generation": 2}})
    status = {"desiredNumberScheduled": wanted, "updatedNumberScheduled": updated, "numberReady": ready}
    return {**made, "spec": {"revisionHistoryLimit": 3}, "status": {"observedGeneration": observed, **status}}


DESIRED = {key: value for key, value in daemon_set().items() if key != "status"}
DESIRED["metadata"] = {k: v for k, v in DESIRED["metadata"].items() if k != "generation"}


def ready(there: Obj | None, desired: Obj | None = DESIRED, **more: object) -> Condition:
    return c.ovnkube_ready(there, desired, owner=OWNER, **more)  # type: ignore[arg-type]


def other(change: Callable[[Obj], object]) -> Obj:
    changed = copy.deepcopy(daemon_set())
    change(changed)
    return changed


READY: dict[str, tuple[Condition, Truth, str, str]] = {
    "ready": (ready(daemon_set()), Truth.TRUE, "Ready", "All 3 pods of ovnkube-node have the present revision and are ready."),
    "not looked at": (ready(None, complete=False), Truth.UNKNOWN, "NotObservedYet", "not been looked at"),
    "not there": (ready(None), Truth.FALSE, "NotCreated", "about to be written"),
    "cannot be made": (
        ready(None, None, problem=("NoImage", "There is no image. Name one.")), Truth.FALSE, "NoImage", "cannot be made yet. There is no image. Name one.",
    ),
    "cannot be made for no given reason": (ready(None, None), Truth.FALSE, "NotPlanned", "The other conditions say"),
    "foreign": (ready(other(lambda d: d["metadata"].pop("labels"))), Truth.FALSE, "ForeignObject", "is left alone. Rename or delete it."),
    "old": (ready(other(lambda d: d["spec"].update(revisionHistoryLimit=1))), Truth.FALSE, "Outdated", "another spec.revisionHistoryLimit"),
    "just changed": (ready(daemon_set(observed=1)), Truth.FALSE, "RollingOut", "has just changed"),
    "0 of 0": (ready(daemon_set(0, 0, 0)), Truth.FALSE, "NoMachines", "matches no node"),
    "no status at all": (ready(other(lambda d: d.pop("status"))), Truth.FALSE, "Starting", "has just changed"),
    "none ready": (ready(daemon_set(3, 3, 0)), Truth.FALSE, "NoPodReady", "None of 3 pods"),
    "half rolled out": (ready(daemon_set(3, 1, 2)), Truth.FALSE, "RollingOut", "1 of 3 pods of ovnkube-node have the present revision."),
    "all rolled out and one not ready": (ready(daemon_set(3, 3, 2)), Truth.FALSE, "SomePodsNotReady", "2 of 3 pods"),
    "all ready and one of the old revision": (ready(daemon_set(3, 2, 3)), Truth.FALSE, "RollingOut", "2 of 3"),
    "there, while what should be is not known": (ready(daemon_set(), None), Truth.TRUE, "Ready", "All 3 pods"),
}  # fmt: skip

MEMBERS = [node("dpu-0"), node("dpu-1")]
BOTH = {"dpu-0": "worker-0", "dpu-1": "worker-1"}
MAPPED: dict[str, tuple[Condition, Truth, str, str]] = {
    "mapped": (c.nodes_mapped(BOTH, [], MEMBERS), Truth.TRUE, "Mapped", "All 2 DPUs are mapped, each to a tenant node of its own."),
    "one not": (
        c.nodes_mapped({"dpu-0": "worker-0"}, [], MEMBERS), Truth.FALSE, "NotMapped", "1 of 2 DPUs are mapped to a tenant node, not so dpu-1.",
    ),
    "two to one": (
        c.nodes_mapped({}, [("SharedNode", "dpu-0 and dpu-1 name worker-0. Correct one.")], MEMBERS),
        Truth.FALSE, "SharedNode", "0 of 2 DPUs are mapped to a tenant node. dpu-0 and dpu-1 name worker-0. Correct one.",
    ),
    "all, and one by an unsure way": (c.nodes_mapped(BOTH, [("Odd", "Odd. Mend it.")], MEMBERS), Truth.FALSE, "Odd", "2 of 2"),
    "no DPU": (c.nodes_mapped({}, [], []), Truth.FALSE, "NoMachines", "no DPU to map"),
    "tenant's nodes unknown": (
        c.nodes_mapped(BOTH, [], MEMBERS, unknown="They cannot be listed. Grant it."), Truth.UNKNOWN, "TenantNodesUnknown", "Grant it.",
    ),
    "not listed": (c.nodes_mapped({}, [], [], complete=False), Truth.UNKNOWN, "NotObservedYet", "not been listed"),
}  # fmt: skip


def reporting(
    name: str, state: State = State.READY, boot: str = "", config_hash: str = HASH, message: str = "Done."
) -> Obj:
    report = NodeReport(state, message, config_hash, boot or f"boot-{name}")
    return node(name, **report.to_annotations())


GOOD = reporting("dpu-0")


def hosts(*nodes: Obj, complete: bool = True) -> Condition:
    return c.hosts_configured(nodes, HASH, complete=complete)


HOSTS: dict[str, tuple[Condition, Truth, str, str]] = {
    "configured": (hosts(GOOD, reporting("dpu-1")), Truth.TRUE, "Configured", "All 2 DPUs report"),
    "no agent anywhere": (hosts(*MEMBERS), Truth.UNKNOWN, "NotReported", "0 of 2 DPUs report that they are as configured, and no agent"),
    "one agent missing": (hosts(GOOD, node("dpu-1")), Truth.FALSE, "NotReported", "1 of 2 DPUs report that they are as configured; dpu-1:"),
    "from before the reboot": (hosts(GOOD, reporting("dpu-1", boot="x")), Truth.FALSE, "StaleReport", "another configuration or boot"),
    "for another configuration": (hosts(GOOD, reporting("dpu-1", config_hash="x")), Truth.FALSE, "StaleReport", "dpu-1"),
    "at work": (hosts(reporting("dpu-1", State.PROGRESSING)), Truth.FALSE, "Progressing", "dpu-1: Done. Its agent is at work."),
    "to be rebooted": (hosts(reporting("dpu-1", State.REBOOT_REQUIRED)), Truth.FALSE, "RebootRequired", "Reboot it"),
    "blocked": (hosts(reporting("dpu-1", State.BLOCKED)), Truth.FALSE, "Blocked", "maxDisruption"),
    "degraded without words": (hosts(reporting("dpu-1", State.DEGRADED, message="")), Truth.FALSE, "Degraded", "gives no message."),
    "the worst first": (
        hosts(node("a"), reporting("b", State.BLOCKED), reporting("c", State.DEGRADED), GOOD), Truth.FALSE, "Degraded", "1 of 4",
    ),
    "no DPU": (hosts(), Truth.FALSE, "NoMachines", "no DPU to configure"),
    "not listed": (hosts(complete=False), Truth.UNKNOWN, "NotObservedYet", "not been listed"),
}  # fmt: skip


def aligned(tenant: str = "4.20.1", image: str = "4.20.1", **more: object) -> Condition:
    return c.version_aligned(tenant_version=tenant, image_version=image, source="infra", **more)  # type: ignore[arg-type]


VERSIONS: dict[str, tuple[Condition, Truth, str, str]] = {
    "equal": (aligned(), Truth.TRUE, "Aligned", "Tenant and DPUs have ovnkube of release 4.20.1 (infra)."),
    "another": (aligned(image="4.19.0"), Truth.FALSE, "VersionDiffers", "has release 4.20.1, and the DPUs' image (infra) 4.19.0."),
    "with the chooser's words": (aligned(image="4.19.0", message="It is kept. Wait."), Truth.FALSE, "VersionDiffers", "It is kept. Wait."),
    "tenant not known": (aligned(tenant=""), Truth.UNKNOWN, "TenantVersionUnknown", "is not known"),
    "image not known": (aligned(image=""), Truth.UNKNOWN, "ImageVersionUnknown", "of the DPUs' image"),
}  # fmt: skip
ALL = {"sync": SYNCS, "ready": READY, "mapped": MAPPED, "hosts": HOSTS, "version": VERSIONS}


@pytest.mark.parametrize(("table", "case"), [(table, case) for table, cases in ALL.items() for case in cases])
def test_the_condition_has_status_reason_and_sentences(table: str, case: str) -> None:
    judged, status, reason, words = ALL[table][case]
    assert (judged.status, judged.reason) == (status, reason)
    assert words in judged.message
    assert not judged.message[0].islower()
    assert judged.message.endswith(".")


def test_configured_and_unwell_count_what_the_reports_say() -> None:
    nodes = [GOOD, reporting("dpu-1", State.BLOCKED), node("dpu-2"), reporting("dpu-3", State.PROGRESSING)]
    assert [c.configured(each, HASH) for each in nodes] == [True, False, False, False]
    everywhere = {each["metadata"]["name"]: "w" for each in nodes}
    assert c.unwell(nodes, everywhere, HASH) == ("dpu-1",)
    assert c.unwell(nodes, {}, HASH) == ("dpu-0", "dpu-1", "dpu-2", "dpu-3")
    many = [node(f"dpu-{i:03}") for i in range(30)]
    assert len(c.unwell(many, {}, HASH)) == 20


FINE = (
    Condition("MachineConfigApplied", Truth.TRUE, "Applied", "All is well."),
    Condition("OvnKubeReady", Truth.TRUE, "Ready", "All pods are ready."),
    Condition("TenantClusterApiServerUnreachable", Truth.FALSE, "Reachable", "It answers."),
    Condition("TenantObjectsSynced", Truth.TRUE, "Synced", "All are equal."),
    Condition("HostsConfigured", Truth.UNKNOWN, "NotReported", "No report."),
)


def but(kind: str, status: Truth, reason: str) -> tuple[Condition, ...]:
    return tuple(Condition(kind, status, reason, f"It is {reason}.") if each.type == kind else each for each in FINE)


T, F, U = Truth.TRUE, Truth.FALSE, Truth.UNKNOWN
SUMMARIES: dict[str, tuple[tuple[Condition, ...], tuple[Truth, Truth, Truth]]] = {
    "all is well": (FINE, (T, F, F)),
    "the tenant is away": (but("TenantClusterApiServerUnreachable", T, "Unreachable"), (T, F, T)),
    "the tenant is not judged": (but("TenantClusterApiServerUnreachable", U, "NotProbedYet"), (T, F, F)),
    "the pool updates": (but("MachineConfigApplied", F, "Updating"), (T, T, F)),
    "the pool is paused": (but("MachineConfigApplied", F, "PoolPaused"), (T, F, T)),
    "the pool is empty": (but("MachineConfigApplied", F, "NoMachines"), (T, F, F)),
    "it waits for the tenant": (but("MachineConfigApplied", F, "WaitingForTenant"), (T, F, F)),
    "copies are written": (but("TenantObjectsSynced", F, "Syncing"), (T, T, F)),
    "a foreign object": (but("TenantObjectsSynced", F, "ForeignObject"), (T, F, T)),
    "pods start": (but("OvnKubeReady", F, "Starting"), (F, T, F)),
    "pods roll": (but("OvnKubeReady", F, "RollingOut"), (T, T, F)),
    "a pod is not ready": (but("OvnKubeReady", F, "SomePodsNotReady"), (T, F, F)),
    "no pod is ready": (but("OvnKubeReady", F, "NoPodReady"), (F, F, F)),
    "no DaemonSet yet": (but("OvnKubeReady", F, "NotCreated"), (F, T, F)),
    "no DaemonSet possible": (but("OvnKubeReady", F, "NoImage"), (F, F, T)),
    "pods not looked at": (but("OvnKubeReady", U, "NotObservedYet"), (U, F, F)),
    "a DPU wants a reboot": (but("HostsConfigured", F, "RebootRequired"), (T, F, T)),
    "nothing judged": ((), (U, F, F)),
}


@pytest.mark.parametrize("case", SUMMARIES)
def test_the_summary_is_available_progressing_degraded(case: str) -> None:
    judged, statuses = SUMMARIES[case]
    available, progressing, degraded = c.summary(judged)
    assert (available.type, progressing.type, degraded.type) == ("Available", "Progressing", "Degraded")
    assert (available.status, progressing.status, degraded.status) == statuses
    assert all(each.reason and each.message.endswith(".") for each in (available, progressing, degraded))


def test_the_summary_names_the_first_condition_and_all_others() -> None:
    both = but("MachineConfigApplied", F, "PoolPaused")[:1] + but("TenantObjectsSynced", F, "ForeignObject")[1:]
    assert c.summary(both)[2].message == "MachineConfigApplied: It is PoolPaused. See also TenantObjectsSynced."


def test_pods_that_stay_unready_are_degraded_after_a_while_and_the_plan_wakes_for_it() -> None:
    judged = but("OvnKubeReady", F, "NoPodReady")
    before = [{"type": "OvnKubeReady", "status": "False", "lastTransitionTime": "2026-11-24T11:55:00Z"}]
    turns = dt.datetime(2026, 11, 24, 12, 5, tzinfo=dt.UTC)
    assert c.patience_ends(judged, before, NOW) == turns
    assert c.summary(judged, before, turns - dt.timedelta(seconds=1))[2].status is Truth.FALSE
    assert c.summary(judged, before, turns)[2].status is Truth.TRUE
    assert c.patience_ends(judged, before, turns) is None


def test_pods_that_have_only_just_become_unready_are_given_time() -> None:
    judged = but("OvnKubeReady", F, "NoPodReady")
    were_ready = [{"type": "OvnKubeReady", "status": "True", "lastTransitionTime": "2026-11-01T00:00:00Z"}]
    assert c.summary(judged, were_ready, NOW)[2].status is Truth.FALSE
    assert c.patience_ends(judged, were_ready, NOW) is None
    assert c.summary(judged, [], NOW)[2].status is Truth.FALSE


def test_every_reason_of_these_modules_is_camel_case_and_no_reason_is_in_two_classes() -> None:
    reasons = {judged.reason for table in ALL.values() for judged, *_ in table.values()}
    assert all(reason[0].isupper() and reason.isalnum() for reason in reasons)
    assert len(c.MOVING | c.IDLE | c.SLOW) == len(c.MOVING) + len(c.IDLE) + len(c.SLOW)


@pytest.mark.parametrize(("late", "named"), [(3, "dpu-0, dpu-1, dpu-2."), (4, "dpu-0, dpu-1, dpu-2 and others.")])
def test_at_most_three_unmapped_nodes_are_named(late: int, named: str) -> None:
    judged = c.nodes_mapped({}, [], [node(f"dpu-{i}") for i in range(late)])
    assert f"not so {named}" in judged.message
