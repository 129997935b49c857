"""Bringing a stage back to where a test may begin: nothing broken, and either in full health or without any resource."""

import base64
import json

from tests.lab import mco, operator_run, yamlfiles
from tests.lab.client import Object, name_of
from tests.lab.credentials import NAME, NAMESPACE
from tests.lab.lab import DPUS, POOL
from tests.lab.stage import CONFIG, INFRA_OVNKUBE, Stage, config

WANTED = {
    "MachineConfigApplied": "True",
    "OvnKubeReady": "True",
    "TenantClusterApiServerUnreachable": "False",
    "TenantObjectsSynced": "True",
    "TenantCredentialsValid": "True",
    "NodesMapped": "True",
    "HostsConfigured": "Unknown",
    "VersionAligned": "True",
    "Available": "True",
    "Progressing": "False",
    "Degraded": "False",
}
"""The conditions of a resource that is well, with no agent on its DPUs."""
MACHINE_CONFIG = f"{mco.rules.PREFIX}/v1/MachineConfig"
OURS = f"99-{POOL}-dpu-network-operator"
SECRET = "tenant-kubeconfig"
SKIP_WAIT = {"metadata": {"annotations": {"dpu.openshift.io/skip-pool-wait": "true"}}}

_minted: dict[str, tuple[str, str]] = {}


def mend(stage: Stage) -> None:
    """Undo what tests do to the lab, to the nodes, to the pool and to the kubeconfig; the resource isn't touched."""
    admin, lab = stage.lab.infra.admin, stage.lab
    lab.mend()
    if lab.contents.loaded and lab.contents.loaded.folder != lab.tenant_folder:
        lab.contents.load(lab.tenant_folder)
    mco.furnish(admin)
    for index, node in enumerate(DPUS):
        notes = admin.get("v1/Node", node)["metadata"].get("annotations") or {}
        wanted: dict[str, str | None] = {key: None for key in notes if key.startswith("dpu.openshift.io/")}
        wanted["dpu.openshift.io/tenant-node"] = f"dpu-host-{index}"
        labels = {"node-role.kubernetes.io/dpu-worker": "", "network.operator.openshift.io/dpu": ""}
        admin.patch("v1/Node", node, {"metadata": {"annotations": wanted, "labels": labels}})
    admin.apply(yamlfiles.everything(INFRA_OVNKUBE)[0])
    admin.delete("v1/ConfigMap", "env-overrides", "tenant-1")
    put_kubeconfig(stage, good_kubeconfig(stage))


def good_kubeconfig(stage: Stage) -> str:
    """A kubeconfig that works; the same one for as long as its account lives."""
    tenant = stage.lab.tenant
    account = tenant.admin.get("v1/ServiceAccount", NAME, NAMESPACE)["metadata"]["uid"]
    known = _minted.get(tenant.url)
    if known is None or known[0] != account:
        known = _minted[tenant.url] = account, stage.lab.credentials.kubeconfig()
    return known[1]


def put_kubeconfig(stage: Stage, text: str, namespace: str = "tenant-1") -> None:
    """Make it the tenant's kubeconfig; no write where it is already."""
    admin = stage.lab.infra.admin
    secret = admin.find("v1/Secret", SECRET, namespace) or {}
    if (secret.get("data") or {}).get("config") != base64.b64encode(text.encode()).decode():
        operator_run.kubeconfig_secret(admin, namespace, text, SECRET)


def bring_up(stage: Stage, timeout: float = 60) -> None:
    """The operator runs, and tenant-1/cluster is in full health."""
    admin = stage.lab.infra.admin
    if not stage.process.alive():
        stage.process.start()
    known = admin.find(CONFIG, "cluster", "tenant-1")
    if known and (known["metadata"].get("deletionTimestamp") or _spec(known) != _spec(config())):
        clean(stage)
        known = None
    if known is None:
        admin.create(config())
    wait_well(stage, timeout)


def _spec(item: Object) -> Object:
    """What of a spec is not a default."""
    defaults = {"tenantNamespace": "openshift-ovn-kubernetes", "hostConfig": None}
    return {key: value for key, value in item["spec"].items() if key not in defaults or value not in
            ("openshift-ovn-kubernetes", {"bridge": "br-ex", "hardwareOffload": "Enabled", "maxDisruption": "None",
                                          "mode": "Enforce"})}  # fmt: skip


def wait_well(stage: Stage, timeout: float = 60) -> None:
    """Wait until every condition is as it should be, all in one look."""

    def well() -> bool:
        found = {kind: each["status"] for kind, each in stage.conditions().items()}
        return all(found.get(kind) == status for kind, status in WANTED.items())

    try:
        stage.wait(well, "tenant-1/cluster to be in full health", timeout)
    except Exception as error:
        error.add_note(json.dumps(list(stage.conditions().values()), indent=1))
        raise


def clean(stage: Stage) -> None:
    """No resource, no MachineConfig of ours, and a pool that has forgotten it. Nothing must be broken."""
    admin = stage.lab.infra.admin
    for item in admin.list(CONFIG):
        namespace, name = str(item["metadata"]["namespace"]), name_of(item)
        admin.patch(CONFIG, name, SKIP_WAIT if stage.process.alive() else {"metadata": {"finalizers": None}}, namespace)
        admin.delete(CONFIG, name, namespace)
    stage.wait(lambda: not admin.list(CONFIG), "all OVNKubeConfigs to be gone")
    if admin.delete(MACHINE_CONFIG, OURS) or OURS in rendered_from(stage):
        stage.wait(lambda: OURS not in rendered_from(stage), "the pool without our MachineConfig")
    stage.wait(lambda: not made(stage), "everything that was made to be collected")
    stage.lab.wait_pool()


def rendered_from(stage: Stage) -> list[str]:
    """The names of the MachineConfigs in the pool's rendered one."""
    pool = stage.lab.infra.admin.get(mco.POOL, POOL)
    return [str(each["name"]) for each in (pool["spec"].get("configuration") or {}).get("source") or []]


def made(stage: Stage, namespace: str | None = None) -> list[str]:
    """Kind, namespace and name of everything namespaced that the operator has made."""
    admin = stage.lab.infra.admin
    kinds = (
        "v1/ConfigMap", "v1/Secret", "v1/ServiceAccount", "apps/v1/DaemonSet",
        "rbac.authorization.k8s.io/v1/Role", "rbac.authorization.k8s.io/v1/RoleBinding",
    )  # fmt: skip
    ours = "app.kubernetes.io/managed-by=dpu-network-operator"
    return [
        f"{item['kind']} {item['metadata']['namespace']}/{name_of(item)}"
        for kind in kinds
        for item in admin.list(kind, namespace, labels=ours)
        if item["metadata"]["namespace"] != stage.account.namespace
    ]
