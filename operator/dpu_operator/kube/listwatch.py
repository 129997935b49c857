"""A list and then a watch, for ever, in which any doubt leads to a new list.

Nothing else is trusted to find out what was missed: a stream that broke off, an error in it, silence, or a
resourceVersion that went back (a restore from backup) all end in a complete list, so that what is not in it is gone.
Only the regular end of a watch is no doubt; the next one goes on from the last resourceVersion, without a list.
That a single named object was deleted is a doubt too: it may be there again by now, and a list tells.
"""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import NoReturn

from dpu_operator.kube.client import Cluster
from dpu_operator.kube.errors import ApiError, ClusterError, Unreachable
from dpu_operator.kube.link import FIRST_DELAY, LinkGate, backoff
from dpu_operator.kube.stream import Stream
from dpu_operator.world import Kind, LinkState, Obj, Sight

WATCH_SECONDS = 1800
"""Length of one watch. Ten watches of half an hour are a request in three minutes, all that an idle tenant sees of us."""
SILENCE = 75.0
"""Seconds: a server sends a bookmark each minute, so after this the stream is dead, whatever TCP says."""
SETTLED = 10.0
"""Seconds after which a stream counts as a success, and the next failure as the first."""

FIRST_WATCH_DELAY = 0.1
"""Seconds between the first list and the first watch: whoever waited for the list has the processor meanwhile, and the
watch goes on from the list's version."""
CUT_DELAY = 2.0
SERVER_ERROR_DELAY = 10.0
REFUSAL_DELAY = 30.0
THROTTLE_LIMIT = 120.0
"""Seconds of a Retry-After that are obeyed at most."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A complete list: what was known before and is not in it does not exist any more."""

    items: tuple[Obj, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Changed:
    """One change; `type` is ADDED, MODIFIED or DELETED. An ADDED may come for an object that is known already.

    DELETED is told of the objects of a collection only; that a single named object is gone, the next `Listed` tells.
    """

    type: str
    object: Obj


@dataclass(frozen=True, slots=True)
class Broken:
    """The list or the watch failed; a new list follows when it can. What is known stays what it was."""

    error: ClusterError
    sentence: str
    """For people, with a full stop; nothing of a credential is in it."""
    listing: bool
    """Whether the list failed, rather than the watch after it."""

    @property
    def sight(self) -> Sight | None:
        """What the failed list says about the objects: FORBIDDEN or UNSERVED; None: nothing, keep what was seen."""
        if not self.listing or not isinstance(self.error, ApiError):
            return None
        if self.error.status == 403:
            return Sight.FORBIDDEN
        return Sight.UNSERVED if self.error.not_found and not self.error.namespace_missing else None


Event = Listed | Changed | Broken


class ListWatch:
    """One collection, or one named object of it, kept in view.

    Args:
        cluster: where.
        kind: what.
        namespace: only there; None for all namespaces, or for a cluster-wide kind.
        name: only the object of this name.
        label_selector: only objects with these labels.
        link: the gate that all list-watches of this cluster share.
        timeout_seconds: length of one watch; each is up to a tenth shorter, so that they do not end together.
        silence: seconds without an event or a bookmark until the stream is taken for dead.
        settled: seconds after which a stream counts as a success.
        first_delay: seconds until the second attempt after a failure.
        first_watch_delay: seconds between the first list and the first watch.

    """

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind,
        namespace: str | None = None,
        *,
        link: LinkGate,
        name: str | None = None,
        label_selector: str | None = None,
        timeout_seconds: int = WATCH_SECONDS,
        silence: float = SILENCE,
        settled: float = SETTLED,
        first_delay: float = FIRST_DELAY,
        first_watch_delay: float = FIRST_WATCH_DELAY,
    ) -> None:
        self._cluster = cluster
        self._kind = kind
        self._namespace = namespace
        self._name = name
        self._label_selector = label_selector
        self._link = link
        self._timeout_seconds = timeout_seconds
        self._silence = silence
        self._settled = settled
        self._first_delay = first_delay
        self._first_watch_delay = first_watch_delay
        self._watched = False
        self._failures = 0
        self._version = ""

    def __str__(self) -> str:
        where = f"{self._namespace}/" if self._namespace else ""
        return f"{self._kind.kind} {where}{self._name}" if self._name else f"{self._kind.plural} {where}*"

    async def run(self, on_event: Callable[[Event], None]) -> NoReturn:
        """Hand each event to a function, until cancelled."""
        async with aclosing(self.events()) as events:
            async for event in events:
                on_event(event)
        raise AssertionError("a list-watch has no end")

    async def events(self) -> AsyncGenerator[Event, None]:
        """The events, without end. Raises nothing of the cluster's; close it with `aclosing`."""
        while True:
            listing = True
            try:
                yield await self._list()
                listing = deleted = False
                while not deleted:
                    async with aclosing(self._watch()) as changes:
                        async for change in changes:
                            deleted = bool(self._name) and change.type == "DELETED"
                            if deleted:
                                break
                            yield change
                continue
            except ClusterError as error:
                # frames hold requests, and a broken stream may be shown for a long time
                failure = error.with_traceback(None)
            yield Broken(failure, self._sentence(failure, listing=listing), listing)
            await self._back_off(failure)

    async def _list(self) -> Listed:
        async with self._link.listing(), self._link.turn():
            try:
                first = not self._version
                items, version = await self._read(cached=first)
                if first and self._name is not None and not items:
                    # That something is not there is believed of the newest data only: its copy would be deleted.
                    items, version = await self._read(cached=False)
            except ClusterError as error:
                self._failures += 1
                self._link.failed(error)
                raise
            self._link.answered()
        self._version = version
        return Listed(tuple(items), version)

    async def _read(self, *, cached: bool) -> tuple[list[Obj], str]:
        return await self._cluster.list(
            self._kind, self._namespace, name=self._name, label_selector=self._label_selector, cached=cached
        )

    async def _watch(self) -> AsyncGenerator[Changed, None]:
        """The changes of one watch; returns at its regular end."""
        stream = await self._open()
        opened = time.monotonic()
        try:
            with self._link.streaming():
                async with aclosing(stream):
                    while (event := await self._next(stream)) is not None:
                        kind, obj = event
                        self._advance(obj)
                        if kind != "BOOKMARK":
                            yield Changed(kind, obj)
        except ClusterError:
            self._link.doubt()
            raise
        finally:
            self._failures = 0 if time.monotonic() - opened >= self._settled else self._failures + 1
        if self._failures:
            # a server that ends watches at once would otherwise be asked without a pause
            await self._link.pause(backoff(self._failures - 1, first=self._first_delay, longest=SERVER_ERROR_DELAY))

    async def _open(self) -> Stream:
        if not self._watched:
            self._watched = True
            await self._link.lists_first()
            await asyncio.sleep(self._first_watch_delay)
        seconds = max(1, int(self._timeout_seconds * random.uniform(0.9, 1.0)))  # noqa: S311 - no secret
        async with self._link.turn():
            try:
                stream = await self._cluster.watch(
                    self._kind,
                    self._namespace,
                    name=self._name,
                    label_selector=self._label_selector,
                    resource_version=self._version,
                    timeout_seconds=seconds,
                )
            except ClusterError as error:
                self._failures += 1
                self._link.failed(error)
                raise
            self._link.answered()
        return stream

    async def _next(self, stream: Stream) -> tuple[str, Obj] | None:
        try:
            async with asyncio.timeout(self._silence):
                return await anext(stream, None)
        except TimeoutError:
            silent = Unreachable(f"no sign of life for {self._silence:g} s", sent=True)
        raise silent

    def _advance(self, obj: Obj) -> None:
        """Remember how far we are; a step back means that the server's data is not the one that we knew."""
        version = str(obj["metadata"].get("resourceVersion", ""))
        if not version:
            raise ClusterError("the server sent an object without a resourceVersion")
        if version.isdecimal() and self._version.isdecimal() and int(version) < int(self._version):
            raise ClusterError("the server went back to an older resourceVersion")
        self._version = version

    async def _back_off(self, error: ClusterError) -> None:
        """Wait before the next list, unless the gate does the waiting for all."""
        if isinstance(error, ApiError) and error.retry_after is not None:
            await self._link.pause(min(error.retry_after, THROTTLE_LIMIT) * random.uniform(1.0, 1.1))  # noqa: S311 - no secret
        elif self._link.link.state not in (LinkState.DOWN, LinkState.REFUSED):
            attempts = max(0, self._failures - 1)
            await self._link.pause(backoff(attempts, first=self._first_delay, longest=_longest_delay(error)))

    def _sentence(self, error: ClusterError, *, listing: bool) -> str:
        what = "cannot be listed" if listing else "is no longer watched"
        return f"{self} {what}: {str(error).rstrip('.')}."


def _longest_delay(error: ClusterError) -> float:
    if not isinstance(error, ApiError) or error.status == 410:
        return CUT_DELAY
    return SERVER_ERROR_DELAY if error.status >= 500 or error.status == 429 else REFUSAL_DELAY
