"""Which ovnkube image the DPUs run: the tenant's release, for the DPUs' own CPU architecture.

Never an image of another release that was not running already, and never one for another architecture. The tenant's
DaemonSet is what is followed, not the end of its upgrade: nodes come before the control plane there, and a newer node
beside an older control plane is the order that is tested.
"""

from dataclasses import dataclass

from dpu_operator.plan.objects import dig, list_at, map_at, text_at
from dpu_operator.plan.topology import VERSION_ANNOTATION, Detection
from dpu_operator.world import DAEMON_SET, InfraWorld, Obj, Ref, TenantKey, TenantWorld

DAEMON_SET_NAME = "ovnkube-node"
_OVNKUBE_CONTAINERS = ("ovnkube-controller", "ovnkube-node")
ARCH_LABEL = "kubernetes.io/arch"


@dataclass(frozen=True, slots=True)
class ImageChoice:
    """The image to run, its release, where it comes from, and one message.

    `source` is one of `spec`, `environment`, `infra`, `tenant`, `running`, or empty where there is no image. `matched`
    is false when the DPUs run, or would have to run, another release than the tenant.
    """

    image: str | None
    version: str
    source: str
    message: str
    matched: bool


def choose(infra: InfraWorld, tenant: TenantWorld, detection: Detection, members: tuple[Obj, ...]) -> ImageChoice:
    """The image for the DPUs of a pool.

    Args:
        infra: the infra cluster.
        tenant: the tenant cluster.
        detection: what the tenant runs.
        members: the pool's Nodes.

    """
    wanted = detection.version
    override = infra.spec.get("ovnKubeImage") or ""
    if override:
        return _found(override, wanted, "spec", f"The DPUs run {override}, as spec.ovnKubeImage says.")
    given = infra.images.get("ovnkube") or ""
    if given:
        return _found(given, wanted, "environment", f"The DPUs run {given}, as the operator's environment says.")
    if not wanted:
        return _kept(infra, "", "The tenant's release is not known")
    infra_version = text_at(infra.infra_ovnkube.object, "metadata", "annotations", VERSION_ANNOTATION)
    infra_image = ovnkube_image(infra.infra_ovnkube.object)
    if infra_image and infra_version == wanted:
        return _found(
            infra_image, wanted, "infra", f"The DPUs run {wanted}, the tenant's release, by infra's own image."
        )
    tenant_image = _tenant_image(tenant, wanted)
    needed = architectures(members)
    payload = _payload_architectures(tenant)
    if tenant_image and needed and payload in ({"multi"}, needed):
        return _found(
            tenant_image,
            wanted,
            "tenant",
            f"The DPUs run {wanted} by the tenant's own image, which exists for {' and '.join(sorted(needed))}.",
        )
    known = f"infra runs {infra_version}" if infra_version else "infra's own release is not known"
    for_what = f" for {' and '.join(sorted(needed))}" if needed else ""
    return _kept(infra, wanted, f"No ovnkube image of release {wanted}{for_what} is known ({known})")


def _found(image: str, version: str, source: str, message: str) -> ImageChoice:
    return ImageChoice(image, version, source, message, matched=True)


def _kept(infra: InfraWorld, wanted: str, why: str) -> ImageChoice:
    """The running image, if there is one: a DPU with the old release serves, one without does not."""
    remedy = (
        f"Bring infra to release {wanted}, or set spec.ovnKubeImage." if wanted else "Set spec.ovnKubeImage, or wait."
    )
    live = infra.live.get(Ref(DAEMON_SET, infra.namespace, DAEMON_SET_NAME))
    running = ovnkube_image(live)
    if not running:
        return ImageChoice(None, "", "", f"{why}, so no ovnkube-node can start on the DPUs. {remedy}", matched=False)
    version = text_at(live, "metadata", "annotations", VERSION_ANNOTATION)
    if wanted and version == wanted:
        message = f"The DPUs run {wanted}, the tenant's release, by the image that they have."
        return ImageChoice(running, version, "running", message, matched=True)
    message = f"{why}, so the DPUs keep running {version or 'the image that they have'}. {remedy}"
    return ImageChoice(running, version, "running", message, matched=False)


def ovnkube_image(daemon_set: Obj | None) -> str:
    """The image of ovnkube's container in a DaemonSet, or an empty string."""
    for container in list_at(daemon_set, "spec", "template", "spec", "containers"):
        if dig(container, "name") in _OVNKUBE_CONTAINERS:
            return text_at(container, "image")
    return ""


def _tenant_image(tenant: TenantWorld, version: str) -> str:
    for key in (TenantKey.DPU_HOST_DAEMON_SET, TenantKey.NODE_DAEMON_SET):
        daemon_set = tenant.object(key)
        image = ovnkube_image(daemon_set)
        if image and text_at(daemon_set, "metadata", "annotations", VERSION_ANNOTATION) == version:
            return image
    return ""


def architectures(nodes: tuple[Obj, ...]) -> set[str]:
    """The CPU architectures of these nodes, as Go names them (`arm64`)."""
    found = {
        text_at(node, "status", "nodeInfo", "architecture")
        or str(map_at(node, "metadata", "labels").get(ARCH_LABEL, ""))
        for node in nodes
    }
    return found - {""}


def _payload_architectures(tenant: TenantWorld) -> set[str]:
    """`{"multi"}` for a multi-architecture payload, else what the tenant's nodes are, since theirs is what it runs on.

    ClusterVersion says `Multi`, and says nothing else up to 4.17.
    """
    if text_at(tenant.object(TenantKey.CLUSTER_VERSION), "status", "desired", "architecture") == "Multi":
        return {"multi"}
    return architectures(tenant.nodes)
