"""Judging a tenant's kubeconfig before any connection: it is untrusted input.

Whoever may write the Secret decides what the operator, with its place in the infra cluster's network, connects to.
So nothing in the file may start a program, read a file of ours, or lead to what only we can reach: link-local and
metadata addresses. A *server* on loopback is allowed, since it must prove itself by TLS; a proxy on loopback is not.
"""

import hashlib
import ssl
from dataclasses import replace
from pathlib import Path

from dpu_operator.kube import addresses, certificates, kubeconfig
from dpu_operator.kube.access import Access
from dpu_operator.kube.tls import tls_context
from dpu_shared.errors import UserError

__all__ = ["Access", "judged", "vet"]

_FLATTEN = "Embed the content, for example with kubectl config view --raw --flatten."
_OWN_ACCOUNT = "Use a token or a client certificate of an account that was made for this operator."
_UNREADABLE = UserError(
    "The kubeconfig cannot be read.", "Write the file anew, for example with kubectl config view --raw --flatten."
)


def vet(text: bytes | str) -> Access:
    """What a tenant's kubeconfig gives access to. An expired credential is accepted; `Access.expires` tells.

    Raises:
        UserError: it is broken or it asks for something that we do not do for a tenant. Nothing of its content is in
            the exception, nor in a cause or context of it.

    """
    outcome = _outcome(text)
    del text  # a traceback that shows local variables must not show this one
    if isinstance(outcome, Access):
        return outcome
    raise UserError(*outcome)


def _outcome(text: bytes | str) -> Access | tuple[str, str]:
    """The access or the two sentences of its refusal. The exceptions of parsers quote the input; they end here."""
    try:
        raw = text.encode("utf-8") if isinstance(text, str) else bytes(text)
        return judged(raw)
    except UserError as refusal:
        return refusal.message, refusal.hint
    except Exception:  # noqa: BLE001 - a parser's surprise is a refusal, and its text is not ours to show
        return _UNREADABLE.message, _UNREADABLE.hint


def judged(raw: bytes, *, trusted_folder: Path | None = None) -> Access:
    """Like `vet`, but exceptions may hold content. With a trusted folder, paths are read relative to it.

    Raises:
        UserError: the kubeconfig is refused.
        OSError: a file that a trusted kubeconfig names cannot be read.

    """
    cluster, user = kubeconfig.selected(kubeconfig.read_document(raw))
    _refuse_cluster(cluster)
    _refuse_user(user)
    trusted = trusted_folder is not None
    access = Access(
        server=addresses.server_url(kubeconfig.text_of(cluster, "server"), trusted=trusted),
        ca_pem=_ca(cluster, trusted_folder),
        tls_server_name=_tls_server_name(cluster),
        proxy_url=addresses.proxy_url(kubeconfig.text_of(cluster, "proxy-url"), trusted=trusted),
        fingerprint=hashlib.sha256(raw).hexdigest(),
        trusted=trusted,
    )
    return _proved(_with_identity(access, user, trusted_folder))


def _refuse_cluster(cluster: kubeconfig.Mapping) -> None:
    if cluster.get("insecure-skip-tls-verify") not in (None, False):
        raise UserError(
            "The kubeconfig turns the check of the server's certificate off (insecure-skip-tls-verify).",
            "Remove that line and give the CA in certificate-authority-data.",
        )


def _refuse_user(user: kubeconfig.Mapping) -> None:
    if user.get("exec") is not None:
        raise UserError(
            "The kubeconfig starts a program to get its credential (exec), and nothing from a tenant is run here.",
            _OWN_ACCOUNT,
        )
    if user.get("auth-provider") is not None:
        raise UserError("The kubeconfig uses an auth-provider, which is not supported.", _OWN_ACCOUNT)
    if any(user.get(field) not in (None, "", [], {}) for field in ("as", "as-uid", "as-groups", "as-user-extra")):
        raise UserError(
            "The kubeconfig acts as somebody else (impersonation).", "Use the credential of the account itself."
        )
    if any(user.get(field) not in (None, "") for field in ("username", "password")):
        raise UserError(
            "The kubeconfig uses a user name and a password, which Kubernetes no longer supports.", _OWN_ACCOUNT
        )


def _embedded(mapping: kubeconfig.Mapping, field: str, trusted_folder: Path | None) -> bytes:
    """The bytes of a `…-data` field, or of the file that its sibling names if the kubeconfig is trusted."""
    path = kubeconfig.text_of(mapping, field)
    data = kubeconfig.text_of(mapping, f"{field}-data")
    if path and trusted_folder is None:
        raise UserError(f"The kubeconfig names a file ({field}), and no file is read for a tenant.", _FLATTEN)
    if data:
        return certificates.decoded(data, field=f"{field}-data")
    return (trusted_folder / path).read_bytes() if path and trusted_folder else b""


def _ca(cluster: kubeconfig.Mapping, trusted_folder: Path | None) -> str:
    raw = _embedded(cluster, "certificate-authority", trusted_folder)
    if not raw:
        raise UserError(
            "The kubeconfig has no certificate-authority-data, and the system's own CAs are not used.",
            "Add the CA certificate that signed the API server's certificate.",
        )
    return certificates.ca_bundle(raw)


def _tls_server_name(cluster: kubeconfig.Mapping) -> str:
    name = kubeconfig.text_of(cluster, "tls-server-name")
    if name and addresses.as_ip(name) is None and not addresses.is_host_name(name):
        raise UserError(
            "The kubeconfig's tls-server-name is not a DNS name.", "Write the name that the server's certificate has."
        )
    return name


def _with_identity(access: Access, user: kubeconfig.Mapping, trusted_folder: Path | None) -> Access:
    certificate = _embedded(user, "client-certificate", trusted_folder)
    key = _embedded(user, "client-key", trusted_folder)
    token = kubeconfig.text_of(user, "token")
    token_file = kubeconfig.text_of(user, "tokenFile")
    if token_file and trusted_folder is None:
        raise UserError("The kubeconfig names a file (tokenFile), and no file is read for a tenant.", _FLATTEN)
    if bool(certificate) != bool(key):
        missing = "client-key-data" if certificate else "client-certificate-data"
        raise UserError(
            f"The kubeconfig has half of a client certificate: {missing} is missing.",
            "Give both the certificate and its key.",
        )
    if sum(map(bool, (certificate, token, token_file))) > 1:
        raise UserError(
            "The kubeconfig carries more than one credential, so it is not clear who acts.", "Keep one of them."
        )
    if certificate:
        chain, key_pem, life = certificates.client_pair(certificate, key)
        return replace(access, client_cert_pem=chain, client_key_pem=key_pem, issued=life.issued, expires=life.expires)
    if token_file and trusted_folder:
        return replace(access, token_file=str(trusted_folder / token_file))
    if not token:
        raise UserError("The kubeconfig carries no credential: neither a token nor a client certificate.", _OWN_ACCOUNT)
    life = certificates.token_life(token)
    return replace(access, token=certificates.checked_token(token), issued=life.issued, expires=life.expires)


def _proved(access: Access) -> Access:
    """What the library of certificates reads, the one of TLS may still refuse; better now than at the connection."""
    try:
        tls_context(access)
    except (ssl.SSLError, ValueError):
        pass
    else:
        return access
    raise UserError(
        "The TLS library does not take the kubeconfig's certificates or key.",
        "Use certificates with a key that is long enough (RSA 2048 bit or P-256) and a current signature algorithm.",
    )
