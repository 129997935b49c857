"""Which image the DPUs run."""

import copy
import dataclasses

import pytest

from dpu_operator.plan.image import ImageChoice, architectures, choose, ovnkube_image
from dpu_operator.plan.topology import detect
from dpu_operator.world import DAEMON_SET, InfraWorld, Obj, Ref, TenantKey, TenantWorld
from tests.unit.plan.worlds import (
    ABSENT,
    FORBIDDEN,
    INFRA_IMAGE,
    TENANT_IMAGE,
    changed,
    example_infra,
    example_tenant,
    of_release,
    planned,
    two_sentences,
)


def chosen(infra: InfraWorld, tenant: TenantWorld | None = None) -> ImageChoice:
    tenant = tenant or example_tenant()
    found = choose(infra, tenant, detect(tenant), infra.nodes)
    assert found.message.endswith(".")
    return found


def without_infra(**changes: object) -> InfraWorld:
    return dataclasses.replace(example_infra(), infra_ovnkube=ABSENT, **changes)  # type: ignore[arg-type]


def running(infra: InfraWorld, version: str = "4.20.1") -> InfraWorld:
    live = copy.deepcopy(planned().daemon_set)
    live["metadata"]["annotations"]["release.openshift.io/version"] = version
    return dataclasses.replace(infra, live={Ref(DAEMON_SET, "tenant-1", "ovnkube-node"): live})


def multi() -> TenantWorld:
    tenant, version = changed(example_tenant(), TenantKey.CLUSTER_VERSION)
    version["status"]["desired"]["architecture"] = "Multi"
    return tenant


def test_an_override_in_the_resource_wins() -> None:
    infra = dataclasses.replace(example_infra(ovnKubeImage="registry.example.com/ovn:1"), images={"ovnkube": "other"})
    found = chosen(infra)
    assert (found.image, found.source, found.matched) == ("registry.example.com/ovn:1", "spec", True)


def test_the_operators_environment_comes_next() -> None:
    found = chosen(dataclasses.replace(example_infra(), images={"ovnkube": "registry.example.com/ovn:2"}))
    assert (found.image, found.source) == ("registry.example.com/ovn:2", "environment")


def test_infras_own_image_is_taken_where_it_is_of_the_tenants_release() -> None:
    found = chosen(example_infra())
    assert (found.image, found.version, found.source, found.matched) == (INFRA_IMAGE, "4.20.3", "infra", True)


@pytest.mark.parametrize("version", ["4.20.4", "4.21.3", ""])
def test_infras_own_image_is_not_taken_where_its_release_is_another(version: str) -> None:
    infra = example_infra()
    daemon_set = infra.infra_ovnkube.object
    assert daemon_set is not None
    daemon_set["metadata"]["annotations"] = {"release.openshift.io/version": version} if version else {}
    found = chosen(infra)
    assert (found.image, found.matched) == (None, False)
    assert two_sentences(found.message)
    assert version in found.message


def test_the_tenants_own_image_is_taken_of_a_multi_architecture_payload() -> None:
    found = chosen(without_infra(), multi())
    assert (found.image, found.source, found.matched) == (TENANT_IMAGE, "tenant", True)


def test_the_tenants_own_image_is_taken_where_its_nodes_are_of_the_dpus_architecture() -> None:
    tenant = example_tenant()
    nodes = copy.deepcopy(tenant.nodes)
    for node in nodes:
        node["status"]["nodeInfo"]["architecture"] = "arm64"
    assert chosen(without_infra(), dataclasses.replace(tenant, nodes=nodes)).image == TENANT_IMAGE
    nodes[0]["status"]["nodeInfo"]["architecture"] = "amd64"
    assert chosen(without_infra(), dataclasses.replace(tenant, nodes=nodes)).image is None


def test_an_amd64_image_is_never_started_on_an_arm64_dpu() -> None:
    found = chosen(without_infra())
    assert (found.image, found.source, found.matched) == (None, "", False)
    assert "arm64" in found.message
    assert two_sentences(found.message)


def test_the_tenants_image_is_not_taken_for_dpus_of_unknown_architecture() -> None:
    assert chosen(without_infra(nodes=()), multi()).image is None


def test_the_running_image_is_kept_where_no_matching_one_is_known() -> None:
    found = chosen(running(without_infra()))
    assert (found.image, found.version, found.source, found.matched) == (INFRA_IMAGE, "4.20.1", "running", False)
    assert two_sentences(found.message)
    assert "4.20.3" in found.message
    assert "4.20.1" in found.message


def test_the_running_image_counts_as_matching_where_it_is_of_the_tenants_release() -> None:
    found = chosen(running(without_infra(), "4.20.3"))
    assert (found.image, found.source, found.matched) == (INFRA_IMAGE, "running", True)


def test_when_infra_moves_ahead_the_dpus_stay_with_the_tenant() -> None:
    infra = running(example_infra(), "4.20.3")
    daemon_set = infra.infra_ovnkube.object
    assert daemon_set is not None
    daemon_set["metadata"]["annotations"]["release.openshift.io/version"] = "4.21.0"
    daemon_set["spec"]["template"]["spec"]["containers"][0]["image"] = "newer"
    assert chosen(infra).image == INFRA_IMAGE


def test_the_tenants_daemon_set_is_followed_and_not_the_goal_of_its_upgrade() -> None:
    tenant, version = changed(multi(), TenantKey.CLUSTER_VERSION)
    version["status"]["desired"]["version"] = "4.21.0"
    assert chosen(without_infra(), tenant).version == "4.20.3"
    assert chosen(without_infra(), of_release(tenant, "4.21.0")).version == "4.21.0"


def test_without_a_known_release_the_running_image_is_kept() -> None:
    tenant = dataclasses.replace(example_tenant(), objects={})
    assert chosen(running(example_infra()), tenant).image == INFRA_IMAGE
    assert chosen(example_infra(), tenant).image is None


def test_an_infra_daemon_set_that_cannot_be_read_is_no_image() -> None:
    infra = dataclasses.replace(example_infra(), infra_ovnkube=FORBIDDEN)
    assert chosen(infra).image is None
    assert ovnkube_image({"spec": {"template": {"spec": {"containers": ["x", {"name": "ovnkube-node"}]}}}}) == ""


def test_architectures_come_from_the_kubelet_or_from_the_label() -> None:
    nodes: tuple[Obj, ...] = (
        {"status": {"nodeInfo": {"architecture": "arm64"}}},
        {"metadata": {"labels": {"kubernetes.io/arch": "amd64"}}},
        {},
    )
    assert architectures(nodes) == {"arm64", "amd64"}
