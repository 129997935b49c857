"""The operator's own way into the cluster that it runs in."""

import os
from dataclasses import replace
from pathlib import Path

from dpu_operator.kube import addresses, certificates
from dpu_operator.kube.access import Access
from dpu_operator.kube.vetting import judged
from dpu_shared.errors import UserError

SERVICE_ACCOUNT_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def own_access(kubeconfig_path: str | None, *, folder: Path = SERVICE_ACCOUNT_FOLDER) -> Access:
    """Access to the operator's own cluster: by a kubeconfig file, which is trusted, or by the pod's ServiceAccount.

    A trusted kubeconfig may name files and use link-local addresses; `exec` and the like are refused all the same.

    Args:
        kubeconfig_path: the file, or None for the ServiceAccount of the pod that we run in.
        folder: where the ServiceAccount's token and CA are mounted.

    Raises:
        UserError: there is no such file or no ServiceAccount, or it cannot be used.

    """
    try:
        return _in_cluster(folder) if kubeconfig_path is None else _from_file(Path(kubeconfig_path))
    except OSError as error:
        # the path is the administrator's own; the reason is the system's
        failure = UserError(
            f"A file of the cluster's credential cannot be read: {error.strerror or 'unknown reason'}.",
            "Give the path of a readable kubeconfig, and check the files that it names.",
        )
    raise failure


def _from_file(path: Path) -> Access:
    access = judged(path.read_bytes(), trusted_folder=path.absolute().parent)
    if access.token_file:
        token = certificates.checked_token(Path(access.token_file).read_text(encoding="utf-8").strip())
        life = certificates.token_life(token)
        return replace(access, issued=life.issued, expires=life.expires)
    return access


def _in_cluster(folder: Path) -> Access:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        raise UserError(
            "The operator does not run in a cluster, and no kubeconfig was given.",
            "Give a kubeconfig, or run the operator in a pod.",
        )
    ca = (folder / "ca.crt").read_bytes()
    bracketed = f"[{host}]" if ":" in host else host
    return Access(
        server=addresses.server_url(f"https://{bracketed}:{port}", trusted=True),
        ca_pem=certificates.ca_bundle(ca),
        token_file=str(folder / "token"),
        trusted=True,
    )
