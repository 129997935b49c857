"""All objects that should exist in the resource's namespace, in the order in which they are applied."""

from dataclasses import dataclass

from dpu_operator.plan.image import DAEMON_SET_NAME, ImageChoice
from dpu_operator.plan.mapping import NodeMapping
from dpu_operator.plan.mirrors import keep_mirrors, mirror_objects, mirror_ref
from dpu_operator.plan.nodevars import node_env, node_env_ref
from dpu_operator.plan.objects import Problem, content_hash, dig, list_at, map_at, name_of, text_at
from dpu_operator.plan.ovnkube import DPU_CONF, SCRIPTS, daemon_set, db_addresses, dpu_conf_map, scripts_map
from dpu_operator.plan.rbac import ROLE_BINDING_NAME, SERVICE_ACCOUNT_NAME, role_binding, service_account
from dpu_operator.plan.settings import DEFAULT_BRIDGE, DpuSettings, dpu_conf
from dpu_operator.plan.topology import Detection, Topology
from dpu_operator.world import (
    CONFIG_MAP,
    DAEMON_SET,
    ROLE_BINDING,
    SERVICE_ACCOUNT,
    InfraWorld,
    Obj,
    Ref,
    Sight,
    TenantKey,
    TenantWorld,
)
from dpu_shared.errors import UserError

DPU_LABEL = "network.operator.openshift.io/dpu"
"""On an infra Node: infra's own network operator keeps its ovnkube-node away from it."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What should exist.

    `objects` are in the order of their application, the DaemonSet last. `keep` are places of ours whose right content
    is not known now: what is there must stay as it is. `problems` are why something is kept, missing or not in use.
    `omitted` are settings of the tenant that a DPU can't take; they are no problem.
    """

    objects: tuple[Obj, ...] = ()
    problems: tuple[Problem, ...] = ()
    keep: frozenset[Ref] = frozenset()
    omitted: tuple[str, ...] = ()


def places(namespace: str) -> frozenset[Ref]:
    """Every place in the namespace where an object of ours may be, whatever the topology."""
    mirrors = (TenantKey.OVNKUBE_CONFIG, TenantKey.ROOT_CA, TenantKey.OVN_CA, TenantKey.OVN_CERT)
    return frozenset(mirror_ref(key, namespace) for key in mirrors) | {
        Ref(SERVICE_ACCOUNT, namespace, SERVICE_ACCOUNT_NAME),
        Ref(ROLE_BINDING, namespace, ROLE_BINDING_NAME),
        Ref(CONFIG_MAP, namespace, DPU_CONF),
        Ref(CONFIG_MAP, namespace, SCRIPTS),
        node_env_ref(namespace),
        Ref(DAEMON_SET, namespace, DAEMON_SET_NAME),
    }


def desired_objects(  # noqa: PLR0917 - the five answers of the other modules
    infra: InfraWorld,
    tenant: TenantWorld,
    detection: Detection,
    mapping: NodeMapping,
    members: tuple[Obj, ...],
    image: ImageChoice,
) -> Desired:
    """What should exist for a tenant.

    Args:
        infra: the infra cluster.
        tenant: the tenant cluster.
        detection: what the tenant runs; while it is unknown or unsupported, everything stays as it is.
        mapping: the tenant node of each DPU.
        members: the pool's Nodes.
        image: what to run.

    """
    if detection.topology is None or not detection.supported:
        return Desired(keep=places(infra.namespace), problems=(Problem(detection.reason, detection.message),))
    topology = detection.topology
    copies, problems = mirror_objects(infra, tenant, topology)
    keep = set(keep_mirrors(infra.namespace, tenant, topology))
    objects = [service_account(infra), role_binding(infra), *copies]

    settings = _settings(infra, tenant, detection, topology)
    if isinstance(settings, DpuSettings):
        objects.append(dpu_conf_map(infra, settings))
    else:
        keep.add(Ref(CONFIG_MAP, infra.namespace, DPU_CONF))
        problems += [settings] if settings else []
    objects.append(scripts_map(infra))

    if mapping.unknown:
        keep.add(node_env_ref(infra.namespace))
    else:
        variables, refused = node_env(infra, mapping)
        objects.append(variables)
        problems += refused

    operand = _operand(infra, tenant, topology=topology, settings=settings, image=image, objects=objects)
    if isinstance(operand, Problem):
        keep.add(Ref(DAEMON_SET, infra.namespace, DAEMON_SET_NAME))
        problems += [operand] if operand not in problems else []
    else:
        objects.append(operand)
    problems += _unlabelled(infra, members)
    omitted = settings.omitted if isinstance(settings, DpuSettings) else ()
    return Desired(tuple(objects), tuple(problems), frozenset(keep), omitted)


def _settings(
    infra: InfraWorld, tenant: TenantWorld, detection: Detection, topology: Topology
) -> DpuSettings | Problem | None:
    """The settings; None where the tenant's ovnkube.conf is not there to derive them from, which `mirrors` has said."""
    text = dig(tenant.object(TenantKey.OVNKUBE_CONFIG), "data", "ovnkube.conf")
    if not isinstance(text, str):
        return None
    annotations = map_at(tenant.object(TenantKey.NODE_DAEMON_SET), "metadata", "annotations")
    try:
        return dpu_conf(
            text,
            topology=topology,
            version=detection.version,
            operator_network=tenant.object(TenantKey.OPERATOR_NETWORK),
            daemonset_annotations=annotations,
            bridge=text_at(infra.spec, "hostConfig", "bridge") or DEFAULT_BRIDGE,
            node_env=_plain_env(
                tenant.object(TenantKey.DPU_HOST_DAEMON_SET) or tenant.object(TenantKey.NODE_DAEMON_SET)
            ),
        )
    except UserError as error:
        return Problem("TenantSettingsMalformed", str(error))


def _plain_env(daemon_set: Obj | None) -> dict[str, str]:
    """The variables with a plain value of ovnkube's container in a tenant's DaemonSet."""
    found: dict[str, str] = {}
    for container in list_at(daemon_set, "spec", "template", "spec", "containers"):
        if dig(container, "name") in ("ovnkube-controller", "ovnkube-node"):
            for variable in list_at(container, "env"):
                if text_at(variable, "name") and text_at(variable, "value"):
                    found[variable["name"]] = variable["value"]
    return found


def _operand(
    infra: InfraWorld,
    tenant: TenantWorld,
    *,
    topology: Topology,
    settings: DpuSettings | Problem | None,
    image: ImageChoice,
    objects: list[Obj],
) -> Obj | Problem:
    """The DaemonSet, only where everything that its pods mount and need is known."""
    made = {(obj["kind"], name_of(obj)): obj for obj in objects}
    inputs = _inputs(topology)
    absent = [name for kind, name in inputs.values() if (kind, name) not in made]
    if isinstance(settings, Problem):
        return settings
    if settings is None or absent:
        return Problem(
            "TenantObjectsIncomplete",
            f"DaemonSet ovnkube-node is left as it is, because {', '.join(absent)} can't be written now. "
            "Look at the condition TenantObjectsSynced.",
        )
    if infra.node_credential.problem:
        # Pods that mount a Secret which is not there, or can't be used, would take the place of pods that work.
        return Problem(
            "NodeKubeconfigUnusable",
            f"{infra.node_credential.problem} {infra.node_credential.hint}".strip(),
        )
    if image.image is None:
        return Problem("NoImage", image.message)
    selector = dig(infra.pool.object, "spec", "nodeSelector")
    if not isinstance(selector, dict):
        return Problem(
            "PoolNotUsable",
            "The pool's nodeSelector is not known, so ovnkube-node can't be placed. "
            "Check that the MachineConfigPool of spec.poolName exists and has a spec.nodeSelector.",
        )
    addresses: tuple[str, ...] = ()
    if topology is not Topology.INTERCONNECT:
        addresses = db_addresses(tenant)
        if tenant.nodes_sight is not Sight.PRESENT or not addresses:
            return Problem(
                "NoDatabaseAddresses",
                "The addresses of the tenant's OVN databases are not known, since none of its masters can be read. "
                "Grant get, list and watch on the tenant's nodes.",
            )
    hashes = {key: content_hash(made[place].get("data")) for key, place in inputs.items()}
    try:
        return daemon_set(
            infra,
            topology=topology,
            image=image,
            pool_selector=selector,
            settings=settings,
            hashes=hashes,
            db_addresses=addresses,
        )
    except UserError as error:
        return Problem("PoolNotUsable", str(error))


def _inputs(topology: Topology) -> dict[str, tuple[str, str]]:
    """The objects whose change must roll the pods.

    Not among them: `ovn-cert`, renewed every few months (or every two hours, with ShortCertRotation), which OVN reads
    again by itself; the kubeconfig and the DPUs' variables, which the start scripts watch.
    """
    inputs = {
        "conf": ("ConfigMap", DPU_CONF),
        "scripts": ("ConfigMap", SCRIPTS),
        "tenant-ca": ("ConfigMap", "tenant-cluster-ca.crt"),
    }
    if topology is not Topology.INTERCONNECT:
        inputs["ovn-ca"] = ("ConfigMap", "ovn-ca")
    return inputs


def _unlabelled(infra: InfraWorld, members: tuple[Obj, ...]) -> list[Problem]:
    """DPUs on which infra's own ovnkube-node runs too: both would own the same bridge, sockets and databases."""
    if infra.infra_ovnkube.object is None:
        return []
    names = sorted(name_of(node) for node in members if DPU_LABEL not in map_at(node, "metadata", "labels"))
    if not names:
        return []
    return [
        Problem(
            "DpuLabelMissing",
            f"Infra's own ovnkube-node runs beside ours on nodes without the label {DPU_LABEL}: {', '.join(names[:20])}. "
            f"Label them: kubectl label node {names[0]} {DPU_LABEL}=.",
        )
    ]
