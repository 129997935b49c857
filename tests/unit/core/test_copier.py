"""The short way for copies: the newest wins, one write at a time for each place, and no failure ends it."""

import asyncio
import logging
from typing import Any, cast

import pytest

from dpu_operator.apply.copier import Copier
from dpu_operator.kube.errors import ApiError, ClusterError, Unreachable
from dpu_operator.world import CONFIG_MAP, SECRET, Apply, Obj, Ref
from tests.unit.core.server import ApiServer
from tests.unit.core.worlds import NAMESPACE

A, B = Ref(CONFIG_MAP, NAMESPACE, "a"), Ref(CONFIG_MAP, NAMESPACE, "b")
CERT = Ref(SECRET, NAMESPACE, "ovn-cert")


class Copying:
    """A copier whose writes a test can hold."""

    def __init__(self) -> None:
        self.server = ApiServer()
        self.wrote: list[tuple[Ref, Obj | None]] = []
        self.copier = Copier(cast("Any", self.server), wrote=lambda ref, obj: self.wrote.append((ref, obj)))
        self.made: list[str] = []
        self.holds: dict[Ref, asyncio.Event] = {}
        self.waiting: list[Ref] = []
        self.server.gate = self._gate

    async def _gate(self, ref: Ref) -> None:
        if hold := self.holds.get(ref):
            self.waiting.append(ref)
            await hold.wait()

    def hold(self, ref: Ref) -> asyncio.Event:
        return self.holds.setdefault(ref, asyncio.Event())

    def offer(self, ref: Ref, value: str) -> None:
        def make() -> Apply:
            self.made.append(value)
            meta = {"name": ref.name, "namespace": ref.namespace}
            obj: Obj = {"apiVersion": "v1", "kind": ref.kind.kind, "metadata": meta, "data": {"v": value}}
            return Apply(ref, obj, "The tenant's object has changed.", replaces=True)

        self.copier.offer(ref, make)

    def values(self, ref: Ref) -> list[str]:
        return [body["data"]["v"] for _, r, body in self.server.writes if r == ref]

    async def settled(self) -> None:
        """Let everything that can go on do so."""
        for _ in range(50):
            await asyncio.sleep(0)


async def test_an_offer_is_written_at_once_and_its_answer_is_told() -> None:
    c = Copying()
    c.offer(A, "1")
    await c.settled()
    assert c.values(A) == ["1"]
    assert [(ref, (obj or {})["data"]) for ref, obj in c.wrote] == [(A, {"v": "1"})]


async def test_the_newest_offer_wins_and_those_between_are_not_even_made() -> None:
    c = Copying()
    hold = c.hold(A)
    c.offer(A, "1")
    await c.settled()
    for value in "2345":
        c.offer(A, value)
    hold.set()
    await c.settled()
    assert c.values(A) == ["1", "5"]
    assert c.made == ["1", "5"]
    assert c.server.objects[A]["data"] == {"v": "5"}


async def test_one_write_at_a_time_for_each_place_and_places_do_not_wait_for_each_other() -> None:
    c = Copying()
    hold = c.hold(A)
    for value in "123":
        c.offer(A, value)
        await c.settled()
        c.offer(B, value)
        await c.settled()
    assert c.waiting == [A], "the second write of A waits for the first"
    assert c.values(B) == ["1", "2", "3"]
    hold.set()
    await c.settled()
    assert c.values(A) == ["1", "3"]


@pytest.mark.parametrize("error", [ApiError(500, "InternalError", "no"), Unreachable("timed out", sent=True)])
async def test_a_failed_write_does_not_end_it(error: ClusterError) -> None:
    c = Copying()
    hold = c.hold(A)
    c.server.refuse = lambda _verb, ref: error if ref == A else None
    c.offer(A, "1")
    await c.settled()
    c.offer(A, "2")
    hold.set()
    await c.settled()
    assert c.made == ["1", "2"], "the one that came meanwhile is tried all the same"
    assert c.wrote == []
    c.server.refuse = lambda _verb, _ref: None
    c.offer(A, "3")
    await c.settled()
    assert c.server.objects[A]["data"] == {"v": "3"}


async def test_a_failure_with_a_secret_is_told_to_developers_only_and_without_its_content(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="dpu_operator")
    c = Copying()
    c.server.refuse = lambda _verb, _ref: ApiError(422, "Invalid", "tls.key: m4rk3r")
    c.offer(CERT, "m4rk3r")
    await c.settled()
    assert [record.levelname for record in caplog.records] == ["DEBUG"]
    assert "m4rk3r" not in caplog.text


async def test_closing_gives_up_what_waits_and_what_is_under_way() -> None:
    c = Copying()
    c.hold(A)
    c.offer(A, "1")
    await c.settled()
    c.offer(A, "2")
    async with asyncio.timeout(5):
        await c.copier.close()
    await c.settled()
    assert c.server.writes == []
    assert c.made == ["1"]


async def test_nothing_is_written_after_closing() -> None:
    """A watch may bring one more event while the session ends."""
    c = Copying()
    await c.copier.close()
    c.offer(A, "1")
    await c.settled()
    assert c.server.writes == []
    await c.copier.close()
