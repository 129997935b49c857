"""The DaemonSet on the DPUs: the rows of table 5.1 of the notes, for each topology."""

import dataclasses
from typing import Any

import pytest
import yaml

from dpu_operator.plan.ovnkube import HASH_PREFIX, db_addresses, node_affinity
from dpu_operator.world import Obj, TenantKey, TenantWorld
from dpu_shared.errors import UserError
from tests.unit.plan.worlds import (
    EXAMPLES,
    INFRA_IMAGE,
    Planned,
    central_tenant,
    changed,
    example_infra,
    example_tenant,
    of_release,
    planned,
    single_zone_tenant,
)

IMAGE = "registry.example.com/ovn-kubernetes@sha256:" + "0" * 64
SNAPSHOTS = {
    "interconnect-4.20": example_tenant,
    "central-4.13": central_tenant,
    "single-zone-4.14": single_zone_tenant,
}


def with_image(tenant: TenantWorld) -> Planned:
    return planned(tenant, example_infra(ovnKubeImage=IMAGE))


@pytest.fixture(
    params=[example_tenant, central_tenant, single_zone_tenant], ids=["interconnect", "central", "single-zone"]
)
def any_plan(request: pytest.FixtureRequest) -> Planned:
    return with_image(request.param())


@pytest.fixture
def interconnect() -> Planned:
    return planned()


@pytest.fixture
def central() -> Planned:
    return with_image(central_tenant())


def names(plan: Planned) -> list[str]:
    return [c["name"] for c in plan.pod["containers"]]


def mounts(plan: Planned, container: str) -> dict[str, str]:
    """Mount paths of a container, and the volume of each."""
    return {m["mountPath"]: m["name"] for m in plan.container(container)["volumeMounts"]}


def host_paths(plan: Planned) -> dict[str, str]:
    return {v["name"]: v["hostPath"]["path"] for v in plan.pod["volumes"] if "hostPath" in v}


def test_row_containers(interconnect: Planned, central: Planned) -> None:
    assert names(interconnect) == ["ovn-controller", "ovn-acl-logging", "northd", "nbdb", "sbdb", "ovnkube-controller"]
    assert names(central) == ["ovn-controller", "ovn-acl-logging", "ovnkube-node"]


def test_row_image(interconnect: Planned) -> None:
    containers = interconnect.pod["containers"] + interconnect.pod["initContainers"]
    assert {c["image"] for c in containers} == {INFRA_IMAGE}
    assert interconnect.daemon_set["metadata"]["annotations"]["release.openshift.io/version"] == "4.20.3"


def test_row_databases(interconnect: Planned, central: Planned) -> None:
    arguments = central.container("ovnkube-node")["args"]
    assert "--nb-address=ssl:192.0.2.11:9641,ssl:192.0.2.12:9641,ssl:192.0.2.13:9641" in arguments
    assert "--sb-address=ssl:192.0.2.11:9642,ssl:192.0.2.12:9642,ssl:192.0.2.13:9642" in arguments
    assert not [a for a in interconnect.container("ovnkube-controller")["args"] if "address" in a or "cert" in a]


def test_row_tls(interconnect: Planned, central: Planned) -> None:
    for container in ("ovn-controller", "ovnkube-node"):
        assert mounts(central, container).items() >= {"/ovn-cert": "ovn-cert", "/ovn-ca": "ovn-ca"}.items()
    arguments = central.container("ovnkube-node")["args"]
    for database in ("nb", "sb"):
        assert f"--{database}-client-privkey=/ovn-cert/tls.key" in arguments
        assert f"--{database}-client-cacert=/ovn-ca/ca-bundle.crt" in arguments
        assert f"--{database}-cert-common-name=ovn" in arguments
    assert not {"ovn-cert", "ovn-ca"} & {v["name"] for v in interconnect.pod["volumes"]}


def test_row_host_paths(interconnect: Planned, central: Planned) -> None:
    assert (
        host_paths(interconnect).items()
        >= {
            "run-ovn": "/var/run/ovn-ic",
            "etc-openvswitch": "/var/lib/ovn-ic/etc",
            "var-lib-openvswitch": "/var/lib/openvswitch/data",
            "run-openvswitch": "/var/run/openvswitch",
            "node-log": "/var/log/ovn",
        }.items()
    )
    assert host_paths(central).items() >= {"run-ovn": "/var/run/ovn", "etc-openvswitch": "/etc/openvswitch"}.items()


def test_row_other_mounts(any_plan: Planned) -> None:
    found = mounts(any_plan, names(any_plan)[-1])
    assert set(found) >= {
        "/run/openvswitch",
        "/run/ovn/",
        "/etc/openvswitch",
        "/etc/ovn/",
        "/var/lib/openvswitch",
        "/var/log/ovnkube/",
        "/run/netns",
        "/run/ovnkube-config/",
        "/env",
        "/tenant-kubeconfig",
        "/tenant-ca",
        "/dpu-scripts",
    }
    assert set(mounts(any_plan, "ovn-controller")) >= {"/var/log/ovn/", "/dev/log"}
    netns = next(m for m in any_plan.container(names(any_plan)[-1])["volumeMounts"] if m["mountPath"] == "/run/netns")
    assert netns["mountPropagation"] == "HostToContainer"


def test_the_hosts_root_is_mounted_where_the_release_needs_it_only(interconnect: Planned, central: Planned) -> None:
    assert "/host" in mounts(central, "ovnkube-node")
    assert "/host" not in mounts(interconnect, "ovnkube-controller")
    assert mounts(interconnect, "ovnkube-controller")["/run/systemd/private"] == "run-systemd"


def test_row_not_present(any_plan: Planned) -> None:
    text = yaml.safe_dump(any_plan.daemon_set)
    assert "cni" not in text.lower()
    assert "preStop" not in text
    assert "bootstrap" not in text
    assert "/var/lib/kubelet" not in text


def test_every_mount_has_its_volume_and_every_volume_is_mounted(any_plan: Planned) -> None:
    used = {m["name"] for c in any_plan.pod["containers"] + any_plan.pod["initContainers"] for m in c["volumeMounts"]}
    assert used == {v["name"] for v in any_plan.pod["volumes"]}


def test_row_api(any_plan: Planned) -> None:
    volume = next(v for v in any_plan.pod["volumes"] if v["name"] == "tenant-kubeconfig")
    assert volume["secret"]["secretName"] == "tenant-kubeconfig"
    assert volume["secret"]["items"] == [{"key": "config", "path": "config"}]
    assert any_plan.pod["automountServiceAccountToken"] is False
    env = {e["name"]: e.get("value") for e in any_plan.container(names(any_plan)[-1])["env"]}
    assert env["K8S_TOKEN"], "ovnkube does not start without a token of some kind"


def test_the_pods_get_the_weaker_kubeconfig_where_there_is_one() -> None:
    plan = planned(infra=example_infra(nodeKubeConfigFile="weaker"))
    volume = next(v for v in plan.pod["volumes"] if v["name"] == "tenant-kubeconfig")
    assert volume["secret"]["secretName"] == "weaker"
    assert "tenant-kubeconfig" not in {e.get("value") for c in plan.pod["containers"] for e in c.get("env", [])}


def test_row_probes(any_plan: Planned) -> None:
    ovnkube = any_plan.container(names(any_plan)[-1])
    startup = ovnkube["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > 300
    assert ovnkube["livenessProbe"]["exec"]["command"][-1] == "ovnkube-alive"
    assert ovnkube["readinessProbe"]["exec"]["command"][-1] == "ovnkube-ready"
    for container in any_plan.pod["containers"]:
        if container["name"] != "ovn-acl-logging":
            assert "readinessProbe" in container, container["name"]


def test_row_pod_and_privileges(any_plan: Planned) -> None:
    pod = any_plan.pod
    assert (pod["hostNetwork"], pod["hostPID"], pod["dnsPolicy"]) == (True, True, "Default")
    assert pod["priorityClassName"] == "system-node-critical"
    assert pod["tolerations"] == [{"operator": "Exists"}]
    privileged = {c["name"] for c in pod["containers"] if c.get("securityContext", {}).get("privileged")}
    assert privileged == {"ovn-controller", names(any_plan)[-1]}


def test_row_scheduling(interconnect: Planned) -> None:
    assert interconnect.pod["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert interconnect.pod["affinity"] == {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "node-role.kubernetes.io/dpu", "operator": "In", "values": [""]}]}
                ]
            }
        }
    }


def test_match_expressions_of_the_pool_are_taken_over_one_by_one() -> None:
    selector: Obj = {
        "matchLabels": {"b": "2", "a": "1"},
        "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["y", "x"]},
            {"key": "d", "operator": "NotIn", "values": ["z"]},
            {"key": "e", "operator": "Exists"},
            {"key": "f", "operator": "DoesNotExist", "values": []},
        ],
    }
    terms = node_affinity(selector)["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert len(terms) == 1
    assert terms[0]["matchExpressions"] == [
        {"key": "a", "operator": "In", "values": ["1"]},
        {"key": "b", "operator": "In", "values": ["2"]},
        {"key": "c", "operator": "In", "values": ["y", "x"]},
        {"key": "d", "operator": "NotIn", "values": ["z"]},
        {"key": "e", "operator": "Exists"},
        {"key": "f", "operator": "DoesNotExist"},
    ]


@pytest.mark.parametrize(
    "selector", [{}, {"matchLabels": {}}, {"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}]
)
def test_a_selector_that_selects_everything_or_cannot_be_used_is_refused(selector: Obj) -> None:
    with pytest.raises(UserError):
        node_affinity(selector)


def test_row_rollout(interconnect: Planned) -> None:
    strategy = interconnect.daemon_set["spec"]["updateStrategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "10%"}}


def hashes(plan: Planned) -> dict[str, str]:
    annotations = plan.daemon_set["spec"]["template"]["metadata"]["annotations"]
    return {k.removeprefix(HASH_PREFIX): v for k, v in annotations.items() if k.startswith(HASH_PREFIX)}


def test_the_pods_roll_when_the_settings_or_a_ca_change(interconnect: Planned, central: Planned) -> None:
    assert set(hashes(interconnect)) == {"conf", "scripts", "tenant-ca"}
    assert set(hashes(central)) == {"conf", "scripts", "tenant-ca", "ovn-ca"}
    tenant, config = changed(example_tenant(), TenantKey.OVNKUBE_CONFIG)
    config["data"]["ovnkube.conf"] += "\n[default]\nmtu=1300\n"
    assert hashes(planned(tenant))["conf"] != hashes(interconnect)["conf"]
    tenant, ca = changed(example_tenant(), TenantKey.ROOT_CA)
    ca["data"]["ca.crt"] += "\n"
    assert hashes(planned(tenant))["tenant-ca"] != hashes(interconnect)["tenant-ca"]


def test_the_pods_do_not_roll_when_the_client_certificate_is_renewed(central: Planned) -> None:
    tenant, cert = changed(central_tenant(), TenantKey.OVN_CERT)
    cert["data"]["tls.crt"] = "cmVuZXdlZA=="
    assert with_image(tenant).daemon_set == central.daemon_set


def test_the_pods_do_not_roll_when_one_dpus_variables_change(interconnect: Planned) -> None:
    infra = example_infra()
    moved = [dict(node) for node in infra.nodes]
    moved[0]["metadata"] = {**moved[0]["metadata"], "annotations": {}}
    assert planned(infra=dataclasses.replace(infra, nodes=tuple(moved))).daemon_set == interconnect.daemon_set


def test_nothing_but_the_inputs_decides(any_plan: Planned, interconnect: Planned) -> None:
    assert planned().desired == interconnect.desired
    assert list(planned().daemon_set) == list(interconnect.daemon_set)


def test_values_are_spelled_as_the_api_server_spells_them(any_plan: Planned) -> None:
    """Empty values come back as absent and numbers in quantities come back normalized: both would differ for ever."""

    def walk(tree: Any, path: str = "") -> None:
        assert tree not in ("", [], {}, None), path
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
            if not path.endswith(".values"):
                walk(value, f"{path}.{key}")

    walk(any_plan.daemon_set)
    for container in any_plan.pod["containers"] + any_plan.pod["initContainers"]:
        requests = container["resources"]["requests"]
        assert requests["cpu"] in ("10m", "100m")
        assert requests["memory"] in ("20Mi", "300Mi")
        for variable in container["env"]:
            assert isinstance(variable.get("value", ""), str)


def test_no_placeholder_is_left(any_plan: Planned) -> None:
    assert "filled-in" not in yaml.safe_dump(list(any_plan.desired.objects))


def test_masters_are_listed_by_age_and_not_by_name_or_address() -> None:
    tenant = central_tenant()
    nodes = [dict(n) for n in tenant.nodes]
    for node, born in zip(
        nodes, ("2026-05-19T10:09:00Z", "2026-05-19T10:08:00Z", "2026-05-19T10:08:00Z"), strict=False
    ):
        node["metadata"] = {**node["metadata"], "creationTimestamp": born}
    masters = [n for n in nodes if "node-role.kubernetes.io/master" in n["metadata"]["labels"]]
    for node, born in zip(
        masters, ("2026-05-19T10:09:00Z", "2026-05-19T10:08:00Z", "2026-05-19T10:08:00Z"), strict=True
    ):
        node["metadata"] = {**node["metadata"], "creationTimestamp": born}
    assert db_addresses(dataclasses.replace(tenant, nodes=tuple(reversed(nodes)))) == (
        "192.0.2.12",
        "192.0.2.13",
        "192.0.2.11",
    )


def test_a_master_without_an_address_is_left_out() -> None:
    tenant = central_tenant()
    nodes = [dict(n) for n in tenant.nodes]
    next(n for n in nodes if n["metadata"]["name"] == "master-1")["status"] = {"addresses": [{"type": "Hostname"}]}
    assert db_addresses(dataclasses.replace(tenant, nodes=tuple(nodes))) == ("192.0.2.11", "192.0.2.13")


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_the_objects_are_those_of_the_snapshot(name: str) -> None:
    """To accept a change: UPDATE_SNAPSHOTS=1 (see the file's first line), and read the difference."""
    import os
    from pathlib import Path

    plan = with_image(SNAPSHOTS[name]())
    shown = [
        obj
        for obj in plan.desired.objects
        if obj["metadata"]["name"] not in ("ovnkube-node-scripts", "tenant-cluster-ca.crt", "ovn-ca")
    ]
    text = "# Written by UPDATE_SNAPSHOTS=1 pytest tests/unit/plan/test_ovnkube.py\n" + yaml.safe_dump_all(
        shown, sort_keys=False, width=120
    )
    path = Path(__file__).parent / "snapshots" / f"{name}.yaml"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    # Hashes are left out: a comment in a script changes one of them and nothing that a reader could judge.
    assert stripped(yaml.safe_load_all(path.read_text(encoding="utf-8"))) == stripped(yaml.safe_load_all(text))


def stripped(documents: Any) -> list[Any]:
    def strip(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {
                k: strip(v)
                for k, v in tree.items()
                if not str(k).startswith((HASH_PREFIX, "dpu.openshift.io/content-hash"))
            }
        return [strip(item) for item in tree] if isinstance(tree, list) else tree

    return [strip(document) for document in documents]


def test_the_example_needs_no_image_from_elsewhere() -> None:
    assert (EXAMPLES / "infra" / "daemonset-ovnkube-node.yaml").is_file()
    assert planned().image.source == "infra"


def test_newer_releases_have_the_same_shape() -> None:
    assert names(with_image(of_release(example_tenant(), "5.2.0-ec.1"))) == names(planned())
