"""What the client sends, and what it makes of each answer, good or bad."""

import asyncio
import contextlib
import json
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpu_operator.kube import client as client_module
from dpu_operator.kube.access import Access
from dpu_operator.kube.answers import Lines
from dpu_operator.kube.client import Cluster
from dpu_operator.kube.errors import ApiError, Unreachable
from dpu_operator.kube.transport import Transport
from dpu_operator.world import CONFIG_MAP, DAEMON_SET, NODE, SECRET, Obj, Ref
from tests.wire.conftest import IMPATIENT, TOKEN
from tests.wire.server import Behaviour, Exchange, Server, config_map, hang, refusing

HERE = Ref(CONFIG_MAP, "tenant", "ovn-ca")


def answering(status: int, body: bytes | Obj, content_type: str = "application/json", **headers: str) -> Behaviour:
    async def answer(exchange: Exchange) -> None:
        await exchange.answer(status, body, headers, content_type=content_type)

    return answer


async def cut(exchange: Exchange) -> None:
    exchange.cut()


# --- requests ---------------------------------------------------------------------------------------------------


async def test_an_apply_is_a_server_side_apply_by_our_name_that_tolerates_no_unknown_field(
    server: Server, cluster: Cluster
) -> None:
    obj = config_map("ovn-ca", 1, text="ü")
    assert await cluster.apply(HERE, obj) == obj
    (request,) = server.requests
    assert (request.method, request.path) == ("PATCH", "/api/v1/namespaces/tenant/configmaps/ovn-ca")
    assert request.query == {"fieldManager": "dpu-network-operator", "fieldValidation": "Strict", "force": "true"}
    assert request.headers["content-type"] == "application/apply-patch+yaml"
    assert request.headers["accept"] == "application/json"
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["user-agent"] == "dpu-network-operator"
    assert json.loads(request.body) == obj


async def test_an_apply_without_force_leaves_conflicts_to_the_server(server: Server, cluster: Cluster) -> None:
    server.on_other.append(refusing(409, "Conflict", "Apply failed with 1 conflict"))
    with pytest.raises(ApiError) as caught:
        await cluster.apply(HERE, {}, force=False)
    assert caught.value.conflict
    assert "force" not in server.requests[0].query


async def test_a_status_is_applied_as_a_subresource(server: Server, cluster: Cluster) -> None:
    await cluster.apply(Ref(DAEMON_SET, "tenant", "x"), {}, subresource="status")
    assert server.requests[0].path == "/apis/apps/v1/namespaces/tenant/daemonsets/x/status"


async def test_a_merge_patch_is_one(server: Server, cluster: Cluster) -> None:
    await cluster.merge_patch(
        Ref(NODE, None, "dpu-1"), {"metadata": {"annotations": {"a": None}}}, subresource="status"
    )
    (request,) = server.requests
    assert (request.method, request.path) == ("PATCH", "/api/v1/nodes/dpu-1/status")
    assert request.headers["content-type"] == "application/merge-patch+json"
    assert json.loads(request.body) == {"metadata": {"annotations": {"a": None}}}


async def test_a_creation_goes_to_the_collection(server: Server, cluster: Cluster) -> None:
    await cluster.create(SECRET, "tenant", {"kind": "Secret"})
    assert (server.requests[0].method, server.requests[0].path) == ("POST", "/api/v1/namespaces/tenant/secrets")


async def test_a_deletion_is_guarded_by_the_uid(server: Server, cluster: Cluster) -> None:
    await cluster.delete(HERE, uid="u-1")
    await cluster.delete(HERE)
    guarded, plain = (json.loads(request.body) for request in server.requests)
    assert guarded["preconditions"] == {"uid": "u-1"}
    assert "preconditions" not in plain
    assert server.requests[0].method == "DELETE"


async def test_an_access_review_asks_for_the_one_object(server: Server, cluster: Cluster) -> None:
    server.on_other.append(answering(201, {"status": {"allowed": True}}))
    server.on_other.append(answering(201, {"status": {"allowed": "yes"}}))
    server.on_other.append(answering(201, {}))
    asked = [await cluster.review_access("watch", Ref(DAEMON_SET, "tenant", "ovnkube-node")) for _ in range(3)]
    assert asked == [True, False, False]
    assert server.requests[0].path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert json.loads(server.requests[0].body)["spec"]["resourceAttributes"] == {
        "verb": "watch",
        "group": "apps",
        "resource": "daemonsets",
        "namespace": "tenant",
        "name": "ovnkube-node",
    }


async def test_the_version_is_what_the_server_says(server: Server, cluster: Cluster) -> None:
    server.on_list.append(answering(200, {"gitVersion": "v1.33.1"}))
    assert await cluster.version() == {"gitVersion": "v1.33.1"}
    assert server.requests[0].path == "/version"


async def test_a_list_is_complete_however_many_pages_it_has(server: Server, cluster: Cluster) -> None:
    first = {
        "kind": "XList",
        "metadata": {"resourceVersion": "7", "continue": "a/b+c=&limit=1"},
        "items": [{"metadata": {"name": "a"}}],
    }
    second = {"kind": "XList", "metadata": {"resourceVersion": "7"}, "items": [{"metadata": {"name": "b"}}]}
    server.on_list.extend([answering(200, first), answering(200, second)])
    items, version = await cluster.list(CONFIG_MAP, "tenant", label_selector="a in (b),c!=d", limit=1)
    assert ([item["metadata"]["name"] for item in items], version) == (["a", "b"], "7")
    assert [request.query.get("continue") for request in server.requests] == [None, "a/b+c=&limit=1"]
    assert {request.query["labelSelector"] for request in server.requests} == {"a in (b),c!=d"}
    assert {request.query["limit"] for request in server.requests} == {"1"}


async def test_a_list_over_all_namespaces_has_no_namespace_in_its_path(server: Server, cluster: Cluster) -> None:
    await cluster.list(DAEMON_SET)
    assert server.requests[0].path == "/apis/apps/v1/daemonsets"


async def test_items_of_a_list_say_what_they_are_and_nobody_sees_managed_fields(
    server: Server, cluster: Cluster
) -> None:
    server.items = [{"metadata": {"name": "a", "managedFields": [{"manager": "x"}]}, "data": {"kept": "as it is"}}]
    items, _ = await cluster.list(CONFIG_MAP, "tenant")
    assert items == [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"kept": "as it is"}}]


async def test_a_list_without_an_end_is_given_up(
    server: Server, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PAGE_LIMIT", 3)
    server.on_list.extend([answering(200, {"kind": "XList", "metadata": {"continue": "x"}, "items": None})] * 9)
    with pytest.raises(Unreachable, match="does not end"):
        await cluster.list(CONFIG_MAP)
    assert len(server.requests) == 3


@pytest.mark.parametrize("name", ["../secrets/x", "a/b", "a?b=c", "a#b", "a%2fb", "a b", "ä"])
async def test_no_name_leads_to_another_place(server: Server, cluster: Cluster, name: str) -> None:
    await cluster.get(Ref(CONFIG_MAP, "tenant", name))
    folder, _, last = server.requests[0].path.rpartition("/")
    assert folder == "/api/v1/namespaces/tenant/configmaps"
    assert "." not in last.replace("..%2F", "") or "%2F" in last


@pytest.mark.parametrize("name", ["", ".", ".."])
async def test_what_is_no_name_is_not_sent(server: Server, cluster: Cluster, name: str) -> None:
    for ref in (Ref(CONFIG_MAP, "tenant", name), Ref(CONFIG_MAP, name or "..", "a")):
        with pytest.raises(ValueError, match="not a name"):
            await cluster.delete(ref)
    assert server.requests == []


async def test_requests_share_a_connection(server: Server, cluster: Cluster) -> None:
    for _ in range(5):
        await cluster.version()
    assert server.accepted == 1


# --- answers that are errors -------------------------------------------------------------------------------------


async def test_the_message_of_a_status_is_shown_on_one_line(server: Server, cluster: Cluster) -> None:
    server.on_other.append(refusing(422, "Invalid", "spec.a: Required value\n\x1b[31mspec.b: Invalid\t value"))
    with pytest.raises(ApiError) as caught:
        await cluster.create(CONFIG_MAP, "tenant", {})
    assert str(caught.value) == "HTTP 422 Invalid: spec.a: Required value [31mspec.b: Invalid value"


async def test_an_endless_message_is_cut(server: Server, cluster: Cluster) -> None:
    server.on_other.append(refusing(422, "Invalid", "x" * 100_000))
    with pytest.raises(ApiError) as caught:
        await cluster.create(CONFIG_MAP, "tenant", {})
    assert len(caught.value.message) == 500


@pytest.mark.parametrize(
    ("headers", "details", "seconds"),
    [
        ({"Retry-After": "7"}, {}, 7.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, {}, None),
        ({}, {"retryAfterSeconds": 3}, 3.0),
        ({}, {"retryAfterSeconds": "3"}, None),
        ({}, {}, None),
    ],
)
async def test_how_long_to_wait_is_read_from_the_header_or_the_status(
    server: Server, cluster: Cluster, headers: dict[str, str], details: dict[str, object], seconds: float | None
) -> None:
    server.on_list.append(refusing(429, "TooManyRequests", "later", headers, **details))
    with pytest.raises(ApiError) as caught:
        await cluster.get(HERE)
    assert caught.value.retry_after == seconds


async def test_a_redirect_is_not_followed(server: Server, cluster: Cluster) -> None:
    location = f"https://127.0.0.1:{server.port}/elsewhere"
    for status in (301, 302, 303, 307, 308, 304):
        server.on_list.append(answering(status, b"", Location=location))
        with pytest.raises(Unreachable, match=f"HTTP {status}, and no redirect is followed"):
            await cluster.get(HERE)
    assert {request.path for request in server.requests} == {HERE.kind.path("tenant", "ovn-ca")}


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"<html>please log in</html>", "text/html"), (b"{}", "text/plain"), (b"[1]", "application/json"),
     (b"{'a': 1}", "application/json"), (b"\xff\xfe", "application/json"), (b"", "application/json"),
     (b"[" * 100_000, "application/json")],
)  # fmt: skip
async def test_what_is_no_kubernetes_object_is_no_answer(
    server: Server, cluster: Cluster, body: bytes, content_type: str
) -> None:
    server.on_list.append(answering(200, body, content_type))
    with pytest.raises(Unreachable, match="not a Kubernetes object"):
        await cluster.get(HERE)


async def test_a_packed_answer_that_nobody_asked_for_is_not_unpacked(server: Server, cluster: Cluster) -> None:
    server.on_list.append(answering(200, b"\x1f\x8b" + b"\0" * 100, **{"Content-Encoding": "gzip"}))
    with pytest.raises(Unreachable, match="not a Kubernetes object"):
        await cluster.get(HERE)
    assert server.requests[0].headers["accept-encoding"] == "identity"


async def test_a_huge_answer_is_given_up(server: Server, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "BODY_LIMIT", 1 << 20)
    server.on_list.append(answering(200, b" " * (8 << 20)))
    with pytest.raises(Unreachable, match="larger than 1 MiB"):
        await cluster.get(HERE)
    assert (await cluster.version())["kind"] == "ConfigMapList"


# --- no answer ---------------------------------------------------------------------------------------------------


@IMPATIENT
async def test_a_write_that_timed_out_may_have_been_done(server: Server, cluster: Cluster) -> None:
    server.on_other.append(hang)
    with pytest.raises(Unreachable, match=r"timed out after 0.4 s") as caught:
        await cluster.apply(HERE, {})
    assert caught.value.sent


async def test_a_write_whose_answer_was_cut_may_have_been_done_and_is_not_sent_again(
    server: Server, cluster: Cluster
) -> None:
    async def half(exchange: Exchange) -> None:
        await exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
        exchange.cut()

    for behaviour in (cut, half):
        server.on_other.append(behaviour)
        with pytest.raises(Unreachable) as caught:
            await cluster.apply(HERE, {})
        assert caught.value.sent
    assert len(server.requests) == 2


async def test_a_refused_connection_means_that_nothing_was_sent(server: Server, cluster: Cluster) -> None:
    await server.stop()
    with pytest.raises(Unreachable, match=r"^connection refused$") as caught:
        await cluster.apply(HERE, {})
    assert not caught.value.sent


async def test_a_connection_that_is_not_made_in_time_means_that_nothing_was_sent(access: Access) -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.Event().wait()  # accepted, but no TLS
        finally:
            writer.transport.abort()

    frozen = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = frozen.sockets[0].getsockname()[1]
    elsewhere = Access(server=f"https://127.0.0.1:{port}", ca_pem=access.ca_pem, token=TOKEN)
    async with Cluster(elsewhere, request_timeout=5.0, connect_timeout=0.2) as cluster:
        with pytest.raises(Unreachable, match=r"^no connection within 0.2 s$") as caught:
            await cluster.apply(HERE, {})
    assert not caught.value.sent
    frozen.close()


async def test_what_speaks_no_tls_is_named_so(access: Access) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    elsewhere = Access(server=f"https://127.0.0.1:{port}", ca_pem=access.ca_pem, token=TOKEN)
    async with Cluster(elsewhere, request_timeout=2.0) as cluster:
        with pytest.raises(Unreachable, match=r"^TLS failed: (wrong version number|record layer failure)$"):
            await cluster.version()
    listener.close()


async def test_what_speaks_no_http_is_named_so(server: Server, cluster: Cluster) -> None:
    async def babble(exchange: Exchange) -> None:
        await exchange.raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    server.on_other.append(babble)
    with pytest.raises(Unreachable, match="does not speak HTTP"):
        await cluster.apply(HERE, {})


async def test_a_cancelled_request_leaves_no_connection(server: Server, cluster: Cluster) -> None:
    server.on_list.append(hang)
    task = asyncio.create_task(cluster.get(HERE))
    await server.until(lambda: len(server.requests) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await cluster.version()
    assert server.requests[0].connection != server.requests[1].connection


async def test_an_idle_connection_costs_little_memory(server: Server, cluster: Cluster) -> None:
    stream = await cluster.watch(CONFIG_MAP, "tenant", resource_version="1", timeout_seconds=9)
    async with contextlib.aclosing(stream):
        connection = stream._response.connection
        assert connection is not None
        assert len(connection.transport._ssl_protocol._ssl_buffer) <= 32 * 1024  # type: ignore[union-attr]


async def test_a_vanished_peer_is_noticed_by_the_kernel(access: Access) -> None:
    transport = Transport(access)
    made = transport._socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 1)))
    with made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        idle = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        interval = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
        limit = made.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert idle + 2 * interval <= 10
        assert 0 < limit <= 10_000


# --- lines -------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line), max_size=6), st.lists(st.integers(1, 9)))
@settings(max_examples=200, deadline=None)
def test_lines_are_the_same_however_the_stream_is_cut_into_pieces(lines: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(line + b"\n" for line in lines) + b"rest"
    splitter = Lines()
    found: list[bytes] = []
    for size in [*sizes, len(stream)]:
        piece, stream = stream[:size], stream[size:]
        found += splitter.feed(piece)
    assert found == [line for line in lines if line]
    assert splitter.unfinished
