"""The tenant's side: its credential, its topology, what is asked of it, and a long time without it."""

import base64
import time
from collections.abc import Callable

import pytest
import yaml

from tests.cluster import health
from tests.lab import audit
from tests.lab.client import ApiError, Client, Object
from tests.lab.kubeconfig import Access
from tests.lab.stage import CONFIG, Stage, config
from tests.lab.tenant import CENTRAL, INTERCONNECT, NAMESPACE

PROMISED = 5.0
VALID, UNREACHABLE, SYNCED = "TenantCredentialsValid", "TenantClusterApiServerUnreachable", "TenantObjectsSynced"
DAEMON_SET = "apps/v1/DaemonSet"
RELEASE = "release.openshift.io/version"


def versions(stage: Stage) -> dict[str, str]:
    """What is copied and rendered: the resourceVersion of each copy and the generation of the DaemonSet."""
    admin = stage.lab.infra.admin
    found = {"DaemonSet": str(admin.get(DAEMON_SET, "ovnkube-node", "tenant-1")["metadata"]["generation"])}
    for name in ("ovnkube-config", "tenant-cluster-ca.crt", "ovnkube-node-env", "ovnkube-conf"):
        if item := admin.find("v1/ConfigMap", name, "tenant-1"):
            found[name] = item["metadata"]["resourceVersion"]
    return found


def calls(stage: Stage, user: str, since: object) -> list[audit.Request]:
    """What a user has asked of the tenant since a moment."""
    return audit.requests(stage.lab.tenant.audit_log, user=user, since=since)  # type: ignore[arg-type]


# -- the credential ---------------------------------------------------------------------------------------------------


def test_a_replaced_kubeconfig_is_in_use_within_five_seconds_and_nothing_is_written_for_it(stage: Stage) -> None:
    before, credentials, mark = versions(stage), stage.lab.credentials, audit.now()
    text = credentials.certificate_kubeconfig(seconds=90 * 86400)
    began = time.monotonic()
    health.put_kubeconfig(stage, text)
    stage.wait(lambda: calls(stage, credentials.certificate_user, mark), "the new account to be used")
    found = stage.wait_condition(VALID, "True")
    stage.wait(lambda: "certificate" in stage.conditions()[VALID]["message"], "the condition to tell of it")
    assert time.monotonic() - began < PROMISED, found
    stage.wait_condition(SYNCED, "True")
    assert versions(stage) == before


def running_a_program(kubeconfig: str) -> str:
    """The same kubeconfig, which would have a program run to get its token."""
    tree = yaml.safe_load(kubeconfig)
    command = {"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/s3cr3t-word"}
    tree["users"][0]["user"] = {"exec": command}
    return str(yaml.safe_dump(tree))


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (running_a_program, "exec"),
        (lambda _: "s3cr3t-word: [", "YAML"),
        (lambda text: text.replace("https:", "s3cr3t-word:"), "https"),
        (lambda _: "", "has no key `config`"),
    ],
    ids=["one that runs a program", "no YAML", "no https", "nothing"],
)
def test_a_broken_new_kubeconfig_turns_the_condition_and_keeps_what_is_copied(
    stage: Stage, broken: Callable[[str], str], sentence: str
) -> None:
    before, admin = versions(stage), stage.lab.infra.admin
    health.put_kubeconfig(stage, broken(health.good_kubeconfig(stage)))
    found = stage.wait_condition(VALID, "False", reason="KubeconfigRefused")
    assert sentence in found["message"]
    stage.wait_condition(UNREACHABLE, "Unknown", reason="NoCredential")
    assert stage.wait_condition("Degraded", "True")["reason"] == "KubeconfigRefused"
    assert stage.conditions()["OvnKubeReady"]["status"] == "True"
    assert versions(stage) == before
    told = str(stage.resource()["status"]) + str(admin.list("v1/Event", "tenant-1")) + stage.process.text()
    assert "s3cr3t-word" not in told
    began = time.monotonic()
    health.put_kubeconfig(stage, health.good_kubeconfig(stage))
    stage.wait_condition(VALID, "True")
    assert time.monotonic() - began < PROMISED
    stage.wait_condition(UNREACHABLE, "False")
    assert versions(stage) == before


@pytest.mark.parametrize("way", ["deleted", "another name"])
def test_a_kubeconfig_that_is_not_there_turns_the_condition_and_keeps_what_is_copied(stage: Stage, way: str) -> None:
    before, admin = versions(stage), stage.lab.infra.admin
    if way == "deleted":
        admin.delete("v1/Secret", health.SECRET, "tenant-1")
    else:
        admin.patch(CONFIG, "cluster", {"spec": {"kubeConfigFile": "not-there"}}, "tenant-1")
    found = stage.wait_condition(VALID, "False", reason="SecretNotFound")
    assert found["message"].startswith(f"Secret {health.SECRET if way == 'deleted' else 'not-there'} does not exist")
    stage.wait_condition(SYNCED, "Unknown", reason="TenantNotAnswering")
    # The pods are not given a Secret that they could not mount.
    assert versions(stage) == before
    if way == "deleted":
        health.put_kubeconfig(stage, health.good_kubeconfig(stage))
    else:
        admin.patch(CONFIG, "cluster", {"spec": {"kubeConfigFile": health.SECRET}}, "tenant-1")
    health.wait_well(stage)
    assert versions(stage) == before


def test_a_certificate_is_told_before_it_expires_and_when_it_has(stage: Stage) -> None:
    before = versions(stage)
    health.put_kubeconfig(stage, stage.lab.credentials.certificate_kubeconfig(seconds=6))
    found = stage.wait_condition(VALID, "False", reason="ExpiresSoon")
    assert "The client certificate in Secret tenant-1/tenant-kubeconfig expires on " in found["message"]
    found = stage.wait_condition(VALID, "False", reason="Expired")
    assert " expired on " in found["message"]
    assert versions(stage) == before
    health.put_kubeconfig(stage, health.good_kubeconfig(stage))
    health.wait_well(stage)
    assert versions(stage) == before


def test_a_revoked_token_is_told_and_its_successor_is_taken(stage: Stage) -> None:
    before = versions(stage)
    account = Client(Access.read(yaml.safe_load(health.good_kubeconfig(stage))))
    stage.lab.credentials.revoke()

    def forgotten() -> bool:
        try:
            account.list("v1/Node")
        except ApiError as error:
            return error.status == 401
        return False

    stage.wait(forgotten, "the API server to forget that the token was good")
    account.close()
    # Streams that are open stay so: the refusal is seen with the next request.
    network = stage.lab.tenant.network()
    network.set("cut")
    stage.wait_condition(UNREACHABLE, "True")
    network.set("pass")
    found = stage.wait_condition(VALID, "False", reason="Unauthorized")
    assert "is refused by the tenant's API server. Put a new kubeconfig into it." in found["message"]
    stage.wait_condition(UNREACHABLE, "False")
    assert versions(stage) == before
    began = time.monotonic()
    health.put_kubeconfig(stage, stage.lab.credentials.restore())
    stage.wait_condition(VALID, "True")
    assert time.monotonic() - began < PROMISED
    health.wait_well(stage)


def test_a_tenant_with_another_ca_is_not_believed(stage: Stage) -> None:
    before = versions(stage)
    stage.lab.credentials.swap_ca()
    found = stage.wait_condition(UNREACHABLE, "True")
    stage.wait(lambda: "certificate" in stage.conditions()[UNREACHABLE]["message"], "the sentence about TLS")
    assert "127.0.0.1" in found["message"]
    health.put_kubeconfig(stage, stage.lab.credentials.kubeconfig_for_swapped_ca())
    stage.wait_condition(UNREACHABLE, "False")
    stage.wait_condition(VALID, "True")
    stage.lab.credentials.swap_ca_back()
    health.put_kubeconfig(stage, health.good_kubeconfig(stage))
    health.wait_well(stage)
    assert versions(stage) == before


# -- rights, and the manner of asking ---------------------------------------------------------------------------------


def test_the_tenants_account_may_read_the_named_objects_and_nothing_else(stage: Stage) -> None:
    account = Client(stage.lab.credentials.access())
    assert account.list("v1/ConfigMap", NAMESPACE, fields="metadata.name=ovnkube-config")
    for ask in (
        lambda: account.list("v1/ConfigMap", NAMESPACE),
        lambda: account.list("v1/Secret", NAMESPACE),
        lambda: account.get("v1/Secret", "ovn-ca", NAMESPACE),
        lambda: account.patch("v1/ConfigMap", "ovnkube-config", {"data": {"a": "b"}}, NAMESPACE),
    ):
        with pytest.raises(ApiError) as refused:
            ask()
        assert refused.value.status == 403
    account.close()


def test_a_resource_is_served_without_a_refusal_a_write_to_the_tenant_or_a_poll(stage: Stage) -> None:
    health.delete_resource(stage)
    mark = audit.now()
    health.bring_up(stage)
    tenant = calls(stage, stage.lab.credentials.token_user, mark)
    infra = audit.requests(stage.lab.infra.audit_log, user=stage.account.user, since=mark)
    assert [str(each) for each in tenant + infra if each.code == 403] == []
    assert {each.verb for each in tenant} == {"list", "watch"}
    unnamed = {each.resource for each in tenant if "fieldSelector=metadata.name" not in each.uri}
    assert unnamed == {"nodes"}
    # One list of each thing and one watch, which goes on: what is asked twice would be a poll.
    asked = [(each.verb, each.uri.partition("&resourceVersion")[0].partition("&timeout")[0]) for each in tenant]
    assert len(asked) == len(set(asked)), [str(each) for each in tenant]
    lists = [(each.resource, each.namespace) for each in infra if each.verb == "list"]
    assert len(lists) == len(set(lists)), [str(each) for each in infra]
    assert {each.resource for each in infra if each.verb == "get"} <= {"machineconfigs"}
    quiet = audit.now()
    time.sleep(3)  # the span that is looked at
    asked_at_rest = calls(stage, stage.lab.credentials.token_user, quiet)
    asked_at_rest += audit.requests(stage.lab.infra.audit_log, user=stage.account.user, since=quiet)
    assert [str(each) for each in asked_at_rest] == []


# -- the topology -----------------------------------------------------------------------------------------------------


def infra_release(stage: Stage, release: str) -> None:
    """The infra cluster is at this release."""
    annotation = {"metadata": {"annotations": {RELEASE: release}}}
    stage.lab.infra.admin.patch(DAEMON_SET, "ovnkube-node", annotation, "openshift-ovn-kubernetes")


def certificates(stage: Stage) -> tuple[Object | None, Object | None]:
    """ConfigMap ovn-ca and Secret ovn-cert of the resource's namespace."""
    admin = stage.lab.infra.admin
    return admin.find("v1/ConfigMap", "ovn-ca", "tenant-1"), admin.find("v1/Secret", "ovn-cert", "tenant-1")


def test_central_ovn_gets_its_certificates_which_go_again_with_interconnect(stage: Stage) -> None:
    tenant, admin = stage.lab.tenant.admin, stage.lab.infra.admin
    assert certificates(stage) == (None, None)
    infra_release(stage, "4.13.42")
    stage.lab.contents.load(CENTRAL)
    stage.wait(lambda: stage.resource()["status"]["topology"] == "central", "the topology to be found")
    health.wait_well(stage)
    ca, cert = certificates(stage)
    assert ca
    assert cert
    assert ca["data"] == tenant.get("v1/ConfigMap", "ovn-ca", NAMESPACE)["data"]
    assert cert["data"] == tenant.get("v1/Secret", "ovn-cert", NAMESPACE)["data"]
    assert admin.find("v1/Secret", "ovn-ca", "tenant-1") is None  # the key of the CA is nobody's but the tenant's
    operand = admin.get(DAEMON_SET, "ovnkube-node", "tenant-1")
    assert "nbdb" not in [each["name"] for each in operand["spec"]["template"]["spec"]["containers"]]
    mounted = [each.get("secret", each.get("configMap", {})) for each in operand["spec"]["template"]["spec"]["volumes"]]
    assert {"ovn-ca", "ovn-cert"} <= {each.get("name", each.get("secretName")) for each in mounted}
    # The certificate is renewed, and arrives.
    renewed = {"data": {"tls.crt": base64.b64encode(b"renewed").decode()}}
    tenant.patch("v1/Secret", "ovn-cert", renewed, NAMESPACE)

    def arrived() -> bool:
        now = certificates(stage)[1]
        return now is not None and now["data"]["tls.crt"] == renewed["data"]["tls.crt"]

    stage.wait(arrived, "the new certificate")
    # It is made anew with another type, which no copy can be given without being made anew as well.
    anew = tenant.get("v1/Secret", "ovn-cert", NAMESPACE)
    tenant.delete("v1/Secret", "ovn-cert", NAMESPACE)
    kept = {key: anew[key] for key in ("apiVersion", "kind")} | {
        "metadata": {"name": "ovn-cert", "namespace": NAMESPACE}
    }
    tls = {"tls.crt": anew["data"]["tls.crt"], "tls.key": anew["data"]["tls.crt"]}
    tenant.create(kept | {"type": "kubernetes.io/tls", "data": tls})
    stage.wait(lambda: (certificates(stage)[1] or {}).get("type") == "kubernetes.io/tls", "the new type")
    health.wait_well(stage)

    infra_release(stage, "4.20.3")
    stage.lab.contents.load(INTERCONNECT)
    stage.wait(lambda: stage.resource()["status"]["topology"] == "interconnect", "the topology to be found")
    health.wait_well(stage)
    stage.wait(lambda: certificates(stage) == (None, None), "the certificates to go")
    operand = admin.get(DAEMON_SET, "ovnkube-node", "tenant-1")
    assert "nbdb" in [each["name"] for each in operand["spec"]["template"]["spec"]["containers"]]


def tenant_release(stage: Stage, release: str) -> None:
    """The tenant's OVN-Kubernetes is at this release."""
    for name in ("ovnkube-node-dpu-host", "ovnkube-node"):
        stage.lab.tenant.admin.patch(DAEMON_SET, name, {"metadata": {"annotations": {RELEASE: release}}}, NAMESPACE)


def test_an_unsupported_tenant_is_refused_and_nothing_is_rolled_out(stage: Stage) -> None:
    admin = stage.lab.infra.admin
    health.delete_resource(stage)
    tenant_release(stage, "4.16.21")
    admin.create(config())
    found = stage.wait_condition(SYNCED, "False", reason="UnsupportedRelease")
    assert "release 4.16.21 with topology interconnect" in found["message"]
    assert "upgrade the tenant" in found["message"]
    stage.wait_condition("Degraded", "True")
    stage.wait_condition("Available", "False")
    assert stage.conditions()["MachineConfigApplied"]["status"] == "False"
    assert health.made(stage, "tenant-1") == []
    assert admin.find(health.MACHINE_CONFIG, health.OURS) is None
    tenant_release(stage, "4.20.3")
    health.wait_well(stage)


def test_a_tenant_that_becomes_unsupported_keeps_what_serves(stage: Stage) -> None:
    before = versions(stage)
    tenant_release(stage, "4.16.21")
    stage.wait_condition(SYNCED, "False", reason="UnsupportedRelease")
    assert versions(stage) == before
    assert stage.conditions()["OvnKubeReady"]["status"] == "True"
    tenant_release(stage, "4.20.3")
    health.wait_well(stage)
    assert versions(stage) == before


# -- a long time without it -------------------------------------------------------------------------------------------
