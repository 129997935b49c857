"""The connections to one API server, on top of `kubernetes.aio`'s transport, and its failures as short sentences."""

import errno
import ipaddress
import os
import re
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from typing import Any

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.client.rest import RESTClientObject

from dpu_operator.kube.access import Access
from dpu_operator.kube.addresses import refusal_of
from dpu_operator.kube.errors import Unreachable
from dpu_operator.kube.tls import tls_context

KEEPALIVE_IDLE = 5
"""Seconds without traffic until the kernel asks the peer whether it is still there."""
KEEPALIVE_INTERVAL = 2
"""Seconds between its questions."""
KEEPALIVE_COUNT = 2
"""Unanswered questions until the connection is broken off."""
UNACKNOWLEDGED_LIMIT = 9_000
"""Milliseconds after which unacknowledged data, or a peer that answers no keepalive, breaks the connection."""
IDLE_CONNECTION = 80.0
"""Seconds that an unused connection is kept: a kube-apiserver drops it at 90, and the one who drops first is never surprised."""

HTTP_ERRORS = (aiohttp.ClientError, OSError, TimeoutError, ValueError)
"""All that aiohttp raises for a request or while its answer is read."""

TLS_BUFFER = 32 * 1024
"""Bytes of the buffer that each TLS connection keeps; a TLS record holds 16 KiB."""

# asyncio gives every TLS connection 256 KiB for as long as it lives. Ten watches of twenty tenants would be 50 MiB of
# nothing; there is no argument for it, only this attribute (Python 3.11 to 3.14 at least; tests/wire looks at it).
SSLProtocol.max_size = TLS_BUFFER

_SSL_REASON = re.compile(r"\[(?:SSL|X509)[^:\]]*: ([A-Z0-9_]+)\]")


class Transport(RESTClientObject):
    """One session to one API server. Nothing of the environment (proxies, netrc) has a say in it."""

    def __init__(self, access: Access) -> None:
        configuration = Configuration(
            host=access.server,
            ca_cert_data=access.ca_pem,
            tls_server_name=access.tls_server_name or None,
            proxy=access.proxy_url or None,
        )
        configuration.client_session_kwargs = {
            "trust_env": False,
            "cookie_jar": None,
            # what is never asked for is never unpacked: a small answer stays small
            "auto_decompress": False,
        }
        super().__init__(configuration)
        self._access = access
        self.ssl_context = tls_context(access)

    @property
    def session(self) -> aiohttp.ClientSession:
        """The session, made at the first use because it belongs to the running event loop."""
        if self.pool_manager is None:
            self.configuration.client_session_kwargs["cookie_jar"] = aiohttp.DummyCookieJar()
            self.pool_manager = self._create_pool_manager()
        session: aiohttp.ClientSession = self.pool_manager
        return session

    def _create_connector(self) -> aiohttp.TCPConnector:
        return aiohttp.TCPConnector(
            limit=0,  # a watch holds its connection for good; waiting for a free one would be for ever
            ssl=self.ssl_context,
            keepalive_timeout=IDLE_CONNECTION,
            socket_factory=self._socket,
        )

    def _socket(self, address_info: tuple[Any, ...]) -> socket.socket:
        """A socket that notices a vanished peer; refuses an address that a DNS name must not lead to."""
        family, kind, protocol, _, address = address_info
        if not self._access.trusted:
            ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
            why = refusal_of(ip, loopback=not self._access.proxy_url)
            if why:
                raise ForbiddenAddressError(why)
        made = socket.socket(family, kind, protocol)
        made.settimeout(0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_LIMIT)
        return made


class ForbiddenAddressError(OSError):
    """A name leads to an address that no connection is made to."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EACCES, f"its address is {why}, where this operator does not connect for a tenant")


def explained(error: BaseException, *, timeout: float, connect_timeout: float) -> Unreachable:
    """The failure as a short phrase. Nothing of the original is kept: aiohttp's errors hold request headers."""
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Unreachable(f"no connection within {connect_timeout:g} s")
    if isinstance(error, TimeoutError) and getattr(error, "errno", None) is None:
        return Unreachable(f"timed out after {timeout:g} s", sent=True)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return Unreachable(f"the proxy refused with HTTP {error.status}")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError):
        prefix = "the proxy: " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
        return Unreachable(prefix + _connecting(error))
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Unreachable("the connection was closed before an answer came", sent=True)
    if isinstance(error, aiohttp.ClientPayloadError):
        return Unreachable("the answer was cut off", sent=True)
    if isinstance(error, aiohttp.ClientResponseError):
        return Unreachable("what answers does not speak HTTP as an API server does", sent=True)
    if isinstance(error, OSError):
        return Unreachable(_system(error), sent=True)
    return Unreachable("the request failed in transport", sent=True)


def _connecting(error: aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"certificate verify failed: {getattr(error.certificate_error, 'verify_message', 'no reason given')}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the server's name cannot be resolved"
    return _system(error.os_error)


def _system(error: OSError) -> str:
    """The system's own words for an error number: asyncio puts addresses into `strerror`."""
    if isinstance(error, ForbiddenAddressError):
        return str(error.strerror)
    reason = _SSL_REASON.search(str(error))
    if reason is not None:
        return f"TLS failed: {reason[1].replace('_', ' ').lower()}"
    if isinstance(error, ssl.SSLError) or not error.errno:
        return "TLS failed" if isinstance(error, ssl.SSLError) else "the connection failed"
    return os.strerror(error.errno).lower()
