"""Which tenant node each DPU belongs to."""

import copy
import dataclasses

import pytest

from dpu_operator.plan.mapping import MappedNode, NodeMapping, dpu_host_label, map_nodes, override_variables
from dpu_operator.world import TENANT_NODE_ANNOTATION, Obj, Seen, Sight, TenantKey, TenantWorld
from tests.unit.plan.worlds import ABSENT, changed, example_infra, example_tenant, seen, two_sentences, with_object

HOST_LABEL = "network.operator.openshift.io/dpu-host"


def dpus(*tenant_nodes: str | None) -> tuple[Obj, ...]:
    nodes = copy.deepcopy(example_infra().nodes[: len(tenant_nodes)])
    for node, tenant_node in zip(nodes, tenant_nodes, strict=True):
        if tenant_node is None:
            del node["metadata"]["annotations"]
        else:
            node["metadata"]["annotations"][TENANT_NODE_ANNOTATION] = tenant_node
    return tuple(nodes)


def overrides(**lines: str) -> Seen:
    return seen({"metadata": {"name": "env-overrides"}, "data": {k.replace("_", "-"): v for k, v in lines.items()}})


def mapped(
    members: tuple[Obj, ...],
    tenant: TenantWorld | None = None,
    env: Seen = ABSENT,
    current: dict[str, str] | None = None,
) -> NodeMapping:
    return map_nodes(members, tenant=tenant or example_tenant(), env_overrides=env, current=current)


def relabelled(name: str, labels: dict[str, str]) -> TenantWorld:
    tenant = example_tenant()
    nodes = copy.deepcopy(tenant.nodes)
    node = next(n for n in nodes if n["metadata"]["name"] == name)
    node["metadata"]["labels"] = labels
    return dataclasses.replace(tenant, nodes=nodes)


def test_the_annotation_names_the_tenant_node() -> None:
    found = mapped(dpus("dpu-host-1", "dpu-host-0"))
    assert found.entries == {
        "dpu-0": MappedNode("dpu-host-1", "annotation"),
        "dpu-1": MappedNode("dpu-host-0", "annotation"),
    }
    assert (found.problems, found.unknown) == ({}, "")


def test_env_overrides_name_it_where_no_annotation_does() -> None:
    env = overrides(dpu_0="TENANT_K8S_NODE=dpu-host-2\n", dpu_1="TENANT_K8S_NODE=dpu-host-1")
    found = mapped(dpus(None, "dpu-host-0"), env=env)
    assert found.entries == {
        "dpu-0": MappedNode("dpu-host-2", "env-overrides"),
        "dpu-1": MappedNode("dpu-host-0", "annotation"),
    }


@pytest.mark.parametrize(
    "text",
    [
        "TENANT_K8S_NODE=a",
        "export TENANT_K8S_NODE=a",
        'TENANT_K8S_NODE="a"',
        "  TENANT_K8S_NODE='a' ",
        "# x\n\nB=1\nTENANT_K8S_NODE=a",
    ],
)
def test_lines_of_env_overrides_are_read_as_a_shell_would(text: str) -> None:
    assert override_variables({"data": {"d": text}}, "d")["TENANT_K8S_NODE"] == "a"


@pytest.mark.parametrize(
    "tree", [None, {}, {"data": None}, {"data": {"d": 5}}, {"data": []}, {"data": {"d": "no line"}}]
)
def test_env_overrides_of_another_shape_say_nothing(tree: Obj | None) -> None:
    assert override_variables(tree, "d") == {}


def problem_of(found: NodeMapping, dpu: str = "dpu-0") -> str:
    assert dpu not in found.entries
    sentence = found.problems[dpu]
    assert two_sentences(sentence), sentence
    return sentence


def test_a_dpu_that_nobody_mapped_is_a_problem() -> None:
    sentence = problem_of(mapped(dpus(None)))
    assert "no tenant node" in sentence
    assert TENANT_NODE_ANNOTATION in sentence


def test_a_tenant_node_that_does_not_exist_is_a_problem() -> None:
    assert "has no node dpu-host-9" in problem_of(mapped(dpus("dpu-host-9")))


@pytest.mark.parametrize("name", ["Dpu-Host", "a b", "$(reboot)", "x;y", "-a", "a" * 300])
def test_what_cannot_be_a_nodes_name_is_a_problem(name: str) -> None:
    assert "can't be a node's name" in problem_of(mapped(dpus(name)))


def test_a_tenant_node_without_the_label_is_a_problem() -> None:
    assert HOST_LABEL in problem_of(mapped(dpus("worker-0")))
    assert mapped(dpus("dpu-host-0")).problems == {}


def test_a_label_with_a_value_is_a_problem_because_the_tenants_operator_looks_for_an_empty_one() -> None:
    assert "empty one" in problem_of(mapped(dpus("dpu-host-0"), relabelled("dpu-host-0", {HOST_LABEL: "true"})))


def test_another_label_counts_where_the_tenant_selects_by_another_one() -> None:
    tenant, host = changed(relabelled("dpu-host-0", {"example.com/bf2": "yes"}), TenantKey.DPU_HOST_DAEMON_SET)
    affinity = host["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    expressions = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"][0]["matchExpressions"]
    expressions[0] = {"key": "example.com/bf2", "operator": "In", "values": ["yes"]}
    assert mapped(dpus("dpu-host-0"), tenant).problems == {}
    expressions[0]["values"] = ["no"]
    assert "does not select" in problem_of(mapped(dpus("dpu-host-0"), tenant))
    assert "example.com/bf2" in problem_of(mapped(dpus("dpu-host-1"), tenant))


@pytest.mark.parametrize("value", [ABSENT, Seen(), {"spec": {"template": {"spec": {"affinity": "none"}}}}])
def test_the_usual_label_counts_where_the_tenants_selection_cannot_be_read(value: Seen | Obj) -> None:
    tenant = with_object(example_tenant(), TenantKey.DPU_HOST_DAEMON_SET, value)
    assert dpu_host_label(tenant)["key"] == HOST_LABEL


def test_two_dpus_on_one_node_are_a_problem_of_both_where_neither_had_it() -> None:
    found = mapped(dpus("dpu-host-0", "dpu-host-0", "dpu-host-2"))
    assert set(found.entries) == {"dpu-2"}
    for dpu in ("dpu-0", "dpu-1"):
        assert "dpu-0, dpu-1" in problem_of(found, dpu)


def test_of_two_dpus_on_one_node_the_one_that_has_it_keeps_it() -> None:
    found = mapped(dpus("dpu-host-0", "dpu-host-0"), current={"dpu-1": "dpu-host-0"})
    assert set(found.entries) == {"dpu-1"}
    assert "dpu-1 keeps it" in problem_of(found, "dpu-0")


def test_a_wrong_claim_does_not_take_a_node_from_the_right_one() -> None:
    tenant = relabelled("dpu-host-0", {})
    assert set(mapped(dpus("dpu-host-0", "dpu-host-1"), tenant).entries) == {"dpu-1"}


@pytest.mark.parametrize("sight", [Sight.UNSEEN, Sight.FORBIDDEN, Sight.UNSERVED])
def test_nothing_is_called_wrong_while_the_tenants_nodes_cannot_be_read(sight: Sight) -> None:
    tenant = dataclasses.replace(example_tenant(), nodes=(), nodes_sight=sight)
    found = mapped(dpus("dpu-host-0", "dpu-host-9"), tenant)
    assert set(found.entries) == {"dpu-0", "dpu-1"}
    assert two_sentences(found.unknown)


def test_no_dpus_have_no_problems() -> None:
    assert mapped(()) == NodeMapping()
