"""The two that are measured against each other, behind one face: change the source, see the copy.

Whatever the bench does to one side it does to the other with the same bytes, on connections of its own that look
alike; only who copies is different.
"""

import json
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Self

from tests.bench.figures import Change, Sighting
from tests.bench.wire import MERGE, Connection, WireError
from tests.lab.kubeconfig import Access

CONFIG, CA = "ovnkube-config", "kube-root-ca.crt"
"""The two ConfigMaps that every topology copies, as the tenant names them."""
COPIES: Mapping[str, str] = {CONFIG: "ovnkube-config", CA: "tenant-cluster-ca.crt"}
KEY = "bench"
"""A data key of the bench's own, with the number of the change. It is copied like any other, and means nothing to the
settings that are derived from `ovnkube.conf`."""


class Watcher:
    """Notes when each copy in a namespace of infra was seen with which number. One raw watch, in a thread."""

    def __init__(self, infra: Access, namespace: str) -> None:
        self._connection = Connection(infra)
        self._target = f"/api/v1/namespaces/{namespace}/configmaps?watch=true&timeoutSeconds=36000"
        self._seen: dict[str, list[Sighting]] = defaultdict(list)
        self._news = threading.Condition()
        self._error: str = ""
        self._thread = threading.Thread(target=self._follow, name=f"watch {namespace}", daemon=True)
        self._thread.start()

    def wait(self, name: str, number: int, *, timeout: float) -> float | None:
        """The moment at which this copy showed this number or a later one; None if it did not in time."""
        deadline = time.monotonic() + timeout
        looked_at = 0
        with self._news:
            while True:
                seen = self._seen[name]
                for sighting in seen[looked_at:]:
                    if sighting.number >= number:
                        return sighting.at
                looked_at = len(seen)
                if self._error:
                    raise WireError(self._error)
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._news.wait(left)

    def sightings(self, name: str, since: float) -> list[Sighting]:
        """Every state of the copy since a moment."""
        with self._news:
            return [sighting for sighting in self._seen[name] if sighting.at >= since]

    def close(self) -> None:
        """End the watch."""
        self._connection.close()
        self._thread.join(5)

    def _follow(self) -> None:
        try:
            for at, line in self._connection.watch(self._target):
                event = json.loads(line)
                item = event["object"]
                number = (item.get("data") or {}).get(KEY)
                if number is None or event["type"] == "DELETED":
                    continue
                with self._news:
                    self._seen[item["metadata"]["name"]].append(Sighting(at, int(number)))
                    self._news.notify_all()
        except (OSError, ValueError, WireError) as error:
            self._fail(f"the bench lost its watch: {error}")
        else:
            self._fail("the bench's watch has ended")

    def _fail(self, why: str) -> None:
        with self._news:
            self._error = why
            self._news.notify_all()


class Side:
    """One copier's objects: changed in the tenant, watched in infra. Close it, or use `with`.

    Args:
        name: `operator` or `floor`.
        tenant: who changes the sources.
        infra: who watches the copies.
        source_namespace: in the tenant.
        copy_namespace: in infra.

    """

    def __init__(self, name: str, *, tenant: Access, infra: Access, source_namespace: str, copy_namespace: str) -> None:
        self.name = name
        # Above whatever an earlier side has left in the copies, and of a width that stays.
        self._numbers = dict.fromkeys(COPIES, int(time.time() * 1000))
        self._base = f"/api/v1/namespaces/{source_namespace}/configmaps"
        self._access = tenant
        self._tenant = Connection(tenant)
        self._watcher = Watcher(infra, copy_namespace)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tenant.close()
        self._watcher.close()

    def wake(self) -> None:
        """A fresh connection that has been used once: an API server drops one that waits for long."""
        self._tenant.close()
        self._tenant = Connection(self._access)
        self._tenant.request("GET", "/version")

    def change(self, source: str) -> Change:
        """Change one source to its next number."""
        self._numbers[source] += 1
        number = self._numbers[source]
        body = json.dumps({"data": {KEY: str(number)}}).encode()
        sent = time.monotonic()
        self._tenant.request("PATCH", f"{self._base}/{source}", body, MERGE)
        return Change(number, sent, time.monotonic())

    def seen(self, source: str, change: Change, *, timeout: float = 10) -> float | None:
        """The moment at which the copy showed this change, or None."""
        return self._watcher.wait(COPIES[source], change.number, timeout=timeout)

    def sightings(self, source: str, since: float) -> list[Sighting]:
        """Every state of the copy since a moment."""
        return self._watcher.sightings(COPIES[source], since)
