"""The variables of each DPU: ConfigMap `ovnkube-node-env`, one key for each DPU's node name.

It is mounted as /env. Its content is no part of the pod template's hashes, or a change of one DPU's variables would roll
all pods: instead the start scripts watch the lines that they use of their own DPU's key (the kubelet refreshes the
volume within about a minute) and end when these change, so that only that DPU's containers start again.
"""

import ipaddress
import re
import shlex
from collections.abc import Callable, Mapping

from dpu_operator.plan.mapping import ENV_OVERRIDES, TENANT_NODE_VARIABLE, NodeMapping, override_variables
from dpu_operator.plan.objects import Problem, map_at, meta, stamp
from dpu_operator.world import CONFIG_MAP, InfraWorld, Obj, Ref

NODE_ENV = "ovnkube-node-env"


def _ipv4(value: str) -> bool:
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        return False
    return True


def _ipv4_network(value: str) -> bool:
    try:
        ipaddress.IPv4Network(value, strict=False)
    except ValueError:
        return False
    return "/" in value


def _matches(pattern: str) -> Callable[[str], bool]:
    # fullmatch and [0-9]: `$` and \d would let a line feed or another script's digit through to a shell.
    return re.compile(pattern).fullmatch  # type: ignore[return-value]


PERMITTED: Mapping[str, tuple[Callable[[str], bool], str]] = {
    "OVN_KUBE_LOG_LEVEL": (_matches(r"[0-9]{1,2}"), "a number up to 99"),
    "OVN_LOG_LEVEL": (_matches(r"off|emer|err|warn|info|dbg"), "off, emer, err, warn, info or dbg"),
    "NODE_IP": (_ipv4, "an IPv4 address"),
    "MGMT_IFNAME": (_matches(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}"), "the name of a network interface"),
    "GATEWAY_NEXTHOP": (_ipv4, "an IPv4 address"),
    "GATEWAY_VLANID": (
        lambda value: bool(re.fullmatch(r"[0-9]{1,4}", value)) and int(value) <= 4094,
        "a VLAN number up to 4094",
    ),
    "GATEWAY_ROUTER_SUBNET": (_ipv4_network, "an IPv4 subnet such as 192.0.2.0/24"),
}
"""Variables that env-overrides may set for a DPU, what each must be, and that in words."""


def node_env_ref(namespace: str) -> Ref:
    """Where the generated variables are."""
    return Ref(CONFIG_MAP, namespace, NODE_ENV)


def node_env(infra: InfraWorld, mapping: NodeMapping) -> tuple[Obj, list[Problem]]:
    """The ConfigMap of variables for every DPU that has a tenant node, and what of env-overrides was refused."""
    overrides = infra.env_overrides.object
    data: dict[str, str] = {}
    problems: list[Problem] = []
    for dpu, mapped in sorted(mapping.entries.items()):
        variables, refused = _permitted(dpu, overrides)
        problems += refused
        variables[TENANT_NODE_VARIABLE] = mapped.tenant_node
        data[dpu] = "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(variables.items()))
    config_map: Obj = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(infra, NODE_ENV)}
    if data:
        config_map["data"] = data
    return stamp(config_map), problems


def _permitted(dpu: str, overrides: Obj | None) -> tuple[dict[str, str], list[Problem]]:
    good: dict[str, str] = {}
    problems: list[Problem] = []
    for name, value in override_variables(overrides, dpu).items():
        if name == TENANT_NODE_VARIABLE:
            continue
        if name not in PERMITTED:
            problems.append(
                Problem(
                    "NodeVariableUnknown",
                    f"ConfigMap {ENV_OVERRIDES} sets {name[:40]} for {dpu}, which has no meaning on a DPU. "
                    f"Remove it, or use one of {', '.join(PERMITTED)}.",
                )
            )
            continue
        fits, what = PERMITTED[name]
        if fits(value):
            good[name] = value
        else:
            problems.append(
                Problem(
                    "NodeVariableRefused",
                    f"ConfigMap {ENV_OVERRIDES} sets {name} for {dpu} to something that is not {what}. "
                    "Correct it; until then the DPU runs without it.",
                )
            )
    return good, problems


def tenant_nodes(config_map: Obj | None) -> dict[str, str]:
    """The tenant node that each DPU was last told, read back from the ConfigMap that we wrote."""
    found: dict[str, str] = {}
    for dpu, text in map_at(config_map, "data").items():
        for line in text.splitlines() if isinstance(text, str) else ():
            name, _, value = line.partition("=")
            if name == TENANT_NODE_VARIABLE:
                found[dpu] = value.strip("'")
    return found
