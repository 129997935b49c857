"""What one list-watch has told so far, and whether it can be believed."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import aclosing

from dpu_operator.kube.listwatch import Broken, Changed, Listed, ListWatch
from dpu_operator.world import Obj, Ref, Seen, Sight

logger = logging.getLogger(__name__)

RESTART_DELAY = 5.0
"""Seconds until a watch that failed by a defect of ours is tried again."""


def version_of(obj: Obj) -> str:
    """The resourceVersion: equal versions are the same object to the byte."""
    return str(obj["metadata"].get("resourceVersion", ""))


def is_older(obj: Obj, than: Obj) -> bool:
    """Whether the API server has written `than` after `obj`; versions that are no numbers are never older."""
    mine, other = version_of(obj), version_of(than)
    return mine.isdigit() and other.isdigit() and int(mine) < int(other)


class Shelf:
    """The objects of one list-watch, by (namespace, name).

    Losing the stream keeps what is there: unreachable is not deleted. Only a complete list or a DELETED event takes an
    object away.

    Args:
        source: the list-watch; the shelf alone consumes it.
        on_change: called with the object that changed (None: several may have), never for an echo of our own write.
        keep: reduces an object to what is needed.

    """

    def __init__(
        self,
        source: ListWatch,
        *,
        on_change: Callable[[Obj | None], None],
        keep: Callable[[Obj], Obj] = lambda obj: obj,
    ) -> None:
        self._source = source
        self._on_change = on_change
        self._keep = keep
        self._objects: dict[tuple[str, str], Obj] = {}
        self.sight = Sight.UNSEEN

    @property
    def complete(self) -> bool:
        """Whether a complete list was read once, so that what is not here was surely absent."""
        return self.sight is Sight.PRESENT

    @property
    def settled(self) -> bool:
        """Whether there is any answer, be it a refusal."""
        return self.sight is not Sight.UNSEEN

    def __iter__(self) -> Iterator[Obj]:
        return iter(self._objects.values())

    def get(self, name: str, namespace: str = "") -> Seen:
        """The object of that name, ABSENT only where a complete list lacks it."""
        obj = self._objects.get((namespace, name))
        if obj is not None:
            return Seen(Sight.PRESENT, obj)
        return Seen(Sight.ABSENT if self.complete else self.sight)

    def wrote(self, ref: Ref, obj: Obj | None) -> None:
        """Note the answer to a write of our own (None: a deletion), so that its echo wakes nobody."""
        key = (ref.namespace or "", ref.name)
        if obj is None:
            self._objects.pop(key, None)
            return
        known = self._objects.get(key)
        if known is None or not is_older(obj, known):
            self._objects[key] = self._keep(obj)

    async def run(self) -> None:
        """Follow the source until cancelled."""
        while True:
            try:
                await self._follow()
            except Exception:
                # A watch that ended here unseen would leave an operator that runs and hears nothing.
                logger.exception("Watching %s failed. Please report it; it starts again with a list.", self._source)
            await asyncio.sleep(RESTART_DELAY)

    async def _follow(self) -> None:
        async with aclosing(self._source.events()) as events:
            async for event in events:
                match event:
                    case Listed(items=items):
                        self._replace(items)
                    case Changed(type=kind, object=obj):
                        self._change(kind, obj)
                    case Broken(sight=sight, sentence=sentence):
                        logger.debug("%s: %s", self._source, sentence)
                        self._broken(sight)

    def _replace(self, items: Iterable[Obj]) -> None:
        fresh = {_key(obj): self._keep(obj) for obj in items}
        same = self.complete and _versions(fresh) == _versions(self._objects)
        self._objects = fresh
        self.sight = Sight.PRESENT
        if not same:
            self._on_change(None)

    def _change(self, kind: str, obj: Obj) -> None:
        key = _key(obj)
        known = self._objects.get(key)
        if kind == "DELETED":
            if known is not None and not is_older(obj, known):
                del self._objects[key]
                self._on_change(obj)
            return
        if known is not None and not is_older(known, obj) and version_of(obj).isdigit():
            return
        self._objects[key] = kept = self._keep(obj)
        if known is None or _content(known) != _content(kept):
            # A heartbeat moves the resourceVersion of every Node each few minutes; that alone is no news.
            self._on_change(obj)

    def _broken(self, sight: Sight | None) -> None:
        """A refusal is an answer about our rights or the type, not about the objects: those stay as last seen."""
        if sight is not None and sight is not self.sight:
            self.sight = sight
            self._on_change(None)


def _key(obj: Obj) -> tuple[str, str]:
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _content(obj: Obj) -> Obj:
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": None}}


def _versions(objects: dict[tuple[str, str], Obj]) -> dict[tuple[str, str], str]:
    return {key: version_of(obj) for key, obj in objects.items()}
