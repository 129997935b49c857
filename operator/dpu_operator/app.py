"""kopf's wiring: handlers of a few lines that wake a reconciler. The only importer of kopf."""

import asyncio
import base64
import gc
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kopf

from dpu_operator.fleet import Fleet
from dpu_operator.kube.vetting import Access
from dpu_operator.plan.machineconfig import Tree
from dpu_operator.world import FINALIZER, OVN_KUBE_CONFIG

PREFIX = "dpu.openshift.io"
REMOVAL_DELAYS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds between two looks at what a removal waits for (the pool's machines reboot one by one: minutes each)."""

registry = kopf.OperatorRegistry()
_WATCHED = (OVN_KUBE_CONFIG.group, OVN_KUBE_CONFIG.version, OVN_KUBE_CONFIG.plural)


class Memo(kopf.Memo):
    """What the handlers share."""

    fleet: Fleet
    access: Access
    images: Mapping[str, str]
    tree: Tree


@kopf.on.login(registry=registry)
def login(memo: Memo, **_: Any) -> kopf.ConnectionInfo:
    """The same account that everything else uses."""
    access = memo.access
    return kopf.ConnectionInfo(
        server=access.server,
        ca_data=base64.b64encode(access.ca_pem.encode()),
        token=access.token
        or (Path(access.token_file).read_text(encoding="utf-8").strip() if access.token_file else None),
        certificate_data=base64.b64encode(access.client_cert_pem.encode()) if access.client_cert_pem else None,
        private_key_data=base64.b64encode(access.client_key_pem.encode()) if access.client_key_pem else None,
    )


@kopf.on.startup(registry=registry)
async def startup(memo: Memo, settings: kopf.OperatorSettings, **_: Any) -> None:
    """Start what all resources share."""
    configure(settings)
    spare_the_collector()
    memo.fleet = Fleet(memo.access, images=memo.images, tree=memo.tree)


@kopf.on.cleanup(registry=registry)
async def cleanup(memo: Memo, **_: Any) -> None:
    """End what startup began."""
    await memo.fleet.close()


@kopf.index(*_WATCHED, registry=registry)
async def saw(memo: Memo, body: kopf.Body, **_: Any) -> None:
    """An index runs before every other handler, and for all resources before the first: conflicts are seen at once."""
    memo.fleet.saw(_plain(body))


@kopf.on.event(*_WATCHED, registry=registry)
async def gone(memo: Memo, type: str | None, uid: str, **_: Any) -> None:  # noqa: A002  # kopf's name
    """Forget what was deleted."""
    if type == "DELETED":
        await memo.fleet.gone(uid)


@kopf.daemon(*_WATCHED, registry=registry, cancellation_timeout=5.0)
async def reconcile(memo: Memo, uid: str, stopped: kopf.DaemonStopped, **_: Any) -> None:
    """The reconcile loop of one resource."""
    await memo.fleet.run(uid, stopped.wait())


@kopf.on.delete(*_WATCHED, registry=registry)
async def remove(memo: Memo, uid: str, retry: int, **_: Any) -> None:
    """Take our MachineConfig away and wait for the pool; the finalizer goes when this returns."""
    if waits_for := await memo.fleet.remove(uid):
        raise kopf.TemporaryError(waits_for, delay=REMOVAL_DELAYS[min(retry, len(REMOVAL_DELAYS) - 1)])


def spare_the_collector() -> None:
    """Leave the modules out of garbage collection, and collect seldom.

    A full collection looks at several hundred thousand objects of kopf and kubernetes that never go, and stops
    everything for tens of milliseconds, which is the slowest percent of all copies.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


class NoDiffBase(kopf.DiffBaseStorage):
    """Stores no copy of the last spec: reconciling is level-triggered, and each would be one more write and annotation."""

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """The present state, so that kopf sees no change to handle."""
        return self.build(body=body)

    def store(self, **_: Any) -> None:
        """Nothing to keep."""


class Backoffs:
    """Seconds between two attempts of kopf's requests, without an end.

    A watch that gets HTTP 5xx or 403 more often than there are backoffs ends the whole operator, and that is what an
    API server gives for a while when it starts or has lost etcd.
    """

    def __iter__(self) -> Iterator[float]:
        return itertools.chain((0.2, 0.5, 1.0, 2.0), itertools.repeat(3.0))


def configure(settings: kopf.OperatorSettings) -> None:
    """Kopf's settings, each with its reason."""
    # One replica with strategy Recreate: kopf's peering would freeze both of two equals, and needs one more CRD.
    settings.peering.standalone = True
    # Sentences for people are Events that report/ writes; a log line is none.
    settings.posting.enabled = False
    # Our names on users' objects, from the first day: changing them later handles everything again.
    settings.persistence.finalizer = FINALIZER
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=PREFIX, v1=False)
    settings.persistence.diffbase_storage = NoDiffBase()
    # The CRD is installed before us and never changes while we run: no watch for CRDs and namespaces.
    settings.scanning.disabled = True
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = Backoffs()
    # At rest a watch is one request in half an hour; bookmarks and kopf's own inactivity timeout tell a dead stream.
    settings.watching.server_timeout = 1800
    settings.watching.reconnect_backoff = 0.2
    settings.background.cancellation_polling = 1


def run(*, access: Access, images: Mapping[str, str], tree: Tree, liveness: str | None) -> None:
    """Run until SIGTERM or SIGINT.

    Args:
        access: to the infra API server.
        images: RELATED_IMAGE_* by short name.
        tree: the files that the MachineConfig carries.
        liveness: URL to answer liveness probes at, or None.

    """
    memo = Memo(access=access, images=images, tree=tree)
    asyncio.run(kopf.operator(registry=registry, memo=memo, clusterwide=True, liveness_endpoint=liveness))


def _plain(body: kopf.Body) -> dict[str, Any]:
    """The object itself: kopf's Body is a live view whose content changes under its reader."""
    return {key: value for key, value in body.items() if key != "metadata"} | {
        "metadata": {k: v for k, v in body["metadata"].items() if k != "managedFields"}
    }
