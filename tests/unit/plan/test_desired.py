"""All objects of a tenant together, and what happens to them when something is not known."""

import copy
import dataclasses
import os
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpu_operator.plan.desired import places
from dpu_operator.plan.objects import content_hash, manifest, meta, stamp
from dpu_operator.world import (
    FIELD_MANAGER,
    HASH_ANNOTATION,
    MANAGED_BY_LABEL,
    OWNER_ANNOTATION,
    Credential,
    Obj,
    Seen,
    Sight,
    TenantKey,
    TenantWorld,
)
from tests.unit.plan.worlds import (
    ABSENT,
    FORBIDDEN,
    Planned,
    central_tenant,
    changed,
    example_infra,
    example_tenant,
    of_release,
    planned,
    two_sentences,
    with_object,
)

INTERCONNECT = [
    "ServiceAccount/ovn-kubernetes-node",
    "RoleBinding/ovn-kubernetes-node-privileged",
    "ConfigMap/ovnkube-config",
    "ConfigMap/tenant-cluster-ca.crt",
    "ConfigMap/ovnkube-config-dpu",
    "ConfigMap/ovnkube-node-scripts",
    "ConfigMap/ovnkube-node-env",
    "DaemonSet/ovnkube-node",
]


def kept(plan: Planned) -> set[str]:
    return {f"{ref.kind.kind}/{ref.name}" for ref in plan.desired.keep}


def test_the_example_gives_everything_in_the_order_of_application() -> None:
    plan = planned()
    assert plan.names == INTERCONNECT
    assert (plan.desired.problems, plan.desired.keep) == ((), frozenset())
    assert [why.split(":")[0] for why in plan.desired.omitted] == ["egressip-node-healthcheck-port"]


def test_central_adds_the_ca_and_the_certificate_of_the_databases() -> None:
    plan = planned(central_tenant(), example_infra(ovnKubeImage="image"))
    assert set(plan.names) == {*INTERCONNECT, "ConfigMap/ovn-ca", "Secret/ovn-cert"}
    assert plan.names[-1] == "DaemonSet/ovnkube-node"


def test_everything_is_marked_as_ours_and_stamped_with_its_hash() -> None:
    for obj in planned(central_tenant(), example_infra(ovnKubeImage="image")).desired.objects:
        found = obj["metadata"]
        assert found["namespace"] == "tenant-1"
        assert found["labels"][MANAGED_BY_LABEL] == FIELD_MANAGER
        assert found["annotations"][OWNER_ANNOTATION] == "tenant-1/cluster"
        assert found["ownerReferences"][0]["controller"] is True
        assert found["ownerReferences"][0]["blockOwnerDeletion"] is False
        assert stamp(obj) == obj
        changed_obj = {**obj, "more": "x"}
        assert stamp(changed_obj)["metadata"]["annotations"][HASH_ANNOTATION] != found["annotations"][HASH_ANNOTATION]


def test_every_place_is_known_beforehand() -> None:
    known = {f"{ref.kind.kind}/{ref.name}" for ref in places("tenant-1")}
    assert known == {*INTERCONNECT, "ConfigMap/ovn-ca", "Secret/ovn-cert"}


def test_the_account_of_the_pods_may_only_run_privileged() -> None:
    binding = planned().one("RoleBinding", "ovn-kubernetes-node-privileged")
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": "dpu-network-operator-ovnkube-node",
    }
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "ovn-kubernetes-node", "namespace": "tenant-1"}]


@pytest.mark.parametrize(
    "tenant",
    [
        TenantWorld(),
        of_release(example_tenant(), "4.16.1"),
        with_object(example_tenant(), TenantKey.NODE_DAEMON_SET, FORBIDDEN),
    ],
)
def test_an_unknown_or_unsupported_tenant_leaves_everything_as_it_is(tenant: TenantWorld) -> None:
    plan = planned(tenant, last_known="interconnect")
    assert plan.names == []
    assert plan.desired.keep == places("tenant-1")
    assert plan.reasons == [plan.detection.reason]


def test_without_its_settings_the_derived_ones_and_the_daemon_set_stay_as_they_are() -> None:
    plan = planned(with_object(example_tenant(), TenantKey.OVNKUBE_CONFIG, FORBIDDEN))
    assert kept(plan) == {"ConfigMap/ovnkube-config", "ConfigMap/ovnkube-config-dpu", "DaemonSet/ovnkube-node"}
    assert set(plan.names) == set(INTERCONNECT) - kept(plan)
    assert plan.reasons == ["TenantAccessDenied", "TenantObjectsIncomplete"]


def test_a_tenant_object_that_is_surely_gone_takes_its_copy_along_and_leaves_the_daemon_set() -> None:
    plan = planned(with_object(example_tenant(), TenantKey.ROOT_CA, ABSENT))
    assert kept(plan) == {"DaemonSet/ovnkube-node"}
    assert "ConfigMap/tenant-cluster-ca.crt" not in plan.names
    assert plan.reasons == ["TenantObjectMissing", "TenantObjectsIncomplete"]


def test_settings_that_cannot_be_read_are_copied_but_not_used() -> None:
    tenant, config = changed(example_tenant(), TenantKey.OVNKUBE_CONFIG)
    config["data"]["ovnkube.conf"] = "mtu: 1400"
    plan = planned(tenant)
    assert "ConfigMap/ovnkube-config" in plan.names
    assert kept(plan) == {"ConfigMap/ovnkube-config-dpu", "DaemonSet/ovnkube-node"}
    assert plan.reasons == ["TenantSettingsMalformed"]


def test_a_kubeconfig_that_the_pods_cannot_use_leaves_the_daemon_set_as_it_is() -> None:
    refused = Credential(seen=Sight.ABSENT, problem="Secret other does not exist.", hint="Create it.")
    plan = planned(infra=dataclasses.replace(example_infra(), node_credential=refused))
    assert kept(plan) == {"DaemonSet/ovnkube-node"}
    assert set(plan.names) == set(INTERCONNECT) - kept(plan)
    assert plan.reasons == ["NodeKubeconfigUnusable"]


def test_variables_stay_while_the_tenants_nodes_cannot_be_read() -> None:
    tenant = dataclasses.replace(example_tenant(), nodes=(), nodes_sight=Sight.FORBIDDEN)
    plan = planned(tenant)
    assert kept(plan) == {"ConfigMap/ovnkube-node-env"}
    assert "DaemonSet/ovnkube-node" in plan.names


def test_central_needs_the_masters_addresses() -> None:
    tenant = central_tenant()
    infra = example_infra(ovnKubeImage="image")
    for unusable in (
        dataclasses.replace(tenant, nodes_sight=Sight.UNSEEN),
        dataclasses.replace(tenant, nodes=tuple(n for n in tenant.nodes if "master" not in n["metadata"]["name"])),
    ):
        plan = planned(unusable, infra)
        assert "NoDatabaseAddresses" in plan.reasons
        assert "DaemonSet/ovnkube-node" in kept(plan)


def test_without_an_image_there_is_no_daemon_set() -> None:
    plan = planned(infra=dataclasses.replace(example_infra(), infra_ovnkube=ABSENT))
    assert kept(plan) == {"DaemonSet/ovnkube-node"}
    assert plan.reasons == ["NoImage"]


@pytest.mark.parametrize("selector", [None, {}, {"matchLabels": {}}])
def test_without_a_usable_pool_there_is_no_daemon_set(selector: Obj | None) -> None:
    infra = example_infra()
    pool = copy.deepcopy(infra.pool.object)
    assert pool is not None
    pool["spec"]["nodeSelector"] = selector
    plan = planned(infra=dataclasses.replace(infra, pool=Seen(Sight.PRESENT, pool)))
    assert kept(plan) == {"DaemonSet/ovnkube-node"}
    assert plan.reasons == ["PoolNotUsable"]
    assert planned(infra=dataclasses.replace(infra, pool=ABSENT)).reasons == ["PoolNotUsable"]


def test_a_dpu_on_which_infras_own_ovnkube_runs_too_is_named() -> None:
    infra = example_infra()
    nodes = copy.deepcopy(infra.nodes)
    del nodes[1]["metadata"]["labels"]["network.operator.openshift.io/dpu"]
    plan = planned(infra=dataclasses.replace(infra, nodes=nodes))
    assert plan.reasons == ["DpuLabelMissing"]
    assert "dpu-1" in plan.desired.problems[0].message
    assert "DaemonSet/ovnkube-node" in plan.names
    elsewhere = dataclasses.replace(infra, nodes=nodes, infra_ovnkube=ABSENT, images={"ovnkube": "image"})
    assert planned(infra=elsewhere).reasons == []


def test_refused_variables_are_among_the_problems_and_stop_nothing() -> None:
    overrides: Obj = {"data": {"dpu-0": "NODE_IP=here\n"}}
    plan = planned(infra=dataclasses.replace(example_infra(), env_overrides=Seen(Sight.PRESENT, overrides)))
    assert plan.reasons == ["NodeVariableRefused"]
    assert plan.names == INTERCONNECT


def test_a_resource_from_a_file_has_no_owner_reference_yet() -> None:
    infra = example_infra()
    del infra.config["metadata"]["uid"]
    assert "ownerReferences" not in meta(infra, "x")
    assert "ownerReferences" not in meta(example_infra(), "x", namespaced=False)
    assert "namespace" not in meta(example_infra(), "x", namespaced=False)


def test_a_manifest_is_a_copy_of_ones_own() -> None:
    first = manifest("role-binding")
    first["roleRef"]["name"] = "changed"
    assert manifest("role-binding")["roleRef"]["name"] != "changed"


def test_planning_changes_nothing_that_it_was_handed() -> None:
    tenant, infra = central_tenant(), example_infra(ovnKubeImage="image")
    before = copy.deepcopy((tenant, infra))
    planned(tenant, infra)
    assert (tenant, infra) == before


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=6))
def test_a_hash_does_not_depend_on_the_order_of_keys(content: dict[str, Any]) -> None:
    items = list(content.items())
    random.Random(7).shuffle(items)
    assert content_hash(dict(items)) == content_hash(content)


TENANTS = {"interconnect": example_tenant(), "central": central_tenant()}
JUNK: st.SearchStrategy[Any] = st.sampled_from(
    [None, 7, True, "text", [], {}, ["x"], {"a": None}, "é\udcff", -1.5, [[]], [{"name": "nbdb"}]]
)


def mutate(tree: Any, path: list[int], value: Any) -> Any:
    """The tree with one value somewhere replaced: the numbers choose a child on each level."""
    if isinstance(tree, dict) and tree and path:
        key = list(tree)[path[0] % len(tree)]
        return {**tree, key: mutate(tree[key], path[1:], value)}
    if isinstance(tree, list) and tree and path:
        index = path[0] % len(tree)
        return [*tree[:index], mutate(tree[index], path[1:], value), *tree[index + 1 :]]
    return value


@settings(max_examples=int(os.environ.get("DPU_MUTATIONS", "150")), deadline=None)
@given(
    st.sampled_from(["interconnect", "central"]),
    st.sampled_from([*TenantKey, None]),
    st.lists(st.integers(0, 12), min_size=1, max_size=9),
    JUNK,
)
def test_whatever_one_field_of_the_tenant_becomes_there_is_a_plan_or_two_sentences(
    topology: str, key: TenantKey | None, path: list[int], junk: Any
) -> None:
    tenant = TENANTS[topology]
    if key is None:
        nodes = mutate(list(tenant.nodes), [*path, 0], junk)
        if not all(isinstance(n, dict) for n in nodes):
            return
        tenant = dataclasses.replace(tenant, nodes=tuple(nodes))
    elif (obj := tenant.object(key)) is not None:
        mutated = mutate(obj, path, junk)
        tenant = with_object(tenant, key, mutated if isinstance(mutated, dict) else {})
    plan = planned(tenant, example_infra(ovnKubeImage="image"))
    for problem in plan.desired.problems:
        assert two_sentences(problem.message), problem
    for sentence in plan.mapping.problems.values():
        assert two_sentences(sentence), sentence
    assert "DaemonSet/ovnkube-node" in plan.names or "DaemonSet/ovnkube-node" in kept(plan)
