"""A list-watch misses nothing, whatever the server does: one test for each way in which it can misbehave."""

import asyncio
import contextlib
import json
import time

import pytest

from dpu_operator.kube.errors import ApiError
from dpu_operator.kube.listwatch import Changed
from dpu_operator.world import LinkState, Sight
from tests.wire.conftest import IMPATIENT, Witness
from tests.wire.server import Exchange, Server, bookmark, config_map, hang, refusing


async def watching(server: Server, witness: Witness, count: int = 1, **options: float) -> None:
    """A list-watch that has its list and an open stream."""
    for _ in range(count):
        witness.watch(**options)  # type: ignore[arg-type]
    await server.until(lambda: len(server.streams) == count)
    assert len(witness.listed) == count


async def test_first_comes_the_list_and_then_each_change(server: Server, witness: Witness) -> None:
    server.items = [config_map("a", 90)]
    await watching(server, witness)
    await server.emit("MODIFIED", config_map("a", 101, key="new"))
    await server.emit("DELETED", config_map("a", 102))
    await witness.until(lambda: len(witness.changed) == 2)
    assert witness.listed[0].items == (config_map("a", 90),)
    assert [(change.type, change.object["metadata"]["resourceVersion"]) for change in witness.changed] == [
        ("MODIFIED", "101"),
        ("DELETED", "102"),
    ]
    assert witness.states == [LinkState.UP]
    assert witness.broken == []


async def test_a_named_object_is_asked_for_by_its_name_so_that_resource_names_suffice(
    server: Server, witness: Witness
) -> None:
    witness.watch(name="ovn-ca")
    await server.until(lambda: len(server.streams) == 1)
    for request in server.requests:
        assert request.path == "/api/v1/namespaces/tenant/configmaps"
        assert request.query["fieldSelector"] == "metadata.name=ovn-ca"
    assert server.watches[0].query["allowWatchBookmarks"] == "true"
    assert server.watches[0].query["resourceVersion"] == "100"
    assert 90 <= int(server.watches[0].query["timeoutSeconds"]) <= 100


async def test_the_first_list_takes_what_the_server_has_at_hand(server: Server, witness: Witness) -> None:
    server.items = [config_map("a", 90)]
    witness.watch(name="a")
    await server.until(lambda: len(server.streams) == 1)
    server.cut_streams()
    await witness.until(lambda: len(witness.listed) == 2)
    assert [request.query.get("resourceVersion") for request in server.lists] == ["0", None]


async def test_that_a_named_object_is_not_there_is_believed_of_the_newest_data_only(
    server: Server, witness: Witness
) -> None:
    witness.watch(name="a")
    await server.until(lambda: len(server.streams) == 1)
    assert [request.query.get("resourceVersion") for request in server.lists] == ["0", None]
    assert [listed.items for listed in witness.listed] == [()]


async def test_that_a_named_object_is_gone_is_told_by_a_list_and_not_by_the_watch(
    server: Server, witness: Witness
) -> None:
    server.items = [config_map("a", 90)]
    witness.watch(name="a")
    await server.until(lambda: len(server.streams) == 1)
    await server.emit("DELETED", config_map("a", 102))
    await witness.until(lambda: len(witness.listed) == 2)
    assert witness.listed[1].items == ()
    assert witness.changed == []
    assert witness.broken == []
    await server.until(lambda: len(server.watches) == 2)


async def test_the_regular_end_of_a_watch_goes_on_from_the_last_bookmark_without_a_list(
    server: Server, witness: Witness
) -> None:
    await watching(server, witness)
    await server.emit("ADDED", config_map("a", 105))
    await server.emit("BOOKMARK", bookmark(150))
    await witness.until(lambda: len(witness.changed) == 1)
    await server.end_streams()
    await server.until(lambda: len(server.streams) == 1 and len(server.watches) == 2)
    assert server.watches[1].query["resourceVersion"] == "150"
    assert len(server.lists) == 1
    assert witness.broken == []


async def test_a_watch_that_ends_at_once_again_and_again_is_not_asked_without_a_pause(
    server: Server, witness: Witness
) -> None:
    async def end_at_once(exchange: Exchange) -> None:
        await exchange.start_stream()
        await exchange.end()

    server.on_watch.extend([end_at_once] * 1000)
    witness.watch(settled=60.0, first_delay=0.1)
    await server.until(lambda: len(server.watches) >= 3)
    began, already = time.monotonic(), len(server.watches)
    await asyncio.sleep(0.5)
    # 0.4 s and more between them by now; at full speed there would be hundreds
    assert len(server.watches) - already <= 1 + (time.monotonic() - began) / 0.3
    assert len(server.lists) == 1


async def test_an_error_410_in_the_stream_leads_to_a_new_list(server: Server, witness: Witness) -> None:
    await watching(server, witness)
    server.version = 900
    expired = {
        "kind": "Status",
        "code": 410,
        "reason": "Expired",
        "message": "too old resource version",
        "metadata": {},
    }
    await server.streams[0].event("ERROR", expired)
    await witness.until(lambda: len(witness.listed) == 2)
    await server.until(lambda: len(server.watches) == 2)
    assert isinstance(witness.broken[0].error, ApiError)
    assert witness.broken[0].error.status == 410
    assert server.watches[1].query["resourceVersion"] == "900"
    assert LinkState.DOWN not in witness.states


async def test_a_status_410_leads_to_a_new_list(server: Server, witness: Witness) -> None:
    server.on_watch.append(refusing(410, "Expired", "too old resource version"))
    witness.watch()
    await server.until(lambda: len(server.streams) == 1)
    assert len(server.lists) == 2
    assert [broken.sight for broken in witness.broken] == [None]
    assert "is no longer watched: HTTP 410 Expired: too old resource version." in witness.broken[0].sentence


async def test_a_410_that_does_not_end_is_not_asked_without_a_pause(server: Server, witness: Witness) -> None:
    server.on_watch.extend([refusing(410, "Expired")] * 1000)
    witness.watch(settled=60.0, first_delay=0.1)
    await server.until(lambda: len(server.watches) >= 3)
    began, already = time.monotonic(), len(server.watches)
    await asyncio.sleep(0.5)
    assert len(server.watches) - already <= 1 + (time.monotonic() - began) / 0.3


async def test_a_cut_in_the_middle_of_a_line_leads_to_a_new_list(server: Server, witness: Witness) -> None:
    await watching(server, witness)
    line = json.dumps({"type": "ADDED", "object": config_map("a", 101)}).encode()
    await server.streams[0].chunk(line[: len(line) // 2])
    server.items = [config_map("a", 101)]
    server.cut_streams()
    await witness.until(lambda: len(witness.listed) == 2)
    assert witness.changed == []
    assert witness.listed[1].items == (config_map("a", 101),)


async def test_a_stream_that_ends_regularly_but_in_the_middle_of_a_line_leads_to_a_new_list(
    server: Server, witness: Witness
) -> None:
    await watching(server, witness)
    await server.streams[0].chunk(b'{"type": "ADDED", ')
    await server.end_streams()
    await witness.until(lambda: len(witness.listed) == 2)
    assert "in the middle of a line" in witness.broken[0].sentence


async def test_a_cut_between_two_lines_leads_to_a_new_list(server: Server, witness: Witness) -> None:
    await watching(server, witness)
    await server.emit("ADDED", config_map("a", 101))
    await witness.until(lambda: len(witness.changed) == 1)
    server.cut_streams()
    await witness.until(lambda: len(witness.listed) == 2)
    assert len(witness.broken) == 1


async def test_what_was_deleted_while_nobody_watched_is_missing_from_the_next_list(
    server: Server, witness: Witness
) -> None:
    server.items = [config_map("a", 90), config_map("b", 91)]
    await watching(server, witness)
    await server.stop()
    server.items, server.version = [config_map("b", 91)], 130
    await witness.until(lambda: witness.gate.link.state is LinkState.DOWN)
    assert len(witness.listed) == 1
    assert [event for event in witness.events if isinstance(event, Changed)] == []
    await server.start()
    await witness.until(lambda: len(witness.listed) == 2)
    assert witness.listed[1].items == (config_map("b", 91),)


async def test_silence_leads_to_a_new_list(server: Server, witness: Witness) -> None:
    await watching(server, witness, silence=0.2)
    await witness.until(lambda: len(witness.listed) == 2)
    assert "no sign of life for 0.2 s" in witness.broken[0].sentence
    assert LinkState.DOWN not in witness.states


async def test_bookmarks_alone_are_a_sign_of_life(server: Server, witness: Witness) -> None:
    await watching(server, witness, silence=0.6)
    for version in range(200, 220):
        await server.emit("BOOKMARK", bookmark(version))
        await asyncio.sleep(0.05)
    assert len(server.requests) == 2
    assert len(witness.events) == 1


async def test_an_idle_watch_makes_no_requests(server: Server, witness: Witness) -> None:
    await watching(server, witness, count=8)
    already = len(server.requests)
    await asyncio.sleep(0.7)
    assert already == 16
    assert len(server.requests) == already


async def test_a_step_back_of_the_resource_version_in_an_event_leads_to_a_new_list(
    server: Server, witness: Witness
) -> None:
    await watching(server, witness)
    await server.emit("MODIFIED", config_map("a", 40))
    await witness.until(lambda: len(witness.listed) == 2)
    assert witness.changed == []
    assert "went back to an older resourceVersion" in witness.broken[0].sentence


async def test_a_step_back_in_a_bookmark_shows_that_the_server_was_restored_from_a_backup(
    server: Server, witness: Witness
) -> None:
    server.items, server.version = [config_map("a", 480), config_map("b", 490)], 500
    await watching(server, witness)
    server.items, server.version = [config_map("a", 80)], 100
    await server.end_streams()
    await server.until(lambda: len(server.streams) == 1)
    assert server.watches[1].query["resourceVersion"] == "500"
    await server.emit("BOOKMARK", bookmark(100))
    await witness.until(lambda: len(witness.listed) == 2)
    assert witness.listed[1].items == (config_map("a", 80),)
    await server.until(lambda: len(server.watches) == 3)
    assert server.watches[2].query["resourceVersion"] == "100"


async def test_versions_that_are_no_numbers_are_not_compared(server: Server, witness: Witness) -> None:
    await watching(server, witness)
    obj = config_map("a", 1)
    obj["metadata"]["resourceVersion"] = "opaque"
    await server.streams[0].event("MODIFIED", obj)
    await server.streams[0].event("MODIFIED", config_map("a", 1))
    await witness.until(lambda: len(witness.changed) == 2)
    assert witness.broken == []


async def test_an_event_for_what_is_known_already_is_handed_on(server: Server, witness: Witness) -> None:
    server.items = [config_map("a", 100)]
    await watching(server, witness)
    await server.emit("ADDED", config_map("a", 100))
    await server.emit("ADDED", config_map("a", 101))
    await witness.until(lambda: len(witness.changed) == 2)
    assert len(server.lists) == 1


@pytest.mark.parametrize(
    "line",
    [
        b"<html>",
        b"[]",
        b"null",
        b'{"type": "ADDED"}',
        b'{"type": "ADDED", "object": {"kind": "ConfigMap"}}',
        b'{"type": "ADDED", "object": {"metadata": {"name": "a"}}}',
        b'{"type": "SURPRISE", "object": {"metadata": {"resourceVersion": "101"}}}',
        b'{"type": "ADDED", "object": []}',
        b"[" * 100_000,
        b'{"type": "ERROR", "object": {"code": "x", "message": null}}',
    ],
    ids=["HTML", "a list", "null", "no object", "no metadata", "no version", "a new type", "no mapping", "depth", "ERROR"],
)  # fmt: skip
async def test_garbage_in_the_stream_leads_to_a_new_list(server: Server, witness: Witness, line: bytes) -> None:
    await watching(server, witness)
    await server.streams[0].chunk(line + b"\n")
    await witness.until(lambda: len(witness.listed) == 2)
    assert witness.changed == []
    assert len(witness.broken) == 1


@pytest.mark.parametrize(
    "body",
    [b"no JSON", b"[]", b"{}", b'{"kind": "ConfigMapList", "metadata": {}}', b'{"metadata": {}, "items": []}',
     b'{"kind": "ConfigMapList", "items": []}', b'{"kind": "ConfigMapList", "metadata": {}, "items": [1]}',
     b'{"kind": "ConfigMapList", "metadata": {}, "items": {"a": 1}}', b"[" * 99_999],
    ids=["text", "a list", "nothing", "no items", "no kind", "no metadata", "no objects", "a mapping", "depth"],
)  # fmt: skip
async def test_garbage_instead_of_a_list_is_not_an_empty_list(server: Server, witness: Witness, body: bytes) -> None:
    async def garbage(exchange: Exchange) -> None:
        await exchange.answer(200, body)

    server.on_list.append(garbage)
    witness.watch()
    await witness.until(lambda: len(witness.listed) == 1)
    assert witness.states == [LinkState.DOWN, LinkState.UP]
    assert len(witness.broken) == 1


async def test_an_object_of_3_mb_passes_in_the_list_and_in_the_watch(server: Server, witness: Witness) -> None:
    large = config_map("a", 100, value="x" * 3_000_000)
    server.items = [large]
    await watching(server, witness)
    large = config_map("a", 101, value="y" * 3_000_000)
    await server.emit("MODIFIED", large)
    await witness.until(lambda: len(witness.changed) == 1)
    assert len(witness.listed[0].items[0]["data"]["value"]) == 3_000_000
    assert witness.changed[0].object == large


async def test_a_line_without_an_end_is_given_up(server: Server, witness: Witness) -> None:
    await watching(server, witness)
    stream = server.streams[0]
    with contextlib.suppress(OSError):  # the client hangs up while we still send
        for _ in range(64):
            await stream.chunk(b"x" * (1 << 20))
    await witness.until(lambda: len(witness.listed) == 2)
    assert "longer than 16 MiB" in witness.broken[0].sentence


async def test_403_of_the_list_means_forbidden_and_the_server_is_there(server: Server, witness: Witness) -> None:
    server.on_list.append(refusing(403, "Forbidden", 'configmaps "x" is forbidden'))
    witness.watch()
    await witness.until(lambda: len(witness.listed) == 1)
    assert [broken.sight for broken in witness.broken] == [Sight.FORBIDDEN]
    assert witness.broken[0].sentence == (
        'configmaps tenant/* cannot be listed: HTTP 403 Forbidden: configmaps "x" is forbidden.'
    )
    assert witness.states == [LinkState.UP]


async def test_403_of_the_watch_does_not_take_back_what_the_list_has_shown(server: Server, witness: Witness) -> None:
    server.on_watch.append(refusing(403, "Forbidden", "watch is not allowed"))
    witness.watch()
    await server.until(lambda: len(server.streams) == 1)
    assert [broken.sight for broken in witness.broken] == [None]
    assert witness.states == [LinkState.UP]


async def test_404_of_a_type_that_is_not_served_means_unserved(server: Server, witness: Witness) -> None:
    async def not_served(exchange: Exchange) -> None:
        await exchange.answer(404, b"404 page not found\n", content_type="text/plain; charset=utf-8")

    server.on_list.append(not_served)
    witness.watch()
    await witness.until(lambda: len(witness.listed) == 1)
    assert [broken.sight for broken in witness.broken] == [Sight.UNSERVED]
    assert "404 page not found" in witness.broken[0].sentence
    assert witness.states == [LinkState.UP]


async def test_404_of_the_namespace_says_nothing_about_the_objects(server: Server, witness: Witness) -> None:
    server.on_list.append(refusing(404, "NotFound", 'namespaces "tenant" not found', kind="namespaces", name="tenant"))
    witness.watch()
    await witness.until(lambda: len(witness.listed) == 1)
    assert [broken.sight for broken in witness.broken] == [None]
    assert witness.states == [LinkState.UP]


async def test_429_is_obeyed_for_as_long_as_it_asks(server: Server, witness: Witness) -> None:
    server.on_list.append(refusing(429, "TooManyRequests", "later", {"Retry-After": "1"}))
    witness.watch()
    await witness.until(lambda: len(witness.broken) == 1)
    began = time.monotonic()
    await witness.until(lambda: len(witness.listed) == 1)
    assert time.monotonic() - began >= 0.95
    assert witness.states == [LinkState.UP]


async def test_500_is_tried_again_and_is_no_verdict_on_the_link(server: Server, witness: Witness) -> None:
    server.on_list.append(refusing(500, "InternalError", "etcdserver: leader changed"))
    witness.watch()
    await witness.until(lambda: len(witness.listed) == 1)
    assert witness.states == [LinkState.UP]
    assert witness.broken[0].sight is None


@IMPATIENT
async def test_a_slow_list_is_a_timeout_and_not_a_wait_for_ever(server: Server, witness: Witness) -> None:
    async def drip(exchange: Exchange) -> None:
        await exchange.start_stream()
        while True:
            await exchange.chunk(b" ")
            await asyncio.sleep(0.05)

    server.on_list.append(drip)
    witness.watch()
    await witness.until(lambda: len(witness.listed) == 1)
    assert witness.links[0].state is LinkState.DOWN
    assert witness.links[0].message == "timed out after 0.4 s"


@IMPATIENT
async def test_a_frozen_server_is_noticed_by_its_silence_and_judged_by_the_next_list(
    server: Server, witness: Witness
) -> None:
    server.on_list.append(server.listing)
    server.on_list.append(hang)
    await watching(server, witness, silence=0.2)
    await witness.until(lambda: len(witness.listed) == 2)
    assert witness.states == [LinkState.UP, LinkState.DOWN, LinkState.UP]


async def test_who_stops_listening_leaves_no_connection_open(server: Server, witness: Witness) -> None:
    task = witness.watch()
    await server.until(lambda: len(server.streams) == 1)
    task.cancel()
    await server.until(lambda: len(server.streams) == 0)
