"""As whom the client speaks, to whom, and that nothing of the credential is ever shown or left behind."""

import asyncio
import logging
import ssl
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from dpu_operator.kube import client as client_module
from dpu_operator.kube.access import Access
from dpu_operator.kube.client import Cluster
from dpu_operator.kube.errors import ApiError, ClusterError, Unreachable
from dpu_operator.world import CONFIG_MAP, Ref
from tests.wire.conftest import TOKEN, Certificates
from tests.wire.server import Behaviour, Exchange, Server, hang, refusing

HERE = Ref(CONFIG_MAP, "tenant", "ovn-ca")


# --- tokens ------------------------------------------------------------------------------------------------------


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("first\n")
    return path


@pytest_asyncio.fixture
async def filed(access: Access, token_file: Path) -> Cluster:
    return Cluster(Access(server=access.server, ca_pem=access.ca_pem, token_file=str(token_file)), request_timeout=3.0)


def renew(token_file: Path, text: str | None) -> None:
    """What kubelet does; None is the moment in which it swaps the file."""
    token_file.unlink()
    if text is not None:
        token_file.write_text(text)


def spoken(server: Server) -> list[str]:
    return [request.headers.get("authorization", "") for request in server.requests]


async def test_a_token_file_is_read_again_after_a_401_and_the_request_is_repeated(
    server: Server, filed: Cluster, token_file: Path
) -> None:
    async with filed as cluster:
        await cluster.version()
        renew(token_file, "second")
        server.on_list.append(refusing(401, "Unauthorized"))
        await cluster.version()
        renew(token_file, "third")
        server.on_watch.append(refusing(401, "Unauthorized"))
        stream = await cluster.watch(CONFIG_MAP, resource_version="1", timeout_seconds=9)
        await stream.aclose()
    assert spoken(server) == [f"Bearer {token}" for token in ("first", "first", "second", "second", "third")]


async def test_a_401_with_the_same_token_in_the_file_is_an_error(server: Server, filed: Cluster) -> None:
    server.on_list.extend([refusing(401, "Unauthorized")] * 2)
    async with filed as cluster:
        with pytest.raises(ApiError, match="HTTP 401"):
            await cluster.version()
    assert len(server.requests) == 1


async def test_a_token_file_is_read_again_when_it_is_a_minute_old(
    server: Server, filed: Cluster, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with filed as cluster:
        await cluster.version()
        renew(token_file, "second")
        await cluster.version()
        monkeypatch.setattr(client_module, "TOKEN_AGE", -1.0)
        await cluster.version()
        renew(token_file, None)
        await cluster.version()
    assert spoken(server) == [f"Bearer {token}" for token in ("first", "first", "second", "second")]


async def test_a_token_file_that_never_was_readable_is_an_error(
    server: Server, filed: Cluster, token_file: Path
) -> None:
    renew(token_file, None)
    async with filed as cluster:
        with pytest.raises(Unreachable, match="token file of our own account cannot be read") as caught:
            await cluster.version()
    assert caught.value.__context__ is None
    assert server.requests == []


# --- certificates ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_memory_files")
async def test_a_client_certificate_is_shown_to_the_server_and_leaves_no_file(
    server: Server, certificates: Certificates, tmp_path: Path
) -> None:
    cert, key = certificates.server.write(tmp_path, "server")
    server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.context.load_cert_chain(cert, key)
    server.context.load_verify_locations(cadata=certificates.authority.cert)
    server.context.verify_mode = ssl.CERT_REQUIRED
    seen: list[object] = []

    async def look(exchange: Exchange) -> None:
        seen.append(exchange._writer.get_extra_info("peercert")["subject"])
        await exchange.answer(200, {})

    server.on_list.append(look)
    access = Access(
        server=f"https://127.0.0.1:{server.port}",
        ca_pem=certificates.authority.cert,
        client_cert_pem=certificates.client.cert,
        client_key_pem=certificates.client.key,
    )
    async with Cluster(access, request_timeout=3.0) as cluster:
        await cluster.version()
    assert seen == [((("commonName", "somebody"),),)]
    assert spoken(server) == [""]
    nameless = Access(server=access.server, ca_pem=access.ca_pem, token=TOKEN)
    async with Cluster(nameless, request_timeout=3.0) as cluster:
        with pytest.raises(Unreachable, match=r"TLS failed|connection reset|closed before an answer"):
            await cluster.version()


async def test_a_server_of_another_ca_gets_nothing(server: Server, certificates: Certificates) -> None:
    access = Access(server=f"https://127.0.0.1:{server.port}", ca_pem=certificates.other.cert, token=TOKEN)
    async with Cluster(access, request_timeout=3.0) as cluster:
        with pytest.raises(Unreachable, match=r"^certificate verify failed: ") as caught:
            await cluster.apply(HERE, {})
    assert not caught.value.sent
    assert server.requests == []


async def test_a_server_of_another_name_gets_nothing_unless_that_name_is_expected(
    server: Server, certificates: Certificates, tmp_path: Path
) -> None:
    cert, key = certificates.authority.server(("api.example",), ()).write(tmp_path, "named")
    server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.context.load_cert_chain(cert, key)
    url = f"https://127.0.0.1:{server.port}"
    async with Cluster(Access(server=url, ca_pem=certificates.authority.cert, token=TOKEN)) as cluster:
        with pytest.raises(Unreachable, match="IP address mismatch"):
            await cluster.version()
    expecting = Access(server=url, ca_pem=certificates.authority.cert, token=TOKEN, tls_server_name="api.example")
    async with Cluster(expecting) as cluster:
        await cluster.version()
    assert len(server.requests) == 1


# --- ways --------------------------------------------------------------------------------------------------------


async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, heads: list[bytes]) -> None:
    """A proxy that knows CONNECT."""
    heads.append(await reader.readuntil(b"\r\n\r\n"))
    host, _, port = heads[-1].split(b" ")[1].rpartition(b":")
    there, away = await asyncio.open_connection(host.decode(), int(port))
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
        sink.close()

    await asyncio.gather(pump(reader, away), pump(there, writer), return_exceptions=True)


async def test_a_proxy_sees_the_host_and_its_own_password_but_not_the_token(server: Server, access: Access) -> None:
    heads: list[bytes] = []
    proxy = await asyncio.start_server(lambda r, w: tunnel(r, w, heads), "127.0.0.1", 0)
    url = f"http://user:pass@127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
    through = Access(server=access.server, ca_pem=access.ca_pem, token=TOKEN, proxy_url=url, trusted=True)
    async with Cluster(through, request_timeout=3.0) as cluster:
        await cluster.version()
    proxy.close()
    assert heads[0].startswith(f"CONNECT 127.0.0.1:{server.port} HTTP/1.1".encode())
    assert b"Proxy-Authorization: Basic dXNlcjpwYXNz" in heads[0]
    assert TOKEN.encode() not in heads[0]
    assert spoken(server) == [f"Bearer {TOKEN}"]


async def test_a_proxy_that_refuses_is_named_without_its_password(access: Access) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    through = Access(
        server=access.server,
        ca_pem=access.ca_pem,
        token=TOKEN,
        proxy_url=f"http://u:hush@127.0.0.1:{port}",
        trusted=True,
    )
    async with Cluster(through, request_timeout=3.0) as cluster:
        with pytest.raises(Unreachable, match=r"^the proxy refused with HTTP 407$"):
            await cluster.version()
    proxy.close()
    async with Cluster(through, request_timeout=3.0) as cluster:
        with pytest.raises(Unreachable, match=r"^the proxy: connection refused$"):
            await cluster.version()


async def test_the_environment_has_no_say_in_the_way(
    server: Server, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login evil password evil\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    await cluster.version()
    assert spoken(server) == [f"Bearer {TOKEN}"]


@pytest.mark.parametrize("address", ["169.254.169.254", "fe80::1", "::ffff:169.254.169.254", "0.0.0.0", "224.0.0.1"])
async def test_a_name_that_leads_to_a_forbidden_address_is_not_connected_to(
    access: Access, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    async def resolve(*_: object, **__: object) -> list[dict[str, object]]:
        family = 10 if ":" in address else 2
        return [{"hostname": "x", "host": address, "port": 443, "family": family, "proto": 6, "flags": 0}]

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    monkeypatch.setattr(aiohttp.resolver.DefaultResolver, "resolve", resolve)
    led = Access(server="https://harmless.example:443", ca_pem=access.ca_pem, token=TOKEN)
    async with Cluster(led, request_timeout=3.0) as cluster:
        with pytest.raises(Unreachable, match=r"^its address is .*, where this operator does not connect") as caught:
            await cluster.version()
    assert not caught.value.sent


# --- secrets -----------------------------------------------------------------------------------------------------


async def repeat_in_status(exchange: Exchange) -> None:
    """A hostile or merely chatty server, that says what it was told."""
    said = exchange.request.headers["authorization"]
    await exchange.status(403, f"Forbidden {said}", f"you said {said}", kind=said)


async def repeat_in_text(exchange: Exchange) -> None:
    said = exchange.request.headers["authorization"]
    await exchange.answer(400, f"bad {said}".encode(), content_type="text/plain")


async def repeat_in_content_type(exchange: Exchange) -> None:
    await exchange.answer(301 if exchange.request.is_watch else 200, b"", content_type=f"text/{TOKEN}")


async def repeat_in_error_event(exchange: Exchange) -> None:
    if not exchange.request.is_watch:
        return await repeat_in_status(exchange)
    await exchange.start_stream()
    await exchange.event(
        "ERROR", {"code": 410, "reason": TOKEN, "message": f"token {TOKEN}", "details": {"kind": TOKEN}}
    )
    return await exchange.end()


async def redirect(exchange: Exchange) -> None:
    await exchange.answer(302, b"", {"Location": f"https://elsewhere.example/?{TOKEN}"})


async def cut(exchange: Exchange) -> None:
    exchange.cut()


async def babble(exchange: Exchange) -> None:
    await exchange.raw(f"{TOKEN}\r\n\r\n".encode())


FAILURES: list[Behaviour] = [
    repeat_in_status, repeat_in_text, repeat_in_content_type, repeat_in_error_event, redirect, cut, babble, hang,
]  # fmt: skip


async def first_event(cluster: Cluster) -> object:
    stream = await cluster.watch(CONFIG_MAP, "tenant", resource_version="1", timeout_seconds=9)
    return await anext(stream)


REQUESTS: dict[str, Callable[[Cluster], Awaitable[object]]] = {
    "get": lambda cluster: cluster.get(HERE),
    "apply": lambda cluster: cluster.apply(HERE, {}),
    "watch": first_event,
}


@pytest.mark.parametrize("verb", list(REQUESTS))
@pytest.mark.parametrize("behaviour", FAILURES, ids=lambda behaviour: behaviour.__name__)
async def test_a_failure_shows_nothing_of_the_credential(
    server: Server,
    access: Access,
    behaviour: Behaviour,
    verb: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    for queue in (server.on_list, server.on_watch, server.on_other):
        queue.extend([behaviour] * 2)
    async with Cluster(access, request_timeout=0.3, connect_timeout=3.0) as cluster:
        with pytest.raises(ClusterError) as caught:
            await REQUESTS[verb](cluster)
        error = caught.value
        shown = [str(error), repr(error), "".join(traceback.format_exception(error)), str(vars(error))]
        shown += [repr(cluster), repr(cluster.access), caplog.text]
    assert [TOKEN in text for text in shown] == [False] * len(shown)
    assert error.__context__ is None
    assert error.__cause__ is None
