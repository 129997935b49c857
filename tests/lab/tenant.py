"""Filling a tenant cluster with the objects that the cluster-network-operator and friends leave in it.

Any folder of YAML will do: the examples that the project ships (`tenants/`), or what `oc adm inspect` wrote. Status
subresources are set by a second write, as their own controllers do. What the API server doesn't know (a kind without
its CRD) is passed over and named.
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.lab import pki, places, yamlfiles
from tests.lab.client import ApiError, Client, Object, kind_of, name_of, namespace_of

INTERCONNECT = places.TENANTS / "ocp-4.20-interconnect"
CENTRAL = places.TENANTS / "ocp-4.13-central"
NAMESPACE = "openshift-ovn-kubernetes"
_FIRST = ("Namespace", "ServiceAccount")
_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
_PLACEHOLDER = b"placeholder"

Key = tuple[str, str | None, str]


@dataclass(frozen=True)
class Loaded:
    """What a folder became in the cluster."""

    folder: Path
    objects: tuple[Key, ...]
    skipped: tuple[Key, ...]


@dataclass
class Tenant:
    """The contents of a tenant cluster."""

    admin: Client
    ca: str
    """The cluster's own CA, for the ConfigMaps that OpenShift fills with it."""
    loaded: Loaded | None = None
    ovn_ca: pki.Authority = field(default_factory=lambda: pki.Authority.make("lab openshift-ovn-kubernetes_ovn-ca"))
    ovn_cert: pki.Pair = field(init=False)

    def __post_init__(self) -> None:
        """The certificate that ovn-northd and its clients share."""
        self.ovn_cert = self.ovn_ca.server(("ovn",), ())

    def load(self, folder: Path = INTERCONNECT) -> Loaded:
        """Make the cluster hold exactly what the folder says; what an earlier folder brought on top is deleted."""
        items = [self._prepared(item) for item in yamlfiles.everything(folder) if "kind" in item]
        self._fresh_certificates(items)
        done: list[Key] = []
        skipped: list[Key] = []
        for item in sorted(self._with_namespaces(items), key=_order):
            (done if self._write(item) else skipped).append(key_of(item))
        for kind, namespace, name in self.loaded.objects if self.loaded else ():
            if (kind, namespace, name) not in done and not kind.endswith("/Namespace"):
                self.admin.delete(kind, name, namespace)
        self.loaded = Loaded(folder, tuple(done), tuple(skipped))
        return self.loaded

    def restore(self) -> None:
        """Undo what a test did to the loaded objects."""
        self.load(self.loaded.folder if self.loaded else INTERCONNECT)

    def _write(self, item: Object) -> bool:
        """Create or replace; False where the server doesn't know the kind."""
        try:
            self.admin.resource(kind_of(item))
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        status = item.pop("status", None)
        written = self._upsert(item)
        if status and "observedGeneration" in status:
            status |= {"observedGeneration": written["metadata"].get("generation", status["observedGeneration"])}
        if status and written.get("status") != status:
            try:
                self.admin.replace(written | {"status": status}, "status")
            except ApiError as error:
                if error.status not in {404, 405}:
                    raise
        return True

    def _upsert(self, item: Object) -> Object:
        kind, name, namespace = kind_of(item), name_of(item), namespace_of(item)
        known = self.admin.find(kind, name, namespace)
        if known is None:
            created = self.admin.create(item)
            if item["kind"] == "Node":
                # Admission taints a new node; nothing in this cluster would ever take the taint off.
                created = self.admin.patch(kind, name, {"spec": {"taints": None}})
            return created
        if item["kind"] in {"Namespace", "ServiceAccount"}:
            return known
        version = {"resourceVersion": known["metadata"]["resourceVersion"], "uid": known["metadata"]["uid"]}
        wanted = item | {"metadata": item["metadata"] | version}
        if generation := (known["metadata"].get("annotations") or {}).get(_TEMPLATE_GENERATION):
            # The server's own note: left out, a replacement that changes nothing would count as a change.
            wanted["metadata"]["annotations"] = item["metadata"].get("annotations", {}) | {
                _TEMPLATE_GENERATION: generation
            }
        if item["kind"] == "Service":
            wanted["spec"] = {"clusterIP": known["spec"].get("clusterIP")} | item["spec"]
        return self.admin.replace(wanted)

    def _prepared(self, item: Object) -> Object:
        """An object as it would be created: without what a server has added, without what would harm a live lab."""
        metadata = {
            name: value
            for name, value in item["metadata"].items()
            if name in {"name", "namespace", "labels", "annotations"} and value
        }
        item = item | {"metadata": metadata}
        if item["kind"] == "Namespace":
            item.pop("spec", None)
            item.pop("status", None)
        if item["kind"] == "ValidatingWebhookConfiguration":
            # Its server isn't here: with Fail, nobody could write a Node any more.
            item["webhooks"] = [webhook | {"failurePolicy": "Ignore"} for webhook in item.get("webhooks") or []]
        if item["kind"] == "ConfigMap" and name_of(item) == "kube-root-ca.crt":
            item["data"] = {"ca.crt": self.ca}
        if item["kind"] == "ClusterVersion" and item.get("status", {}).get("availableUpdates", ()) is None:
            item["status"] = item["status"] | {"availableUpdates": []}
        return item

    def _fresh_certificates(self, items: Iterable[Object]) -> None:
        """Placeholder keys become real material, so that certificate and key fit; the same at each load."""
        stale = [each for each in items if each["kind"] == "Secret" and _has_placeholder(each)]
        for each in stale:
            pair = self.ovn_ca if name_of(each).endswith("-ca") else self.ovn_cert
            each["data"] = _data(pair)
        for each in items if stale else ():
            if each["kind"] == "ConfigMap" and name_of(each) == "ovn-ca":
                each["data"] = {"ca-bundle.crt": self.ovn_ca.cert}

    def _with_namespaces(self, items: list[Object]) -> list[Object]:
        named = {name_of(item) for item in items if item["kind"] == "Namespace"}
        missing = {space for item in items if (space := namespace_of(item)) and space not in named}
        made = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in sorted(missing)]
        return [*made, *items]


def key_of(item: Object) -> Key:
    """Kind, namespace and name."""
    return kind_of(item), namespace_of(item), name_of(item)


def _order(item: Object) -> tuple[int, str]:
    rank = _FIRST.index(item["kind"]) if item["kind"] in _FIRST else len(_FIRST)
    return rank, name_of(item)


def _has_placeholder(secret: Object) -> bool:
    values = (secret.get("data") or {}).values()
    return any(base64.b64decode(value or "").startswith(_PLACEHOLDER) for value in values)


def _data(pair: pki.Pair) -> dict[str, str]:
    return {
        "tls.crt": base64.b64encode(pair.cert.encode()).decode(),
        "tls.key": base64.b64encode(pair.key.encode()).decode(),
    }
