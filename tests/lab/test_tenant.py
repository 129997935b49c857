"""The tenant: what is in it, the account that the operator has there, and how that account goes bad."""

from pathlib import Path

import pytest
import yaml

from tests.lab import kwok
from tests.lab.client import ApiError, Client, name_of
from tests.lab.credentials import mint
from tests.lab.kubeconfig import Access
from tests.lab.lab import Lab
from tests.lab.tenant import CENTRAL, INTERCONNECT, NAMESPACE, key_of
from tests.lab.waiting import eventually


def test_tenant_account_reads_the_named_objects_and_nothing_else(lab: Lab) -> None:
    client = Client(lab.credentials.access())
    assert client.get("v1/Secret", "ovn-cert", NAMESPACE)["type"] == "kubernetes.io/tls"
    named = client.list("v1/ConfigMap", NAMESPACE, fields="metadata.name=ovnkube-config")
    assert "ovnkube.conf" in named[0]["data"]
    assert len(client.list("v1/Node")) == 7
    for attempt in (
        lambda: client.list("v1/ConfigMap", NAMESPACE),
        lambda: client.get("v1/Secret", "ovn-ca", NAMESPACE),
        lambda: client.patch("v1/ConfigMap", "ovnkube-config", {"data": {"a": "b"}}, NAMESPACE),
    ):
        with pytest.raises(ApiError) as refused:
            attempt()
        assert refused.value.status == 403
    events = client.watch("v1/ConfigMap", NAMESPACE, fields="metadata.name=ovnkube-config", seconds=5)
    assert next(events)["object"]["metadata"]["name"] == "ovnkube-config"
    events.close()  # type: ignore[attr-defined]
    client.close()


def test_revoked_token_is_refused_and_a_new_one_works(lab: Lab) -> None:
    client = Client(lab.credentials.access())
    client.list("v1/Node")
    lab.credentials.revoke()

    def refused() -> bool:
        try:
            client.list("v1/Node")
        except ApiError as error:
            return error.status == 401
        return False

    eventually(refused, "the token to be refused")
    client.close()
    again = Client(Access.read(yaml.safe_load(lab.credentials.restore())))
    again.list("v1/Node")
    again.close()


def test_client_certificate_expires(lab: Lab) -> None:
    text = lab.credentials.certificate_kubeconfig(seconds=2)
    client = Client(Access.read(yaml.safe_load(text)))
    client.list("v1/Node")

    def refused() -> bool:
        try:
            client.list("v1/Node")
        except ApiError as error:
            return error.status == 401
        return False

    eventually(refused, "the certificate to be refused", timeout=6)
    client.close()


def test_swapped_ca_is_not_trusted(lab: Lab) -> None:
    access = lab.credentials.access()
    lab.credentials.swap_ca()
    client = Client(access)
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        client.list("v1/Node")
    told = Client(Access.read(yaml.safe_load(lab.credentials.kubeconfig_for_swapped_ca())))
    told.list("v1/Node")
    lab.credentials.swap_ca_back()
    client.list("v1/Node")
    client.close()
    told.close()


@pytest.mark.parametrize("folder", [INTERCONNECT, CENTRAL], ids=lambda path: path.name)
def test_example_tenant_loads_whole(lab: Lab, folder: Path) -> None:
    loaded = lab.contents.load(folder)
    assert loaded.skipped == ()
    admin = lab.tenant.admin
    peer = admin.get("apps/v1/DaemonSet", "ovnkube-node-dpu-host", NAMESPACE)
    assert peer["status"]["numberReady"] == 3
    assert peer["status"]["observedGeneration"] == peer["metadata"]["generation"]
    hosts = admin.list("v1/Node", labels="network.operator.openshift.io/dpu-host=")
    assert sorted(name_of(item) for item in hosts) == ["dpu-host-0", "dpu-host-1", "dpu-host-2"]
    assert all(kwok.is_ready(item) and not item["spec"].get("taints") for item in hosts)
    assert (admin.find("v1/Service", "ovnkube-db", NAMESPACE) is not None) == (folder == CENTRAL)
    admin.patch("v1/ConfigMap", "ovnkube-config", {"data": {"extra": "x"}}, NAMESPACE)
    admin.delete("v1/ConfigMap", "ovn-ca", NAMESPACE)
    lab.contents.restore()
    assert "extra" not in admin.get("v1/ConfigMap", "ovnkube-config", NAMESPACE)["data"]
    lab.contents.load()


def test_load_of_the_same_folder_changes_nothing(lab: Lab) -> None:
    def versions() -> dict[object, str]:
        loaded = lab.contents.loaded
        assert loaded is not None
        found = [lab.tenant.admin.get(kind, name, space) for kind, space, name in loaded.objects]
        return {key_of(item): item["metadata"]["resourceVersion"] for item in found}

    lab.contents.restore()
    before = versions()
    lab.contents.restore()
    assert versions() == before


def test_expired_or_foreign_tokens_are_what_they_seem(lab: Lab) -> None:
    token = mint(lab.tenant.admin, "dpu-operator", "dpu-operator-tenant", 600)
    stranger = Client(Access(lab.infra.url, lab.infra.authority.cert, token=token))
    with pytest.raises(ApiError) as refused:
        stranger.list("v1/Node")
    assert refused.value.status == 401
    stranger.close()
