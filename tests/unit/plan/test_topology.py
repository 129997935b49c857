"""What the tenant runs, and what is refused."""

import pytest

from dpu_operator.plan.topology import SUPPORT, Topology, detect, minor_of, support_sentence
from dpu_operator.world import Seen, Sight, TenantKey, TenantWorld
from tests.unit.plan.worlds import (
    ABSENT,
    FORBIDDEN,
    central_tenant,
    changed,
    example_tenant,
    of_release,
    single_zone_tenant,
    two_sentences,
    with_object,
)


def test_databases_on_the_node_mean_interconnect() -> None:
    found = detect(example_tenant())
    assert (found.topology, found.version, found.supported) == (Topology.INTERCONNECT, "4.20.3", True)
    assert (found.minor, found.settled, found.reason) == ((4, 20), True, "Supported")


def test_an_ovnkube_master_with_its_service_means_central() -> None:
    found = detect(central_tenant())
    assert (found.topology, found.supported) == (Topology.CENTRAL, True)


@pytest.mark.parametrize("word", ["--enable-interconnect", ". /ovnkube-lib/ovnkube-lib.sh"])
def test_interconnect_without_databases_on_the_node_is_a_single_zone(word: str) -> None:
    tenant, node = changed(single_zone_tenant(), TenantKey.NODE_DAEMON_SET)
    node["spec"]["template"]["spec"]["containers"][1]["command"][2] = word
    found = detect(tenant)
    assert (found.topology, found.supported) == (Topology.SINGLE_ZONE, True)


def test_during_the_upgrade_to_4_14_the_databases_on_the_node_win_over_the_master() -> None:
    tenant = with_object(example_tenant(), TenantKey.MASTER_DAEMON_SET, {"metadata": {"name": "ovnkube-master"}})
    tenant = with_object(tenant, TenantKey.DB_SERVICE, {"metadata": {"name": "ovnkube-db"}})
    assert detect(tenant).topology is Topology.INTERCONNECT


def test_the_dpu_host_daemon_set_gives_the_version_but_never_the_topology() -> None:
    tenant, host = changed(example_tenant(), TenantKey.DPU_HOST_DAEMON_SET)
    host["metadata"]["annotations"]["release.openshift.io/version"] = "4.20.4"
    found = detect(tenant)
    assert (found.topology, found.version) == (Topology.INTERCONNECT, "4.20.4")


@pytest.mark.parametrize("sight", [ABSENT, FORBIDDEN])
def test_without_a_readable_dpu_host_daemon_set_the_version_is_that_of_ovnkube_node(sight: Seen) -> None:
    found = detect(with_object(example_tenant(), TenantKey.DPU_HOST_DAEMON_SET, sight))
    assert (found.version, found.supported) == ("4.20.3", True)


def test_without_annotations_the_version_is_that_of_the_cluster() -> None:
    tenant = example_tenant()
    for key in (TenantKey.NODE_DAEMON_SET, TenantKey.DPU_HOST_DAEMON_SET):
        tenant, obj = changed(tenant, key)
        del obj["metadata"]["annotations"]["release.openshift.io/version"]
    assert detect(tenant).version == "4.20.3"


@pytest.mark.parametrize(
    ("version", "supported"),
    [("4.14.0", False), ("4.19.30", False), ("4.20.0", True), ("4.21.0-rc.1", True), ("5.2.0-ec.1", True)],
)
def test_interconnect_is_supported_from_4_20_on(version: str, *, supported: bool) -> None:
    found = detect(of_release(example_tenant(), version))
    assert found.supported is supported
    assert found.settled
    assert supported or (found.reason == "UnsupportedRelease" and support_sentence() in found.message)


@pytest.mark.parametrize(
    ("version", "supported"), [("4.9.1", False), ("4.10.1", True), ("4.13.9", True), ("4.14.0", False)]
)
def test_central_is_supported_from_4_10_to_4_13(version: str, *, supported: bool) -> None:
    assert detect(central_tenant(version)).supported is supported


def test_every_topology_has_a_row_in_the_one_table_and_its_sentence() -> None:
    assert {row.topology for row in SUPPORT} == set(Topology)
    assert support_sentence() == "central 4.10 to 4.13, single-zone 4.14, interconnect 4.20 and later"


@pytest.mark.parametrize("version", ["", "newest", "4", "v4.20.1", "4.x", "-1.2"])
def test_a_version_that_cannot_be_read_is_refused(version: str) -> None:
    tenant, cluster = changed(of_release(example_tenant(), version), TenantKey.CLUSTER_VERSION)
    cluster["status"]["desired"]["version"] = version
    found = detect(tenant)
    assert (found.supported, found.reason) == (False, "VersionUnreadable")


@pytest.mark.parametrize(
    ("version", "minor"), [("4.20.3", (4, 20)), ("5.2.0-ec.1", (5, 2)), ("4.20.0-0.nightly-2026-01-01", (4, 20))]
)
def test_the_minor_release_is_read_from_every_form_of_version(version: str, minor: tuple[int, int]) -> None:
    assert minor_of(version) == minor


@pytest.mark.parametrize("where", ["clusterNetwork", "serviceNetwork"])
def test_ipv6_is_refused_wherever_it_is(where: str) -> None:
    tenant, network = changed(example_tenant(), TenantKey.OPERATOR_NETWORK)
    network["spec"][where].append(
        {"cidr": "fd01::/48", "hostPrefix": 64} if where == "clusterNetwork" else "fd02::/112"
    )
    assert (detect(tenant).reason, detect(tenant).supported) == ("UnsupportedIPFamily", False)


@pytest.mark.parametrize("cidr", ["10.128/14", 7, None])
def test_a_network_that_cannot_be_read_is_refused(cidr: object) -> None:
    tenant, network = changed(example_tenant(), TenantKey.OPERATOR_NETWORK)
    network["spec"]["clusterNetwork"][0]["cidr"] = cidr
    assert detect(tenant).reason == "NetworkUnreadable"


def test_hybrid_overlay_is_refused_by_each_of_its_three_signs() -> None:
    by_annotation, node = changed(example_tenant(), TenantKey.NODE_DAEMON_SET)
    node["metadata"]["annotations"]["networkoperator.openshift.io/hybrid-overlay-status"] = "enabled"
    by_network, network = changed(example_tenant(), TenantKey.OPERATOR_NETWORK)
    network["spec"]["defaultNetwork"]["ovnKubernetesConfig"]["hybridOverlayConfig"] = {}
    by_conf, config = changed(example_tenant(), TenantKey.OVNKUBE_CONFIG)
    config["data"]["ovnkube.conf"] += "\n[hybridoverlay]\nenabled=true\n"
    for tenant in (by_annotation, by_network, by_conf):
        assert detect(tenant).reason == "UnsupportedHybridOverlay"
    node["metadata"]["annotations"]["networkoperator.openshift.io/hybrid-overlay-status"] = "disabled"
    assert detect(by_annotation).supported


def test_another_network_plugin_is_refused() -> None:
    tenant, network = changed(example_tenant(), TenantKey.OPERATOR_NETWORK)
    network["spec"]["defaultNetwork"]["type"] = "OpenShiftSDN"
    found = detect(tenant)
    assert (found.reason, found.topology, found.settled) == ("UnsupportedNetworkPlugin", None, True)


@pytest.mark.parametrize("key", [TenantKey.OPERATOR_NETWORK, TenantKey.NODE_DAEMON_SET])
@pytest.mark.parametrize(
    ("sight", "reason"),
    [
        (Sight.UNSEEN, "TenantNotRead"),
        (Sight.FORBIDDEN, "TenantAccessDenied"),
        (Sight.UNSERVED, "TenantResourceUnserved"),
    ],
)
def test_what_cannot_be_read_leaves_the_last_known_topology(key: TenantKey, sight: Sight, reason: str) -> None:
    tenant = with_object(example_tenant(), key, Seen(sight))
    found = detect(tenant, last_known="central")
    assert (found.topology, found.settled, found.supported, found.reason) == (Topology.CENTRAL, False, False, reason)
    assert detect(tenant).topology is None
    assert detect(tenant, last_known="nonsense").topology is None


def test_nothing_is_said_before_the_dpu_host_daemon_set_was_looked_at() -> None:
    tenant = with_object(example_tenant(), TenantKey.DPU_HOST_DAEMON_SET, Seen())
    assert (detect(tenant).settled, detect(tenant).reason) == (False, "TenantNotRead")


@pytest.mark.parametrize("key", [TenantKey.MASTER_DAEMON_SET, TenantKey.DB_SERVICE])
@pytest.mark.parametrize("sight", list(Sight))
def test_central_needs_both_of_its_signs(key: TenantKey, sight: Sight) -> None:
    if sight is Sight.PRESENT:
        return
    found = detect(with_object(central_tenant(), key, Seen(sight)), last_known="central")
    assert not found.settled
    assert found.topology is Topology.CENTRAL


def test_a_tenant_without_ovn_kubernetes_is_not_guessed_at() -> None:
    found = detect(with_object(example_tenant(), TenantKey.NODE_DAEMON_SET, ABSENT))
    assert (found.topology, found.settled, found.reason) == (None, False, "OVNKubernetesNotFound")


@pytest.mark.parametrize("containers", [None, [], "text", [None], [{"name": "nbdbs"}], [{"name": 3, "command": 5}]])
def test_a_daemon_set_without_sensible_containers_is_no_interconnect(containers: object) -> None:
    tenant, node = changed(example_tenant(), TenantKey.NODE_DAEMON_SET)
    node["spec"]["template"]["spec"]["containers"] = containers
    assert detect(tenant).reason == "OVNKubernetesNotFound"


def test_every_refusal_says_what_is_wrong_and_what_to_do() -> None:
    tenants = [
        TenantWorld(),
        of_release(example_tenant(), "4.15.1"),
        of_release(example_tenant(), "?"),
        *(with_object(example_tenant(), TenantKey.NODE_DAEMON_SET, Seen(s)) for s in Sight if s is not Sight.PRESENT),
    ]
    for tenant in tenants:
        found = detect(tenant)
        assert not found.supported
        assert two_sentences(found.message), found.message
