"""Bringing a stage back to where a test may begin: nothing broken, and either in full health or without any resource."""

import base64
import json

from tests.lab import mco, operator_run, yamlfiles
from tests.lab.client import ApiError, Client, Object, name_of
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
MACHINE_CONFIG = mco.CONFIG
OURS = f"99-{POOL}-dpu-network-operator"
OTHER = "98-"
"""How the names of MachineConfigs begin that tests make, to set a rollout going."""
SECRET = "tenant-kubeconfig"
MADE_KINDS = (
    "v1/ConfigMap", "v1/Secret", "v1/ServiceAccount", "apps/v1/DaemonSet",
    "rbac.authorization.k8s.io/v1/Role", "rbac.authorization.k8s.io/v1/RoleBinding",
)  # fmt: skip
COLLECTED_WITHIN = 60
"""Seconds. The garbage collector learns of a new kind up to 30 s after its CRD; only the first test waits for that."""
SKIP_WAIT = {"metadata": {"annotations": {"dpu.openshift.io/skip-pool-wait": "true"}}}

_minted: dict[str, tuple[str, str]] = {}


def mend(stage: Stage) -> None:
    """Undo what tests do to the lab, to the nodes, to the pool and to the kubeconfig; the resource isn't touched."""
    admin, lab = stage.lab.infra.admin, stage.lab
    lab.mend()
    others = [name_of(item) for item in admin.list(MACHINE_CONFIG) if name_of(item).startswith(OTHER)]
    for name in others:
        admin.delete(MACHINE_CONFIG, name)
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
    if others:
        stage.wait(lambda: not set(others) & set(rendered_from(stage)), "the pool without what a test has added")
    lab.wait_pool()


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
    if known and known["metadata"].get("deletionTimestamp"):
        delete_resource(stage)
        known = None
    if known is None:
        admin.create(config())
    else:
        stage.wait(lambda: _restored(admin), "tenant-1/cluster to be as it was")
    wait_well(stage, timeout)


def _restored(admin: Client) -> bool:
    """Whether the resource's spec could be replaced by what it was at first; not where the operator wrote in between."""
    known = admin.get(CONFIG, "cluster", "tenant-1")
    try:
        admin.replace(config() | {"metadata": known["metadata"]})  # the API server fills in the defaults again
    except ApiError as error:
        if error.status != 409:
            raise
        return False
    return True


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
        _release(stage, str(item["metadata"]["namespace"]), name_of(item))
    stage.wait(lambda: not admin.list(CONFIG), "all OVNKubeConfigs to be gone")
    if admin.delete(MACHINE_CONFIG, OURS) or OURS in rendered_from(stage):
        stage.wait(lambda: OURS not in rendered_from(stage), "the pool without our MachineConfig")
    stage.wait(lambda: not made(stage), "everything that was made to be collected", COLLECTED_WITHIN)
    stage.lab.wait_pool()


def delete_resource(stage: Stage, namespace: str = "tenant-1") -> None:
    """One resource and what was made for it; it does not matter what its pool does."""
    _release(stage, namespace, "cluster")
    stage.wait(lambda: gone(stage, namespace), f"{namespace}/cluster to be gone")
    stage.wait(lambda: not made(stage, namespace), "what was made to be collected", COLLECTED_WITHIN)


def gone(stage: Stage, namespace: str = "tenant-1") -> bool:
    """Whether there is no resource any more."""
    return stage.lab.infra.admin.find(CONFIG, "cluster", namespace) is None


def _release(stage: Stage, namespace: str, name: str) -> None:
    """Delete a resource whose finalizer waits for nothing, or is taken away where nobody would."""
    admin = stage.lab.infra.admin
    if admin.find(CONFIG, name, namespace) is None:
        return
    patch: Object = SKIP_WAIT if stage.process.alive() else {"metadata": {"finalizers": None}}
    admin.patch(CONFIG, name, patch, namespace)
    admin.delete(CONFIG, name, namespace)


def rendered_from(stage: Stage) -> list[str]:
    """The names of the MachineConfigs in the pool's rendered one."""
    pool = stage.lab.infra.admin.get(mco.POOL, POOL)
    return [str(each["name"]) for each in (pool["spec"].get("configuration") or {}).get("source") or []]


def made(stage: Stage, namespace: str | None = None) -> list[tuple[str, str]]:
    """Kind and name of everything namespaced that the operator has made."""
    admin = stage.lab.infra.admin
    ours = "app.kubernetes.io/managed-by=dpu-network-operator"
    return [
        (kind, name_of(item))
        for kind in MADE_KINDS
        for item in admin.list(kind, namespace, labels=ours)
        if item["metadata"]["namespace"] != stage.account.namespace
    ]
