"""Each condition turns with what it is about, and turns back; all of them are told in one sentence everywhere."""

import datetime as dt
import re
import time
from collections.abc import Callable

import pytest

from dpu_shared.host_config import HostConfig
from dpu_shared.node_report import NodeReport, State
from tests.cluster import health
from tests.lab import kwok
from tests.lab.client import Object
from tests.lab.lab import DPUS
from tests.lab.stage import CONFIG, Stage
from tests.lab.tenant import NAMESPACE

PROMISED = 5.0
"""Seconds within which an outage is on the condition, and its end."""
UNREACHABLE = "TenantClusterApiServerUnreachable"
DAEMON_SET = "apps/v1/DaemonSet"
RELEASE = "release.openshift.io/version"
COPIES = {"ovnkube-config": "ovnkube-config", "tenant-cluster-ca.crt": "kube-root-ca.crt"}
"""The copies in an interconnect topology, and of what."""


def within(stage: Stage, kind: str, status: str, began: float) -> Object:
    """Wait for a condition; the time is counted from `began` on, as a person with a watch would."""
    found = stage.wait_condition(kind, status)
    took = time.monotonic() - began
    assert took < PROMISED, f"{kind}={status} after {took:.1f} s"
    return found


def copies(stage: Stage) -> dict[str, str]:
    """The resourceVersion of each copy: it moves with every write."""
    admin = stage.lab.infra.admin
    return {
        name: admin.get("v1/ConfigMap", name, "tenant-1")["metadata"]["resourceVersion"]
        for name in COPIES
        if admin.find("v1/ConfigMap", name, "tenant-1")
    }


def copied(stage: Stage) -> bool:
    """Whether each copy is equal to its original, to the byte."""
    infra, tenant = stage.lab.infra.admin, stage.lab.tenant.admin
    for name, original in COPIES.items():
        copy, source = infra.find("v1/ConfigMap", name, "tenant-1"), tenant.find("v1/ConfigMap", original, NAMESPACE)
        if copy is None or source is None or copy["data"] != source["data"]:
            return False
    return True


def change_tenant(stage: Stage, text: str) -> None:
    """A harmless change of ovnkube-config in the tenant."""
    stage.lab.tenant.admin.patch("v1/ConfigMap", "ovnkube-config", {"data": {"lab-note": text}}, NAMESPACE)


def noted(stage: Stage) -> str | None:
    """What `change_tenant` wrote, as the copy has it."""
    copy = stage.lab.infra.admin.find("v1/ConfigMap", "ovnkube-config", "tenant-1") or {}
    text: str | None = (copy.get("data") or {}).get("lab-note")
    return text


def daemon_set(stage: Stage) -> Object:
    """The DaemonSet that the operator has made."""
    return stage.lab.infra.admin.get(DAEMON_SET, "ovnkube-node", "tenant-1")


def test_every_condition_is_there_with_reason_sentence_and_generation_also_when_all_is_well(stage: Stage) -> None:
    resource = stage.resource()
    found = stage.conditions()
    assert {kind: each["status"] for kind, each in found.items()} == health.WANTED
    for each in found.values():
        assert each["reason"]
        assert each["message"][-1] in ".'", each
        assert each["observedGeneration"] == resource["metadata"]["generation"]
    assert resource["status"]["dpus"] == {"total": 3, "mapped": 3, "configured": 0, "unwell": []}


def test_each_change_of_a_condition_is_told_by_the_same_sentence_in_status_event_and_log(stage: Stage) -> None:
    admin, uid = stage.lab.infra.admin, stage.resource()["metadata"]["uid"]
    spoken = len(stage.process.text())

    def events() -> list[Object]:
        return admin.list("v1/Event", "tenant-1", fields=f"involvedObject.uid={uid}")

    before = {each["metadata"]["name"] for each in events()}
    stage.lab.tenant.network().set("cut")
    stage.wait_condition(UNREACHABLE, "True")
    stage.wait_condition("Degraded", "True")
    status = {f"{each['type']}={each['status']}: {each['message']}" for each in stage.conditions().values()}

    def told() -> set[str]:
        return {each["message"] for each in events() if each["metadata"]["name"] not in before}

    def logged() -> set[str]:
        lines = re.findall(r" INFO +tenant-1/cluster: (\w+=\w+) \w+: (.+)", stage.process.text()[spoken:])
        return {f"{what}: {sentence}" for what, sentence in lines}

    kinds = {UNREACHABLE, "TenantObjectsSynced", "TenantCredentialsValid", "Degraded"}
    stage.wait(lambda: {each.partition("=")[0] for each in told() & logged()} >= kinds, "the events and lines of log")
    assert told() == logged()
    assert told() <= status
    warnings = {each["message"].partition("=")[0] for each in events() if each["type"] == "Warning"} & kinds
    assert {UNREACHABLE, "Degraded"} <= warnings


def test_unreachable_is_told_within_five_seconds_of_the_cut_and_so_is_the_mend(stage: Stage) -> None:
    before, operand = copies(stage), daemon_set(stage)["metadata"]["generation"]
    began, clock = time.monotonic(), dt.datetime.now(dt.UTC)
    stage.lab.tenant.network().set("cut")
    found = within(stage, UNREACHABLE, "True", began)
    turned = dt.datetime.fromisoformat(found["lastTransitionTime"])
    assert -1 <= (turned - clock).total_seconds() < PROMISED
    assert "127.0.0.1" in found["message"]
    # What is not known is not called false, and what serves goes on serving.
    stage.wait_condition("TenantObjectsSynced", "Unknown", reason="TenantNotAnswering")
    stage.wait_condition("TenantCredentialsValid", "Unknown", reason="NotVerified")
    assert "TenantClusterApiServerUnreachable" in stage.wait_condition("Degraded", "True")["message"]
    now = stage.conditions()
    assert {kind: now[kind]["status"] for kind in ("OvnKubeReady", "Available", "MachineConfigApplied")} == {
        "OvnKubeReady": "True", "Available": "True", "MachineConfigApplied": "True",
    }  # fmt: skip
    assert copies(stage) == before
    assert daemon_set(stage)["metadata"]["generation"] == operand
    began = time.monotonic()
    stage.lab.tenant.network().set("pass")
    within(stage, UNREACHABLE, "False", began)
    health.wait_well(stage)
    assert copies(stage) == before


def test_a_change_made_during_a_cut_arrives_with_the_mend(stage: Stage) -> None:
    stage.lab.tenant.network().set("cut")
    stage.wait_condition(UNREACHABLE, "True")
    change_tenant(stage, "made during the cut")
    began = time.monotonic()
    stage.lab.tenant.network().set("pass")
    stage.wait(lambda: noted(stage) == "made during the cut", "the change to arrive")
    assert time.monotonic() - began < PROMISED


def test_a_slow_tenant_is_reachable_and_its_changes_arrive(stage: Stage) -> None:
    # A stream that is frozen without a close is found by its silence, after 75 s: tests/wire has that on a clock.
    mark = stage.conditions()[UNREACHABLE]["lastTransitionTime"]
    stage.lab.tenant.network().set("slow", 300)
    change_tenant(stage, "slowly")
    stage.wait(lambda: noted(stage) == "slowly", "the change to arrive")
    assert stage.conditions()[UNREACHABLE]["lastTransitionTime"] == mark


def test_a_restart_of_the_tenants_api_server_is_survived(stage: Stage) -> None:
    before = copies(stage)
    stage.lab.tenant.restart_api()
    began = time.monotonic()
    within(stage, UNREACHABLE, "False", began)
    assert copies(stage) == before
    change_tenant(stage, "after the restart")
    stage.wait(lambda: noted(stage) == "after the restart", "the next change to arrive")
    health.wait_well(stage)


def test_a_restart_of_the_infra_api_server_is_survived(stage: Stage) -> None:
    running, before = stage.process.process, copies(stage)
    stage.lab.infra.restart_api()
    change_tenant(stage, "after the restart of infra")
    stage.wait(lambda: noted(stage) == "after the restart of infra", "the next change to be written", 60)
    assert stage.process.alive()
    assert stage.process.process is running
    stage.lab.infra.admin.patch(CONFIG, "cluster", {"spec": {"kubeConfigFile": "other"}}, "tenant-1")
    stage.wait_condition("TenantCredentialsValid", "False", reason="SecretNotFound", timeout=60)
    assert copies(stage)["tenant-cluster-ca.crt"] == before["tenant-cluster-ca.crt"]


def test_copies_are_equal_to_the_tenants_objects_and_follow_them(stage: Stage) -> None:
    assert copied(stage)
    change_tenant(stage, "new")
    stage.wait(lambda: noted(stage) == "new", "the change to arrive")
    stage.lab.tenant.admin.patch("v1/ConfigMap", "ovnkube-config", {"data": {"lab-note": None}}, NAMESPACE)
    stage.wait(lambda: copied(stage), "the key to go")
    assert noted(stage) is None


@pytest.mark.parametrize(
    "harm",
    [
        {"data": {"ca.crt": "not what the tenant has"}},
        {"data": {"extra": "a key that the tenant has not"}},
        {"metadata": {"annotations": {"dpu.openshift.io/copied-from": "elsewhere"}}},
    ],
    ids=["a changed key", "an extra key", "another origin"],
)
def test_what_somebody_does_to_a_copy_is_put_right(stage: Stage, harm: Object) -> None:
    admin = stage.lab.infra.admin
    before = admin.get("v1/ConfigMap", "tenant-cluster-ca.crt", "tenant-1")

    def right() -> bool:
        now = admin.get("v1/ConfigMap", "tenant-cluster-ca.crt", "tenant-1")
        return bool(now["data"] == before["data"] and _notes(now) == _notes(before))

    harmed = admin.patch("v1/ConfigMap", "tenant-cluster-ca.crt", harm, "tenant-1")
    assert harmed["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]
    stage.wait(right, "the copy to be put right")


def _notes(item: Object) -> Object:
    found: Object = item["metadata"]["annotations"]
    return found


def test_a_deleted_copy_comes_back(stage: Stage) -> None:
    stage.lab.infra.admin.delete("v1/ConfigMap", "ovnkube-config", "tenant-1")
    stage.wait(lambda: copied(stage), "the copy to come back")


def test_a_tenant_object_that_is_gone_takes_its_copy_with_it_and_comes_back_with_it(stage: Stage) -> None:
    admin, operand = stage.lab.infra.admin, daemon_set(stage)["metadata"]
    stage.lab.tenant.admin.delete("v1/ConfigMap", "ovnkube-config", NAMESPACE)
    found = stage.wait_condition("TenantObjectsSynced", "False", reason="TenantObjectMissing")
    assert "ConfigMap ovnkube-config does not exist in the tenant" in found["message"]
    stage.wait(lambda: admin.find("v1/ConfigMap", "ovnkube-config", "tenant-1") is None, "the copy to go")
    # What was derived from it, and the pods, stay.
    assert daemon_set(stage)["metadata"]["generation"] == operand["generation"]
    assert stage.conditions()["OvnKubeReady"]["status"] == "True"
    stage.lab.contents.restore()
    health.wait_well(stage)
    assert copied(stage)
    assert daemon_set(stage)["metadata"]["uid"] == operand["uid"]


def test_a_copy_goes_only_after_a_list_has_shown_that_its_original_is_gone(stage: Stage) -> None:
    tenant, infra = stage.lab.tenant.admin, stage.lab.infra.admin
    role = tenant.get("rbac.authorization.k8s.io/v1/Role", "dpu-operator-tenant", NAMESPACE)
    unlisted = {"verbs": ["get", "watch"]}
    rules = [rule | unlisted if "configmaps" in rule["resources"] else rule for rule in role["rules"]]
    tenant.replace(role | {"rules": rules})
    tenant.delete("v1/ConfigMap", "ovnkube-config", NAMESPACE)
    found = stage.wait_condition("TenantObjectsSynced", "False", reason="TenantAccessDenied")
    assert "ovnkube-config" in found["message"]
    assert infra.find("v1/ConfigMap", "ovnkube-config", "tenant-1")
    stage.lab.credentials.install()
    stage.wait(lambda: infra.find("v1/ConfigMap", "ovnkube-config", "tenant-1") is None, "the copy to go", 60)
    stage.wait_condition("TenantObjectsSynced", "False", reason="TenantObjectMissing")


def test_ovnkube_is_ready_only_while_its_pods_are(stage: Stage) -> None:
    kwok.hold(stage.lab.infra.admin, "tenant-1", "ovnkube-node")
    found = stage.wait_condition("OvnKubeReady", "False", reason="NoPodReady")
    assert "None of 3 pods" in found["message"]
    stage.wait_condition("Available", "False", reason="NoPodReady")
    assert stage.conditions()["Degraded"]["status"] == "False"  # a start takes its time; it is wrong when it lasts
    kwok.release(stage.lab.infra.admin, "tenant-1", "ovnkube-node")
    assert "All 3 pods" in stage.wait_condition("OvnKubeReady", "True")["message"]
    stage.wait_condition("Available", "True")


def annotate(stage: Stage, node: str, **annotations: str | None) -> None:
    """Annotations of a Node, by their last part."""
    notes = {f"dpu.openshift.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    stage.lab.infra.admin.patch("v1/Node", node, {"metadata": {"annotations": notes}})


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (None, "2 of 3 DPUs are mapped to a tenant node. dpu-1 has no tenant node. Annotate the Node"),
        ("dpu-host-0", "More than one DPU is said to sit in the tenant's node dpu-host-0: dpu-0, dpu-1."),
        ("dpu-host-9", "The tenant has no node dpu-host-9. Correct the name, or let the host join the tenant."),
        ("worker-0", "The tenant's node worker-0 is not labelled network.operator.openshift.io/dpu-host"),
    ],
    ids=["nothing", "another's", "unknown", "no host of a DPU"],
)
def test_nodes_are_mapped_only_while_each_dpu_has_a_tenant_node_of_its_own(
    stage: Stage, said: str | None, sentence: str
) -> None:
    annotate(stage, "dpu-1", tenant_node=said)
    assert sentence in stage.wait_condition("NodesMapped", "False")["message"]
    assert stage.wait_condition("Degraded", "True")["message"].startswith("NodesMapped: ")
    assert stage.resource()["status"]["dpus"]["unwell"] == ["dpu-1"]
    # The others are not touched by it.
    variables = stage.lab.infra.admin.get("v1/ConfigMap", "ovnkube-node-env", "tenant-1")["data"]
    assert "dpu-host-0" in variables["dpu-0"]
    assert "dpu-1" not in variables
    annotate(stage, "dpu-1", tenant_node="dpu-host-1")
    stage.wait_condition("NodesMapped", "True")
    stage.wait_condition("Degraded", "False")


def test_a_node_is_mapped_by_env_overrides_where_it_has_no_annotation(stage: Stage) -> None:
    annotate(stage, "dpu-1", tenant_node=None)
    stage.wait_condition("NodesMapped", "False")
    overrides = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "env-overrides", "namespace": "tenant-1"},
        "data": {"dpu-1": "TENANT_K8S_NODE=dpu-host-1\n"},
    }
    stage.lab.infra.admin.create(overrides)
    stage.wait_condition("NodesMapped", "True")


def test_version_is_aligned_only_while_an_image_of_the_tenants_release_is_known(stage: Stage) -> None:
    running = daemon_set(stage)
    for name in ("ovnkube-node-dpu-host", "ovnkube-node"):
        stage.lab.tenant.admin.patch(DAEMON_SET, name, {"metadata": {"annotations": {RELEASE: "4.21.0"}}}, NAMESPACE)
    found = stage.wait_condition("VersionAligned", "False", reason="VersionDiffers")
    assert "4.21.0" in found["message"]
    assert "4.20.3" in found["message"]
    stage.wait(lambda: stage.resource()["status"]["tenantVersion"] == "4.21.0", "the status to have the release")
    now = daemon_set(stage)["spec"]["template"]["spec"]["containers"]
    assert [each["image"] for each in now] == [
        each["image"] for each in running["spec"]["template"]["spec"]["containers"]
    ]
    infra = {"metadata": {"annotations": {RELEASE: "4.21.0"}}}
    stage.lab.infra.admin.patch(DAEMON_SET, "ovnkube-node", infra, "openshift-ovn-kubernetes")
    assert "4.21.0" in stage.wait_condition("VersionAligned", "True")["message"]


def report(stage: Stage, node: str, state: State = State.READY, message: str = "", **changes: str) -> None:
    """What the agent of a DPU would write on its Node, by the kubelet's own account."""
    item = stage.lab.infra.admin.get("v1/Node", node)
    facts = {
        "config_hash": HostConfig.from_spec(stage.resource()["spec"]["hostConfig"]).config_hash(),
        "boot_id": item["status"]["nodeInfo"]["bootID"],
    }
    said = NodeReport(state, message, time=dt.datetime.now(dt.UTC), version="0.1.0", **(facts | changes))
    stage.lab.infra.admin.patch("v1/Node", node, {"metadata": {"annotations": said.to_annotations()}})


@pytest.mark.parametrize(
    ("harm", "reason", "sentence", "degraded"),
    [
        (lambda stage: report(stage, "dpu-2", boot_id="the boot before"), "StaleReport", "another configuration or boot", "False"),
        (lambda stage: report(stage, "dpu-2", config_hash="of yesterday"), "StaleReport", "another configuration or boot", "False"),
        (lambda stage: report(stage, "dpu-2", State.DEGRADED, "The eswitch refused."), "Degraded", "dpu-2: The eswitch refused.", "True"),
        (lambda stage: report(stage, "dpu-2", State.REBOOT_REQUIRED, "It waits."), "RebootRequired", "Reboot it when its host", "True"),
    ],
    ids=["a stale boot id", "a stale hash", "a degraded host", "a reboot that waits"],
)  # fmt: skip
def test_hosts_are_configured_only_while_each_agent_says_so_for_this_configuration_and_this_boot(
    stage: Stage, harm: Callable[[Stage], None], reason: str, sentence: str, degraded: str
) -> None:
    for node in DPUS:
        report(stage, node)
    stage.wait_condition("HostsConfigured", "True")
    assert stage.resource()["status"]["dpus"]["configured"] == 3
    harm(stage)
    found = stage.wait_condition("HostsConfigured", "False", reason=reason)
    assert sentence in found["message"]
    assert "2 of 3 DPUs" in found["message"]
    stage.wait_condition("Degraded", degraded)
    report(stage, "dpu-2")
    stage.wait_condition("HostsConfigured", "True")
    gone = dict.fromkeys(NodeReport(State.READY).to_annotations())
    for node in DPUS:
        stage.lab.infra.admin.patch("v1/Node", node, {"metadata": {"annotations": gone}})
    stage.wait_condition("HostsConfigured", "Unknown", reason="NotReported")
