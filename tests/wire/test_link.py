"""One verdict on a cluster for all its watches: when it turns, and what a dead cluster costs."""

import asyncio
import datetime as dt
import time

import pytest

from dpu_operator.kube import listwatch
from dpu_operator.kube.client import Cluster
from dpu_operator.kube.errors import ApiError, ClusterError, Unreachable
from dpu_operator.kube.link import LinkGate, backoff
from dpu_operator.world import Link, LinkState
from tests.wire.conftest import IMPATIENT, TOKEN, Certificates, Witness
from tests.wire.server import Exchange, Server, config_map, hang, refusing


async def test_a_dead_server_costs_one_attempt_at_a_time_whoever_waits_for_it(server: Server, witness: Witness) -> None:
    server.hang_up = True
    for _ in range(8):
        witness.watch()
    await server.until(lambda: server.accepted >= 4)
    began, already = time.monotonic(), server.accepted
    await asyncio.sleep(0.6)
    # at most one in 75 ms (the delay of 0.1 s and a quarter less); eight watches alone would make eight times as many
    assert server.accepted - already <= 2 + (time.monotonic() - began) / 0.075
    assert witness.states == [LinkState.DOWN]
    server.hang_up = False
    await witness.until(lambda: len(witness.listed) == 8)
    assert witness.states == [LinkState.DOWN, LinkState.UP]


@IMPATIENT
async def test_a_server_that_hangs_has_one_request_of_ours_at_a_time(server: Server, witness: Witness) -> None:
    server.on_list.extend([hang] * 2)
    for _ in range(8):
        witness.watch()
    await witness.until(lambda: len(witness.listed) == 8)
    first, second, third = server.lists[:3]
    assert len({first.connection, second.connection, third.connection}) == 3
    assert witness.states == [LinkState.DOWN, LinkState.UP]
    assert witness.links[0].message == "timed out after 0.4 s"


@IMPATIENT
async def test_when_all_streams_break_one_asks_first_and_the_others_wait(server: Server, witness: Witness) -> None:
    for _ in range(8):
        witness.watch()
    await server.until(lambda: len(server.streams) == 8)
    server.on_list.append(hang)
    already = len(server.lists)
    server.cut_streams()
    await server.until(lambda: len(server.lists) == already + 1)
    await witness.until(lambda: len(witness.broken) == 8)
    await asyncio.sleep(0.2)
    assert len(server.lists) == already + 1
    await witness.until(lambda: len(witness.listed) == 16)
    assert witness.states == [LinkState.UP, LinkState.DOWN, LinkState.UP]


async def test_the_break_of_one_stream_is_no_verdict(server: Server, witness: Witness) -> None:
    for _ in range(3):
        witness.watch()
    await server.until(lambda: len(server.streams) == 3)
    server.streams.pop(1).cut()
    await witness.until(lambda: len(witness.listed) == 4)
    assert witness.states == [LinkState.UP]
    assert len(witness.broken) == 1
    await server.emit("ADDED", config_map("a", 101))
    await witness.until(lambda: len(witness.changed) >= 2)


async def test_a_refused_connection_turns_the_link_down_and_its_return_up_again(
    server: Server, witness: Witness
) -> None:
    witness.watch()
    await server.until(lambda: len(server.streams) == 1)
    await server.stop()
    await witness.until(lambda: witness.gate.link.state is LinkState.DOWN)
    down = witness.gate.link
    assert down.message == "connection refused"
    assert down.server == "api"
    assert down.since is not None
    assert dt.datetime.now(dt.UTC) - down.since < dt.timedelta(seconds=5)
    await server.start()
    await witness.until(lambda: witness.gate.link.state is LinkState.UP)
    assert witness.gate.link.since is not None
    assert witness.gate.link.since > down.since
    assert witness.gate.link.message == ""


async def test_a_server_with_the_wrong_certificate_is_down_and_gets_no_request(
    server: Server, certificates: Certificates
) -> None:
    from dpu_operator.kube.access import Access

    access = Access(server=f"https://127.0.0.1:{server.port}", ca_pem=certificates.other.cert, token=TOKEN)
    async with Cluster(access, request_timeout=1.0) as cluster:
        witness = Witness(cluster)
        witness.watch()
        await witness.until(lambda: len(witness.links) >= 1)
        await witness.close()
    assert witness.gate.link.state is LinkState.DOWN
    assert witness.gate.link.message.startswith("certificate verify failed: ")
    assert server.requests == []


async def test_a_refused_credential_is_refused_and_not_down(server: Server, witness: Witness) -> None:
    server.on_list.extend([refusing(401, "Unauthorized", "Unauthorized")] * 3)
    for _ in range(4):
        witness.watch()
    await witness.until(lambda: len(witness.listed) == 4)
    assert witness.states == [LinkState.REFUSED, LinkState.UP]
    assert witness.links[0].message == "HTTP 401 Unauthorized: Unauthorized"
    assert len(server.lists) == 3 + 4


async def test_401_of_a_watch_is_refused_too(server: Server, witness: Witness) -> None:
    server.on_watch.append(refusing(401, "Unauthorized"))
    witness.watch()
    await server.until(lambda: len(server.streams) == 1)
    assert witness.states == [LinkState.UP, LinkState.REFUSED, LinkState.UP]


async def test_three_server_errors_in_a_row_are_as_good_as_no_answer(server: Server, witness: Witness) -> None:
    server.on_list.extend([refusing(503, "ServiceUnavailable", "no etcd")] * 3)
    witness.watch()
    await witness.until(lambda: len(witness.listed) == 1)
    assert witness.states == [LinkState.DOWN, LinkState.UP]
    assert witness.links[0].message == "HTTP 503 ServiceUnavailable: no etcd"


async def test_server_errors_for_one_type_are_no_verdict_while_other_streams_live(
    server: Server, witness: Witness
) -> None:
    witness.watch()
    await server.until(lambda: len(server.streams) == 1)
    server.on_list.extend([refusing(500, "InternalError")] * 5)
    witness.watch()
    await witness.until(lambda: len(witness.listed) == 2)
    assert len(witness.broken) == 5
    assert witness.states == [LinkState.UP]


async def test_a_kick_ends_every_wait(server: Server, witness: Witness) -> None:
    witness.gate._longest[LinkState.REFUSED] = 600.0
    witness.gate._first_delay = 300.0
    server.on_list.append(refusing(401, "Unauthorized"))
    server.on_list.append(refusing(403, "Forbidden"))
    witness.watch(first_delay=300.0)
    await witness.until(lambda: witness.gate.link.state is LinkState.REFUSED)
    witness.gate.kick()
    await witness.until(lambda: len(witness.broken) == 2)
    await asyncio.sleep(0)  # the wait of its own begins after the event
    witness.gate.kick()
    await witness.until(lambda: len(witness.listed) == 1)


async def test_who_is_cancelled_while_it_tries_lets_the_next_one_try(server: Server, witness: Witness) -> None:
    server.on_list.append(hang)
    first = witness.watch()
    await server.until(lambda: len(server.lists) == 1)
    witness.watch()
    waiting = witness.watch()
    await asyncio.sleep(0.05)
    waiting.cancel()
    first.cancel()
    await witness.until(lambda: len(witness.listed) == 1)


async def test_who_is_cancelled_while_it_waits_to_try_lets_the_next_one_try(server: Server, witness: Witness) -> None:
    witness.gate._first_delay = witness.gate._down_delay = 300.0
    await server.stop()
    first = witness.watch()
    await witness.until(lambda: witness.gate.link.state is LinkState.DOWN)
    await asyncio.sleep(0.05)
    witness.watch()
    await asyncio.sleep(0.05)
    first.cancel()
    await server.start()
    await asyncio.sleep(0.05)
    witness.gate.kick()
    await witness.until(lambda: len(witness.listed) == 1)


async def test_a_change_is_told_once(server: Server, witness: Witness) -> None:
    await server.stop()
    for _ in range(3):
        witness.watch()
    await asyncio.sleep(0.4)
    assert witness.states == [LinkState.DOWN]


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (Unreachable("x"), LinkState.DOWN),
        (ApiError(401, "Unauthorized", "x"), LinkState.REFUSED),
        (ApiError(403, "Forbidden", "x"), LinkState.UP),
        (ApiError(404, "NotFound", "x"), LinkState.UP),
        (ApiError(410, "Expired", "x"), LinkState.UP),
        (ApiError(429, "TooManyRequests", "x"), LinkState.UP),
        (ApiError(500, "InternalError", "x"), LinkState.UNTRIED),
        (ClusterError("x"), LinkState.UP),
    ],
    ids=str,
)
async def test_what_each_failure_says_about_a_link_that_was_not_tried(error: ClusterError, state: LinkState) -> None:
    gate = LinkGate()
    gate.failed(error)
    assert gate.link.state is state


def test_a_new_message_of_the_same_state_keeps_its_time() -> None:
    told: list[Link] = []
    gate = LinkGate(on_change=told.append)
    gate.failed(Unreachable("connection refused"))
    gate.failed(Unreachable("connection refused"))
    gate.failed(Unreachable("timed out after 10 s"))
    assert [link.message for link in told] == ["connection refused", "timed out after 10 s"]
    assert told[0].since == told[1].since


def test_the_wait_grows_to_its_limit_and_is_never_quite_the_same() -> None:
    waits = [[backoff(attempt, first=0.2, longest=2.0) for attempt in range(40)] for _ in range(5)]
    for run in waits:
        assert 0.15 <= run[0] <= 0.2
        assert all(1.5 <= wait <= 2.0 for wait in run[4:])
    assert len({run[10] for run in waits}) > 1


async def test_an_answer_to_anybody_wakes_those_who_wait_on_their_own(
    server: Server, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One waits long after a server error; the others see the server go and come back."""
    monkeypatch.setattr(listwatch, "SERVER_ERROR_DELAY", 300.0)
    waits = asyncio.Event()

    async def broken(exchange: Exchange) -> None:
        await exchange.status(500, "InternalError", "no")
        waits.set()

    witness.watch()
    await server.until(lambda: len(server.streams) == 1)
    server.on_list.append(broken)
    witness.watch(first_delay=300.0)
    await waits.wait()
    await witness.until(lambda: len(witness.broken) == 1)
    await server.stop()
    await witness.until(lambda: witness.gate.link.state is LinkState.DOWN)
    await server.start()
    await witness.until(lambda: len(witness.listed) == 3)


async def test_closing_the_cluster_breaks_its_watches_off(server: Server, witness: Witness, cluster: Cluster) -> None:
    witness.watch()
    await server.until(lambda: len(server.streams) == 1)
    await cluster.close()
    await witness.until(lambda: witness.gate.link.message == "the client was closed")
    assert len(witness.listed) == 1
