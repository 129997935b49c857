"""Nothing of a Secret ever leaves it: a whole life, with marked Secrets, in which everything goes wrong once."""

import base64
import contextlib
import json
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import health
from tests.cluster.spaces import machine_config, operating, resource, settled, spaces
from tests.lab import audit, operator_run
from tests.lab.client import ApiError, Client, Object, kind_of
from tests.lab.credentials import DAY, mint
from tests.lab.kubeconfig import Access
from tests.lab.stage import CONFIG, Stage
from tests.lab.tenant import CENTRAL, INTERCONNECT, NAMESPACE

POLICY = "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"
VALID, SYNCED = "TenantCredentialsValid", "TenantObjectsSynced"


class Life:
    """One resource and its Secrets. Each secret that it ever had is in `marks`, each state that it was in, in `seen`."""

    def __init__(self, stage: Stage, space: str) -> None:
        self.stage, self.space = stage, space
        self.admin, self.tenant = stage.lab.infra.admin, stage.lab.tenant.admin
        self.marks: dict[str, str] = {}
        self.seen: list[Object] = []

    def mark(self, what: str) -> str:
        """A text that is nowhere else."""
        self.marks[what] = f"mark-{secrets.token_hex(12)}"
        return self.marks[what]

    def kubeconfig(self, days: int, account: tuple[str, str] | None = None) -> str:
        """A good one, whose token's claims and signature are marks."""
        access = self.stage.lab.credentials.access(seconds=days * DAY)
        if account is not None:
            access = Access(access.server, access.ca, token=mint(self.tenant, *account))
        _, claims, signature = str(access.token).split(".")
        self.marks |= {f"claims {days} {account}": claims, f"signature {days} {account}": signature}
        return access.kubeconfig(self.mark(f"user {days} {account}"), "tenant")

    def put(self, kubeconfig: str) -> None:
        """Make it the tenant's kubeconfig."""
        operator_run.kubeconfig_secret(self.admin, self.space, kubeconfig)

    def certificate(self, what: str) -> None:
        """Put a new mark into the tenant's ovn-cert."""
        data = {"data": {"marked": base64.b64encode(self.mark(what).encode()).decode()}}
        self.tenant.patch("v1/Secret", "ovn-cert", data, NAMESPACE)

    def copied(self, what: str) -> bool:
        """Whether the copy of ovn-cert has that mark: it is in the operator's hands."""
        secret = self.admin.find("v1/Secret", "ovn-cert", self.space) or {}
        return base64.b64decode((secret.get("data") or {}).get("marked", "")).decode() == self.marks[what]

    def until(self, condition: str, reason: str, message: str = "") -> None:
        """Wait for a condition, and keep what the resource is like then."""

        def holds() -> bool:
            now = self.stage.conditions(self.space).get(condition, {})
            return now.get("reason") == reason and message in now["message"]

        self.stage.wait(holds, f"{condition} {reason} {message}")
        self.look()

    def look(self) -> None:
        """Keep what the resource is like now."""
        self.seen.append(self.stage.resource(self.space))


@pytest.fixture(scope="module")
def central(installed: Stage) -> Iterator[Stage]:
    """A tenant with a central OVN, whose DPUs need its Secret."""
    installed.lab.contents.load(CENTRAL)
    yield installed
    installed.lab.contents.load(INTERCONNECT)


@pytest.mark.parametrize("style", ["text", "json"])
def test_nothing_of_a_secret_is_in_a_log_an_event_a_status_or_a_request(
    central: Stage, tmp_path: Path, style: str
) -> None:
    stage = Stage(central.lab, tmp_path, options=("--verbose", "--log-format", style))
    stage.account.write_kubeconfig(stage.kubeconfig)
    space = f"secrets-{style}"
    life = Life(stage, space)
    with spaces(stage, [space], life.kubeconfig(days=2)), operating(stage):
        foreign_then_created(life)
        rotated(life)
        broken(life)
        revoked(life)
        refused_by_infra(life)
        life.look()
        rest = left_behind(life)
        deleted(life)

    assert len(life.marks) > 12
    log = stage.process.text()
    assert f"{space}/cluster" in log
    assert "TemporaryError" in log or "handler" in log.lower(), "the log is not verbose"
    everything = {
        "the log": log,
        "the resource": json.dumps(life.seen),
        "its Events": json.dumps(central.lab.infra.admin.list("v1/Event", space)),
        "what was made": rest,
        "a request": "\n".join(
            each.uri for cluster in central.lab.clusters for each in audit.requests(cluster.audit_log)
        ),
    }
    for what, mark in life.marks.items():
        shapes = shapes_of(mark)
        for where, text in everything.items():
            assert not [shape for shape in shapes if shape in text], f"the {what} is in {where}"
    notes = {note for each in life.seen for note in each["metadata"].get("annotations", {})}
    handlers = {f"dpu.openshift.io/{name}" for name in ("kopf-managed", "remove", "touch-dummy")}
    assert notes <= handlers, "kopf notes more on the resource than how its one handler fares"


def foreign_then_created(life: Life) -> None:
    """Somebody else's Secret has our name; then the resource comes to life, with a copy of the tenant's."""
    data = {"stringData": {"theirs": life.mark("foreign Secret")}}
    metadata = {"name": "ovn-cert", "namespace": life.space}
    life.admin.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, **data})
    life.certificate("first ovn-cert")
    life.admin.create(resource(life.space, ovnKubeImage="registry.example.com/ovnkube:4.13"))
    life.until(SYNCED, "ForeignObject", "Secret ovn-cert")
    life.admin.delete("v1/Secret", "ovn-cert", life.space)
    life.stage.wait(lambda: settled(life.stage, life.space), "the resource to settle")
    assert life.copied("first ovn-cert")
    life.certificate("second ovn-cert")
    life.stage.wait(lambda: life.copied("second ovn-cert"), "the copy to follow")
    life.look()


def rotated(life: Life) -> None:
    """A new token, which shows by the day of its end."""
    life.put(life.kubeconfig(days=5))
    life.until(VALID, "Valid", f"{time.strftime('%Y-%m-%d', time.gmtime(time.time() + 5 * DAY))}")


def broken(life: Life) -> None:
    """Kubeconfigs of all sorts that are refused."""

    def changed(change: Callable[[Object, Object], None]) -> str:
        config = json.loads(life.kubeconfig(days=3))
        change(config["users"][0]["user"], config["clusters"][0]["cluster"])
        return json.dumps(config)

    plugin = {"command": life.mark("command"), "env": [{"name": "PASSWORD", "value": life.mark("plugin's password")}]}
    address = f"https://admin:{life.mark('password in the address')}@127.0.0.1"
    cases = {
        "starts a program": changed(lambda user, _: user.update(exec=plugin)),
        "user name and a password": changed(lambda user, _: user.update(password=life.mark("password"))),
        "not valid YAML": f"password: {life.mark('no YAML')}\n\t: [",
        "token holds spaces": changed(
            lambda user, _: user.update(token=f"{life.mark('token')}\n{life.mark('second line')}")
        ),
        "names a file": changed(lambda user, _: user.update(tokenFile=f"/{life.mark('path')}")),
        "server address holds a user name": changed(lambda _, cluster: cluster.update(server=address)),
    }
    for message, text in cases.items():
        life.put(text)
        life.until(VALID, "KubeconfigRefused", message)


def revoked(life: Life) -> None:
    """A token whose account is deleted before its first use: no API server has it in its memory."""
    account = ("default", f"gone-{life.space}")
    metadata = {"namespace": account[0], "name": account[1]}
    life.tenant.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    text = life.kubeconfig(1, account)
    life.tenant.delete("v1/ServiceAccount", account[1], account[0])
    life.put(text)
    life.until(VALID, "Unauthorized")
    life.put(life.kubeconfig(days=4))
    life.until(VALID, "Valid")


def refused_by_infra(life: Life) -> None:
    """Infra's API server takes no more of the Secret, and quotes it in its refusal, as admission webhooks do."""
    with policy_that_quotes(life):
        life.certificate("quoted ovn-cert")
        life.until("Degraded", "WriteFailed", "Secret")
    life.stage.wait(lambda: life.copied("quoted ovn-cert"), "the copy to follow", timeout=60)


@contextlib.contextmanager
def policy_that_quotes(life: Life) -> Iterator[None]:
    """A refusal with the content of the Secret in its message."""
    name = f"quote-{life.space}"
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["secrets"]}
    space = {"matchLabels": {"kubernetes.io/metadata.name": life.space}}
    spec: Object = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule], "namespaceSelector": space},
        "validations": [
            {"expression": "object.metadata.name != 'ovn-cert'", "messageExpression": "string(object.data.marked)"}
        ],
    }
    version = POLICY.rpartition("/")[0]
    binding = {"policyName": name, "validationActions": ["Deny"]}
    life.admin.apply(
        {"apiVersion": version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}, "spec": spec}
    )
    bound = {
        "apiVersion": version,
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": binding,
    }
    life.admin.apply(bound)
    try:
        life.stage.wait(lambda: _quotes(life.admin, life.space), "the policy to be in force")
        yield
    finally:
        life.admin.delete(f"{POLICY}Binding", name)
        life.admin.delete(POLICY, name)


def _quotes(admin: Client, space: str) -> bool:
    """Whether the policy refuses, and quotes; asked by a dry run."""
    secret = admin.get("v1/Secret", "ovn-cert", space)
    path = admin.resource("v1/Secret").path(space, "ovn-cert")
    try:
        admin.request("PUT", path, secret | {"metadata": secret["metadata"] | {"labels": {}}}, query="dryRun=All")
    except ApiError as error:
        return str(secret["data"]["marked"]) in error.message
    return False


def left_behind(life: Life) -> str:
    """Everything that was made and is no Secret."""
    kinds = [kind for kind in health.MADE_KINDS if kind != "v1/Secret"]
    items = [item for kind in kinds for item in life.admin.list(kind, life.space)]
    items.append(life.admin.get(health.MACHINE_CONFIG, machine_config(life.space)))
    assert "apps/v1/DaemonSet" in map(kind_of, items)
    return json.dumps(items)


def deleted(life: Life) -> None:
    """The end; kopf notes on the resource what it waits for."""
    life.admin.delete(CONFIG, "cluster", life.space)

    def gone() -> bool:
        items = life.admin.list(CONFIG, life.space)
        life.seen += items
        return not items

    life.stage.wait(gone, "the resource to be gone")


def shapes_of(mark: str) -> set[str]:
    """A mark as it is, and as it is somewhere inside of a text in base64."""
    shapes = {mark}
    for lead in range(3):
        encoded = base64.b64encode(b"x" * lead + mark.encode()).decode()
        shapes.add(encoded[4 if lead else 0 : -4])
    return shapes
