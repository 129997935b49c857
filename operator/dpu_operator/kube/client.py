"""One cluster's API: a few verbs on plain dicts, each one request, with no retries and no cache.

Why so thin: between a tenant's change and its copy stand one watch event and one `apply`, and whatever a general client
adds to these is felt in every copy. Retrying is the business of those who know what a failure means (`listwatch`, and
the reconciler that reads back before it decides).
"""

import asyncio
import json
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self
from urllib.parse import quote

import aiohttp
from yarl import URL

from dpu_operator.kube.access import Access
from dpu_operator.kube.answers import Answer, failed, stripped, to_object
from dpu_operator.kube.errors import ApiError, ClusterError, Unreachable
from dpu_operator.kube.stream import Stream
from dpu_operator.kube.transport import HTTP_ERRORS, Transport, explained
from dpu_operator.world import FIELD_MANAGER, SELF_SUBJECT_ACCESS_REVIEW, Kind, Obj, Ref

__all__ = ["ApiError", "Cluster", "ClusterError", "Unreachable"]

JSON = "application/json"
APPLY_PATCH = "application/apply-patch+yaml"  # JSON is YAML
MERGE_PATCH = "application/merge-patch+json"
USER_AGENT = FIELD_MANAGER

BODY_LIMIT = 64 * 1024 * 1024
"""Bytes of one answer: a page of 500 large nodes is a tenth of it."""
PAGE = 500
"""Objects in one page of a list."""
PAGE_LIMIT = 200
"""Pages of one list: what a server would go on with after that is no list of ours."""
TOKEN_AGE = 60.0
"""Seconds after which a token file is looked at again."""

Objects = list[Obj]  # inside of Cluster, `list` is the verb

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class Cluster:
    """The API of one cluster as one identity. Must be closed; `async with` does.

    Every method may raise `ApiError` (the server said no) or `Unreachable` (there was no usable answer); neither holds
    anything of the credential. Objects come without `metadata.managedFields`.

    Args:
        access: where and as whom.
        request_timeout: seconds for one whole request with its answer; for a watch, until it starts.
        connect_timeout: seconds for the connection with TLS, when a new one is needed.

    """

    def __init__(self, access: Access, *, request_timeout: float = 10.0, connect_timeout: float | None = None) -> None:
        self.access = access
        self.request_timeout = request_timeout
        self.connect_timeout = min(5.0, request_timeout / 2) if connect_timeout is None else connect_timeout
        self._transport = Transport(access)
        self._token = _Token(access)
        self._closed = False
        self._timeout = aiohttp.ClientTimeout(total=request_timeout, connect=self.connect_timeout)
        self._watch_timeout = aiohttp.ClientTimeout(connect=self.connect_timeout)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Cluster({self.access!r})"

    async def close(self) -> None:
        """End all connections; open watches end with an error, and so does every later request."""
        self._closed = True
        await self._transport.close()

    async def get(self, ref: Ref) -> Obj:
        """The object; `ApiError` with status 404 where there is none."""
        return await self._call("GET", _path(ref.kind, ref.namespace, ref.name))

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        name: str | None = None,
        label_selector: str | None = None,
        limit: int | None = None,
        cached: bool = False,
    ) -> tuple[Objects, str]:
        """All objects of a kind with `apiVersion` and `kind` filled in, and the list's resourceVersion.

        Args:
            kind: what to list.
            namespace: only there; None for all namespaces, or for a cluster-wide kind.
            name: only the one object of this name (an account may be allowed just that).
            label_selector: as Kubernetes spells it.
            limit: objects in one page; the list is complete whatever it is.
            cached: what the server has at hand will do (resourceVersion=0). It may be a little old, and it comes at
                once; the newest takes up to 100 ms more, for which the server asks etcd and waits for its own cache.

        """
        path = _path(kind, namespace, None)
        selection = _selection(name, label_selector) + f"limit={limit or PAGE}"
        if cached:
            selection += "&resourceVersion=0"
        items: Objects = []
        query = selection
        for _ in range(PAGE_LIMIT):
            page = await self._call("GET", path, query)
            metadata, found = _list_parts(page)
            items += [{"apiVersion": kind.api_version, "kind": kind.kind} | stripped(item) for item in found]
            following = metadata.get("continue")
            if not following:
                return items, str(metadata.get("resourceVersion", ""))
            query = f"{selection}&continue={quote(str(following), safe='')}"
        raise Unreachable("the server's list does not end", sent=True)

    async def apply(self, ref: Ref, obj: Obj, *, force: bool = True, subresource: str | None = None) -> Obj:
        """Server-side apply as our field manager; unknown fields are refused by the server. Returns what it made of it.

        Args:
            ref: the object's place.
            obj: the fields that we want, with apiVersion, kind and metadata.name.
            force: take fields over that somebody else applied; without it that is an `ApiError` 409.
            subresource: `status`, say.

        """
        query = f"fieldManager={FIELD_MANAGER}&fieldValidation=Strict" + ("&force=true" if force else "")
        path = _path(ref.kind, ref.namespace, ref.name, subresource)
        return await self._call("PATCH", path, query, body=obj, content_type=APPLY_PATCH)

    async def merge_patch(self, ref: Ref, body: Obj, *, subresource: str | None = None) -> Obj:
        """JSON merge patch (RFC 7386): null removes a field. Returns the object afterwards."""
        path = _path(ref.kind, ref.namespace, ref.name, subresource)
        return await self._call("PATCH", path, f"fieldManager={FIELD_MANAGER}", body=body, content_type=MERGE_PATCH)

    async def create(self, kind: Kind, namespace: str | None, obj: Obj) -> Obj:
        """Create the object; `ApiError` 409 where there is one of this name."""
        return await self._call("POST", _path(kind, namespace, None), f"fieldManager={FIELD_MANAGER}", body=obj)

    async def delete(self, ref: Ref, *, uid: str | None = None) -> None:
        """Delete the object with what it owns, in the background; with a uid only if it still is the same one (else 409)."""
        body: Obj = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        await self._call("DELETE", _path(ref.kind, ref.namespace, ref.name), body=body)

    async def review_access(self, verb: str, ref: Ref) -> bool:
        """Whether our identity may do this to this object (SelfSubjectAccessReview); an empty name means any."""
        attributes = {
            "verb": verb,
            "group": ref.kind.group,
            "resource": ref.kind.plural,
            "namespace": ref.namespace or "",
            "name": ref.name,
        }
        kind = SELF_SUBJECT_ACCESS_REVIEW
        review = {"apiVersion": kind.api_version, "kind": kind.kind, "spec": {"resourceAttributes": attributes}}
        status = (await self._call("POST", _path(kind, None, None), body=review)).get("status")
        return isinstance(status, dict) and status.get("allowed") is True

    async def version(self) -> Obj:
        """The server's version, as `/version` tells it (`gitVersion` and others)."""
        return await self._call("GET", "/version")

    async def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        name: str | None = None,
        label_selector: str | None = None,
        resource_version: str,
        timeout_seconds: int,
    ) -> Stream:
        """Start to watch; returns once the server has accepted. The stream must be closed (`contextlib.aclosing`).

        It gives the changes since the resourceVersion: (`ADDED` | `MODIFIED` | `DELETED` | `BOOKMARK`, object), and
        ends without an error when the server ends it in the regular way, which it does after `timeout_seconds`.
        An ERROR event is raised as `ApiError`. Silence is the caller's to judge.
        """
        query = (
            _selection(name, label_selector)
            + f"watch=true&allowWatchBookmarks=true&timeoutSeconds={timeout_seconds}"
            + f"&resourceVersion={quote(resource_version, safe='')}"
        )
        response = await self._open(_path(kind, namespace, None), query)
        return Stream(response, self._explained, secret=self._token.value)

    async def _call(
        self, method: str, path: str, query: str = "", *, body: Obj | None = None, content_type: str = JSON
    ) -> Obj:
        url = self._url(path, query)
        data = None if body is None else _encode(body).encode()
        answer = await self._exchange(method, url, data, content_type)
        if answer.status == 401 and self._token.renewed():
            answer = await self._exchange(method, url, data, content_type)
        return to_object(answer, secret=self._token.value)

    async def _exchange(self, method: str, url: URL, data: bytes | None, content_type: str) -> Answer:
        try:
            async with await self._request(method, url, data, content_type, self._timeout) as response:
                return Answer(response.status, response.reason or "", response.headers, await _read(response))
        except HTTP_ERRORS as error:
            failure = self._explained(error)
        # outside of the except block: inside of it, the error would become the context of ours
        raise failure

    async def _open(self, path: str, query: str) -> aiohttp.ClientResponse:
        """The running answer of a watch."""
        url = self._url(path, query)
        try:
            async with asyncio.timeout(self.request_timeout):
                response = await self._request("GET", url, None, JSON, self._watch_timeout)
                if response.status == 401 and self._token.renewed():
                    response.close()
                    response = await self._request("GET", url, None, JSON, self._watch_timeout)
                if response.status == 200:
                    return response
                async with response:
                    answer = Answer(response.status, response.reason or "", response.headers, await _read(response))
        except HTTP_ERRORS as error:
            refusal: ClusterError = self._explained(error)
        else:
            refusal = failed(answer, secret=self._token.value)
        raise refusal

    async def _request(
        self, method: str, url: URL, data: bytes | None, content_type: str, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        if self._closed:
            raise Unreachable("the client was closed")
        headers = {"Accept": JSON, "Accept-Encoding": "identity", "User-Agent": USER_AGENT} | self._token.header()
        if data is not None:
            headers["Content-Type"] = content_type
        return await self._transport.session.request(
            method,
            url,
            data=data,
            headers=headers,
            timeout=timeout,
            allow_redirects=False,
            proxy=self.access.proxy_url or None,
            server_hostname=self.access.tls_server_name or None,
        )

    def _url(self, path: str, query: str) -> URL:
        return URL(f"{self.access.server}{path}?{query}" if query else self.access.server + path, encoded=True)

    def _explained(self, error: BaseException) -> Unreachable:
        return explained(error, timeout=self.request_timeout, connect_timeout=self.connect_timeout)


@dataclass(slots=True, repr=False)
class _Token:
    """The bearer token, if any; one from a file is read again when it is a minute old, and after a 401."""

    access: Access
    value: str = ""
    read_at: float = float("-inf")

    def header(self) -> dict[str, str]:
        if self.access.token_file and time.monotonic() - self.read_at > TOKEN_AGE:
            self._read()
        elif not self.access.token_file:
            self.value = self.access.token
        return {"Authorization": f"Bearer {self.value}"} if self.value else {}

    def renewed(self) -> bool:
        """Whether the file holds another token by now, so that one more try makes sense."""
        before = self.value
        if self.access.token_file:
            self._read()
        return self.value != before

    def _read(self) -> None:
        try:
            self.value = Path(self.access.token_file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            if not self.value:
                unreadable = Unreachable("the token file of our own account cannot be read")
            else:
                return  # kubelet swaps the file; the old token is good for a while
        else:
            self.read_at = time.monotonic()
            return
        raise unreadable


async def _read(response: aiohttp.ClientResponse) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > BODY_LIMIT:
            raise Unreachable(f"the answer is larger than {BODY_LIMIT >> 20} MiB", sent=True)
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _list_parts(page: Obj) -> tuple[Obj, list[Obj]]:
    """Metadata and items. Anything that is not surely a list is no empty list: absence is concluded from it."""
    metadata, found = page.get("metadata"), page.get("items", ())
    if found is None:
        found = []  # how Go writes an empty list
    is_list = str(page.get("kind", "")).endswith("List") and isinstance(found, list) and all(map(_is_object, found))
    if is_list and isinstance(metadata, dict):
        return metadata, found
    raise Unreachable("what the server sent is not a list of objects", sent=True)


def _is_object(item: object) -> bool:
    return isinstance(item, dict) and isinstance(item.get("metadata"), dict)


def _selection(name: str | None, label_selector: str | None) -> str:
    """The query's selectors, each with an & behind it."""
    fields = f"fieldSelector=metadata.name%3D{_segment(name)}&" if name is not None else ""
    labels = f"labelSelector={quote(label_selector, safe='')}&" if label_selector else ""
    return fields + labels


def _path(kind: Kind, namespace: str | None, name: str | None, subresource: str | None = None) -> str:
    path = kind.path(namespace and _segment(namespace), None if name is None else _segment(name))
    return f"{path}/{_segment(subresource)}" if subresource else path


@lru_cache(maxsize=4096)
def _segment(text: str) -> str:
    """One segment of a URL path, which can neither be left out nor lead to another place."""
    if text in ("", ".", ".."):
        raise ValueError(f"not a name of an object: {text!r}")
    return quote(text, safe=":")
