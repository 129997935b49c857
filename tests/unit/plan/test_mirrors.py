"""Copies of tenant objects, byte for byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpu_operator.plan.mirrors import keep_mirrors, malformed, mirror_objects, mirror_one, mirror_ref, required
from dpu_operator.plan.objects import owner_meta
from dpu_operator.plan.topology import Topology
from dpu_operator.world import HASH_ANNOTATION, OWNER_ANNOTATION, SECRET, Obj, Seen, Sight, TenantKey
from tests.unit.plan.worlds import (
    ABSENT,
    central_tenant,
    changed,
    example_infra,
    example_tenant,
    single_zone_tenant,
    two_sentences,
    with_object,
)

MARKS = owner_meta(example_infra())


def test_interconnect_needs_the_settings_and_the_ca_of_the_api_and_nothing_of_the_databases() -> None:
    assert set(required(Topology.INTERCONNECT)) == {TenantKey.OVNKUBE_CONFIG, TenantKey.ROOT_CA}


@pytest.mark.parametrize("topology", [Topology.CENTRAL, Topology.SINGLE_ZONE])
def test_databases_on_the_masters_need_the_ca_and_the_client_certificate_too(topology: Topology) -> None:
    assert set(required(topology)) == {
        TenantKey.OVNKUBE_CONFIG,
        TenantKey.ROOT_CA,
        TenantKey.OVN_CA,
        TenantKey.OVN_CERT,
    }


def test_the_key_of_the_ovn_ca_is_never_among_the_copies() -> None:
    for tenant, topology in (
        (example_tenant(), Topology.INTERCONNECT),
        (central_tenant(), Topology.CENTRAL),
        (single_zone_tenant(), Topology.SINGLE_ZONE),
    ):
        copies, problems = mirror_objects(example_infra(), tenant, topology)
        assert not problems
        assert len(copies) == len(required(topology))
        assert not [c for c in copies if c["kind"] == "Secret" and c["metadata"]["name"] != "ovn-cert"]
    assert not [key for key in TenantKey if key.kind == SECRET and key.object_name != "ovn-cert"]


def test_the_tenants_ca_goes_by_a_name_of_its_own() -> None:
    copies, _ = mirror_objects(example_infra(), example_tenant(), Topology.INTERCONNECT)
    assert [c["metadata"]["name"] for c in copies] == ["ovnkube-config", "tenant-cluster-ca.crt"]
    assert mirror_ref(TenantKey.ROOT_CA, "tenant-1").name == "tenant-cluster-ca.crt"
    source = example_tenant().object(TenantKey.ROOT_CA)
    assert source is not None
    assert copies[1]["data"] == source["data"]


def test_the_secret_keeps_its_type_and_its_data() -> None:
    copies, _ = mirror_objects(example_infra(), central_tenant(), Topology.CENTRAL)
    secret = next(c for c in copies if c["kind"] == "Secret")
    source = central_tenant().object(TenantKey.OVN_CERT)
    assert source is not None
    assert (secret["type"], secret["data"]) == (source["type"], source["data"])


def test_a_copy_bears_the_marks_and_no_metadata_of_the_tenant() -> None:
    tenant, source = changed(example_tenant(), TenantKey.OVNKUBE_CONFIG)
    source["metadata"] |= {"uid": "x", "resourceVersion": "7", "labels": {"their": "own"}, "ownerReferences": [{}]}
    copies, _ = mirror_objects(example_infra(), tenant, Topology.INTERCONNECT)
    meta = copies[0]["metadata"]
    assert meta["namespace"] == "tenant-1"
    assert meta["annotations"][OWNER_ANNOTATION] == "tenant-1/cluster"
    assert meta["annotations"]["dpu.openshift.io/copied-from"] == "openshift-ovn-kubernetes/ovnkube-config"
    assert "their" not in meta["labels"]
    assert meta["ownerReferences"][0]["kind"] == "OVNKubeConfig"
    assert not {"uid", "resourceVersion"} & set(meta)


def test_the_short_way_for_one_object_makes_the_same_copy_as_the_long_one() -> None:
    copies, _ = mirror_objects(example_infra(), central_tenant(), Topology.CENTRAL)
    for key, copy in zip(required(Topology.CENTRAL), copies, strict=True):
        source = central_tenant().object(key)
        assert source is not None
        assert mirror_one(key, source, "tenant-1", MARKS) == copy


@given(
    st.dictionaries(st.text(min_size=1), st.text(), min_size=1),
    st.dictionaries(st.text(min_size=1), st.text(), min_size=1),
)
def test_data_and_binary_data_are_the_same_to_the_byte(data: dict[str, str], binary: dict[str, str]) -> None:
    source: Obj = {"metadata": {"namespace": "n"}, "data": data, "binaryData": binary, "immutable": True}
    copy = mirror_one(TenantKey.OVNKUBE_CONFIG, source, "tenant-1", MARKS)
    assert (copy["data"], copy["binaryData"]) == (data, binary)
    assert "immutable" not in copy
    changed_source: Obj = {**source, "data": {**data, "one more": ""}}
    again = mirror_one(TenantKey.OVNKUBE_CONFIG, changed_source, "tenant-1", MARKS)
    assert again["metadata"]["annotations"][HASH_ANNOTATION] != copy["metadata"]["annotations"][HASH_ANNOTATION]


def test_empty_maps_are_left_out_as_the_api_server_does() -> None:
    copy = mirror_one(TenantKey.OVN_CA, {"metadata": {}, "data": {}, "binaryData": None}, "tenant-1", MARKS)
    assert not {"data", "binaryData"} & set(copy)


@pytest.mark.parametrize(
    ("sight", "reason", "kept"),
    [
        (Sight.UNSEEN, "TenantNotRead", True),
        (Sight.FORBIDDEN, "TenantAccessDenied", True),
        (Sight.UNSERVED, "TenantResourceUnserved", True),
        (Sight.ABSENT, "TenantObjectMissing", False),
    ],
)
def test_a_copy_stays_unless_a_complete_list_lacks_the_original(sight: Sight, reason: str, *, kept: bool) -> None:
    tenant = with_object(example_tenant(), TenantKey.ROOT_CA, Seen(sight))
    copies, problems = mirror_objects(example_infra(), tenant, Topology.INTERCONNECT)
    assert [c["metadata"]["name"] for c in copies] == ["ovnkube-config"]
    assert [p.reason for p in problems] == [reason]
    assert two_sentences(problems[0].message)
    keep = keep_mirrors("tenant-1", tenant, Topology.INTERCONNECT)
    assert keep == ({mirror_ref(TenantKey.ROOT_CA, "tenant-1")} if kept else set())


@pytest.mark.parametrize("data", ["text", [1], {"ovnkube.conf": 7}, {"other": "x"}, None, {}])
def test_an_object_of_another_shape_is_a_problem_and_its_copy_stays(data: object) -> None:
    tenant, source = changed(example_tenant(), TenantKey.OVNKUBE_CONFIG)
    source["data"] = data
    copies, problems = mirror_objects(example_infra(), tenant, Topology.INTERCONNECT)
    assert [c["metadata"]["name"] for c in copies] == ["tenant-cluster-ca.crt"]
    assert [p.reason for p in problems] == ["TenantObjectMalformed"]
    assert two_sentences(problems[0].message)
    assert keep_mirrors("tenant-1", tenant, Topology.INTERCONNECT) == {mirror_ref(TenantKey.OVNKUBE_CONFIG, "tenant-1")}


def test_a_sound_object_is_not_malformed_and_nothing_needs_to_be_kept() -> None:
    for key in required(Topology.CENTRAL):
        source = central_tenant().object(key)
        assert source is not None
        assert malformed(key, source) == ""
    assert keep_mirrors("tenant-1", central_tenant(), Topology.CENTRAL) == set()


def test_objects_that_only_another_topology_needs_are_neither_copied_nor_missed() -> None:
    tenant = with_object(example_tenant(), TenantKey.OVN_CERT, ABSENT)
    _, problems = mirror_objects(example_infra(), tenant, Topology.INTERCONNECT)
    assert problems == []
    _, problems = mirror_objects(example_infra(), tenant, Topology.CENTRAL)
    assert [p.reason for p in problems] == ["TenantObjectMissing"]
