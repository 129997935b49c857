"""The whole plan over tenants from elsewhere: every folder in DPU_TENANT_FIXTURES, beside the shipped example."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from dpu_operator.plan import conf
from dpu_operator.plan.mapping import map_nodes
from dpu_operator.world import TENANT_NODE_ANNOTATION, InfraWorld, TenantWorld
from tests.unit.plan.worlds import ABSENT, EXAMPLES, Planned, example_infra, fixture_folders, planned, tenant_from

FOLDERS = [EXAMPLES / "tenant-4.20", *fixture_folders()]

AS_KEYS = {
    "acl-logging-rate-limit": ("logging", "acl-logging-rate-limit"),
    "disable-forwarding": ("gateway", "disable-forwarding"),
    "disable-snat-multiple-gws": ("gateway", "disable-snat-multiple-gws"),
    "export-ovs-metrics": ("metrics", "export-ovs-metrics"),
    "gateway-mode": ("gateway", "mode"),
    "gateway-interface": ("gateway", "interface"),
    "inactivity-probe": ("default", "inactivity-probe"),
    "metrics-bind-address": ("metrics", "bind-address"),
    "metrics-enable-config-duration": ("metrics", "enable-config-duration"),
    "metrics-enable-pprof": ("metrics", "enable-pprof"),
    "ovn-empty-lb-events": ("kubernetes", "ovn-empty-lb-events"),
    "ovn-metrics-bind-address": ("metrics", "ovn-metrics-bind-address"),
    "gateway-v4-masquerade-subnet": ("gateway", "v4-masquerade-subnet"),
    "gateway-v6-masquerade-subnet": ("gateway", "v6-masquerade-subnet"),
}
BY_SCRIPT = {"init-node", "init-ovnkube-controller", "config-file", "loglevel", "zone"}
NOT_ON_A_DPU = {"bootstrap-kubeconfig", "cert-dir", "cert-duration"}  # of the infra kubelet there; see section 4.4


def infra_for(tenant: TenantWorld) -> InfraWorld:
    """The example's infra, with only as many DPUs as this tenant has hosts of DPUs."""
    infra = example_infra(ovnKubeImage="image")
    hosts = {
        n["metadata"]["name"]
        for n in tenant.nodes
        if "network.operator.openshift.io/dpu-host" in n["metadata"]["labels"]
    }
    nodes = tuple(n for n in infra.nodes if n["metadata"]["annotations"][TENANT_NODE_ANNOTATION] in hosts)
    return dataclasses.replace(infra, nodes=nodes)


@pytest.fixture(params=FOLDERS, ids=lambda path: path.name)
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture
def plan(folder: Path) -> Planned:
    tenant = tenant_from(folder)
    return planned(tenant, infra_for(tenant))


def test_a_tenant_as_its_network_operator_leaves_it_is_served_whole(plan: Planned) -> None:
    assert plan.detection.supported, plan.detection.message
    assert plan.desired.problems == ()
    assert plan.desired.keep == frozenset()
    assert plan.names[-1] == "DaemonSet/ovnkube-node"
    assert plan.mapping.problems == {}


def test_every_host_of_a_dpu_is_found_fit(folder: Path) -> None:
    tenant = tenant_from(folder)
    infra = infra_for(tenant)
    found = map_nodes(infra.nodes, tenant=tenant, env_overrides=ABSENT)
    assert len(found.entries) == len(infra.nodes) > 0


def test_every_cluster_wide_setting_of_a_whole_node_reaches_the_dpu(folder: Path, plan: Planned) -> None:
    file = folder / "_expected-flags.json"
    if not file.exists():
        return
    flags: list[str] = json.loads(file.read_text(encoding="utf-8"))["ovnkube-node"]["ovnkubeArgs"]
    settings = conf.values(conf.parse(plan.one("ConfigMap", "ovnkube-config-dpu")["data"]["ovnkube.conf"]))
    ours = {word.removeprefix("--").partition("=")[0]: word for word in plan.pod["containers"][-1].get("args", [])}
    for flag in flags:
        name, _, value = flag.removeprefix("--").replace(" ", "=", 1).partition("=")
        if name in BY_SCRIPT | NOT_ON_A_DPU:
            continue
        if name in ours:
            assert ours[name].partition("=")[2] == value, flag
        else:
            key = AS_KEYS.get(name, ("ovnkubernetesfeature", name))
            assert settings.get(key) == (value or "true"), flag


def test_the_objects_are_plain_yaml(plan: Planned) -> None:
    shown: list[Any] = list(plan.desired.objects)
    assert list(yaml.safe_load_all(yaml.safe_dump_all(shown))) == shown
