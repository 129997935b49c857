"""How to reach a cluster and as whom: the outcome of vetting a kubeconfig."""

import datetime as dt
from dataclasses import dataclass, field

TOKEN = "token"  # noqa: S105 - the name of a kind of credential
CLIENT_CERTIFICATE = "client certificate"


@dataclass(frozen=True, slots=True, repr=False)
class Access:
    """One server and one identity, ready to use. Its repr shows the server's host and nothing secret."""

    server: str
    """`https://host:port` and perhaps a path, without a slash at the end."""
    ca_pem: str
    """The CA certificates that the server's certificate must come from; the system's own are never used."""
    client_cert_pem: str = ""
    client_key_pem: str = ""
    token: str = ""
    token_file: str = ""
    """Only of our own in-cluster account or of a trusted kubeconfig: re-read, because kubelet renews it."""
    tls_server_name: str = ""
    """The name to expect in the server's certificate, where it is not the server's host."""
    proxy_url: str = ""
    issued: dt.datetime | None = field(default=None, compare=False)
    """When the credential was issued, in UTC: the certificate's notBefore or the token's `iat`. None: it does not say."""
    expires: dt.datetime | None = field(default=None, compare=False)
    """When the credential ends, in UTC: the certificate's notAfter or the token's `exp`. None: it does not say."""
    fingerprint: str = ""
    """SHA-256 of the kubeconfig's bytes, in hex: tells that it changed without keeping it."""
    trusted: bool = False
    """Whether the connection may go to link-local addresses, and a proxy to loopback: only of our own kubeconfig."""

    @property
    def what(self) -> str:
        """What carries the identity: `token` or `client certificate`."""
        return CLIENT_CERTIFICATE if self.client_cert_pem else TOKEN

    @property
    def host(self) -> str:
        """The server's host and port, which may be shown."""
        return self.server.removeprefix("https://").partition("/")[0]

    def __repr__(self) -> str:
        return f"Access(host={self.host!r}, what={self.what!r}, expires={self.expires!s})"
