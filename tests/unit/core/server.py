"""A simulated API server: what server-side apply, merge patch, deletion and watches do to objects in memory.

It stands in for `kube.client.Cluster` below the rung of the real clusters. It knows of three things only that matter
to a planner: the server fills in fields of its own, a field that its applier no longer names goes away, and each write
that changes something gets a higher resourceVersion (one that changes nothing gets none).
"""

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable, Iterable
from types import SimpleNamespace
from typing import Any

from dpu_operator.kube.errors import ApiError, ClusterError
from dpu_operator.world import EVENT, NAMESPACE, Kind, Obj, Ref, kind_of

Refusal = Callable[[str, Ref], ClusterError | None]


def ref_of(obj: Obj) -> Ref:
    meta = obj["metadata"]
    return Ref(kind_of(obj), meta.get("namespace"), meta["name"])


def not_found(ref: Ref) -> ApiError:
    return ApiError(404, "NotFound", f"{ref} not found")


class ApiServer:
    """The objects of one cluster, and a note of every write.

    `refuse` may return an error for a verb and a place; the verbs are those of RBAC. `gate` is awaited before each
    write and `read_gate` before each list and get, so that a test can hold them.
    """

    def __init__(self, objects: Iterable[Obj] = (), *, host: str = "api.infra.example:6443") -> None:
        self.access = SimpleNamespace(host=host)
        self.objects: dict[Ref, Obj] = {}
        self.writes: list[tuple[str, Ref, Obj]] = []
        self.events: list[Obj] = []
        self.refuse: Refusal = lambda _verb, _ref: None
        self.gate: Callable[[Ref], Any] | None = None
        self.read_gate: Callable[[Ref], Any] | None = None
        self.closed = False
        self._applied: dict[Ref, Obj] = {}
        self._version = 1000
        self._uids = 0
        self._log: list[tuple[int, str, Obj]] = []
        self._news = asyncio.Condition()
        for obj in objects:
            self.put(obj)

    def clone(self) -> "ApiServer":
        """Another server with the same objects: each is replaced when it changes, and never changed."""
        other = ApiServer(host=self.access.host)
        other.objects, other._applied = dict(self.objects), dict(self._applied)
        other._version, other._uids = self._version, self._uids
        return other

    # what a test does to the cluster, and looks at

    def put(self, obj: Obj) -> Obj:
        """Somebody else's write: the object as given."""
        ref = ref_of(obj)
        return self._store(ref, copy.deepcopy(obj), self.objects.get(ref))

    def remove(self, ref: Ref) -> None:
        obj = self.objects.pop(ref, None)
        self._applied.pop(ref, None)
        if obj is not None:
            self._version += 1
            gone = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}}
            self._tell("DELETED", gone)

    def cut(self, error: ClusterError) -> None:
        """From now on nobody gets an answer, and the running watches break."""
        self.refuse = lambda _verb, _ref: error
        self._version += 1
        self._notify()

    def mend(self) -> None:
        self.refuse = lambda _verb, _ref: None

    def written(self) -> list[str]:
        return [f"{verb} {ref}" for verb, ref, _ in self.writes]

    # the same, at once: for tests of the pure plan

    def apply_now(self, ref: Ref, obj: Obj, *, force: bool = True) -> Obj:
        live = self.objects.get(ref)
        before = self._applied.get(ref)
        if live is not None and before is None and not force:
            raise ApiError(409, "Conflict", f"Apply failed with conflicts on {ref}")
        base = _without(live, before, obj) if live is not None and before is not None else live
        self._applied[ref] = obj
        return self._store(ref, copy.deepcopy(_merged(base or {}, obj)), live)

    def delete_now(self, ref: Ref, *, uid: str | None = None) -> None:
        live = self.objects.get(ref)
        if live is None:
            raise not_found(ref)
        if uid is not None and live["metadata"]["uid"] != uid:
            raise ApiError(409, "Conflict", "the UID in the precondition does not match")
        self.remove(ref)

    def patch_now(self, ref: Ref, body: Obj, *, subresource: str | None = None) -> Obj:
        live = self.objects.get(ref)
        if live is None:
            raise not_found(ref)
        if subresource:
            body = {subresource: body.get(subresource)}
        return self._store(ref, copy.deepcopy(_patched(live, body)), live)

    # the verbs of Cluster

    async def apply(self, ref: Ref, obj: Obj, *, force: bool = True) -> Obj:
        await self._write("apply", ref, obj)
        return self.apply_now(ref, obj, force=force)

    async def merge_patch(self, ref: Ref, body: Obj, *, subresource: str | None = None) -> Obj:
        await self._write(f"patch {subresource}" if subresource else "patch", ref, body)
        return self.patch_now(ref, body, subresource=subresource)

    async def delete(self, ref: Ref, *, uid: str | None = None) -> None:
        await self._write("delete", ref, {"uid": uid})
        self.delete_now(ref, uid=uid)

    async def create(self, kind: Kind, namespace: str | None, obj: Obj) -> Obj:
        assert kind is EVENT
        if refusal := self.refuse("create", Ref(kind, namespace, obj["metadata"]["generateName"])):
            raise refusal
        self.events.append(obj)
        return obj

    async def get(self, ref: Ref) -> Obj:
        if self.read_gate is not None:
            await self.read_gate(ref)
        self._check("get", ref)
        if ref not in self.objects:
            raise not_found(ref)
        return copy.deepcopy(self.objects[ref])

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        name: str | None = None,
        label_selector: str | None = None,
        limit: int | None = None,
        cached: bool = False,
    ) -> tuple[list[Obj], str]:
        await asyncio.sleep(0)
        if self.read_gate is not None:
            await self.read_gate(Ref(kind, namespace, name or ""))
        self._check("list", Ref(kind, namespace, name or ""))
        items = [o for r, o in self.objects.items() if _selected(r, o, kind, namespace, name, label_selector)]
        return copy.deepcopy(items), str(self._version)

    async def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        name: str | None = None,
        label_selector: str | None = None,
        resource_version: str,
        timeout_seconds: int,
    ) -> AsyncGenerator[tuple[str, Obj], None]:
        self._check("watch", Ref(kind, namespace, name or ""))
        return self._changes(int(resource_version), kind, namespace, name, label_selector)

    async def version(self) -> Obj:
        self._check("get", Ref(NAMESPACE, None, "/version"))
        return {"gitVersion": "v1.33.5"}

    async def review_access(self, verb: str, ref: Ref) -> bool:
        return self.refuse(verb, ref) is None

    async def close(self) -> None:
        self.closed = True

    async def _changes(self, since: int, *selection: Any) -> AsyncGenerator[tuple[str, Obj], None]:
        while True:
            async with self._news:
                while self._version <= since:
                    await self._news.wait()
            kind, namespace, name, _ = selection
            self._check("watch", Ref(kind, namespace, name or ""))
            upto = self._version
            for version, event, obj in list(self._log):
                if since < version and _selected(ref_of(obj), obj, *selection):
                    yield event, copy.deepcopy(obj)
            since = upto

    # inside

    async def _write(self, verb: str, ref: Ref, body: Obj) -> None:
        if self.gate is not None:
            await self.gate(ref)
        await asyncio.sleep(0)
        self._check(verb.partition(" ")[0], ref)
        self.writes.append((verb, ref, body))

    def _check(self, verb: str, ref: Ref) -> None:
        if refusal := self.refuse(verb, ref):
            raise refusal

    def _store(self, ref: Ref, fresh: Obj, live: Obj | None) -> Obj:
        meta = fresh.setdefault("metadata", {})
        if live is None:
            self._uids += 1
            meta.setdefault("uid", f"uid-{self._uids}")
        else:
            meta["uid"] = live["metadata"]["uid"]
        _server_defaults(fresh, live)
        if live is not None and _bare(live) == _bare(fresh):
            return live
        self._version += 1
        meta["resourceVersion"] = str(self._version)
        self.objects[ref] = fresh
        self._tell("ADDED" if live is None else "MODIFIED", fresh)
        return fresh

    def _tell(self, event: str, obj: Obj) -> None:
        self._log.append((self._version, event, obj))
        self._notify()

    def _notify(self) -> None:
        async def wake() -> None:
            async with self._news:
                self._news.notify_all()

        try:
            task = asyncio.get_running_loop().create_task(wake())
        except RuntimeError:  # a test without a loop has no watches either
            return
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


_tasks: set[asyncio.Task[None]] = set()


def _selected(  # noqa: PLR0917 - the parameters of a list
    ref: Ref, obj: Obj, kind: Kind, namespace: str | None, name: str | None, labels: str | None
) -> bool:
    if ref.kind != kind or (namespace and ref.namespace != namespace) or (name and ref.name != name):
        return False
    key, _, value = (labels or "").partition("=")
    return not labels or (obj["metadata"].get("labels") or {}).get(key) == value


def _merged(live: Any, want: Any, path: str = "") -> Any:
    """Server-side apply of the fields in `want`; lists are atomic but for those that have keys."""
    if isinstance(live, dict) and isinstance(want, dict):
        return {**live, **{key: _merged(live.get(key), value, f"{path}.{key}") for key, value in want.items()}}
    if path == ".metadata.ownerReferences" and isinstance(live, list):
        uids = {entry["uid"] for entry in want}
        return [*(entry for entry in live if entry["uid"] not in uids), *want]
    return want


def _without(live: Any, before: Any, want: Any) -> Any:
    """What was applied before and is no longer wanted goes away."""
    if not (isinstance(live, dict) and isinstance(before, dict)):
        return live
    kept = {}
    for key, value in live.items():
        if key in before and not (isinstance(want, dict) and key in want):
            rest = _without(value, before[key], None) if isinstance(value, dict) else None
            if rest:
                kept[key] = rest
        else:
            kept[key] = _without(value, before.get(key), want.get(key) if isinstance(want, dict) else None)
    return kept


def _patched(live: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(live) if isinstance(live, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _patched(result.get(key), value)
    return result


def _server_defaults(obj: Obj, live: Obj | None) -> None:
    """Some of what a real server adds."""
    meta = obj["metadata"]
    meta.setdefault("creationTimestamp", "2026-05-19T10:00:00Z")
    for field in ("data", "binaryData"):
        if field in obj and not obj[field]:
            del obj[field]
    if obj["kind"] == "DaemonSet":
        pod = obj.setdefault("spec", {}).setdefault("template", {}).setdefault("spec", {})
        pod.setdefault("schedulerName", "default-scheduler")
        for container in (*pod.get("initContainers", []), *pod.get("containers", [])):
            container.setdefault("terminationMessagePath", "/dev/termination-log")
            container.setdefault("imagePullPolicy", "IfNotPresent")
        obj["spec"].setdefault("revisionHistoryLimit", 10)
        changed = live is None or live["spec"] != obj["spec"]
        meta["generation"] = (live["metadata"].get("generation", 0) if live else 0) + changed
    if obj["kind"] == "Secret":
        obj.setdefault("type", "Opaque")


def _bare(obj: Obj) -> Obj:
    return {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k != "resourceVersion"}}
