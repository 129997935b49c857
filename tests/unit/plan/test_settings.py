"""The DPU's own ovnkube.conf (table 2.3 and sections 1 and 2 of the notes on the real binary)."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as settings_
from hypothesis import strategies as st

from dpu_operator.plan import conf
from dpu_operator.plan.settings import DpuSettings, dpu_conf
from dpu_operator.plan.topology import Topology
from dpu_operator.world import Obj, TenantKey
from dpu_shared.errors import UserError
from tests.unit.plan.test_conf import NAMES, VALUES
from tests.unit.plan.worlds import example_tenant

ANNOTATIONS = {"networkoperator.openshift.io/default-masquerade-network-cidrs": "169.254.0.0/17,fd69::/112"}
TENANT_CONF: str = (example_tenant().object(TenantKey.OVNKUBE_CONFIG) or {})["data"]["ovnkube.conf"]


def network(**options: object) -> Obj:
    found = copy.deepcopy(example_tenant().object(TenantKey.OPERATOR_NETWORK))
    assert found is not None
    found["spec"]["defaultNetwork"]["ovnKubernetesConfig"] |= options
    return found


def derive(text: str = TENANT_CONF, **changes: Any) -> DpuSettings:
    arguments: dict[str, Any] = {
        "topology": Topology.INTERCONNECT,
        "version": "4.20.3",
        "operator_network": network(),
        "daemonset_annotations": ANNOTATIONS,
    }
    return dpu_conf(text, **(arguments | changes))


def values(settings: DpuSettings) -> dict[conf.Key, str]:
    return conf.values(conf.parse(settings.conf))


def test_release_4_20_gets_the_settings_that_its_start_script_would_pass() -> None:
    found = values(derive())
    assert (
        found.items()
        >= {
            ("default", "mtu"): "1400",
            ("default", "inactivity-probe"): "180000",
            ("kubernetes", "apiserver"): "https://api-int.tenant-1.example.com:6443",
            ("kubernetes", "healthz-bind-address"): "0.0.0.0:10256",
            ("kubernetes", "ovn-empty-lb-events"): "true",
            ("ovnkubernetesfeature", "enable-interconnect"): "true",
            ("ovnkubernetesfeature", "enable-multi-network"): "true",
            ("ovnkubernetesfeature", "enable-network-segmentation"): "true",
            ("ovnkubernetesfeature", "enable-admin-network-policy"): "true",
            ("ovnkubernetesfeature", "enable-egress-ip"): "true",
            ("ovnkubernetesfeature", "enable-egress-firewall"): "true",
            ("ovnkubernetesfeature", "enable-egress-qos"): "true",
            ("ovnkubernetesfeature", "enable-egress-service"): "true",
            ("ovnkubernetesfeature", "enable-multi-external-gateway"): "true",
            ("gateway", "mode"): "shared",
            ("gateway", "interface"): "br-ex",
            ("gateway", "disable-snat-multiple-gws"): "true",
            ("gateway", "disable-forwarding"): "true",
            ("gateway", "v4-masquerade-subnet"): "169.254.0.0/17",
            ("gateway", "v6-masquerade-subnet"): "fd69::/112",
            ("logging", "acl-logging-rate-limit"): "20",
            ("metrics", "bind-address"): "127.0.0.1:29103",
            ("metrics", "ovn-metrics-bind-address"): "127.0.0.1:29105",
            ("ovnkubenode", "mode"): "dpu",
        }.items()
    )
    assert ("ovnkubernetesfeature", "enable-preconfigured-udn-addresses") not in found
    assert derive().flags == ("--enable-multicast",)


def test_the_health_check_port_that_ends_ovnkube_on_a_dpu_is_left_out_and_said() -> None:
    settings = derive()
    assert ("ovnkubernetesfeature", "egressip-node-healthcheck-port") not in values(settings)
    assert [why.split(":")[0] for why in settings.omitted] == ["egressip-node-healthcheck-port"]
    assert derive(TENANT_CONF.replace("egressip-node-healthcheck-port=9107\n", "")).omitted == ()


def test_transport_geneve_is_left_out_and_another_transport_is_not() -> None:
    geneve = derive(TENANT_CONF + "[default]\ntransport=geneve\n")
    assert ("default", "transport") not in values(geneve)
    assert any(why.startswith("transport=geneve") for why in geneve.omitted)
    other = derive(TENANT_CONF + "[default]\ntransport=no-overlay\n")
    assert values(other)[("default", "transport")] == "no-overlay"
    assert not any(why.startswith("transport") for why in other.omitted)


def test_the_hybrid_overlay_section_is_left_out_as_a_whole() -> None:
    settings = derive(TENANT_CONF + "[HybridOverlay]\nenabled=true\ncluster-subnets=10.132.0.0/14\n")
    assert not any(section == "hybridoverlay" for section, _ in values(settings))
    assert "hybridoverlay" not in settings.conf.lower()
    assert any(why.startswith("[hybridoverlay]") for why in settings.omitted)


@pytest.mark.parametrize("version", ["4.22.1", "5.2.0-ec.1"])
def test_releases_with_features_in_their_conf_keep_what_that_says(version: str) -> None:
    text = TENANT_CONF.replace("enable-network-segmentation=true", "enable-egress-ip=false")
    found = values(derive(text, version=version))
    assert found[("ovnkubernetesfeature", "enable-egress-ip")] == "false"
    assert ("ovnkubernetesfeature", "enable-egress-qos") not in found


def test_4_21_has_preconfigured_addresses_as_an_argument_too() -> None:
    assert values(derive(version="4.21.0"))[("ovnkubernetesfeature", "enable-preconfigured-udn-addresses")] == "true"


def test_multi_network_follows_the_operator_network_unless_segmentation_needs_it() -> None:
    off = network()
    off["spec"]["disableMultiNetwork"] = True
    plain = TENANT_CONF.replace("enable-network-segmentation=true\n", "")
    assert ("ovnkubernetesfeature", "enable-multi-network") not in values(derive(plain, operator_network=off))
    assert values(derive(operator_network=off))[("ovnkubernetesfeature", "enable-multi-network")] == "true"


def test_route_advertisements_follow_the_operator_network() -> None:
    key = ("ovnkubernetesfeature", "enable-route-advertisements")
    assert key not in values(derive())
    assert values(derive(operator_network=network(routeAdvertisements="Enabled")))[key] == "true"


def test_global_forwarding_is_not_disabled() -> None:
    given = network(gatewayConfig={"ipForwarding": "Global"})
    assert ("gateway", "disable-forwarding") not in values(derive(operator_network=given))
    assert "disable-forwarding" not in derive(topology=Topology.CENTRAL, version="4.13.1").conf


def test_join_subnets_come_from_the_newer_field_first() -> None:
    old = network(v4InternalSubnet="100.60.0.0/16", v6InternalSubnet="fd90::/64")
    assert values(derive(operator_network=old))[("gateway", "v4-join-subnet")] == "100.60.0.0/16"
    assert values(derive(operator_network=old))[("gateway", "v6-join-subnet")] == "fd90::/64"
    new = network(v4InternalSubnet="100.60.0.0/16", ipv4={"internalJoinSubnet": "100.61.0.0/16"})
    assert values(derive(operator_network=new))[("gateway", "v4-join-subnet")] == "100.61.0.0/16"
    assert ("gateway", "v4-join-subnet") not in values(derive())


def test_transit_subnets_are_written_under_the_name_before_and_after_4_21() -> None:
    given = network(ipv4={"internalTransitSwitchSubnet": "100.89.0.0/16"})
    found = values(derive(operator_network=given))
    assert found[("clustermanager", "v4-transit-switch-subnet")] == "100.89.0.0/16"
    assert found[("clustermanager", "v4-transit-subnet")] == "100.89.0.0/16"
    assert "transit" not in derive().conf
    assert "transit" not in derive(topology=Topology.CENTRAL, version="4.13.1", operator_network=given).conf


def test_an_override_of_the_masquerade_subnet_wins_over_the_default_in_the_annotation() -> None:
    given = network(gatewayConfig={"ipv4": {"internalMasqueradeSubnet": "169.254.128.0/17"}})
    found = values(derive(operator_network=given))
    assert found[("gateway", "v4-masquerade-subnet")] == "169.254.128.0/17"
    assert found[("gateway", "v6-masquerade-subnet")] == "fd69::/112"
    assert "masquerade" not in derive(daemonset_annotations={}).conf


def test_lease_times_are_those_of_the_host_side_from_4_23_on() -> None:
    env = {"OVNKUBE_NODE_LEASE_RENEW_INTERVAL": "11", "OVNKUBE_NODE_LEASE_DURATION": "44"}
    found = values(derive(version="5.2.0", node_env=env))
    assert found[("ovnkubenode", "dpu-node-lease-renew-interval")] == "11"
    assert found[("ovnkubenode", "dpu-node-lease-duration")] == "44"
    assert "lease" not in derive(version="4.22.0", node_env=env).conf
    assert "lease" not in derive(version="5.2.0", node_env={"OVNKUBE_NODE_LEASE_DURATION": "soon"}).conf


def test_flow_exporters_and_the_probe_follow_the_environment_of_the_host_side() -> None:
    env = {"IPFIX_COLLECTORS": "192.0.2.99:2055", "IPFIX_SAMPLING": "400", "OVN_CONTROLLER_INACTIVITY_PROBE": "90000"}
    found = values(derive(node_env=env))
    assert found[("monitoring", "ipfix-targets")] == "192.0.2.99:2055"
    assert found[("ipfix", "sampling")] == "400"
    assert found[("default", "inactivity-probe")] == "90000"
    assert "[monitoring]" not in derive().conf


def test_the_bridge_can_be_another_one() -> None:
    assert values(derive(bridge="br-dpu"))[("gateway", "interface")] == "br-dpu"


def test_a_single_zone_is_told_of_interconnect_and_central_is_not() -> None:
    single = derive(topology=Topology.SINGLE_ZONE, version="4.14.1")
    assert values(single)[("ovnkubernetesfeature", "enable-interconnect")] == "true"
    central = derive(topology=Topology.CENTRAL, version="4.13.1")
    assert "interconnect" not in central.conf
    assert central.flags == ()


@pytest.mark.parametrize(("version", "tool"), [("4.20.3", "iptables"), ("4.22.9", "iptables"), ("5.0.0", "nft")])
def test_the_encap_port_and_the_tool_that_keeps_it_untracked_go_to_the_start_script(version: str, tool: str) -> None:
    settings = derive(TENANT_CONF.replace("6081", "16081"), version=version)
    assert (settings.env["ENCAP_PORT"], settings.env["NOTRACK_TOOL"]) == ("16081", tool)


def test_the_audit_log_is_kept_as_in_the_tenant() -> None:
    audit = {"destination": "libc", "syslogFacility": "local3", "maxFileSize": 7, "maxLogFiles": 2, "rateLimit": 5}
    settings = derive(operator_network=network(policyAuditConfig=audit))
    assert (
        settings.env.items()
        >= {
            "ACL_LOG_DESTINATION": "libc",
            "ACL_LOG_FACILITY": "local3",
            "ACL_LOG_MAX_MB": "7",
            "ACL_LOG_MAX_FILES": "2",
        }.items()
    )
    assert values(settings)[("logging", "acl-logging-rate-limit")] == "5"


@pytest.mark.parametrize(
    "change",
    [
        {"conf_text": "not a setting"},
        {"conf_text": "[default]\nencap-port=many\n"},
        {"conf_text": "[default]\nencap-port=70000\n"},
        {"operator_network": network(ipv4={"internalJoinSubnet": "100.64/16"})},
        {"operator_network": network(ipv4={"internalTransitSwitchSubnet": "fd97::/64"})},
        {"daemonset_annotations": {next(iter(ANNOTATIONS)): "most of it"}},
    ],
)
def test_what_ovnkube_could_not_read_either_is_refused_in_two_sentences(change: dict[str, Any]) -> None:
    text = change.pop("conf_text", TENANT_CONF)
    with pytest.raises(UserError) as caught:
        derive(text, **change)
    assert caught.value.message.endswith(".")
    assert caught.value.hint.endswith(".")


SECTIONS = st.dictionaries(
    NAMES | st.sampled_from(["default", "hybridoverlay", "ovnkubernetesfeature"]),
    st.dictionaries(NAMES | st.sampled_from(["transport", "egressip-node-healthcheck-port"]), VALUES, min_size=1),
    min_size=1,
)


@settings_(max_examples=30, deadline=None)
@given(SECTIONS)
def test_what_a_dpu_cannot_take_never_survives_and_everything_unknown_does(sections: dict[str, dict[str, str]]) -> None:
    sections.get("default", {}).pop("encap-port", None)
    before = conf.values(conf.parse(conf.render((), sections)))
    after = values(derive(conf.render((), sections)))
    assert ("ovnkubernetesfeature", "egressip-node-healthcheck-port") not in after
    assert after.get(("default", "transport"), "").lower() != "geneve"
    assert not any(section == "hybridoverlay" for section, _ in after)
    ours = set(values(derive("")))
    for key, value in before.items():
        stays = key[0] != "hybridoverlay" and key[1] not in ("transport", "egressip-node-healthcheck-port")
        if stays and key not in ours:
            assert after[key] == value


@settings_(max_examples=30, deadline=None)
@given(SECTIONS)
def test_deriving_twice_is_deriving_once(sections: dict[str, dict[str, str]]) -> None:
    sections.get("default", {}).pop("encap-port", None)
    once = derive(conf.render((), sections))
    assert values(derive(once.conf)) == values(once)
