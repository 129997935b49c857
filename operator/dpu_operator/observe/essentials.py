"""What of the clusters' objects is looked at, whether they come from a watch or from a file."""

from dpu_operator.plan.objects import list_at, map_at
from dpu_operator.world import CONFIG_MAP, DAEMON_SET, ROLE_BINDING, SECRET, SERVICE_ACCOUNT, Obj, TenantKey

INFRA_OVN_NAMESPACE = "openshift-ovn-kubernetes"
WRITTEN_KINDS = (CONFIG_MAP, SECRET, SERVICE_ACCOUNT, ROLE_BINDING, DAEMON_SET)
"""The namespaced kinds that plan may write; all of them are watched whole, since a foreign object can bear our name."""


def infra_node(node: Obj) -> Obj:
    """An infra Node without its image list and what the kubelet's heartbeat moves: they are no news to anybody."""
    meta, status = node["metadata"], map_at(node, "status")
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {k: v for k, v in meta.items() if k != "managedFields"},
        "spec": {k: v for k, v in map_at(node, "spec").items() if k in ("unschedulable", "taints")},
        "status": {
            "addresses": list_at(status, "addresses"),
            "conditions": [_steady(condition) for condition in list_at(status, "conditions")],
            "nodeInfo": map_at(status, "nodeInfo"),
        },
    }


def _steady(condition: Obj) -> Obj:
    return {k: v for k, v in condition.items() if k != "lastHeartbeatTime"}


ALWAYS = (
    TenantKey.OVNKUBE_CONFIG,
    TenantKey.ROOT_CA,
    TenantKey.NODE_DAEMON_SET,
    TenantKey.DPU_HOST_DAEMON_SET,
    TenantKey.OPERATOR_NETWORK,
    TenantKey.CLUSTER_VERSION,
)
"""What tells the topology and is needed in each."""

_NODE_ANNOTATIONS = ("k8s.ovn.org/", "dpu.openshift.io/")


def tenant_node(node: Obj) -> Obj:
    """A tenant Node without what grows: images, volumes and the annotations of others."""
    meta = node["metadata"]
    annotations = {k: v for k, v in map_at(meta, "annotations").items() if k.startswith(_NODE_ANNOTATIONS)}
    kept = ("name", "uid", "labels", "creationTimestamp", "resourceVersion")
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {**{k: meta[k] for k in kept if k in meta}, "annotations": annotations},
        "status": {"addresses": list_at(node, "status", "addresses")},
    }
