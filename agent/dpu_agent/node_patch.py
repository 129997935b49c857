"""One merge patch of a Node's annotations over HTTPS: bounded in time and size, whatever the server does.

Each patch has a connection of its own. At one a minute that costs next to nothing, and a renewed certificate, a load
balancer that forgot us or a server that restarted need no care at all.
"""

import contextlib
import datetime as dt
import http.client
import io
import json
import math
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Mapping
from typing import Any, cast

from dpu_agent import __version__
from dpu_agent.kubelet import Credentials
from dpu_shared.errors import UserError

FIELD_MANAGER = "dpu-agent"
TIMEOUT = 20.0
"""Seconds for a patch as a whole: an API server that is busy electing needs some; see also CONNECT_TIMEOUT."""
CONNECT_TIMEOUT = 5.0
"""Seconds for each address of the server."""
REPLY_LIMIT = 1024 * 1024
"""Bytes of an answer. That of a Node's metadata is 10 to 100 KiB; all its annotations together are 256 KiB at most."""
_WORDS_LIMIT = 300
_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1, application/json"
_NOT_YET_VALID, _EXPIRED = 9, 10
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL's x509_vfy.h."""
_LASTS = "The agent goes on and tries again; if this lasts, see the DPU's network and the API server."


class PatchError(UserError):
    """The patch was not accepted, or nobody knows whether it was; it may be sent again in any case.

    Args:
        message: what is wrong, one sentence.
        hint: what to do, one sentence.
        retry_after: seconds that the server wants to be left alone.
        mends_soon: whether the cause may go away at any moment and asking again costs the server nothing.

    """

    def __init__(self, message: str, hint: str, *, retry_after: float = 0, mends_soon: bool = False) -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after
        self.mends_soon = mends_soon


class NodePatcher:
    """Sends patches, one at a time; another thread may `abort` it.

    Args:
        timeout: seconds for a patch as a whole, resolving the server's name apart, which nothing can interrupt.

    """

    def __init__(self, *, timeout: float = TIMEOUT) -> None:
        self._timeout = timeout
        self._lock = threading.Lock()
        self._open: socket.socket | None = None
        self._aborted = False

    def send(self, credentials: Credentials, annotations: Mapping[str, str]) -> None:
        """Set these annotations on the credentials' own Node; nothing else of it changes.

        Raises:
            PatchError: it was not done, as far as one can tell.

        """
        wanted = {key: _storable(value) for key, value in annotations.items()}
        try:
            status, headers, body = self._exchange(
                credentials, json.dumps({"metadata": {"annotations": wanted}}).encode()
            )
        except ssl.SSLCertVerificationError as error:
            raise _unverified(credentials, error) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _unanswered(credentials, error) from None
        if status != http.client.OK:
            raise _refused(credentials, status, headers, body)
        metadata = _metadata(body)
        there = metadata.get("annotations")
        kept = isinstance(there, dict) and all(there.get(key) == value for key, value in wanted.items())
        if metadata.get("name") != credentials.node or not kept:
            raise PatchError("The API server's answer is not the Node as it was to become.", _LASTS)

    def abort(self) -> None:
        """End what is under way, and refuse whatever comes; from any thread."""
        with self._lock:
            self._aborted = True
            if self._open is not None:
                _hang_up(self._open)

    def _exchange(self, credentials: Credentials, patch: bytes) -> tuple[int, Mapping[str, str], bytes]:
        deadline = time.monotonic() + self._timeout
        path = f"{credentials.path}/api/v1/nodes/{urllib.parse.quote(credentials.node)}?fieldManager={FIELD_MANAGER}"
        headers = {"Accept": _METADATA_ONLY, "Content-Type": "application/merge-patch+json", "Connection": "close",
                   "User-Agent": f"dpu-agent/{__version__}"}  # fmt: skip
        if credentials.token:
            headers["Authorization"] = f"Bearer {credentials.token}"
        with contextlib.closing(self._connect(credentials, deadline)) as secure:
            try:
                connection = http.client.HTTPConnection(credentials.host, credentials.port)
                connection.sock = cast("socket.socket", _Bounded(secure, deadline))
                connection.request("PATCH", path, body=patch, headers=headers)
                with connection.getresponse() as answer:
                    body = answer.read(REPLY_LIMIT + 1)
                    if len(body) > REPLY_LIMIT:
                        raise ValueError("its answer is longer than 1 MiB")
                    return answer.status, {key.lower(): value for key, value in answer.getheaders()}, body
            finally:
                self._closing()

    def _connect(self, credentials: Credentials, deadline: float) -> ssl.SSLSocket:
        """A verified connection, which `abort` knows from its handshake on."""
        if self._aborted:
            raise ConnectionAbortedError
        patience = min(CONNECT_TIMEOUT, self._timeout)
        with contextlib.ExitStack() as undo:
            plain = undo.enter_context(socket.create_connection((credentials.host, credentials.port), timeout=patience))
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            secure = undo.enter_context(
                credentials.tls.wrap_socket(
                    plain, server_hostname=credentials.server_name, do_handshake_on_connect=False
                )
            )
            undo.callback(self._closing)
            with self._lock:
                self._open = secure
                if self._aborted:
                    raise ConnectionAbortedError
            secure.settimeout(_left(deadline))
            secure.do_handshake()
            undo.pop_all()
        return secure

    def _closing(self) -> None:
        """From here on `abort` keeps off the socket: its number may soon be another's."""
        with self._lock:
            self._open = None


class _Bounded:
    """A connection as http.client uses one, of which every wait ends by the same deadline.

    A socket's own timeout starts anew with each byte, and a server that sends one now and then would hold us for ever.
    """

    def __init__(self, sock: ssl.SSLSocket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(_left(self._deadline))
        self._sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self._sock, self._deadline))

    def close(self) -> None:
        """Left to whoever opened it."""


class _Incoming(io.RawIOBase):
    def __init__(self, sock: ssl.SSLSocket, deadline: float) -> None:
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._sock.settimeout(_left(self._deadline))
        try:
            return self._sock.recv_into(buffer)
        except ssl.SSLEOFError:  # what is missing is noticed by whoever reads
            return 0


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _hang_up(sock: socket.socket) -> None:
    # The method of SSLSocket would also forget its TLS, under the hands of the thread that reads.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _storable(text: str) -> str:
    """The text as an API server keeps it: what is no Unicode (a byte of the kernel's, say) becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _unverified(credentials: Credentials, error: ssl.SSLCertVerificationError) -> PatchError:
    if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
        now = dt.datetime.now(dt.UTC)
        state = "not valid yet" if error.verify_code == _NOT_YET_VALID else "no longer valid"
        return PatchError(
            f"The API server's certificate is {state} by this DPU's clock, which says {now:%Y-%m-%d %H:%M} UTC.",
            "See chronyc tracking if the clock is wrong; the agent tries again.",
            mends_soon=True,
        )
    why = (error.verify_message or "it cannot be verified").rstrip(".")
    return PatchError(
        f"The API server {_address(credentials)} is not trusted: {why}.",
        "Compare the CA in the kubelet's kubeconfig with the one of the cluster.",
    )


def _unanswered(credentials: Credentials, error: Exception) -> PatchError:
    if isinstance(error, TimeoutError):
        why = "it does not answer in time"
    elif isinstance(error, http.client.HTTPException):
        why = "its answer is no HTTP"  # the exception would quote it
    elif isinstance(error, ssl.SSLError):
        why = f"TLS failed ({error.reason or 'for no stated reason'})"
    elif isinstance(error, OSError):
        why = error.strerror or "the connection was closed"
    else:
        why = str(error)
    return PatchError(f"The API server {_address(credentials)} cannot be used: {why}.", _LASTS)


def _address(credentials: Credentials) -> str:
    host = f"[{credentials.host}]" if ":" in credentials.host else credentials.host
    return f"{host}:{credentials.port}"


def _refused(credentials: Credentials, status: int, headers: Mapping[str, str], body: bytes) -> PatchError:
    node, words = credentials.node, _words(body, credentials.token)
    said = f"HTTP {status}{': ' if words else ''}{words}"
    if 300 <= status < 400:
        return PatchError(f"The API server sends us elsewhere (HTTP {status}), which is not followed.",
                          "Let the kubelet's kubeconfig name the API server itself.")  # fmt: skip
    hints = {
        401: "It is read again for each attempt; if this lasts, see oc get csr and journalctl -u kubelet.",
        403: "The agent writes on its own Node as the kubelet, whose rights the Node authorizer gives.",
        404: "The kubelet registers it when it joins; if it was deleted, restart the kubelet.",
    }
    what = {
        401: "The API server does not accept the kubelet's credential",
        403: f"The API server forbids the agent to annotate the Node {node}",
        404: f"The API server has no Node {node}",
        429: "The API server has too much to do",
    }.get(status, f"The API server does not accept the annotations of the Node {node}")
    return PatchError(f"{what} ({said}).", hints.get(status, _LASTS), retry_after=_retry_after(headers))


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds. The header's other form, a date, needs a clock that is right."""
    try:
        seconds = float(headers.get("retry-after", "0"))
    except ValueError:
        return 0
    return max(seconds, 0) if math.isfinite(seconds) else 0


def _words(body: bytes, token: str) -> str:
    """What a Status object says, short and on one line; nothing of what was shown to the server comes back this way."""
    words = _parsed(body).get("message")
    if not isinstance(words, str):
        return ""
    if token:
        words = words.replace(token, "…")
    words = "".join(each if each.isprintable() else " " for each in words).strip().rstrip(".")
    return words if len(words) <= _WORDS_LIMIT else words[: _WORDS_LIMIT - 1] + "…"


def _metadata(body: bytes) -> Mapping[str, Any]:
    found = _parsed(body).get("metadata")
    return found if isinstance(found, dict) else {}


def _parsed(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
