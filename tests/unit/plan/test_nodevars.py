"""The variables of each DPU, and that no value of them is ever more than a value to a shell."""

import shlex
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpu_operator.plan.mapping import MappedNode, NodeMapping
from dpu_operator.plan.nodevars import PERMITTED, node_env, tenant_nodes
from dpu_operator.plan.objects import Problem
from dpu_operator.world import HASH_ANNOTATION, Obj
from tests.unit.plan.worlds import ABSENT, example_infra, seen, two_sentences

MAPPING = NodeMapping(
    {"dpu-0": MappedNode("dpu-host-0", "annotation"), "dpu-1": MappedNode("dpu-host-1", "annotation")}
)
GOOD = {
    "OVN_KUBE_LOG_LEVEL": "5",
    "OVN_LOG_LEVEL": "dbg",
    "NODE_IP": "198.51.100.40",
    "MGMT_IFNAME": "c1pf0vf0",
    "GATEWAY_NEXTHOP": "198.51.100.1",
    "GATEWAY_VLANID": "4094",
    "GATEWAY_ROUTER_SUBNET": "192.0.2.0/24",
}


def env_of(**lines: str) -> tuple[Obj, list[Problem]]:
    infra = example_infra()
    text = "".join(f"{name}={value}\n" for name, value in lines.items())
    overrides = seen({"data": {"dpu-0": text}}) if lines else ABSENT
    return node_env(type(infra)(config=infra.config, env_overrides=overrides), MAPPING)


def test_each_mapped_dpu_has_a_key_with_its_tenant_node() -> None:
    config_map, problems = env_of()
    assert config_map["data"] == {"dpu-0": "TENANT_K8S_NODE=dpu-host-0\n", "dpu-1": "TENANT_K8S_NODE=dpu-host-1\n"}
    assert problems == []


def test_without_a_mapped_dpu_there_is_no_data_at_all() -> None:
    config_map, _ = node_env(example_infra(), NodeMapping())
    assert "data" not in config_map


def test_every_permitted_variable_goes_to_its_own_dpu_only() -> None:
    assert set(GOOD) == set(PERMITTED)
    config_map, problems = env_of(**GOOD)
    lines = config_map["data"]["dpu-0"].splitlines()
    assert lines == sorted([f"{k}={v}" for k, v in GOOD.items()] + ["TENANT_K8S_NODE=dpu-host-0"])
    assert config_map["data"]["dpu-1"] == "TENANT_K8S_NODE=dpu-host-1\n"
    assert problems == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OVN_KUBE_LOG_LEVEL", "five"),
        ("OVN_KUBE_LOG_LEVEL", "\u0665"),
        ("OVN_LOG_LEVEL", "loud"),
        ("NODE_IP", "198.51.100"),
        ("NODE_IP", "2001:db8::1"),
        ("MGMT_IFNAME", "a/../../b"),
        ("MGMT_IFNAME", "$(id)"),
        ("MGMT_IFNAME", "a-name-that-is-too-long"),
        ("MGMT_IFNAME", "--flag"),
        ("GATEWAY_NEXTHOP", "gateway"),
        ("GATEWAY_VLANID", "4095"),
        ("GATEWAY_VLANID", "-1"),
        ("GATEWAY_ROUTER_SUBNET", "192.0.2.0"),
        ("GATEWAY_ROUTER_SUBNET", "192.0.2.0/33"),
    ],
)
def test_a_value_of_another_kind_is_refused_with_its_name_and_without_it(name: str, value: str) -> None:
    config_map, problems = env_of(**{name: value})
    assert config_map["data"]["dpu-0"] == "TENANT_K8S_NODE=dpu-host-0\n"
    assert [p.reason for p in problems] == ["NodeVariableRefused"]
    assert name in problems[0].message
    assert two_sentences(problems[0].message)


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PATH", "OVNKUBE_NODE_MGMT_PORT_NETDEV", "BASH_ENV"])
def test_a_variable_that_has_no_meaning_is_not_passed_and_said(name: str) -> None:
    config_map, problems = env_of(**{name: "x"})
    assert name not in config_map["data"]["dpu-0"]
    assert [p.reason for p in problems] == ["NodeVariableUnknown"]


def test_the_tenant_node_of_env_overrides_is_not_taken_twice() -> None:
    config_map, problems = env_of(TENANT_K8S_NODE="another")
    assert config_map["data"]["dpu-0"] == "TENANT_K8S_NODE=dpu-host-0\n"
    assert problems == []


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(PERMITTED)), st.text(st.characters(exclude_characters="\0\n\r"), max_size=30))
def test_no_value_can_do_more_in_a_shell_than_be_a_value(name: str, value: str) -> None:
    config_map, _ = env_of(**{name: value})
    text = config_map["data"]["dpu-0"]
    for line in text.splitlines():
        words = shlex.split(line)
        assert len(words) == 1
        assert words[0].split("=")[0] in {name, "TENANT_K8S_NODE"}


def test_bash_reads_what_was_written() -> None:
    config_map, _ = env_of(**GOOD)
    script = config_map["data"]["dpu-0"] + "".join(f'echo "{name}=${name}"\n' for name in GOOD)
    out = subprocess.run(["bash", "-eu", "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.splitlines() == [f"{name}={value}" for name, value in GOOD.items()]


def test_what_the_dpus_were_told_can_be_read_back() -> None:
    config_map, _ = env_of(**GOOD)
    assert tenant_nodes(config_map) == {"dpu-0": "dpu-host-0", "dpu-1": "dpu-host-1"}
    assert tenant_nodes(None) == {}
    assert tenant_nodes({"data": {"a": 5, "b": "X=1"}}) == {}


def test_one_dpus_change_changes_the_hash_of_the_map() -> None:
    one, _ = env_of()
    two, _ = env_of(NODE_IP="198.51.100.40")
    assert one["metadata"]["annotations"][HASH_ANNOTATION] != two["metadata"]["annotations"][HASH_ANNOTATION]
