"""The account of the pods on the DPUs in infra. It has no rights there but to run privileged."""

from dpu_operator.plan.objects import manifest, meta, stamp
from dpu_operator.world import InfraWorld, Obj

SERVICE_ACCOUNT_NAME = "ovn-kubernetes-node"
ROLE_BINDING_NAME = "ovn-kubernetes-node-privileged"
CLUSTER_ROLE_NAME = "dpu-network-operator-ovnkube-node"
"""Installed with the operator: `use` of the SecurityContextConstraints `privileged`. The operator may only bind it."""


def service_account(infra: InfraWorld) -> Obj:
    """The ServiceAccount of the DaemonSet's pods."""
    account = manifest("service-account")
    account["metadata"] = meta(infra, SERVICE_ACCOUNT_NAME)
    return stamp(account)


def role_binding(infra: InfraWorld) -> Obj:
    """What lets that account run privileged pods in this namespace."""
    binding = manifest("role-binding")
    binding["metadata"] = meta(infra, ROLE_BINDING_NAME)
    binding["roleRef"]["name"] = CLUSTER_ROLE_NAME
    binding["subjects"][0] |= {"name": SERVICE_ACCOUNT_NAME, "namespace": infra.namespace}
    return stamp(binding)
