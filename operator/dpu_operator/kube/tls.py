"""The TLS side of a connection: who must the server be, and with which certificate we show who we are."""

import os
import ssl

from dpu_operator.kube.access import Access


def tls_context(access: Access) -> ssl.SSLContext:
    """A context that trusts the access's CA and nothing else.

    Raises:
        ssl.SSLError: OpenSSL does not take the CA, the certificate or the key (too weak, say). Its text may hold
            nothing secret, but is not meant for people.

    """
    context = ssl.create_default_context(cadata=access.ca_pem)
    # As Go does, which every other client of the cluster is written in: a certificate of the bundle is trusted even if
    # its issuer is not in it, and old CAs without all the extensions that Python 3.13 demands are fine.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if access.client_cert_pem:
        _load_client_pair(context, access)
    return context


def _load_client_pair(context: ssl.SSLContext, access: Access) -> None:
    """Python reads certificate and key from a path only; an anonymous file in memory leaves nothing on a disk."""
    descriptor = os.memfd_create("client", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write((access.client_key_pem + access.client_cert_pem).encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
