"""The lab's own client of an API server: raw HTTP, plain dicts, no Kubernetes library.

Kinds are named as "v1/ConfigMap" or "apps/v1/DaemonSet"; their plural and scope come from discovery. The client keeps
one connection for each thread that uses it.
"""

import contextlib
import http.client
import json
import socket
import ssl
import tempfile
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.kubeconfig import Access

Object = dict[str, Any]
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"


class ApiError(Exception):
    """What an API server refused, with its Status object's words."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


@dataclass(frozen=True)
class Resource:
    """A kind as discovery describes it."""

    prefix: str
    plural: str
    namespaced: bool

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a collection, an object or a subresource."""
        parts = [self.prefix]
        if self.namespaced and namespace:
            parts.append(f"namespaces/{namespace}")
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)


def kind_of(item: Object) -> str:
    """The kind of an object, as this client names kinds."""
    return f"{item['apiVersion']}/{item['kind']}"


def name_of(item: Object) -> str:
    """The name of an object."""
    return str(item["metadata"]["name"])


def namespace_of(item: Object) -> str | None:
    """The namespace of an object."""
    namespace: str | None = item["metadata"].get("namespace")
    return namespace


class Client:
    """Requests to one API server as one user."""

    def __init__(self, access: Access, *, timeout: float = 20, field_manager: str = "dpu-lab") -> None:
        self.access = access
        self.timeout = timeout
        self.field_manager = field_manager
        url = urllib.parse.urlsplit(access.server)
        self._host, self._port = url.hostname or "127.0.0.1", url.port or 443
        self._tls = tls_context(access)
        self._local = threading.local()
        self._open: set[http.client.HTTPSConnection] = set()
        self._resources: dict[str, Resource] = {}

    # -- objects ------------------------------------------------------------------------------------------------

    def get(self, kind: str, name: str, namespace: str | None = None, subresource: str | None = None) -> Object:
        """One object; ApiError 404 where there is none."""
        return self.request("GET", self.resource(kind).path(namespace, name, subresource))

    def find(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """One object, or None."""
        try:
            return self.get(kind, name, namespace)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(
        self, kind: str, namespace: str | None = None, *, labels: str | None = None, fields: str | None = None
    ) -> list[Object]:
        """The objects of a kind, each with its apiVersion and kind."""
        query = _query(labelSelector=labels, fieldSelector=fields)
        answer = self.request("GET", self.resource(kind).path(namespace), query=query)
        version, _, name = kind.rpartition("/")
        return [{"apiVersion": version, "kind": name} | item for item in answer.get("items") or []]

    def create(self, item: Object, subresource: str | None = None) -> Object:
        """Create an object."""
        owner = name_of(item) if subresource else None
        return self.request("POST", self.resource(kind_of(item)).path(namespace_of(item), owner, subresource), item)

    def replace(self, item: Object, subresource: str | None = None) -> Object:
        """PUT an object as it is."""
        path = self.resource(kind_of(item)).path(namespace_of(item), name_of(item), subresource)
        return self.request("PUT", path, item)

    def apply(self, item: Object, subresource: str | None = None, *, force: bool = True) -> Object:
        """Server-side apply."""
        path = self.resource(kind_of(item)).path(namespace_of(item), name_of(item), subresource)
        query = _query(fieldManager=self.field_manager, force="true" if force else None)
        return self.request("PATCH", path, item, query=query, content_type=APPLY)

    def patch(
        self, kind: str, name: str, patch: Object, namespace: str | None = None, subresource: str | None = None
    ) -> Object:
        """JSON merge patch."""
        path = self.resource(kind).path(namespace, name, subresource)
        return self.request("PATCH", path, patch, content_type=MERGE)

    def delete(self, kind: str, name: str, namespace: str | None = None, *, grace: int | None = None) -> bool:
        """Delete an object; False where there was none."""
        options: Object = {"propagationPolicy": "Background"}
        if grace is not None:
            options["gracePeriodSeconds"] = grace
        try:
            self.request("DELETE", self.resource(kind).path(namespace, name), options)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    def watch(
        self,
        kind: str,
        namespace: str | None = None,
        *,
        since: str | None = None,
        fields: str | None = None,
        seconds: float = 300,
    ) -> Iterator[Object]:
        """Watch events ({type, object}) on a connection of its own, until the server ends the stream."""
        query = _query(
            watch="true", resourceVersion=since, fieldSelector=fields, allowWatchBookmarks="true",
            timeoutSeconds=str(int(seconds)),
        )  # fmt: skip
        path = self.resource(kind).path(namespace)
        connection = self._connect(seconds + 10)
        answer = None
        try:
            connection.request("GET", f"{path}?{query}", headers=self._headers(None))
            answer = connection.getresponse()
            if answer.status != 200:
                raise _error(answer.status, answer.read())
            while line := answer.readline():
                if line.strip():
                    yield json.loads(line)
        finally:
            self._drop(connection)
            if answer is not None:
                answer.close()

    # -- the wire -----------------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        query: str = "",
        content_type: str = "application/json",
        timeout: float | None = None,
    ) -> Object:
        """One request and its JSON answer; a kept connection that the server closed meanwhile is opened once more."""
        data = None if body is None else json.dumps(body).encode()
        target = f"{path}?{query}" if query else path
        for attempt in (1, 2):
            connection, fresh = self._connection(timeout)
            try:
                connection.request(method, target, body=data, headers=self._headers(content_type if data else None))
                answer = connection.getresponse()
                content = answer.read()
                if timeout is not None:
                    self._drop(connection)
                break
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                self._forget(connection)
                if fresh or attempt == 2:
                    raise
            except BaseException:
                self._forget(connection)
                raise
        if answer.status >= 400:
            raise _error(answer.status, content)
        if not content.lstrip().startswith(b"{"):
            return {"text": content.decode()}
        decoded: Object = json.loads(content)
        return decoded

    def ready(self) -> bool:
        """Whether the API server calls itself ready."""
        try:
            return self.request("GET", "/readyz", timeout=2).get("text") == "ok"
        except (OSError, http.client.HTTPException, ApiError):
            return False

    def resource(self, kind: str) -> Resource:
        """Discovery's entry of a kind, asked for once."""
        if kind not in self._resources:
            version, _, name = kind.rpartition("/")
            prefix = f"/apis/{version}" if "/" in version else f"/api/{version}"
            for entry in self.request("GET", prefix)["resources"]:
                if "/" not in entry["name"]:
                    found = Resource(prefix, entry["name"], bool(entry["namespaced"]))
                    self._resources[f"{version}/{entry['kind']}"] = found
            if kind not in self._resources:
                raise ApiError(404, "NotFound", f"the server does not know the kind {name} in {version}")
        return self._resources[kind]

    def close(self) -> None:
        """Close the connections of every thread."""
        for connection in list(self._open):
            self._drop(connection)
        self._local = threading.local()

    def _headers(self, content_type: str | None) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": "dpu-lab"}
        if content_type:
            headers["Content-Type"] = content_type
        if self.access.token:
            headers["Authorization"] = f"Bearer {self.access.token}"
        return headers

    def _connection(self, timeout: float | None) -> tuple[http.client.HTTPSConnection, bool]:
        kept: http.client.HTTPSConnection | None = getattr(self._local, "connection", None)
        if kept is not None and timeout is None:
            return kept, False
        if kept is not None:
            self._forget(kept)
        connection = self._connect(timeout or self.timeout)
        if timeout is None:
            self._local.connection = connection
        return connection, True

    def _connect(self, timeout: float) -> http.client.HTTPSConnection:
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=self._tls)
        self._open.add(connection)
        return connection

    def _forget(self, connection: http.client.HTTPSConnection) -> None:
        if getattr(self._local, "connection", None) is connection:
            self._local.connection = None
        self._drop(connection)

    def _drop(self, connection: http.client.HTTPSConnection) -> None:
        self._open.discard(connection)
        if connection.sock is not None:
            # Another thread may be reading from it (a watch): closing alone would leave that thread asleep.
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()


def _query(**values: str | None) -> str:
    return urllib.parse.urlencode({name: value for name, value in values.items() if value is not None})


def _error(status: int, content: bytes) -> ApiError:
    try:
        answer = json.loads(content)
        return ApiError(status, str(answer.get("reason", "")), str(answer.get("message", "")))
    except (ValueError, AttributeError):
        return ApiError(status, "", content.decode(errors="replace")[:500])


def tls_context(access: Access) -> ssl.SSLContext:
    """TLS as an Access wants it: whom to trust, and the client certificate."""
    context = ssl.create_default_context(cadata=access.ca)
    if access.pair is not None:
        # The ssl module reads a client certificate from files only.
        with tempfile.TemporaryDirectory() as folder:
            context.load_cert_chain(*access.pair.write(Path(folder), "client"))
    return context
