"""What the rooms hand to each other: frozen data, no behaviour beyond looking things up.

Kubernetes objects stay plain dicts (`Obj`): typed models drop fields that they do not know, and a copy must be
byte for byte. Nobody changes a dict that it was handed.
"""

import datetime as dt
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dpu_shared.steps import Disruption

Obj = dict[str, Any]

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

FIELD_MANAGER = "dpu-network-operator"
"""The field manager of every server-side apply, and the value of the managed-by label."""

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
OWNER_ANNOTATION = "dpu.openshift.io/owner"
"""On everything that we write: `<namespace>/<name>` of the OVNKubeConfig that it was written for."""
HASH_ANNOTATION = "dpu.openshift.io/content-hash"
"""On everything that we write: a hash of what we applied, so that a field which we no longer apply is noticed."""
TENANT_NODE_ANNOTATION = "dpu.openshift.io/tenant-node"
"""On an infra Node: the tenant node whose host the DPU sits in."""
FINALIZER = "dpu.openshift.io/finalizer"


@dataclass(frozen=True, slots=True)
class Kind:
    """A resource type of an API server, with the plural that its URL needs."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """The URL path of a collection, or of one object where a name is given."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        where = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{base}{where}/{self.plural}" + (f"/{name}" if name else "")


CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
SECRET = Kind("", "v1", "secrets", "Secret")
SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
SERVICE = Kind("", "v1", "services", "Service")
ENDPOINTS = Kind("", "v1", "endpoints", "Endpoints")
EVENT = Kind("", "v1", "events", "Event")
NODE = Kind("", "v1", "nodes", "Node", namespaced=False)
NAMESPACE = Kind("", "v1", "namespaces", "Namespace", namespaced=False)
DAEMON_SET = Kind("apps", "v1", "daemonsets", "DaemonSet")
ROLE = Kind("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDING = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
MACHINE_CONFIG = Kind("machineconfiguration.openshift.io", "v1", "machineconfigs", "MachineConfig", namespaced=False)
MACHINE_CONFIG_POOL = Kind(
    "machineconfiguration.openshift.io", "v1", "machineconfigpools", "MachineConfigPool", namespaced=False
)
OVN_KUBE_CONFIG = Kind("dpu.openshift.io", "v1", "ovnkubeconfigs", "OVNKubeConfig")
OPERATOR_NETWORK = Kind("operator.openshift.io", "v1", "networks", "Network", namespaced=False)
CONFIG_NETWORK = Kind("config.openshift.io", "v1", "networks", "Network", namespaced=False)
CLUSTER_VERSION = Kind("config.openshift.io", "v1", "clusterversions", "ClusterVersion", namespaced=False)
SELF_SUBJECT_ACCESS_REVIEW = Kind(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)

_KNOWN_KINDS = {
    (kind.api_version, kind.kind): kind
    for kind in (
        CONFIG_MAP,
        SECRET,
        SERVICE_ACCOUNT,
        SERVICE,
        ENDPOINTS,
        EVENT,
        NODE,
        NAMESPACE,
        DAEMON_SET,
        ROLE,
        ROLE_BINDING,
        MACHINE_CONFIG,
        MACHINE_CONFIG_POOL,
        OVN_KUBE_CONFIG,
        OPERATOR_NETWORK,
        CONFIG_NETWORK,
        CLUSTER_VERSION,
    )
}


def kind_of(obj: Obj) -> Kind:
    """The type of an object. For one that this program never asks a server for, only its identity is right."""
    api_version, kind = str(obj["apiVersion"]), str(obj["kind"])
    group, _, version = api_version.rpartition("/")
    return _KNOWN_KINDS.get((api_version, kind)) or Kind(group, version, f"{kind.lower()}s", kind)


@dataclass(frozen=True, slots=True)
class Ref:
    """The place of one object in a cluster."""

    kind: Kind
    namespace: str | None
    name: str

    def __str__(self) -> str:
        where = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind.kind} {where}{self.name}"


class Sight(enum.Enum):
    """How much is known of an object. Only ABSENT means that it is not there."""

    UNSEEN = "not looked at yet"
    PRESENT = "present"
    ABSENT = "absent, by a complete and successful list"
    FORBIDDEN = "not allowed to look (HTTP 403)"
    UNSERVED = "the API server does not serve this resource type (HTTP 404 of the collection)"


@dataclass(frozen=True, slots=True)
class Seen:
    """One object as last seen; `object` is set exactly when it is PRESENT. It stays what it was while a link is down."""

    sight: Sight = Sight.UNSEEN
    object: Obj | None = None

    @property
    def settled(self) -> bool:
        """Whether the answer is known: there, or surely not there."""
        return self.sight in (Sight.PRESENT, Sight.ABSENT)


UNSEEN = Seen()


class LinkState(enum.Enum):
    """Whether the tenant's API server answers us."""

    UNTRIED = "not tried yet"
    UP = "answers"
    DOWN = "does not answer"
    REFUSED = "answers, but refuses the credential (HTTP 401)"


@dataclass(frozen=True, slots=True)
class Link:
    """The connection to the tenant's API server. `message` holds nothing of the credential."""

    state: LinkState = LinkState.UNTRIED
    message: str = ""
    since: dt.datetime | None = None
    server: str = ""


@dataclass(frozen=True, slots=True)
class Credential:
    """What is known of a kubeconfig without using it.

    `problem` and `hint` are the two sentences of its refusal; both empty when it was accepted.
    """

    seen: Sight = Sight.UNSEEN
    problem: str = ""
    hint: str = ""
    issued: dt.datetime | None = None
    expires: dt.datetime | None = None
    what: str = ""
    """`token`, `client certificate` or `password`: what carries the identity."""

    @property
    def usable(self) -> bool:
        return self.seen is Sight.PRESENT and not self.problem


class TenantKey(enum.Enum):
    """The named tenant objects that are watched, one watch each. The value is (kind, name); see `tenant_ref`."""

    OVNKUBE_CONFIG = (CONFIG_MAP, "ovnkube-config")
    OVN_CA = (CONFIG_MAP, "ovn-ca")
    OVN_CERT = (SECRET, "ovn-cert")
    ROOT_CA = (CONFIG_MAP, "kube-root-ca.crt")
    NODE_DAEMON_SET = (DAEMON_SET, "ovnkube-node")
    DPU_HOST_DAEMON_SET = (DAEMON_SET, "ovnkube-node-dpu-host")
    MASTER_DAEMON_SET = (DAEMON_SET, "ovnkube-master")
    DB_SERVICE = (SERVICE, "ovnkube-db")
    OPERATOR_NETWORK = (OPERATOR_NETWORK, "cluster")
    CLUSTER_VERSION = (CLUSTER_VERSION, "version")

    @property
    def kind(self) -> Kind:
        return self.value[0]

    @property
    def object_name(self) -> str:
        return self.value[1]

    def ref(self, tenant_namespace: str) -> Ref:
        return Ref(self.kind, tenant_namespace if self.kind.namespaced else None, self.object_name)


@dataclass(frozen=True, slots=True)
class TenantWorld:
    """The tenant cluster as last seen. While the link is down, the last known objects stay."""

    credential: Credential = Credential()
    link: Link = Link()
    objects: Mapping[TenantKey, Seen] = field(default_factory=dict)
    nodes: tuple[Obj, ...] = ()
    nodes_sight: Sight = Sight.UNSEEN

    def seen(self, key: TenantKey) -> Seen:
        return self.objects.get(key, UNSEEN)

    def object(self, key: TenantKey) -> Obj | None:
        return self.seen(key).object


@dataclass(frozen=True, slots=True)
class InfraWorld:
    """The infra cluster, as far as one OVNKubeConfig is concerned."""

    config: Obj
    """The OVNKubeConfig itself, as the API server has it (defaults filled in)."""
    others: tuple[Obj, ...] = ()
    """All other OVNKubeConfigs of the cluster."""
    pool: Seen = UNSEEN
    node_credential: Credential = Credential()
    """Of `spec.nodeKubeConfigFile`; equal to the tenant credential where none is named."""
    env_overrides: Seen = UNSEEN
    """ConfigMap `env-overrides` of the resource's namespace."""
    nodes: tuple[Obj, ...] = ()
    """Every Node of the infra cluster; `pool.members` picks the pool's."""
    nodes_sight: Sight = Sight.UNSEEN
    rendered: Seen = UNSEEN
    """The MachineConfig that the pool's `spec.configuration.name` names."""
    live: Mapping[Ref, Obj] = field(default_factory=dict)
    """Objects that exist in the places that we write to, whoever made them."""
    live_complete: bool = False
    """Whether `live` comes from complete lists, so that a Ref that is not in it is surely absent."""
    unreadable: tuple[str, ...] = ()
    """Plurals of the kinds that we are not allowed to read in the resource's namespace."""
    infra_ovnkube: Seen = UNSEEN
    """Infra's own DaemonSet openshift-ovn-kubernetes/ovnkube-node: an image for the DPUs' architecture."""
    images: Mapping[str, str] = field(default_factory=dict)
    """RELATED_IMAGE_* of the operator's environment, without the prefix, in lower case: `agent`, `ovnkube`."""
    now: dt.datetime = EPOCH
    """When this was observed; plan has no clock of its own."""

    @property
    def namespace(self) -> str:
        return str(self.config["metadata"]["namespace"])

    @property
    def name(self) -> str:
        return str(self.config["metadata"]["name"])

    @property
    def owner(self) -> str:
        """The value of OWNER_ANNOTATION on what belongs to this resource."""
        return f"{self.namespace}/{self.name}"

    @property
    def spec(self) -> Obj:
        spec: Obj = self.config["spec"]
        return spec

    @property
    def deleting(self) -> bool:
        return bool(self.config["metadata"].get("deletionTimestamp"))


class Truth(enum.StrEnum):
    """The status of a condition, as Kubernetes spells it."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Condition:
    """One judgement, recomputed from what is observed now. `message` is shown, logged and put in an Event as it is."""

    type: str
    status: Truth
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply of one object. `drop_keys` are keys of `data` that somebody else added to a byte-for-byte copy."""

    ref: Ref
    object: Obj
    why: str
    replaces: bool = False
    """Whether an object of ours is there already; nothing else is ever replaced."""
    uid: str = ""
    """Of the object that is replaced: the API server refuses the write where another one took its place meanwhile."""
    source_version: str = ""
    """For a copy: resourceVersion of the tenant's object. A step made from an older one is not carried out."""
    drop_keys: tuple[str, ...] = ()
    recreate: bool = False
    """Whether the API server would refuse the change (a Secret's type is immutable), so that the old one goes first."""
    disruption: Disruption = Disruption.NONE


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletion of one object of ours, guarded by its uid."""

    ref: Ref
    uid: str
    why: str
    disruption: Disruption = Disruption.NONE


Step = Apply | Delete


@dataclass(frozen=True, slots=True)
class Counts:
    """What `status.dpus` shows, and what printer columns are made of."""

    total: int = 0
    mapped: int = 0
    configured: int = 0
    unwell: tuple[str, ...] = ()
    """Names of nodes that are not well, at most 20."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, and what to say when it is done. `conditions` are judged on what was observed, before the steps."""

    steps: tuple[Step, ...]
    conditions: tuple[Condition, ...]
    desired: tuple[Obj, ...] = ()
    """All that should exist, whether it must be written or not."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Short facts for the status: `topology`, `tenantVersion`, `image`."""
    counts: Counts = Counts()
    tenant_keys: tuple[TenantKey, ...] = ()
    """The tenant objects that this topology needs."""
    copies: Mapping[TenantKey, Ref] = field(default_factory=dict)
    """Tenant object → the place of its byte-for-byte copy, for those that we may write."""
    wake_at: dt.datetime | None = None
    """When time alone will change a condition (a credential's end)."""
