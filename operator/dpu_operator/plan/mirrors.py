"""The tenant objects that the DPUs need, copied byte for byte.

The Secret `ovn-ca` is never among them: it holds the key of the CA that signs every OVN certificate of the tenant.
"""

from dpu_operator.plan.objects import Problem, map_at, owner_meta, stamp, text_at
from dpu_operator.plan.topology import Topology, sight_problem
from dpu_operator.world import SECRET, InfraWorld, Obj, Ref, Sight, TenantKey, TenantWorld

SOURCE_ANNOTATION = "dpu.openshift.io/copied-from"
"""On a copy: `<namespace>/<name>` of the tenant object."""

_ALWAYS = (TenantKey.OVNKUBE_CONFIG, TenantKey.ROOT_CA)
_DATABASE_CLIENTS = (TenantKey.OVN_CA, TenantKey.OVN_CERT)
"""What the ovnkube-node of a central OVN shows and checks when it calls the databases on the masters."""

REQUIRED = {
    Topology.CENTRAL: _ALWAYS + _DATABASE_CLIENTS,
    Topology.SINGLE_ZONE: _ALWAYS + _DATABASE_CLIENTS,
    Topology.INTERCONNECT: _ALWAYS,
}

_COPY_NAMES = {TenantKey.ROOT_CA: "tenant-cluster-ca.crt"}
"""Every namespace has a ConfigMap kube-root-ca.crt of its own cluster, so the tenant's goes by another name."""


def required(topology: Topology) -> tuple[TenantKey, ...]:
    """The tenant objects that this topology needs in infra."""
    return REQUIRED[topology]


def mirror_ref(key: TenantKey, namespace: str) -> Ref:
    """Where the copy of this tenant object is."""
    return Ref(key.kind, namespace, _COPY_NAMES.get(key, key.object_name))


def mirror_one(key: TenantKey, tenant_obj: Obj, namespace: str, owner_meta: Obj) -> Obj:
    """The copy of one tenant object, for a direct apply when only that object has changed.

    Args:
        key: which object it is.
        tenant_obj: as the tenant's API server has it; it must be well-formed (`malformed` is empty).
        namespace: of the OVNKubeConfig.
        owner_meta: `objects.owner_meta` of the OVNKubeConfig.

    """
    source = f"{text_at(tenant_obj, 'metadata', 'namespace')}/{key.object_name}"
    copy: Obj = {
        "apiVersion": key.kind.api_version,
        "kind": key.kind.kind,
        "metadata": {
            **owner_meta,
            "name": _COPY_NAMES.get(key, key.object_name),
            "namespace": namespace,
            "annotations": {**owner_meta.get("annotations", {}), SOURCE_ANNOTATION: source},
        },
    }
    # Empty maps are left out: the API server drops them, and then they would seem to be missing for ever.
    copy |= {field: tenant_obj[field] for field in ("data", "binaryData") if tenant_obj.get(field)}
    if key.kind == SECRET:
        copy["type"] = tenant_obj.get("type") or "Opaque"
    return stamp(copy)


def malformed(key: TenantKey, tenant_obj: Obj) -> str:
    """What is wrong with the shape of a tenant object, in a few words; empty where it can be copied."""
    for field in ("data", "binaryData"):
        content = tenant_obj.get(field)
        if content is None:
            continue
        if not isinstance(content, dict) or not all(
            isinstance(k, str) and isinstance(v, str) for k, v in content.items()
        ):
            return f"its {field} is not a map of strings"
    absent = [name for name in _EXPECTED.get(key, ()) if name not in map_at(tenant_obj, "data")]
    return f"it has no {absent[0]}" if absent else ""


_EXPECTED = {
    TenantKey.OVNKUBE_CONFIG: ("ovnkube.conf",),
    TenantKey.ROOT_CA: ("ca.crt",),
    TenantKey.OVN_CA: ("ca-bundle.crt",),
    TenantKey.OVN_CERT: ("tls.crt", "tls.key"),
}
"""The keys that the pods on the DPUs read."""


def mirror_problem(key: TenantKey, tenant: TenantWorld) -> Problem | None:
    """Why this tenant object can't be copied, or None where it can."""
    seen = tenant.seen(key)
    problem = sight_problem(key, seen.sight)
    if problem is not None:
        return problem
    what = f"{key.kind.kind} {key.object_name}"
    if seen.sight is Sight.ABSENT or seen.object is None:
        return Problem(
            "TenantObjectMissing",
            f"{what} does not exist in the tenant, and the DPUs need it. "
            "Let the tenant's network operator create it again, or check spec.tenantNamespace.",
        )
    wrong = malformed(key, seen.object)
    if wrong:
        return Problem(
            "TenantObjectMalformed",
            f"{what} of the tenant can't be used: {wrong}. Let the tenant's network operator write it anew.",
        )
    return None


def mirror_objects(infra: InfraWorld, tenant: TenantWorld, topology: Topology) -> tuple[list[Obj], list[Problem]]:
    """The copies that should exist, and why others can't."""
    marks = owner_meta(infra)
    copies: list[Obj] = []
    problems: list[Problem] = []
    for key in required(topology):
        problem = mirror_problem(key, tenant)
        source = tenant.object(key)
        if problem is not None:
            problems.append(problem)
        elif source is not None:
            copies.append(mirror_one(key, source, infra.namespace, marks))
    return copies, problems


def keep_mirrors(namespace: str, tenant: TenantWorld, topology: Topology) -> frozenset[Ref]:
    """Copies that must stay as they are: whether the tenant still has the original, or a usable one, is not known.

    Only a complete, successful list that lacks the object makes its copy needless.
    """
    return frozenset(
        mirror_ref(key, namespace)
        for key in required(topology)
        if tenant.seen(key).sight is not Sight.ABSENT and mirror_problem(key, tenant) is not None
    )
