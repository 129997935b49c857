"""The account that the operator has in a tenant cluster, and the ways in which it can go bad."""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from tests.lab import places, yamlfiles
from tests.lab.client import Client
from tests.lab.controlplane import ControlPlane
from tests.lab.kubeconfig import Access

NAMESPACE = "dpu-operator"
NAME = "dpu-operator-tenant"
RBAC = places.TENANTS / "operator-rbac.yaml"
DAY = 86400


@dataclass(frozen=True)
class TenantCredentials:
    """Makes and breaks the operator's access to one tenant."""

    tenant: ControlPlane
    rbac: Path = RBAC

    @property
    def token_user(self) -> str:
        """The user name behind `kubeconfig`, as the audit log has it."""
        return f"system:serviceaccount:{NAMESPACE}:{NAME}"

    @property
    def certificate_user(self) -> str:
        """The user name behind `certificate_kubeconfig`."""
        return NAME

    def install(self) -> None:
        """The ServiceAccount, and exactly the rights that the operator needs (`tenants/operator-rbac.yaml`)."""
        for item in yamlfiles.documents(self.rbac):
            self.tenant.admin.apply(item)

    def access(self, *, seconds: int = DAY, server: str | None = None) -> Access:
        """A fresh token of the ServiceAccount, through the tenant's proxy."""
        token = mint(self.tenant.admin, NAMESPACE, NAME, seconds)
        return Access(server or self.tenant.url, self.tenant.authority.cert, token=token)

    def kubeconfig(self, *, seconds: int = DAY, server: str | None = None) -> str:
        """The kubeconfig that belongs into the operator's Secret: token, proxy address, CA embedded."""
        return self.access(seconds=seconds, server=server).kubeconfig(NAME, "tenant")

    def certificate_kubeconfig(self, *, seconds: float) -> str:
        """The same rights by a client certificate that ends in so many seconds (a token lives at least 10 minutes)."""
        pair = self.tenant.authority.client(NAME, (), dt.timedelta(seconds=seconds))
        return Access(self.tenant.url, self.tenant.authority.cert, pair).kubeconfig(NAME, "tenant")

    def kubeconfig_for_swapped_ca(self) -> str:
        """The same account, trusting the authority that serves after `swap_ca`."""
        access = self.access()
        return Access(access.server, self.tenant.other_authority.cert, token=access.token).kubeconfig(NAME, "tenant")

    def revoke(self) -> None:
        """Delete the ServiceAccount: its tokens are refused (401), at the latest 10 s from now.

        An API server remembers for 10 s that a token was good; that is so on every cluster.
        """
        self.tenant.admin.delete("v1/ServiceAccount", NAME, NAMESPACE)

    def restore(self) -> str:
        """The account again, under the same name; a new kubeconfig, for the old tokens stay dead."""
        self.install()
        return self.kubeconfig()

    def swap_ca(self) -> None:
        """Restart the API server with a certificate from an authority that no kubeconfig trusts."""
        self.tenant.restart_api("other-server")

    def swap_ca_back(self) -> None:
        """Restart it with its own certificate."""
        self.tenant.restart_api("server")


def mint(admin: Client, namespace: str, name: str, seconds: int = DAY) -> str:
    """A ServiceAccount token, by TokenRequest."""
    path = admin.resource("v1/ServiceAccount").path(namespace, name, "token")
    wanted = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": seconds},
    }
    token: str = admin.request("POST", path, wanted)["status"]["token"]
    return token
