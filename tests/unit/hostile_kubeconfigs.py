"""Kubeconfigs for the tests of vetting: one good one, and what a careless or hostile tenant makes of it."""

import base64
import copy
import datetime as dt
import json
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.lab.pki import Authority, Pair

MARK = "m4rk3r"
"""In every name, host and secret of the kubeconfigs here; in nothing that anybody may see."""

CA = Authority.make(f"ca-{MARK}")
OTHER_CA = Authority.make(f"other-{MARK}")
CLIENT = CA.client(f"user-{MARK}")
OTHER_CLIENT = CA.client(f"other-{MARK}")
EXPIRED = CA.client(f"late-{MARK}", lifetime=dt.timedelta(minutes=-1))
SERVER = CA.server((f"api.{MARK}.example",))

Config = dict[str, Any]


def b64(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def jwt(claims: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'RS256'})}.{part(claims)}.{MARK}"


def weak_client() -> Pair:
    """RSA of 1024 bit, which OpenSSL's default security level refuses."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"weak-{MARK}")])
    now = dt.datetime.now(dt.UTC)
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(days=1))
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return Pair(certificate.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode(), pem)


WEAK = weak_client()


def locked_key() -> str:
    key = serialization.load_pem_private_key(CLIENT.key.encode(), None)
    lock = serialization.BestAvailableEncryption(MARK.encode())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock).decode()


def good() -> Config:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": f"context-{MARK}",
        "contexts": [
            {"name": f"context-{MARK}", "context": {"cluster": f"cluster-{MARK}", "user": f"user-{MARK}"}},
        ],
        "clusters": [
            {
                "name": f"cluster-{MARK}",
                "cluster": {
                    "server": f"https://api.{MARK}.example:6443",
                    "certificate-authority-data": b64(CA.cert),
                },
            },
        ],
        "users": [{"name": f"user-{MARK}", "user": {"token": f"token-{MARK}"}}],
        "preferences": {},
    }


def written(config: Config) -> str:
    return yaml.safe_dump(config)


def with_cluster(**fields: Any) -> str:
    config = good()
    config["clusters"][0]["cluster"].update({name.replace("_", "-"): value for name, value in fields.items()})
    return written(config)


def with_user(**fields: Any) -> str:
    config = good()
    config["users"][0]["user"] = {name.replace("_", "-"): value for name, value in fields.items()}
    return written(config)


def beside_token(**fields: Any) -> str:
    return with_user(token=f"token-{MARK}", **fields)


def with_top(**fields: Any) -> str:
    return written(good() | {name.replace("_", "-"): value for name, value in fields.items()})


def without(*path: str | int) -> str:
    config = good()
    place: Any = config
    for part in path[:-1]:
        place = place[part]
    del place[path[-1]]
    return written(config)


def doubled(plural: str) -> str:
    config = good()
    config[plural].append(copy.deepcopy(config[plural][0]))
    return written(config)


def with_server(url: str) -> str:
    return with_cluster(server=url)


def with_token(token: str) -> str:
    return with_user(token=token)


def with_pair(cert: str | None, key: str | None) -> str:
    fields = {"client_certificate_data": cert and b64(cert), "client_key_data": key and b64(key)}
    return with_user(**{name: value for name, value in fields.items() if value})


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)

# (the sentence, the kubeconfig, words of the message that it is refused with)
REFUSED: list[tuple[str, bytes | str, str]] = [
    # what it is written in
    ("an empty file", "", "is empty"),
    ("a file with only a comment", f"# {MARK}\n", "is empty"),
    ("a list instead of a mapping", f"- {MARK}\n", "not a YAML mapping"),
    ("a single word", MARK, "not a YAML mapping"),
    ("broken YAML", f"a: [{MARK}\nb: {{", "not valid YAML"),
    ("a tab as indentation", f"a:\n\t- {MARK}", "not valid YAML"),
    ("a control character", f"a: \x07{MARK}", "not valid YAML"),
    ("two documents", written(good()) + "---\n" + written(good()), "several YAML documents"),
    ("Latin-1 bytes", written(good()).encode() + b"# \xfc " + MARK.encode(), "not a text in UTF-8"),
    ("UTF-16", written(good()).encode("utf-16"), "not a text in UTF-8"),
    ("a lone surrogate", written(good()) + "# \udcfc", "cannot be read"),
    ("a NUL byte", written(good()) + f"# \0{MARK}", "not a text in UTF-8"),
    ("more than a MiB", written(good()) + f"# {MARK}\n" * 120_000, "larger than 1 MiB"),
    ("an exploding tree of aliases", BOMB + written(good()), "anchors or aliases"),
    ("an anchor that nobody uses", written(good()) + f"x: &{MARK} 1\n", "anchors or aliases"),
    ("a merge key over an anchor", written(good()) + f"x: &x {{a: {MARK}}}\ny: {{<<: *x}}\n", "anchors or aliases"),
    ("a tag that calls Python", written(good()) + f'x: !!python/object/apply:os.system ["{MARK}"]\n', "YAML tags"),
    ("a tag of its own", written(good()) + f"x: !{MARK} 1\n", "YAML tags"),
    ("a mapping nested a thousand deep", "x: " + "{a: " * 900 + MARK + "}" * 900, "nested too deeply"),
    ("a hundred thousand empty lists", "x: [" + "[]," * 100_000 + "]", "too many parts"),
    ("the same key twice", written(good()) + f"kind: {MARK}\n", "the same key twice"),
    ("a number as a key", written(good()) + f"17: {MARK}\n", "key that is not a text"),
    ("a list as a key", written(good()) + f"? [{MARK}]\n: 1\n", "key that is not a text"),
    # what it is
    ("another kind of object", with_top(kind="Secret"), "kind is not Config"),
    ("another API version", with_top(apiVersion="v2"), "apiVersion is not v1"),
    ("a Secret that holds the kubeconfig", yaml.safe_dump({"apiVersion": "v1", "kind": "Secret"}), "kind is not"),
    # which cluster
    ("no current-context", without("current-context"), "no current-context"),
    ("an empty current-context", with_top(current_context=""), "no current-context"),
    ("a current-context that is a number", with_top(current_context=7), "no current-context"),
    ("a current-context that does not exist", with_top(current_context=f"x{MARK}"), "names a context that"),
    ("a context without its cluster", with_top(clusters=[]), "names a cluster that"),
    ("a context without its user", with_top(users=[]), "names a user that"),
    ("a context that names no cluster", without("contexts", 0, "context", "cluster"), "names a cluster that"),
    ("a context that names no user", without("contexts", 0, "context", "user"), "names a user that"),
    ("no contexts at all", without("contexts"), "no list of contexts"),
    ("clusters as a mapping", with_top(clusters={f"c-{MARK}": {}}), "no list of clusters"),
    ("users that are null", with_top(users=None), "no list of users"),
    ("a user that is a text", with_top(users=[MARK]), "lacks a name or a user"),
    ("a cluster entry without a name", without("clusters", 0, "name"), "lacks a name or a cluster"),
    ("two contexts of one name", doubled("contexts"), "contexts have the same name"),
    ("two clusters of one name", doubled("clusters"), "clusters have the same name"),
    ("two users of one name", doubled("users"), "users have the same name"),
    # where it leads to
    ("no server", without("clusters", 0, "cluster", "server"), "server address is not a plain URL"),
    ("a server that is a number", with_cluster(server=42), "server is not a text"),
    ("a server over plain http", with_server(f"http://api.{MARK}.example:6443"), "not https"),
    ("a server that is a file", with_server(f"file:///etc/{MARK}"), "not a plain URL"),
    ("a server without a scheme", with_server(f"api.{MARK}.example:6443"), "not a plain URL"),
    ("a user and password in the server", with_server(f"https://{MARK}:{MARK}@api.example:6443"), "holds a user name"),
    ("a second @ in the server", with_server(f"https://a@{MARK}@api.example"), "not a plain URL"),
    ("a query in the server", with_server(f"https://api.{MARK}.example?x=1"), "not a plain URL"),
    ("a fragment in the server", with_server(f"https://api.{MARK}.example/#x"), "not a plain URL"),
    ("a backslash in the server", with_server(f"https://api.{MARK}.example\\@evil"), "not a plain URL"),
    ("a line break in the server", with_server(f"https://api.{MARK}.example\r\nX-Evil: 1"), "not a plain URL"),
    ("a path that climbs", with_server(f"https://api.{MARK}.example/a/../b"), "empty or dotted parts"),
    ("a path with an empty part", with_server(f"https://api.{MARK}.example//evil/"), "empty or dotted parts"),
    ("a path with hidden slashes", with_server(f"https://api.{MARK}.example/%2e%2e/x"), "not a plain URL"),
    ("a host with a percent sign", with_server(f"https://api%2e{MARK}.example"), "not a plain URL"),
    ("letters of another script in the host", with_server(f"https://\u0430pi.{MARK}.example"), "not a plain URL"),
    ("a host that starts with a dash", with_server(f"https://-api.{MARK}.example"), "neither a DNS name nor"),
    ("port 0", with_server(f"https://api.{MARK}.example:0"), "out of range"),
    ("port 65536", with_server(f"https://api.{MARK}.example:65536"), "out of range"),
    ("the metadata address", with_server("https://169.254.169.254"), "link-local"),
    ("a link-local IPv6 address", with_server("https://[fe80::1]:6443"), "link-local"),
    ("a zone in an IPv6 address", with_server("https://[fe80::1%25eth0]:6443"), "not a plain URL"),
    ("the metadata address inside IPv6", with_server("https://[::ffff:169.254.169.254]"), "link-local"),
    ("the metadata address behind NAT64", with_server("https://[64:ff9b::a9fe:a9fe]"), "link-local"),
    ("the metadata address as 6to4", with_server("https://[2002:a9fe:a9fe::1]"), "link-local"),
    ("the metadata address as one number", with_server("https://2852039166"), "neither a DNS name nor"),
    ("the metadata address in hexadecimal", with_server("https://0xa9fea9fe"), "neither a DNS name nor"),
    ("the metadata address in octal", with_server("https://0251.0376.0251.0376"), "neither a DNS name nor"),
    ("a short form of an IP address", with_server("https://169.16689662"), "neither a DNS name nor"),
    ("Alibaba's metadata address", with_server("https://100.100.100.200"), "metadata service"),
    ("Azure's wire server", with_server("https://168.63.129.16"), "metadata service"),
    ("Amazon's IPv6 metadata address", with_server("https://[fd00:ec2::254]"), "metadata service"),
    ("Google's metadata name", with_server("https://metadata.google.internal"), "metadata service"),
    ("the metadata name with a final dot", with_server("https://METADATA.google.internal."), "metadata service"),
    ("the unspecified address", with_server("https://0.0.0.0:6443"), "unspecified"),
    ("the unspecified IPv6 address", with_server("https://[::]:6443"), "unspecified"),
    ("a multicast address", with_server("https://224.0.0.1"), "multicast"),
    ("a multicast IPv6 address", with_server("https://[ff02::1]"), "multicast"),
    ("the broadcast address", with_server("https://255.255.255.255"), "reserved"),
    ("a proxy on the metadata address", with_cluster(proxy_url="http://169.254.169.254:80"), "proxy address is link"),
    ("a proxy on loopback", with_cluster(proxy_url="http://127.0.0.1:3128"), "proxy address is loopback"),
    ("a proxy on localhost", with_cluster(proxy_url="http://localhost:3128"), "proxy address is loopback"),
    ("a proxy on a name under localhost", with_cluster(proxy_url="http://a.localhost.:3128"), "address is loopback"),
    ("a proxy on IPv6 loopback", with_cluster(proxy_url="http://[::1]:3128"), "proxy address is loopback"),
    ("a proxy on loopback inside IPv6", with_cluster(proxy_url="http://[::ffff:127.0.0.1]"), "address is loopback"),
    ("a SOCKS proxy", with_cluster(proxy_url=f"socks5://{MARK}:1080"), "neither an http nor an https proxy"),
    ("a proxy with a path", with_cluster(proxy_url=f"http://{MARK}.example:80/x"), "has a path"),
    ("a proxy without a scheme", with_cluster(proxy_url=f"{MARK}:3128"), "proxy address is not a plain URL"),
    ("a server name that is no name", with_cluster(tls_server_name=f"{MARK}\r\nevil"), "tls-server-name is not"),
    ("a server name with a slash", with_cluster(tls_server_name=f"{MARK}/x"), "tls-server-name is not"),
    # whom to trust
    ("no check of the certificate", with_cluster(insecure_skip_tls_verify=True), "insecure-skip-tls-verify"),
    ("no check, written as a text", with_cluster(insecure_skip_tls_verify="true"), "insecure-skip-tls-verify"),
    ("no CA", without("clusters", 0, "cluster", "certificate-authority-data"), "no certificate-authority-data"),
    ("an empty CA", with_cluster(certificate_authority_data=""), "no certificate-authority-data"),
    ("the CA as a path", with_cluster(certificate_authority=f"/etc/{MARK}"), "names a file (certificate-authority)"),
    ("a CA that is not base64", with_cluster(certificate_authority_data=f"{MARK}!"), "is not base64"),
    ("a CA that is not PEM", with_cluster(certificate_authority_data=b64(MARK)), "readable PEM certificate"),
    ("a CA in PEM in vain", with_cluster(certificate_authority_data=CA.cert), "is not base64"),
    ("a CA that is cut off", with_cluster(certificate_authority_data=b64(CA.cert[:300])), "readable PEM certificate"),
    ("a CA that is none", with_cluster(certificate_authority_data=b64(SERVER.cert)), "holds no CA certificate"),
    ("a CA that is a key", with_cluster(certificate_authority_data=b64(CA.key)), "readable PEM certificate"),
    # who we are
    ("no credential", with_user(), "carries no credential"),
    ("an empty token", with_token(""), "carries no credential"),
    ("a program to run", with_user(exec={"command": f"/bin/{MARK}"}), "starts a program"),
    ("a program beside a token", beside_token(exec={"command": MARK}), "starts a program"),
    ("a program that is an empty mapping", beside_token(exec={}), "starts a program"),
    ("an auth-provider", with_user(auth_provider={"name": MARK}), "auth-provider"),
    ("a token file", with_user(tokenFile=f"/var/run/{MARK}"), "names a file (tokenFile)"),
    ("a token file beside a token", beside_token(tokenFile=f"/{MARK}"), "names a file (tokenFile)"),
    ("a certificate file", with_user(client_certificate=f"/{MARK}"), "names a file (client-certificate)"),
    ("a key file", with_user(client_key=f"/{MARK}"), "names a file (client-key)"),
    ("a user name and password", with_user(username=MARK, password=MARK), "user name and a password"),
    ("a password beside a token", beside_token(password=MARK), "user name and a password"),
    ("impersonation of a user", beside_token(**{"as": f"admin-{MARK}"}), "somebody else"),
    ("impersonation of groups", beside_token(as_groups=[f"system:{MARK}"]), "somebody else"),
    ("impersonation by a uid", beside_token(as_uid=MARK), "somebody else"),
    ("impersonation by extra fields", beside_token(as_user_extra={MARK: [MARK]}), "somebody else"),
    ("a token with a line break", with_token(f"token-{MARK}\n"), "token holds spaces"),
    ("a token with a second header", with_token(f"{MARK}\r\nX-Remote-User: admin"), "token holds spaces"),
    ("a token with a space", with_token(f"Bearer {MARK}"), "token holds spaces"),
    ("a token with an umlaut", with_token(f"tökén-{MARK}"), "token holds spaces"),
    ("a token with a NUL", with_token(f"{MARK}\0"), "token holds spaces"),
    ("a token that is a number", with_token(10**40), "token is not a text"),  # type: ignore[arg-type]
    ("a token that is a list", with_token([MARK]), "token is not a text"),  # type: ignore[arg-type]
    ("a certificate without a key", with_pair(CLIENT.cert, None), "client-key-data is missing"),
    ("a key without a certificate", with_pair(None, CLIENT.key), "client-certificate-data is missing"),
    ("a key of another certificate", with_pair(CLIENT.cert, OTHER_CLIENT.key), "does not belong to"),
    ("a certificate that is not PEM", with_pair(MARK, CLIENT.key), "client-certificate-data does not hold"),
    ("a key that is not PEM", with_pair(CLIENT.cert, MARK), "client-key-data does not hold"),
    ("a key that is a certificate", with_pair(CLIENT.cert, CLIENT.cert), "client-key-data does not hold"),
    ("a key with a password", with_pair(CLIENT.cert, locked_key()), "protected by a password"),
    ("a key of a hundred kB", with_pair(CLIENT.cert, CLIENT.key + " " * 100_000), "client-key-data does not hold"),
    ("a key that is not base64", with_user(client_key_data=f"~{MARK}~"), "client-key-data is not base64"),
    ("a key too short for TLS", with_pair(WEAK.cert, WEAK.key), "TLS library does not"),
    ("a token and a certificate", beside_token(client_certificate_data=b64(CLIENT.cert),
     client_key_data=b64(CLIENT.key)), "more than one credential"),
]  # fmt: skip
