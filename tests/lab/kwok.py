"""kwok: nodes without machines, and pods that become Ready without containers.

The scheduler, the DaemonSet controller and the API server are real; only the kubelet isn't.
"""

import json
from collections.abc import Sequence

from tests.lab import binaries, places
from tests.lab.client import ApiError, Client, Object, name_of
from tests.lab.controlplane import ControlPlane
from tests.lab.processes import Process, start
from tests.lab.waiting import eventually

HOLD = "dpu-lab.invalid/hold"
NOT_READY = "dpu-lab.invalid/not-ready"
STAGES = places.LAB / "manifests" / "kwok-stages.yaml"
OWNER_IS = "object.metadata.?ownerReferences.orValue([]).exists(o, o.name == '{}')"


def start_kwok(cluster: ControlPlane) -> Process:
    """Start kwok on a cluster; it takes care of the nodes that `node` made."""
    config = cluster.folder / "kwok.yaml"
    options = {
        "kind": "KwokConfiguration",
        "apiVersion": "config.kwok.x-k8s.io/v1alpha1",
        "options": {
            "cidr": "10.0.0.1/24",
            "manageAllNodes": False,
            "manageNodesWithAnnotationSelector": "kwok.x-k8s.io/node=fake",
            "nodeLeaseDurationSeconds": 40,
            "nodeLeaseParallelism": 4,
            "nodePlayStageParallelism": 4,
            "podPlayStageParallelism": 4,
        },
    }
    config.write_text(json.dumps(options) + "\n---\n" + STAGES.read_text())
    # --node-ip: without it pods of the host network never get an address and loop in their init containers.
    return start(
        "kwok",
        [
            binaries.path("kwok"), f"--kubeconfig={cluster.folder / 'kwok.kubeconfig'}", "-c", str(config),
            "--node-ip=127.0.0.1", f"--server-address=127.0.0.1:{cluster.ports.kwok}",
        ],
        cluster.folder,
        detach=cluster.detach,
    )  # fmt: skip


def node(name: str, address: str, labels: dict[str, str], arch: str = "arm64") -> Object:
    """A Node as its kubelet would register it, for kwok to keep alive."""
    resources = {"cpu": "8", "memory": "15870Mi", "pods": "250"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {
                "kubernetes.io/arch": arch,
                "kubernetes.io/os": "linux",
                "kubernetes.io/hostname": name,
                "node-role.kubernetes.io/worker": "",
            }
            | labels,
        },
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "capacity": resources,
            "allocatable": resources,
            "nodeInfo": {
                "architecture": arch, "operatingSystem": "linux", "kubeletVersion": "v1.33.5",
                "kubeProxyVersion": "v1.33.5", "containerRuntimeVersion": "cri-o://1.33.5",
                "kernelVersion": "5.14.0-570.el9_6.aarch64", "machineID": "", "systemUUID": "", "bootID": f"boot-{name}",
                "osImage": "Red Hat Enterprise Linux CoreOS 4.20.3",
            },
        },
    }  # fmt: skip


def dpu_node(name: str, address: str) -> Object:
    """A DPU as a worker node of the infra cluster, labelled for the pool `dpu`."""
    return node(
        name,
        address,
        {"node-role.kubernetes.io/dpu-worker": "", "network.operator.openshift.io/dpu": ""},
    )


def add_nodes(admin: Client, nodes: Sequence[Object]) -> None:
    """Create nodes; do not wait."""
    for item in nodes:
        try:
            admin.create(item)
        except ApiError as error:
            if error.status != 409:
                raise


def wait_nodes_ready(admin: Client, names: Sequence[str], timeout: float = 30) -> None:
    """Wait until every named node is Ready and the scheduler may use it."""
    wanted = set(names)
    eventually(
        lambda: wanted <= {name_of(item) for item in admin.list("v1/Node") if is_ready(item)},
        f"the nodes {', '.join(names)} to be Ready",
        timeout=timeout,
    )


def is_ready(item: Object) -> bool:
    """Whether a Node or Pod has the condition Ready=True."""
    conditions = item.get("status", {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def set_node_ready(admin: Client, name: str, *, ready: bool) -> None:
    """Let a node become NotReady, or Ready again."""
    admin.patch("v1/Node", name, {"metadata": {"annotations": {NOT_READY: None if ready else "true"}}})
    eventually(lambda: is_ready(admin.get("v1/Node", name)) == ready, f"the node {name} to follow")


def hold(admin: Client, namespace: str, owner: str) -> None:
    """Keep the pods of a DaemonSet (or ReplicaSet) unready: those that exist, and those that will be made.

    New pods get the annotation from an admission policy, because a pod made by a controller can be Ready before
    anybody else could annotate it.
    """
    name = f"dpu-lab-hold-{namespace}-{owner}"
    annotate = f'Object{{metadata: Object.metadata{{annotations: {{"{HOLD}": "true"}}}}}}'
    version = _policy_version(admin)
    policy = {
        "apiVersion": version,
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name, "annotations": {f"{HOLD}-namespace": namespace, f"{HOLD}-owner": owner}},
        "spec": {
            "reinvocationPolicy": "Never",
            "failurePolicy": "Fail",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                ],
            },
            "matchConditions": [{"name": "owner", "expression": OWNER_IS.format(owner)}],
            "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": annotate}}],
        },
    }
    binding = {
        "apiVersion": version,
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name},
    }
    admin.apply(policy)
    admin.apply(binding)
    eventually(lambda: _would_hold(admin, namespace, owner), f"new pods of {namespace}/{owner} to be held")
    for pod in _pods(admin, namespace, owner):
        admin.patch("v1/Pod", name_of(pod), {"metadata": {"annotations": {HOLD: "true"}}}, namespace)


def release(admin: Client, namespace: str, owner: str) -> None:
    """Undo `hold`."""
    name = f"dpu-lab-hold-{namespace}-{owner}"
    version = _policy_version(admin)
    admin.delete(f"{version}/MutatingAdmissionPolicyBinding", name)
    admin.delete(f"{version}/MutatingAdmissionPolicy", name)
    eventually(lambda: not _would_hold(admin, namespace, owner), f"new pods of {namespace}/{owner} to be let go")
    for pod in _pods(admin, namespace, owner):
        admin.patch("v1/Pod", name_of(pod), {"metadata": {"annotations": {HOLD: None}}}, namespace)


def held(admin: Client) -> list[tuple[str, str]]:
    """Namespace and owner of what is held now."""
    try:
        policies = admin.list(f"{_policy_version(admin)}/MutatingAdmissionPolicy")
    except ApiError:
        return []  # a prebuilt API server that is too old to hold anything
    notes = [item["metadata"].get("annotations") or {} for item in policies]
    return [(note[f"{HOLD}-namespace"], note[f"{HOLD}-owner"]) for note in notes if f"{HOLD}-owner" in note]


def _pods(admin: Client, namespace: str, owner: str) -> list[Object]:
    return [
        pod
        for pod in admin.list("v1/Pod", namespace)
        if any(reference["name"] == owner for reference in pod["metadata"].get("ownerReferences") or [])
    ]


def _policy_version(admin: Client) -> str:
    group = admin.request("GET", "/apis/admissionregistration.k8s.io")
    for version in ("v1", "v1beta1"):
        if any(each["version"] == version for each in group["versions"]):
            try:
                admin.resource(f"admissionregistration.k8s.io/{version}/MutatingAdmissionPolicy")
            except ApiError:
                continue
            return f"admissionregistration.k8s.io/{version}"
    raise ApiError(404, "NotFound", "the server has no MutatingAdmissionPolicy; holding pods needs Kubernetes 1.34")


def _would_hold(admin: Client, namespace: str, owner: str) -> bool:
    """Whether a pod made now would be held: asked by a dry run."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": "dpu-lab-probe-",
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": "00000000-0000-0000-0000-000000000000"}
            ],
        },
        "spec": {"containers": [{"name": "probe", "image": "probe"}]},
    }
    answer = admin.request("POST", admin.resource("v1/Pod").path(namespace), pod, query="dryRun=All")
    return HOLD in (answer["metadata"].get("annotations") or {})
