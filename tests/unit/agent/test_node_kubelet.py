"""The kubelet's kubeconfig: what is taken, what is refused in which words, and that nothing of it leaks."""

import base64
import contextlib
import os
import re
import ssl
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpu_agent import kubelet
from dpu_agent.certificate import common_name
from dpu_agent.kubelet import KubeletError, host_path
from tests.lab.kubeconfig import Access
from tests.lab.kubelet import CURRENT, KubeletFiles
from tests.lab.pki import Authority, Pair

AUTHORITY = Authority.make("cluster")
NODE = AUTHORITY.node("dpu-1")
SERVER = "https://api-int.infra.example.com:6443"
TOKEN = "t0ken-that-nobody-may-see"


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


CLUSTER = {"server": SERVER, "certificate-authority-data": encoded(AUTHORITY.cert)}
EMBEDDED = {"client-certificate-data": encoded(NODE.cert), "client-key-data": encoded(NODE.key)}


@pytest.fixture
def files(tmp_path: Path) -> KubeletFiles:
    """A host whose kubelet has joined."""
    made = KubeletFiles(tmp_path / "host")
    made.join(Access(SERVER, AUTHORITY.cert, NODE))
    return made


def test_what_a_kubelet_writes_is_taken(files: KubeletFiles) -> None:
    found = kubelet.read(files.root)
    assert (found.node, found.host, found.port, found.path) == ("dpu-1", "api-int.infra.example.com", 6443, "")
    assert found.server_name == found.host
    assert found.token == ""


def test_the_server_is_always_verified(files: KubeletFiles) -> None:
    tls = kubelet.read(files.root).tls
    assert tls.verify_mode is ssl.CERT_REQUIRED
    assert tls.check_hostname
    assert tls.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert tls.cert_store_stats()["x509"] == 1  # the cluster's own CA, and none of the system's


def test_paths_and_symlinks_are_paths_on_the_host(files: KubeletFiles) -> None:
    """The agent sees the host under a folder; the kubelet's symlink is absolute, and would lead to the container."""
    assert str((files.root / CURRENT[1:]).readlink()).startswith("/var/lib/kubelet/")
    assert kubelet.read(files.root).node == "dpu-1"
    assert host_path(files.root, CURRENT).parent == files.root / "var/lib/kubelet/pki"


def test_a_relative_path_starts_at_the_kubeconfig(files: KubeletFiles) -> None:
    (files.kubeconfig.parent / "ca.crt").write_text(AUTHORITY.cert)
    files.write(
        {"server": SERVER, "certificate-authority": "ca.crt"},
        {"client-certificate": "pki/kubelet-client-current.pem", "client-key": "pki/../pki/kubelet-client-current.pem"},
    )
    assert kubelet.read(files.root).node == "dpu-1"


@pytest.mark.parametrize(
    ("path", "links", "real"),
    [
        ("/a/b", {}, "a/b"),
        ("/../../a", {}, "a"),
        ("/a/up/c", {"a/up": "../.."}, "c"),
        ("/a/abs/c", {"a/abs": "/x"}, "x/c"),
        ("/one", {"one": "two", "two": "/a/three", "a/three": "four"}, "a/four"),
    ],
    ids=["plain", "above the root", "a symlink above the root", "an absolute symlink", "a chain"],
)
def test_no_path_leads_out_of_the_host(tmp_path: Path, path: str, links: dict[str, str], real: str) -> None:
    (tmp_path / "a").mkdir()
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)
    assert host_path(tmp_path, path) == tmp_path / real


def test_a_renewed_certificate_is_there_at_the_next_reading(files: KubeletFiles) -> None:
    assert kubelet.read(files.root).node == "dpu-1"
    files.renew(AUTHORITY.node("dpu-2"))
    assert kubelet.read(files.root).node == "dpu-2"


@pytest.mark.parametrize(
    ("user", "name", "node"),
    [
        (EMBEDDED, "default-auth", "dpu-1"),
        (EMBEDDED, "system:node:dpu-9", "dpu-1"),
        ({"token": TOKEN}, "system:node:dpu-9", "dpu-9"),
        ({"token": TOKEN, "exec": None, "auth-provider": None}, "system:node:dpu-9", "dpu-9"),
        ({"tokenFile": "/run/token"}, "system:node:dpu-9.example.com", "dpu-9.example.com"),
    ],
    ids=["by the certificate", "the certificate counts", "a token", "empty fields", "a token's file"],
)
def test_the_node_is_named_by_the_certificate_or_else_by_the_user(
    files: KubeletFiles, user: dict[str, Any], name: str, node: str
) -> None:
    (files.root / "run").mkdir()
    (files.root / "run/token").write_text(TOKEN + "\n")
    files.write(CLUSTER, user, name)
    found = kubelet.read(files.root)
    assert found.node == node
    assert found.token == ("" if "client-key-data" in user else TOKEN)


def test_servers_that_are_unusual_are_taken(files: KubeletFiles) -> None:
    files.write(CLUSTER | {"server": "https://[2001:db8::1]/k8s/", "tls-server-name": "api.example.com"}, EMBEDDED)
    found = kubelet.read(files.root)
    assert (found.host, found.port, found.path, found.server_name) == ("2001:db8::1", 443, "/k8s", "api.example.com")


BROKEN_CLUSTERS: dict[str, tuple[dict[str, Any], str]] = {
    "no https": ({"server": "http://api.example.com"}, "no plain https URL"),
    "no host": ({"server": "https://"}, "no plain https URL"),
    "a port that is none": ({"server": "https://api.example.com:99999"}, "no plain https URL"),
    "a line break": ({"server": "https://api.example.com/\r\nX: y"}, "no plain https URL"),
    "a password": ({"server": "https://u:p@api.example.com"}, "no plain https URL"),
    "no CA": ({"certificate-authority-data": ""}, "names no CA"),
    "a CA that is none": ({"certificate-authority-data": encoded("nothing")}, "is no certificate"),
    "a CA that is no base64": ({"certificate-authority-data": "%%%"}, "not PEM in base64"),
    "unverified": ({"insecure-skip-tls-verify": True}, "turns the check of the server's certificate off"),
    "unverified, as text": ({"insecure-skip-tls-verify": "Yes"}, "turns the check of the server's certificate off"),
    "a proxy": ({"proxy-url": "http://user:pass@proxy:3128"}, "uses a proxy"),
    "a list for a text": ({"server": ["https://api.example.com"]}, "server is not a text"),
}


@pytest.mark.parametrize(("change", "sentence"), BROKEN_CLUSTERS.values(), ids=BROKEN_CLUSTERS)
def test_a_server_that_is_not_safe_to_use_is_refused(
    files: KubeletFiles, change: dict[str, Any], sentence: str
) -> None:
    files.write(CLUSTER | change, EMBEDDED)
    with pytest.raises(KubeletError, match=re.escape(sentence)):
        kubelet.read(files.root)


OTHER = AUTHORITY.node("dpu-2")
BROKEN_USERS: dict[str, tuple[dict[str, Any], str]] = {
    "a program": ({"exec": {"command": "/bin/sh"}}, "uses exec,"),
    "a program beside a certificate": (EMBEDDED | {"exec": {"command": "/bin/sh"}}, "uses exec,"),
    "an auth-provider": ({"auth-provider": {"name": "oidc"}}, "uses auth-provider,"),
    "a password": ({"username": "u", "password": "p"}, "uses username,"),
    "somebody else": (EMBEDDED | {"as": "system:admin"}, "uses as,"),
    "nothing": ({}, "no client certificate and no token"),
    "a token of two words": ({"token": "a\r\nb"}, "not one word"),
    "no key": ({"client-certificate-data": encoded(NODE.cert)}, "cannot be used, or do not belong together"),
    "another's key": (EMBEDDED | {"client-key-data": encoded(OTHER.key)}, "cannot be used, or do not belong together"),
    "a certificate that is none": (EMBEDDED | {"client-certificate-data": encoded("no")}, "cannot be used"),
    "somebody who is no node": (
        {"client-certificate-data": encoded((stranger := AUTHORITY.client("somebody")).cert),
         "client-key-data": encoded(stranger.key)}, "do not say which Node"),
    "a token of nobody": ({"token": TOKEN}, "do not say which Node"),
    "a file that is not there": ({"client-certificate": "/nowhere", "client-key": "/nowhere"}, "client-certificate is not there yet (/nowhere)"),
}  # fmt: skip


@pytest.mark.parametrize(("user", "sentence"), BROKEN_USERS.values(), ids=BROKEN_USERS)
def test_a_user_that_cannot_be_used_is_refused(files: KubeletFiles, user: dict[str, Any], sentence: str) -> None:
    files.write(CLUSTER, user)
    with pytest.raises(KubeletError, match=re.escape(sentence)):
        kubelet.read(files.root)


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(
    files: KubeletFiles, capfd: pytest.CaptureFixture[str]
) -> None:
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_pem_private_key(NODE.key.encode(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    ).decode()
    files.renew(Pair(NODE.cert, locked))
    with pytest.raises(KubeletError, match="cannot be used"):
        kubelet.read(files.root)
    assert capfd.readouterr() == ("", "")


def as_fifo(path: Path) -> None:
    os.mkfifo(path)


def as_loop(path: Path) -> None:
    path.symlink_to(path.name)


BROKEN_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "not yet there": (lambda path: None, "is not there yet"),
    "empty": (lambda path: path.touch(), "is no file of 1 byte"),
    "a folder": (lambda path: path.mkdir(), "cannot be read (/var/lib/kubelet/kubeconfig): Is a directory"),
    "a FIFO": (as_fifo, "is no file of 1 byte"),
    "a symlink to itself": (as_loop, "Too many levels of symbolic links"),
    "too large": (lambda path: path.write_bytes(b"#" * (kubelet.SIZE_LIMIT + 1)), "is no file of 1 byte"),
    "half written": (lambda path: path.write_text('{"clusters": [{"na'), "not a YAML mapping"),
    "no text": (lambda path: path.write_bytes(b"\xff\xfe\0"), "is no text"),
    "with a NUL": (lambda path: path.write_bytes(b"a: \0"), "not a YAML mapping"),
    "a list": (lambda path: path.write_text("- a"), "not a YAML mapping"),
    "an object of Python's": (lambda path: path.write_text("a: !!python/object/apply:os.abort []"), "does not hold the context"),
    "deep": (lambda path: path.write_text("[" * 500_000), "nested too deeply"),
    "a bomb of aliases": (lambda path: path.write_text("a: &a [x]\nb: &b [" + "*a," * 20_000 + "]"), "nested too deeply or too long"),
    "an alias of itself": (lambda path: path.write_text("a: &a [*a]"), "not a YAML mapping"),
    "keys that are lists": (lambda path: path.write_text("[a]: b"), "not a YAML mapping"),
    "nothing in it": (lambda path: path.write_text("a: b"), "does not hold the context"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "sentence"), BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_a_broken_file_is_told_in_two_sentences(
    files: KubeletFiles, make: Callable[[Path], object], sentence: str
) -> None:
    files.kubeconfig.unlink()
    make(files.kubeconfig)
    with pytest.raises(KubeletError) as caught:
        kubelet.read(files.root)
    assert sentence in caught.value.message
    assert caught.value.message.endswith(".")
    assert caught.value.hint.endswith(".")


@pytest.mark.parametrize(
    "user",
    [
        {"token": TOKEN + " \x00"},
        {"token": TOKEN},
        {"client-certificate-data": encoded(NODE.cert), "client-key-data": NODE.key},
        {"client-certificate-data": encoded(NODE.cert), "client-key-data": encoded(NODE.key.replace("A", "B"))},
        EMBEDDED | {"client-certificate-data": encoded("x" + NODE.key)},
    ],
    ids=["an odd token", "a token of nobody", "a key in clear", "a damaged key", "a key for a certificate"],
)
def test_nothing_of_a_key_or_token_is_in_an_error(files: KubeletFiles, user: dict[str, Any]) -> None:
    files.write(CLUSTER, user)
    with pytest.raises(KubeletError) as caught:
        kubelet.read(files.root)
    told = "".join(traceback.format_exception(caught.value))
    secrets = [TOKEN, *re.findall(r"[A-Za-z0-9+/=]{24,}", NODE.key + encoded(NODE.key))]
    assert not [secret for secret in secrets if secret in told]


def test_nothing_of_a_token_is_in_the_credentials_own_words(files: KubeletFiles) -> None:
    files.write(CLUSTER, {"token": TOKEN}, "system:node:dpu-1")
    assert TOKEN not in repr(kubelet.read(files.root))


def test_nothing_stays_open(files: KubeletFiles) -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    for _ in range(20):
        kubelet.read(files.root)
    assert sorted(Path("/proc/self/fd").iterdir()) == before


@pytest.mark.parametrize("name", ["system:node:dpu-1", "system:node:dpü", "x"])
def test_a_certificates_common_name_is_read(name: str) -> None:
    assert common_name(AUTHORITY.client(name, ("system:nodes", "more")).cert) == name


DER = ssl.PEM_cert_to_DER_cert(NODE.cert)


def armoured(der: bytes) -> str:
    return ssl.DER_cert_to_PEM_cert(der)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(DER) - 1), st.integers(0, 255))
def test_a_damaged_certificate_is_an_error_and_no_accident(at: int, byte: int) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(common_name(armoured(DER[:at] + bytes([byte]) + DER[at + 1 :])), str)


def test_half_a_certificate_names_nobody() -> None:
    for length in range(len(DER)):
        with pytest.raises(ValueError, match=r"cut off|no certificate"):
            common_name(armoured(DER[:length]))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_what_is_no_certificate_is_an_error_and_no_accident(der: bytes) -> None:
    try:
        common_name(armoured(der))
    except ValueError:
        return
    raise AssertionError(der)
