"""What one list-watch has told, and what of it may be believed."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from dpu_operator.kube.errors import ApiError, ClusterError, Unreachable
from dpu_operator.kube.listwatch import Broken, Changed, Event, Listed
from dpu_operator.observe import shelf as shelf_room
from dpu_operator.observe.shelf import Shelf, is_older
from dpu_operator.world import CONFIG_MAP, Obj, Ref, Seen, Sight

NAMESPACE = "here"


class Source:
    """A list-watch that says what it is told to say."""

    def __init__(self, *events: Event | Exception) -> None:
        self.events_ = list(events)
        self.starts = 0
        self.quiet = asyncio.Event()

    async def events(self) -> AsyncGenerator[Event, None]:
        self.starts += 1
        while self.events_:
            event = self.events_.pop(0)
            if isinstance(event, Exception):
                raise event
            yield event
        self.quiet.set()
        await asyncio.Event().wait()


def obj(name: str, version: int | str, **content: Any) -> Obj:
    return {"metadata": {"namespace": NAMESPACE, "name": name, "resourceVersion": str(version)}, **content}


def ref(name: str) -> Ref:
    return Ref(CONFIG_MAP, NAMESPACE, name)


def listed(*items: Obj) -> Listed:
    return Listed(items, "1")


def broken(error: ClusterError, *, listing: bool = True) -> Broken:
    return Broken(error, "It cannot be listed: so it is.", listing)


CUT = broken(Unreachable("connection refused"))
FORBIDDEN = broken(ApiError(403, "Forbidden", "no"))
UNSERVED = broken(ApiError(404, "NotFound", "the server could not find the requested resource"))


class Followed:
    """A shelf, and what it told."""

    def __init__(self, keep: Callable[[Obj], Obj] = lambda o: o) -> None:
        self.told: list[str | None] = []
        self.source = Source()
        self.shelf = Shelf(
            self.source,  # type: ignore[arg-type]
            on_change=lambda o: self.told.append(None if o is None else o["metadata"]["name"]),
            keep=keep,
        )

    async def after(self, *events: Event | Exception) -> list[str | None]:
        """What was told because of these events."""
        self.told.clear()
        self.source.events_ += events
        self.source.quiet.clear()
        task = asyncio.create_task(self.shelf.run())
        async with asyncio.timeout(5):
            await self.source.quiet.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return list(self.told)

    def sight(self, name: str) -> Sight:
        return self.shelf.get(name, NAMESPACE).sight


async def test_before_the_first_answer_nothing_is_known() -> None:
    f = Followed()
    assert (f.sight("a"), f.shelf.complete, f.shelf.settled) == (Sight.UNSEEN, False, False)
    assert await f.after(CUT) == []
    assert (f.sight("a"), f.shelf.settled) == (Sight.UNSEEN, False)


async def test_a_complete_list_tells_what_is_there_and_what_is_not() -> None:
    f = Followed()
    assert await f.after(listed(obj("a", 5))) == [None]
    assert f.shelf.get("a", NAMESPACE) == Seen(Sight.PRESENT, obj("a", 5))
    assert f.sight("b") is Sight.ABSENT
    assert (f.shelf.complete, f.shelf.settled) == (True, True)


async def test_an_empty_list_is_an_answer_too() -> None:
    f = Followed()
    assert await f.after(listed()) == [None]
    assert f.sight("a") is Sight.ABSENT


@pytest.mark.parametrize("failure", [CUT, FORBIDDEN, UNSERVED], ids=["unreachable", "forbidden", "unserved"])
async def test_no_failure_takes_an_object_away(failure: Broken) -> None:
    f = Followed()
    await f.after(listed(obj("a", 5)), failure, failure)
    assert f.shelf.get("a", NAMESPACE) == Seen(Sight.PRESENT, obj("a", 5))


async def test_what_was_absent_before_the_server_was_lost_is_still_called_absent_and_after_a_refusal_no_more() -> None:
    f = Followed()
    await f.after(listed(), CUT)
    assert f.sight("a") is Sight.ABSENT
    assert await f.after(FORBIDDEN) == [None]
    assert (f.sight("a"), f.shelf.complete, f.shelf.settled) == (Sight.FORBIDDEN, False, True)
    assert await f.after(FORBIDDEN) == [], "the same refusal again is no news"
    assert await f.after(listed()) == [None], "the end of a refusal is news, even with the same objects"
    assert f.sight("a") is Sight.ABSENT


@pytest.mark.parametrize(
    ("failure", "sight"),
    [
        (UNSERVED, Sight.UNSERVED),
        (FORBIDDEN, Sight.FORBIDDEN),
        (broken(ApiError(500, "InternalError", "no")), Sight.UNSEEN),
        (broken(ApiError(403, "Forbidden", "no"), listing=False), Sight.UNSEEN),
        (broken(ApiError(404, "NotFound", "namespaces", details_kind="namespaces")), Sight.UNSEEN),
    ],
)
async def test_a_refusal_of_the_list_is_shown_as_what_it_is(failure: Broken, sight: Sight) -> None:
    f = Followed()
    await f.after(failure)
    assert f.sight("a") is sight


async def test_changes_are_taken_over_and_told() -> None:
    f = Followed()
    await f.after(listed(obj("a", 5)))
    changes = (
        Changed("ADDED", obj("b", 6)),
        Changed("MODIFIED", obj("a", 7, data="x")),
        Changed("DELETED", obj("b", 8)),
    )
    assert await f.after(*changes) == ["b", "a", "b"]
    assert [o["metadata"]["name"] for o in f.shelf] == ["a"]
    assert f.shelf.get("a", NAMESPACE).object == obj("a", 7, data="x")


async def test_only_a_complete_list_or_a_deletion_takes_an_object_away() -> None:
    f = Followed()
    await f.after(listed(obj("a", 5), obj("b", 6)))
    await f.after(listed(obj("b", 6)))
    assert (f.sight("a"), f.sight("b")) == (Sight.ABSENT, Sight.PRESENT)
    await f.after(Changed("DELETED", obj("b", 9)))
    assert f.sight("b") is Sight.ABSENT


async def test_a_new_list_of_the_same_objects_is_no_news() -> None:
    f = Followed()
    await f.after(listed(obj("a", 5)))
    assert await f.after(CUT, listed(obj("a", 5))) == []
    assert await f.after(listed(obj("a", 6))) == [None]


async def test_the_echo_of_our_own_write_wakes_nobody() -> None:
    f = Followed()
    await f.after(listed())
    f.shelf.wrote(ref("a"), obj("a", 6))
    assert f.shelf.get("a", NAMESPACE).object == obj("a", 6)
    assert await f.after(Changed("ADDED", obj("a", 6))) == []
    f.shelf.wrote(ref("a"), None)
    assert f.sight("a") is Sight.ABSENT
    assert await f.after(Changed("DELETED", obj("a", 7))) == []


async def test_somebody_elses_change_after_our_own_write_is_news() -> None:
    f = Followed()
    await f.after(listed())
    f.shelf.wrote(ref("a"), obj("a", 6))
    assert await f.after(Changed("ADDED", obj("a", 6)), Changed("MODIFIED", obj("a", 7, data="x"))) == ["a"]


async def test_an_object_that_we_deleted_and_that_only_waits_for_finalizers_is_still_there() -> None:
    f = Followed()
    await f.after(listed(obj("a", 5)))
    f.shelf.wrote(ref("a"), None)
    terminating = obj("a", 6, status="terminating")
    assert await f.after(Changed("MODIFIED", terminating)) == ["a"]
    assert f.shelf.get("a", NAMESPACE).object == terminating


async def test_an_older_version_never_replaces_a_newer_one() -> None:
    """The answer to our write can overtake the events of the watch."""
    f = Followed()
    await f.after(listed(obj("a", 5)))
    f.shelf.wrote(ref("a"), obj("a", 9, data="ours"))
    assert await f.after(Changed("MODIFIED", obj("a", 7, data="x")), Changed("DELETED", obj("a", 8))) == []
    assert f.shelf.get("a", NAMESPACE).object == obj("a", 9, data="ours")
    f.shelf.wrote(ref("a"), obj("a", 6, data="late answer"))
    assert f.shelf.get("a", NAMESPACE).object == obj("a", 9, data="ours")


async def test_versions_are_compared_as_numbers() -> None:
    assert is_older(obj("a", 9), obj("a", 10))
    assert not is_older(obj("a", 10), obj("a", 9))
    assert not is_older(obj("a", 10), obj("a", 10))
    assert not is_older(obj("a", "x"), obj("a", "y"))
    f = Followed()
    await f.after(listed(obj("a", 9)))
    assert await f.after(Changed("MODIFIED", obj("a", 10, data="x"))) == ["a"]


async def test_a_restore_from_backup_brings_older_versions_and_they_are_the_truth() -> None:
    f = Followed()
    await f.after(listed(obj("a", 500, data="new"), obj("b", 501)))
    assert await f.after(CUT, listed(obj("a", 50, data="old"))) == [None]
    assert f.shelf.get("a", NAMESPACE).object == obj("a", 50, data="old")
    assert f.sight("b") is Sight.ABSENT
    assert await f.after(Changed("MODIFIED", obj("a", 51, data="on"))) == ["a"]


async def test_an_object_of_which_only_the_version_moves_is_no_news() -> None:
    f = Followed(keep=lambda o: {"metadata": o["metadata"], "kept": o.get("kept")})
    await f.after(listed(obj("a", 5, kept=1, heartbeat=1)))
    assert await f.after(Changed("MODIFIED", obj("a", 6, kept=1, heartbeat=2))) == []
    assert await f.after(Changed("MODIFIED", obj("a", 7, kept=2, heartbeat=2))) == ["a"]
    assert await f.after(Changed("MODIFIED", obj("a", 8, kept=1, heartbeat=2))) == ["a"], "back is a change too"
    assert await f.after(Changed("DELETED", obj("a", 9, kept=1, heartbeat=2))) == ["a"]


async def test_cluster_wide_objects_have_no_namespace() -> None:
    f = Followed()
    await f.after(listed({"metadata": {"name": "node", "resourceVersion": "5"}}))
    assert f.shelf.get("node").sight is Sight.PRESENT


async def test_a_defect_of_ours_does_not_make_the_shelf_deaf(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A watch that died unseen would leave an operator that runs and hears nothing."""
    monkeypatch.setattr(shelf_room, "RESTART_DELAY", 0.01)
    f = Followed()
    await f.after(listed(obj("a", 5)))
    assert await f.after(RuntimeError("surprise"), listed(obj("a", 6))) == [None]
    assert f.shelf.get("a", NAMESPACE).object == obj("a", 6)
    assert "surprise" in caplog.text


async def test_a_callback_that_fails_does_not_make_the_shelf_deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_room, "RESTART_DELAY", 0.01)
    source, seen = Source(listed(obj("a", 5)), listed(obj("a", 6))), []

    def fails_once(changed: Obj | None) -> None:
        seen.append(changed)
        if len(seen) == 1:
            raise ValueError("defect")

    task = asyncio.create_task(Shelf(source, on_change=fails_once).run())  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        await source.quiet.wait()
    task.cancel()
    assert len(seen) == 2
    assert source.starts == 2
