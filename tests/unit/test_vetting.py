"""A tenant's kubeconfig is untrusted input: what is refused, why, and that nothing of it is ever shown."""

import copy
import datetime as dt
import json
import logging
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpu_operator.kube import vetting
from dpu_operator.kube.access import Access
from dpu_operator.kube.own import own_access
from dpu_operator.kube.vetting import vet
from dpu_shared.errors import UserError
from tests.unit.hostile_kubeconfigs import (
    BOMB,
    CA,
    CLIENT,
    EXPIRED,
    MARK,
    OTHER_CA,
    OTHER_CLIENT,
    REFUSED,
    SERVER,
    Config,
    b64,
    beside_token,
    good,
    jwt,
    with_cluster,
    with_pair,
    with_server,
    with_token,
    with_user,
    written,
)  # fmt: skip


def secrets_in(text: str) -> list[str]:
    """What of a kubeconfig's content shows in a text: a marked name, a stretch of a key, an address."""
    keys = [line for pair in (CA, CLIENT, OTHER_CLIENT) for line in pair.key.splitlines() if "-----" not in line]
    stretches = [line[i : i + 16] for line in keys for i in range(0, len(line) - 15, 8)]
    encoded = [b64(line)[:20] for line in keys]
    return [word for word in (MARK, "169.254", "a9fe", *stretches, *encoded) if word.lower() in text.lower()]


def refusal_of(text: bytes | str) -> UserError:
    with pytest.raises(UserError) as caught:
        vet(text)
    return caught.value


@pytest.mark.parametrize(("text", "words"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
def test_is_refused_in_two_sentences_that_say_nothing_of_its_content(
    text: bytes | str, words: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    error = refusal_of(text)
    assert words in error.message
    for sentence in (error.message, error.hint):
        assert sentence.endswith(".")
        assert sentence[0].isupper()
        assert "\n" not in sentence
        assert ". " not in sentence
    assert error.__cause__ is None
    assert error.__context__ is None
    assert error.__traceback__ is not None
    below = error.__traceback__.tb_next  # our own frames hold the text, of course
    trace = "".join(traceback.TracebackException(UserError, error, below, capture_locals=True).format())
    shown = [str(error), repr(error), trace, caplog.text, *capfd.readouterr()]
    assert [secrets_in(text) for text in shown] == [[]] * len(shown)


def test_the_table_has_each_case_once() -> None:
    names = [row[0] for row in REFUSED]
    assert len(set(names)) == len(names) >= 30


def plain_json(config: Config) -> str:
    return json.dumps(config)


def with_other_entries(config: Config) -> str:
    """What a person's own file looks like: other contexts, with things that are refused where they are in use."""
    config["contexts"].append({"name": "other", "context": {"cluster": "other", "user": "other"}})
    config["clusters"].append({"name": "other", "cluster": {"server": "http://x", "insecure-skip-tls-verify": True}})
    config["users"].append({"name": "other", "user": {"exec": {"command": "aws"}}})
    return written(config)


def with_extensions(config: Config) -> str:
    extension = [{"name": "x", "extension": {"provider": "minikube", "version": 1.2, "when": dt.date(2026, 1, 1)}}]
    config["extensions"] = extension
    config["clusters"][0]["cluster"]["extensions"] = copy.deepcopy(extension)  # not an alias
    return written(config)


ACCEPTED: list[tuple[str, Callable[[], bytes | str]]] = [
    ("YAML as kubectl writes it", lambda: written(good())),
    ("bytes", lambda: written(good()).encode()),
    ("a byte order mark", lambda: b"\xef\xbb\xbf" + written(good()).encode()),
    ("JSON", lambda: plain_json(good())),
    ("a start marker", lambda: "---\n" + written(good())),
    ("neither kind nor version", lambda: written({k: v for k, v in good().items() if k not in ("kind", "apiVersion")})),
    ("other contexts that are not used", lambda: with_other_entries(good())),
    ("extensions", lambda: with_extensions(good())),
    ("fields that are null", lambda: beside_token(exec=None, tokenFile=None, as_groups=None, username=None)),
    ("an explicit check of the certificate", lambda: with_cluster(insecure_skip_tls_verify=False)),
    ("base64 in several lines", lambda: with_cluster(certificate_authority_data=b64(CA.cert)[:90] + "\n" + b64(CA.cert)[90:])),
    ("a bundle of CAs with remarks", lambda: with_cluster(certificate_authority_data=b64(f"# a\n{OTHER_CA.cert}\n# b\n{CA.cert}"))),
    ("a CA beside the server's own certificate", lambda: with_cluster(certificate_authority_data=b64(SERVER.cert + CA.cert))),
]  # fmt: skip


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in ACCEPTED])
def test_is_accepted(make: Callable[[], bytes | str]) -> None:
    access = vet(make())
    assert access.server == f"https://api.{MARK}.example:6443"
    assert (access.what, access.token) == ("token", f"token-{MARK}")
    assert "BEGIN CERTIFICATE" in access.ca_pem
    assert "# a" not in access.ca_pem
    assert access.token_file == access.client_cert_pem == access.client_key_pem == access.proxy_url == ""
    assert not access.trusted


@pytest.mark.parametrize(
    ("url", "server", "host"),
    [
        ("https://api.example", "https://api.example:443", "api.example:443"),
        ("HTTPS://API.Example:6443/", "https://api.example:6443", "api.example:6443"),
        ("https://10.1.2.3:6443", "https://10.1.2.3:6443", "10.1.2.3:6443"),
        ("https://[2001:db8::1]:6443", "https://[2001:db8::1]:6443", "[2001:db8::1]:6443"),
        ("https://127.0.0.1:16443", "https://127.0.0.1:16443", "127.0.0.1:16443"),
        ("https://localhost:16443", "https://localhost:16443", "localhost:16443"),
        ("https://rancher.example/k8s/clusters/c-1/", "https://rancher.example:443/k8s/clusters/c-1", "rancher.example:443"),
        ("https://api_internal.example", "https://api_internal.example:443", "api_internal.example:443"),
    ],
)  # fmt: skip
def test_a_server_is_brought_to_one_spelling(url: str, server: str, host: str) -> None:
    access = vet(with_server(url))
    assert (access.server, access.host) == (server, host)


@pytest.mark.parametrize(
    ("given_url", "proxy"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128"),
        ("https://proxy.example/", "https://proxy.example:443"),
        ("http://user:p%40ss@10.0.0.1:3128", "http://user:p%40ss@10.0.0.1:3128"),
    ],
)
def test_a_proxy_that_anybody_could_reach_is_accepted(given_url: str, proxy: str) -> None:
    assert vet(with_cluster(proxy_url=given_url)).proxy_url == proxy


def test_a_client_certificate_tells_when_it_ends() -> None:
    access = vet(with_pair(CLIENT.cert, CLIENT.key))
    assert access.what == "client certificate"
    assert access.expires == x509.load_pem_x509_certificate(CLIENT.cert.encode()).not_valid_after_utc
    assert access.client_cert_pem.strip() == CLIENT.cert.strip()
    assert "PRIVATE KEY" in access.client_key_pem


def test_an_expired_client_certificate_is_accepted_with_its_date() -> None:
    access = vet(with_pair(EXPIRED.cert, EXPIRED.key))
    assert access.expires is not None
    assert access.expires < dt.datetime.now(dt.UTC)


def test_a_client_certificate_brings_its_chain() -> None:
    assert vet(with_pair(CLIENT.cert + CA.cert, CLIENT.key)).client_cert_pem.count("BEGIN CERTIFICATE") == 2


@pytest.mark.parametrize(
    ("token", "expires"),
    [
        (jwt({"exp": 1_900_000_000}), dt.datetime(2030, 3, 17, 17, 46, 40, tzinfo=dt.UTC)),
        (jwt({"sub": MARK}), None),
        (jwt({"exp": "soon"}), None),
        (jwt({"exp": 1e300}), None),
        (jwt({"exp": float("nan")}), None),
        (jwt([]), None),
        ("a.b.c", None),
        ("sha256~opaque", None),
    ],
    ids=["a date", "no date", "a word", "the end of time", "no number", "a list", "no JWT", "opaque"],
)
def test_a_token_tells_when_it_ends_if_it_is_a_jwt(token: str, expires: dt.datetime | None) -> None:
    assert vet(with_token(token)).expires == expires


def test_an_access_shows_its_host_and_nothing_else() -> None:
    for text in (with_token(f"token-{MARK}"), with_pair(CLIENT.cert, CLIENT.key)):
        access = vet(text.replace(f"api.{MARK}.example", "api.example"))
        assert "api.example:6443" in repr(access)
        assert secrets_in(f"{access!r} {access!s} {[access]}") == []


def test_a_fingerprint_changes_with_the_text_and_only_then() -> None:
    text = written(good())
    assert vet(text).fingerprint == vet(text.encode()).fingerprint
    assert vet(text).fingerprint != vet(text + "\n").fingerprint


def test_a_parser_that_fails_in_an_unforeseen_way_is_a_refusal_without_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def surprise(raw: bytes) -> Access:
        raise RuntimeError(raw.decode())

    monkeypatch.setattr(vetting, "judged", surprise)
    error = refusal_of(written(good()))
    assert error.message == "The kubeconfig cannot be read."
    assert error.__context__ is None


def test_no_file_of_the_operator_is_opened_for_a_tenant(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text(CA.cert)
    error = refusal_of(with_cluster(certificate_authority=str(tmp_path / "ca.crt")))
    assert "no file is read" in error.message


@pytest.mark.parametrize("text", ["x: 1" + ":1" * 400_000, "x: [" + "[]," * 300_000 + "]", "{" * 500_000, BOMB])
def test_no_hostile_text_takes_long(text: str) -> None:
    began = time.monotonic()
    refusal_of(text)
    assert time.monotonic() - began < 2


@given(st.one_of(st.binary(max_size=300), st.text(max_size=300)))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_garbage_is_refused_and_nothing_but_a_refusal_comes_out(text: bytes | str) -> None:
    assert refusal_of(text).hint.endswith(".")


JSONISH = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=6,
)
FIELDS = [
    *(("clusters", 0, "cluster", field) for field in ("server", "certificate-authority-data", "proxy-url", "tls-server-name")),
    *(("users", 0, "user", field) for field in ("token", "exec", "as", "client-key-data", "client-certificate-data")),
    *((top,) for top in ("clusters", "users", "contexts", "current-context", "kind")),
]  # fmt: skip


@given(st.sampled_from(FIELDS), JSONISH)
@settings(max_examples=200, deadline=None)
def test_any_value_in_any_field_gives_an_access_or_a_refusal(path: tuple[Any, ...], value: object) -> None:
    config = good()
    place: Any = config
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    try:
        access = vet(json.dumps(config))
    except UserError as error:
        assert error.__context__ is None  # noqa: PT017 - both ends are fine, and each has its rule
    else:
        assert access.server.startswith("https://")


# --- the operator's own kubeconfig is trusted with files, and with nothing else -------------------------------------


def own_file(folder: Path, text: str) -> str:
    path = folder / "kubeconfig"
    path.write_text(text)
    return str(path)


def test_our_own_kubeconfig_may_name_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text(CA.cert)
    (tmp_path / "token").write_text(jwt({"exp": 1_900_000_000}) + "\n")
    config = good()
    config["clusters"][0]["cluster"] = {"server": "https://169.254.1.1:6443", "certificate-authority": "ca.crt"}
    config["users"][0]["user"] = {"tokenFile": "token"}
    access = own_access(own_file(tmp_path, written(config)))
    assert access.trusted
    assert access.token_file == str(tmp_path / "token")
    assert access.expires is not None


def test_our_own_kubeconfig_may_name_certificate_files(tmp_path: Path) -> None:
    CLIENT.write(tmp_path, "client")
    text = with_user(client_certificate="client.crt", client_key=str(tmp_path / "client.key"))
    assert own_access(own_file(tmp_path, text)).what == "client certificate"


def test_our_own_kubeconfig_starts_no_program_either(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="starts a program"):
        own_access(own_file(tmp_path, with_user(exec={"command": "aws"})))


def test_a_missing_file_of_our_own_kubeconfig_is_two_sentences(tmp_path: Path) -> None:
    for path in (str(tmp_path / "missing"), own_file(tmp_path, with_user(tokenFile="missing"))):
        with pytest.raises(UserError, match="cannot be read: No such file or directory") as caught:
            own_access(path)
        assert caught.value.__context__ is None


def test_in_a_cluster_the_service_account_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.crt").write_text(CA.cert)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd02::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    access = own_access(None, folder=tmp_path)
    assert access.server == "https://[fd02::1]:443"
    assert access.token_file == str(tmp_path / "token")


def test_outside_of_a_cluster_and_without_a_kubeconfig_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(UserError, match="no kubeconfig was given"):
        own_access(None)
