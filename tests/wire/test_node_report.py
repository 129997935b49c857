"""The agent's report against an API server that misbehaves, over real TLS."""

import asyncio
import dataclasses
import datetime as dt
import itertools
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from dpu_agent import kubelet
from dpu_agent.node_patch import REPLY_LIMIT, NodePatcher, PatchError
from dpu_agent.report import NodeReporter, Pacing
from dpu_shared import node_report
from dpu_shared.node_report import NodeReport, State
from tests.lab.kubeconfig import Access
from tests.lab.kubelet import KubeletFiles
from tests.lab.pki import Authority, Pair
from tests.wire.conftest import TOKEN, Certificates
from tests.wire.server import PATIENCE, Exchange, Server, hang, refusing

NODE = "dpu-1"
READY = NodeReport(State.READY, "All is as configured.", "c0ffee", "boot-2", version="0.1.0", host_pf_macs=("aa:bb:cc:dd:ee:ff",))  # fmt: skip
QUICK = Pacing(heartbeat=3600, spacing=0.05, first_delay=0.02, longest_delay=0.1, local_delay=0.05)


class Nodes(Server):
    """An API server with one Node, whose annotations are kept."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context)
        self.annotations: dict[str, str] = {}

    async def echo(self, exchange: Exchange) -> None:
        self.annotations |= json.loads(exchange.request.body)["metadata"]["annotations"]
        await exchange.answer(200, {"metadata": {"name": NODE, "annotations": self.annotations}})

    @property
    def state(self) -> str:
        return self.annotations.get(node_report.STATE, "")


@pytest_asyncio.fixture
async def server(server_context: ssl.SSLContext) -> AsyncIterator[Nodes]:
    made = Nodes(server_context)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def files(server: Nodes, certificates: Certificates, tmp_path: Path) -> KubeletFiles:
    made = KubeletFiles(tmp_path / "host")
    url = f"https://127.0.0.1:{server.port}"
    made.join(Access(url, certificates.authority.cert, certificates.authority.node(NODE)))
    return made


@pytest_asyncio.fixture
async def reporter(files: KubeletFiles) -> AsyncIterator[NodeReporter]:
    """It runs."""
    made = NodeReporter(files.root, pacing=QUICK, timeout=3.0)
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.wait([task])


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another thread
            await asyncio.sleep(0.005)


async def sent(files: KubeletFiles, report: NodeReport = READY, *, timeout: float = 3.0) -> None:
    """One patch."""
    await asyncio.to_thread(NodePatcher(timeout=timeout).send, kubelet.read(files.root), report.to_annotations())


async def refusal(files: KubeletFiles, *, timeout: float = 3.0) -> PatchError:
    with pytest.raises(PatchError) as caught:
        await sent(files, timeout=timeout)
    assert caught.value.message.endswith(".")
    assert caught.value.hint.endswith(".")
    return caught.value


async def test_a_report_is_one_merge_patch_of_our_annotations_on_our_own_node(
    server: Nodes, files: KubeletFiles
) -> None:
    await sent(files)
    (request,) = server.requests
    assert (request.method, request.path, request.query) == (
        "PATCH", "/api/v1/nodes/dpu-1", {"fieldManager": "dpu-agent"},
    )  # fmt: skip
    assert request.headers["content-type"] == "application/merge-patch+json"
    assert json.loads(request.body) == {"metadata": {"annotations": READY.to_annotations()}}


async def test_a_token_is_shown_and_never_told(server: Nodes, files: KubeletFiles, certificates: Certificates) -> None:
    cluster = json.loads(files.kubeconfig.read_text())["clusters"][0]["cluster"]
    files.write(cluster, {"token": TOKEN}, f"system:node:{NODE}")
    server.on_other.append(refusing(403, "Forbidden", f"your token {TOKEN} may not"))
    error = await refusal(files)
    assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert "your token … may not" in error.message
    assert TOKEN not in repr(error)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (401, ("does not accept the kubelet's credential (HTTP 401: told why)", "oc get csr")),
        (403, ("forbids the agent to annotate the Node dpu-1 (HTTP 403: told why)", "Node authorizer")),
        (404, ("has no Node dpu-1 (HTTP 404: told why)", "restart the kubelet")),
        (409, ("does not accept the annotations of the Node dpu-1 (HTTP 409: told why)", "tries again")),
        (422, ("does not accept the annotations of the Node dpu-1 (HTTP 422: told why)", "tries again")),
        (429, ("has too much to do (HTTP 429: told why)", "tries again")),
        (500, ("does not accept the annotations of the Node dpu-1 (HTTP 500: told why)", "tries again")),
        (503, ("does not accept the annotations of the Node dpu-1 (HTTP 503: told why)", "tries again")),
    ],
)
async def test_a_refusal_is_told_in_two_sentences_and_tried_again(
    server: Nodes,
    files: KubeletFiles,
    reporter: NodeReporter,
    code: int,
    told: tuple[str, str],
) -> None:
    server.on_other.extend([refusing(code, "Reason", "told why."), refusing(code, "Reason", "told why.")])
    error = await refusal(files)
    assert told[0] in error.message
    assert told[1] in error.hint
    reporter.submit(READY)
    await until(lambda: server.state == "Ready")
    assert len(server.requests) == 3


async def test_a_server_that_asks_to_be_left_alone_is_left_alone(server: Nodes, files: KubeletFiles) -> None:
    for told, seconds in (("7", 7.0), ("Tue, 24 Nov 2026 10:00:00 GMT", 0.0), ("-1", 0.0), ("nan", 0.0), ("inf", 0.0)):
        server.on_other.append(refusing(429, "TooManyRequests", headers={"Retry-After": told}))
        assert (await refusal(files)).retry_after == seconds


async def test_the_reporter_heeds_it(server: Nodes, reporter: NodeReporter) -> None:
    server.on_other.append(refusing(429, "TooManyRequests", headers={"Retry-After": "0.7"}))
    reporter.submit(READY)
    await until(lambda: reporter.status.failures)
    began = time.monotonic()
    await until(lambda: server.state == "Ready")
    assert time.monotonic() - began > 0.4  # without it the next attempt is due after 0.02 s
    assert len(server.requests) == 2


async def test_a_redirect_is_not_followed(server: Nodes, files: KubeletFiles) -> None:
    target = f"https://127.0.0.1:{server.port}/elsewhere"
    server.on_other.append(refusing(307, "Redirect", headers={"Location": target}))
    assert "sends us elsewhere (HTTP 307), which is not followed" in (await refusal(files)).message
    assert len(server.requests) == 1


async def words(exchange: Exchange) -> None:
    await exchange.answer(200, b"<html>maintenance</html>", content_type="text/html")


async def another_node(exchange: Exchange) -> None:
    await exchange.answer(200, {"metadata": {"name": "dpu-2", "annotations": READY.to_annotations()}})


async def unchanged(exchange: Exchange) -> None:
    await exchange.answer(200, {"metadata": {"name": NODE, "annotations": {"a": "b"}}})


async def odd(exchange: Exchange) -> None:
    await exchange.answer(200, {"metadata": {"name": NODE, "annotations": {node_report.STATE: [{}]}}})


async def deep(exchange: Exchange) -> None:
    await exchange.answer(200, b"[" * 500_000)


async def cut_off(exchange: Exchange) -> None:
    await exchange.raw(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"metadata"')
    exchange.cut()


async def no_http(exchange: Exchange) -> None:
    await exchange.raw(b"SSH-2.0-OpenSSH_9.9\r\n" * 50)
    exchange.cut()


async def gone(exchange: Exchange) -> None:
    exchange.cut()


async def huge(exchange: Exchange) -> None:
    await exchange.answer(200, b" " * (REPLY_LIMIT + 1))


async def endless(exchange: Exchange) -> None:
    await exchange.start_stream()
    while True:
        await exchange.chunk(b" " * 65536)
        await asyncio.sleep(0)  # writing alone need not let the others of this loop run


async def endless_headers(exchange: Exchange) -> None:
    await exchange.raw(b"HTTP/1.1 200 OK\r\n")
    while True:
        await exchange.raw(b"X-More: of the same\r\n" * 1000)
        await asyncio.sleep(0)


async def not_yet(exchange: Exchange) -> None:
    while True:
        await exchange.raw(b"HTTP/1.1 100 Continue\r\n\r\n")
        await asyncio.sleep(0)


async def trickle(exchange: Exchange) -> None:
    await exchange.raw(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        await exchange.raw(b"x")
        await asyncio.sleep(0.05)


GARBAGE: dict[str, tuple[Callable[[Exchange], Awaitable[None]], str]] = {
    "words": (words, "is not the Node as it was to become"),
    "another node": (another_node, "is not the Node as it was to become"),
    "an unchanged node": (unchanged, "is not the Node as it was to become"),
    "odd annotations": (odd, "is not the Node as it was to become"),
    "deep JSON": (deep, "is not the Node as it was to become"),
    "half an answer": (cut_off, ""),
    "no HTTP": (no_http, "its answer is no HTTP"),
    "nothing": (gone, ""),
    "a huge answer": (huge, "longer than 1 MiB"),
    "an endless answer": (endless, "longer than 1 MiB"),
    "endless headers": (endless_headers, "its answer is no HTTP"),
    "for ever 100 Continue": (not_yet, "does not answer in time"),
    "a byte now and then": (trickle, "does not answer in time"),
    "silence": (hang, "does not answer in time"),
}


@pytest.mark.parametrize(("behaviour", "sentence"), GARBAGE.values(), ids=GARBAGE)
async def test_whatever_a_server_answers_it_is_an_error_in_two_sentences_and_within_the_time(
    server: Nodes, files: KubeletFiles, behaviour: Callable[[Exchange], Awaitable[None]], sentence: str
) -> None:
    server.on_other.append(behaviour)
    began = time.monotonic()
    assert sentence in (await refusal(files, timeout=0.6)).message
    assert time.monotonic() - began < PATIENCE


@pytest.mark.parametrize("behaviour", [each for each, _ in GARBAGE.values()], ids=GARBAGE)
async def test_the_report_is_there_once_the_server_has_come_to_its_senses(
    server: Nodes, files: KubeletFiles, behaviour: Callable[[Exchange], Awaitable[None]]
) -> None:
    server.on_other.extend([behaviour, behaviour])
    reporter = NodeReporter(files.root, pacing=QUICK, timeout=0.4)
    task = asyncio.create_task(reporter.run())
    reporter.submit(READY)
    await until(lambda: server.state == "Ready")
    await until(lambda: not reporter.status.failures)
    task.cancel()
    await asyncio.wait([task])


async def test_a_server_that_takes_connections_and_hangs_before_tls_is_given_up(
    files: KubeletFiles, certificates: Certificates
) -> None:
    opened: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: opened.append(writer), "127.0.0.1", 0)
    async with silent:
        url = f"https://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        files.join(Access(url, certificates.authority.cert, certificates.authority.node(NODE)))
        assert "does not answer in time" in (await refusal(files, timeout=0.4)).message
        for writer in opened:
            writer.close()


async def test_a_server_that_nobody_listens_for_is_named(files: KubeletFiles, server: Nodes) -> None:
    await server.stop()
    error = await refusal(files)
    assert f"The API server 127.0.0.1:{server.port} cannot be used: Connection refused." in error.message
    assert not error.mends_soon


def served_from(authority: Authority, begin: dt.timedelta, end: dt.timedelta) -> Pair:
    """A serving certificate with another life."""
    issuer = x509.load_pem_x509_certificate(authority.cert.encode())
    signer = serialization.load_pem_private_key(authority.key.encode(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    made, now = x509.load_pem_x509_certificate(authority.server().cert.encode()), dt.datetime.now(dt.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(
        issuer.subject, made.subject, key.public_key(), x509.random_serial_number(), now + begin, now + end,
        list(made.extensions),
    )  # fmt: skip
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    certificate = builder.sign(signer, hashes.SHA256())
    return Pair(certificate.public_bytes(serialization.Encoding.PEM).decode(), pem.decode())


@pytest.mark.parametrize(
    "case",
    [(1, 2, "is not valid yet by this DPU's clock, which says 20"), (-2, -1, "is no longer valid by this DPU's clock")],
    ids=["a clock in the past", "a clock in the future"],
)
async def test_a_clock_that_is_wrong_is_named_and_the_report_follows_once_it_is_set(
    server: Nodes, files: KubeletFiles, reporter: NodeReporter, certificates: Certificates, case: tuple[int, int, str],
) -> None:  # fmt: skip
    """That the clock is set is played by a server whose certificate becomes valid."""
    begin, end, sentence = case
    odd_one = served_from(certificates.authority, dt.timedelta(days=begin), dt.timedelta(days=end))
    server.context.load_cert_chain(*odd_one.write(files.root, "odd"))
    try:
        error = await refusal(files)
        assert sentence in error.message
        assert "chronyc tracking" in error.hint
        assert error.mends_soon
        reporter.submit(READY)
        await until(lambda: reporter.status.failures > 2)
        assert server.requests == []
    finally:
        server.context.load_cert_chain(*certificates.server.write(files.root, "good"))
    await until(lambda: server.state == "Ready")


async def test_a_server_of_another_authority_gets_nothing(
    server: Nodes, files: KubeletFiles, certificates: Certificates
) -> None:
    files.join(Access(f"https://127.0.0.1:{server.port}", certificates.other.cert, certificates.other.node(NODE)))
    assert "is not trusted: " in (await refusal(files)).message
    assert server.requests == []


async def test_a_server_of_another_name_gets_nothing(
    server: Nodes, files: KubeletFiles, certificates: Certificates
) -> None:
    access = Access(f"https://127.0.0.1:{server.port}", certificates.authority.cert, certificates.authority.node(NODE))
    files.join(access, **{"tls-server-name": "api.example.com"})
    assert "not valid for 'api.example.com'" in (await refusal(files)).message
    assert server.requests == []
    files.join(access, **{"tls-server-name": "localhost"})
    await sent(files)
    assert server.state == "Ready"


async def test_a_kubelet_that_has_not_joined_yet_is_waited_for(
    server: Nodes, files: KubeletFiles, reporter: NodeReporter
) -> None:
    away = files.kubeconfig.rename(files.root / "away")
    reporter.submit(READY)
    await until(lambda: reporter.status.failures > 3)
    assert "is not there yet (/var/lib/kubelet/kubeconfig)" in reporter.status.error
    assert server.accepted == 0
    away.rename(files.kubeconfig)
    await until(lambda: server.state == "Ready")
    await until(lambda: reporter.status.error == "")


async def test_a_certificate_that_was_renewed_is_shown_from_the_next_write_on(
    server: Nodes,
    server_context: ssl.SSLContext,
    files: KubeletFiles,
    reporter: NodeReporter,
    certificates: Certificates,
) -> None:
    """After a 401, and without one."""
    seen: list[str] = []

    async def note(exchange: Exchange) -> None:
        peer = exchange._writer.get_extra_info("ssl_object").getpeercert()
        seen.append(str(peer["serialNumber"]))
        await (exchange.status(401, "Unauthorized", "no") if len(seen) == 1 else server.echo(exchange))

    server_context.verify_mode = ssl.CERT_REQUIRED
    server_context.load_verify_locations(cadata=certificates.authority.cert)
    try:
        server.on_other.extend([note] * 10)
        reporter.submit(READY)
        await until(lambda: seen)
        files.renew(certificates.authority.node(NODE))
        await until(lambda: server.state == "Ready")
        files.renew(certificates.authority.node(NODE))
        count = len(seen)
        reporter.submit(dataclasses.replace(READY, state=State.BLOCKED))
        await until(lambda: server.state == "Blocked")
        assert seen[-1] not in seen[:count]
        assert seen[0] != seen[count - 1]
    finally:
        server_context.verify_mode = ssl.CERT_NONE


async def test_what_is_no_unicode_gets_there_all_the_same(server: Nodes, files: KubeletFiles) -> None:
    """A kernel's or a card's text may hold any byte."""
    await sent(files, dataclasses.replace(READY, message=b"caf\xe9".decode("utf-8", "surrogateescape") + ' "<é>"\n'))
    assert server.annotations[node_report.MESSAGE] == 'caf? "<é>"\n'


async def test_while_a_server_hangs_only_the_newest_report_is_kept(server: Nodes, reporter: NodeReporter) -> None:
    server.on_other.append(hang)
    reporter.submit(READY)
    await until(lambda: server.requests)
    for index in range(100):
        reporter.submit(dataclasses.replace(READY, state=State.PROGRESSING, message=str(index)))
    await until(lambda: server.state == "Progressing")
    assert server.annotations[node_report.MESSAGE] == "99"
    assert len(server.requests) == 2


async def test_a_report_that_flaps_is_written_now_and_then_and_its_last_state_at_the_end(
    server: Nodes, files: KubeletFiles
) -> None:
    reporter = NodeReporter(files.root, pacing=dataclasses.replace(QUICK, spacing=0.3))
    task = asyncio.create_task(reporter.run())
    began = time.monotonic()
    for index in range(200):
        reporter.submit(dataclasses.replace(READY, state=State.DEGRADED, message=str(index)))
        await asyncio.sleep(0.005)
    took = time.monotonic() - began
    reporter.submit(READY)
    await until(lambda: server.state == "Ready")
    assert 2 <= len(server.requests) <= took / 0.3 + 3
    task.cancel()
    await asyncio.wait([task])


async def test_a_heartbeat_is_one_patch_and_there_is_no_other_request(server: Nodes, files: KubeletFiles) -> None:
    arrivals: list[float] = []

    async def note(exchange: Exchange) -> None:
        arrivals.append(time.monotonic())
        await server.echo(exchange)

    server.on_other.extend([note] * 4)
    reporter = NodeReporter(files.root, pacing=dataclasses.replace(QUICK, heartbeat=0.25))
    task = asyncio.create_task(reporter.run())
    reporter.submit(READY)
    await until(lambda: len(arrivals) == 4)
    task.cancel()
    await asyncio.wait([task])
    gaps = [after - before for before, after in itertools.pairwise(arrivals)]
    assert min(gaps) > 0.2
    kinds: set[tuple[str, str]] = {(request.method, request.path) for request in server.requests}
    assert kinds == {("PATCH", "/api/v1/nodes/dpu-1")}


async def test_a_lost_answer_does_not_hide_what_came_after_it(server: Nodes, reporter: NodeReporter) -> None:
    """A is on the Node; B got there too, but its answer was lost; then A again is no "nothing new"."""

    async def take_and_cut(exchange: Exchange) -> None:
        server.annotations |= json.loads(exchange.request.body)["metadata"]["annotations"]
        reporter.submit(READY)
        exchange.cut()

    reporter.submit(READY)
    await until(lambda: server.state == "Ready")
    server.on_other.append(take_and_cut)
    reporter.submit(dataclasses.replace(READY, state=State.DEGRADED))
    await until(lambda: len(server.requests) == 3)
    await until(lambda: server.state == "Ready")


async def ended_within(task: "asyncio.Task[None]", seconds: float) -> None:
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=seconds)
    assert done


@pytest.mark.parametrize("behaviour", [hang, trickle, not_yet], ids=["hanging", "trickling", "flooding"])
async def test_it_ends_at_once_and_quietly_whatever_the_server_does(
    server: Nodes, files: KubeletFiles, behaviour: Callable[[Exchange], Awaitable[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    server.on_other.append(behaviour)
    reporter = NodeReporter(files.root, timeout=60)
    task = asyncio.create_task(reporter.run())
    reporter.submit(READY)
    await until(lambda: server.requests)
    await ended_within(task, 5)  # a write lasts 60
    assert reporter.status.failures == 0
    assert [record for record in caplog.records if record.name.startswith("dpu_agent")] == []
    await until(lambda: not [each for each in _threads() if each == "node-report"])


def _threads() -> list[str]:
    import threading

    return [each.name for each in threading.enumerate()]


async def test_hanging_up_during_the_handshake_ends_it_too(files: KubeletFiles, certificates: Certificates) -> None:
    opened: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: opened.append(writer), "127.0.0.1", 0)
    async with silent:
        url = f"https://127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        files.join(Access(url, certificates.authority.cert, certificates.authority.node(NODE)))
        reporter = NodeReporter(files.root, timeout=60)
        task = asyncio.create_task(reporter.run())
        reporter.submit(READY)
        await until(lambda: opened)
        await ended_within(task, 5)
        await until(lambda: "node-report" not in _threads())
        for writer in opened:
            writer.close()


async def test_nothing_of_a_thousand_failures_stays(server: Nodes, files: KubeletFiles) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    patcher, credentials = NodePatcher(timeout=3.0), kubelet.read(files.root)
    server.hang_up = True

    def fail(times: int) -> None:
        for _ in range(times):
            with pytest.raises(PatchError):
                patcher.send(credentials, READY.to_annotations())

    await asyncio.to_thread(fail, 5)
    before = descriptors()
    await asyncio.to_thread(fail, 200)
    await until(lambda: descriptors() <= before)
