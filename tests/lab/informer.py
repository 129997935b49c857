"""A kind's objects, kept up to date by list and watch, for the lab's own stand-ins."""

import contextlib
import http.client
import threading
from collections.abc import Callable

from tests.lab.client import ApiError, Client, Object, name_of

Trouble = (OSError, http.client.HTTPException, ApiError, ValueError, AttributeError)
"""What a connection that ends under a reader's hands may raise."""


class Informer:
    """One thread that lists and watches; `changed` is called after each change."""

    def __init__(self, client: Client, kind: str, changed: Callable[[], None], *, namespace: str | None = None) -> None:
        self.kind = kind
        self.synced = threading.Event()
        self._client = client
        self._changed = changed
        self._namespace = namespace
        self._items: dict[str, Object] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"dpu-lab-informer-{kind}", daemon=True)

    def start(self) -> None:
        """Start it."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; it ends once its connection is closed."""
        self._stop.set()

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join(5)

    def items(self) -> dict[str, Object]:
        """The objects by name."""
        with self._lock:
            return dict(self._items)

    def put(self, item: Object) -> None:
        """Take what a write of our own has answered, so that the next look doesn't see the past."""
        with self._lock:
            known = self._items.get(name_of(item))
            if known is None or _version(known) <= _version(item):
                self._items[name_of(item)] = item

    def _run(self) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(*Trouble):
                self._follow(self._list())
            self._stop.wait(0.1)

    def _list(self) -> str:
        answer = self._client.request("GET", self._client.resource(self.kind).path(self._namespace))
        with self._lock:
            self._items = {name_of(item): item for item in answer.get("items") or []}
        self.synced.set()
        self._changed()
        return str(answer["metadata"]["resourceVersion"])

    def _follow(self, since: str) -> None:
        for event in self._client.watch(self.kind, self._namespace, since=since):
            if self._stop.is_set() or event["type"] == "ERROR":
                return
            if event["type"] == "BOOKMARK":
                continue
            if event["type"] == "DELETED":
                with self._lock:
                    self._items.pop(name_of(event["object"]), None)
            else:
                self.put(event["object"])
            self._changed()


def _version(item: Object) -> int:
    return int(item["metadata"]["resourceVersion"])
