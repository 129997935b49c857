"""The kubelet's own access to its API server, which the agent borrows to write on its Node.

The kubelet renews its certificate while it runs, and switches a symlink to the new one; so all of this is read again
for each use, which is once a minute. Every path that a kubeconfig or a symlink holds is a path on the host, and the
agent sees the host under a folder of its own.
"""

import base64
import errno
import os
import re
import ssl
import stat
import urllib.parse
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from dpu_agent.certificate import common_name
from dpu_shared.errors import UserError

KUBECONFIG = "/var/lib/kubelet/kubeconfig"
"""Where the kubelet of OpenShift writes it once it has joined (its `--kubeconfig`)."""
SIZE_LIMIT = 1024 * 1024
"""Bytes of any file that is read here."""
DEPTH_LIMIT = 16
PARTS_LIMIT = 10_000
"""YAML events in one file. libyaml's composer recurses in C: what is nested deeply enough ends the whole process."""
_SYMLINKS_LIMIT = 40
"""As many as Linux follows for one path."""
_ABSENT = ("", "null", "~")
_NODE_USER = re.compile(r"system:node:([a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?)")
_HEADER_TEXT = re.compile(r"[\x21-\x7e]+")
_SEE_KUBELET = "The kubelet writes it when it joins the cluster; see journalctl -u kubelet if this lasts."
_AS_KUBELET_WRITES = (
    "Let the kubelet write it anew; the agent takes a server, its CA, and a client certificate or a token."
)


class KubeletError(UserError):
    """The kubelet's access cannot be used, for now or as it is."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to reach the API server as this Node."""

    node: str
    """The name of the Node that they are for."""
    host: str
    port: int
    path: str = ""
    """What stands before /api in the server's URLs; empty, or with a slash in front and none behind."""
    server_name: str = ""
    """The name that the server's certificate must be for."""
    tls: ssl.SSLContext = field(default_factory=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), repr=False)
    """Trusts the cluster's CA only, and shows the client certificate where there is one."""
    token: str = field(default="", repr=False)


def read(root: Path, kubeconfig: str = KUBECONFIG) -> Credentials:
    """The kubelet's access as it is now.

    Args:
        root: the folder under which the host's file system is seen.
        kubeconfig: its path on the host.

    Raises:
        KubeletError: it is not there yet, cannot be read, or wants what is not done here (a program to run, an
            unverified server). Nothing of keys or tokens is in the exception or behind it.

    """
    cluster, user = _selected(_document(_read(root, kubeconfig, "The kubelet's kubeconfig")))
    _refuse(cluster, user)
    files = _Files(root, PurePosixPath(kubeconfig).parent)
    server = _server(_text(cluster, "server"))
    certificate = files.content(user, "client-certificate")
    key = files.content(user, "client-key")
    token = _token(files, user) if not certificate else ""
    if not certificate and not token:
        raise KubeletError("The kubelet's kubeconfig holds no client certificate and no token.", _AS_KUBELET_WRITES)
    context = _trusting(files.content(cluster, "certificate-authority"))
    if certificate:
        _show(context, certificate, key)
    return Credentials(
        node=_node(certificate, user),
        host=server.hostname or "",
        port=server.port or 443,
        path=server.path.rstrip("/"),
        server_name=_text(cluster, "tls-server-name") or server.hostname or "",
        tls=context,
        token=token,
    )


def host_path(root: Path, path: str) -> Path:
    """The file that the host knows by this absolute path: its symlinks hold paths on the host, too.

    Raises:
        OSError: ELOOP, too many symlinks.

    """
    waiting = deque(PurePosixPath(path).parts)
    real, followed = root, 0
    while waiting:
        part = waiting.popleft()
        if part in ("/", "//"):
            real = root
        elif part == "..":
            real = real.parent if real != root else root
        else:
            try:
                target = (real / part).readlink()
            except OSError:  # no symlink, or not there at all: whoever opens it learns that
                real /= part
                continue
            followed += 1
            if followed > _SYMLINKS_LIMIT:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            waiting.extendleft(reversed(target.parts))
    return real


@dataclass(frozen=True, slots=True)
class _Files:
    """What a kubeconfig names instead of holding it."""

    root: Path
    folder: PurePosixPath
    """Of the kubeconfig, on the host; relative paths start here."""

    def content(self, mapping: Mapping[str, Any], key: str) -> str:
        """The PEM text of `KEY-data`, or else of the file that KEY names; empty where there is neither."""
        data = _text(mapping, f"{key}-data")
        if data:
            try:
                return base64.b64decode(data, validate=True).decode("ascii")
            except ValueError:
                raise KubeletError(f"The kubelet's {key}-data is not PEM in base64.", _AS_KUBELET_WRITES) from None
        path = _text(mapping, key)
        return self.named(path, key) if path else ""

    def named(self, path: str, key: str) -> str:
        return _read(self.root, str(self.folder / path), f"The kubelet's {key}")


def _read(root: Path, path: str, what: str) -> str:
    """A regular file of the host as text."""
    try:
        # What is no file must not hold us up: a FIFO would, when opened for reading.
        descriptor = os.open(host_path(root, path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            raw = file.read(SIZE_LIMIT + 1) if regular else b""
    except FileNotFoundError:
        raise KubeletError(f"{what} is not there yet ({path}).", _SEE_KUBELET) from None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no valid path"
        raise KubeletError(f"{what} cannot be read ({path}): {why}.", "Run the agent as root, on the DPU.") from None
    if not regular or not raw or len(raw) > SIZE_LIMIT:
        raise KubeletError(f"{what} is no file of 1 byte to 1 MiB ({path}).", _SEE_KUBELET)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise KubeletError(f"{what} is no text ({path}).", _SEE_KUBELET) from None


def _document(text: str) -> Mapping[str, Any]:
    """The kubeconfig with every scalar as text: what YAML would make of a number or a date matters to nobody here."""
    import yaml  # noqa: PLC0415 - a dry run on the console does not need it

    depth = 0
    try:
        for count, event in enumerate(yaml.parse(text, Loader=yaml.CBaseLoader)):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH_LIMIT or count > PARTS_LIMIT:
                raise KubeletError("The kubelet's kubeconfig is nested too deeply or too long.", _AS_KUBELET_WRITES)
        document = yaml.load(text, Loader=yaml.CBaseLoader)  # noqa: S506 - makes nothing but texts, lists and mappings
    except (yaml.YAMLError, ValueError):  # its text would quote the file
        document = None
    if not isinstance(document, dict):
        raise KubeletError("The kubelet's kubeconfig is not a YAML mapping.", _SEE_KUBELET)
    return document


def _selected(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The cluster and the user of the current context."""
    context = _named(document, "contexts", "context", _text(document, "current-context"))
    return (
        _named(document, "clusters", "cluster", _text(context, "cluster")),
        {**_named(document, "users", "user", _text(context, "user")), "name": _text(context, "user")},
    )


def _named(document: Mapping[str, Any], plural: str, singular: str, name: str) -> Mapping[str, Any]:
    entries = document.get(plural)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and name and entry.get("name") == name and isinstance(entry.get(singular), dict):
            found: Mapping[str, Any] = entry[singular]
            return found
    raise KubeletError(f"The kubelet's kubeconfig does not hold the {singular} that it names.", _AS_KUBELET_WRITES)


def _text(mapping: Mapping[str, Any], key: str) -> str:
    value = mapping.get(key, "")
    if not isinstance(value, str):
        raise KubeletError(f"The kubeconfig's {key} is not a text.", _AS_KUBELET_WRITES)
    return "" if value in _ABSENT else value


def _refuse(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> None:
    """What a kubelet's own kubeconfig never has, and what would not be safe."""
    for key in ("exec", "auth-provider", "username", "password", "as", "as-uid", "as-groups", "as-user-extra"):
        if user.get(key, "") not in (*_ABSENT, [], {}):
            raise KubeletError(f"The kubelet's kubeconfig uses {key}, which is not done here.", _AS_KUBELET_WRITES)
    if _text(cluster, "insecure-skip-tls-verify").lower() not in ("", "false", "no", "off", "n"):
        raise KubeletError(
            "The kubelet's kubeconfig turns the check of the server's certificate off.", _AS_KUBELET_WRITES
        )
    if _text(cluster, "proxy-url"):
        raise KubeletError("The kubelet's kubeconfig uses a proxy (proxy-url), which is not done here.",
                           "Let the kubelet reach the API server's internal address without a proxy.")  # fmt: skip


def _server(url: str) -> urllib.parse.SplitResult:
    try:
        server = urllib.parse.urlsplit(url)
        plain = not (server.username or server.password or server.query or server.fragment)
        good = server.scheme == "https" and bool(server.hostname) and server.port != 0 and plain
    except ValueError:  # a port that is no number, an address that is none
        good = False
    if not good or not _HEADER_TEXT.fullmatch(url):
        raise KubeletError("The kubelet's kubeconfig has a server that is no plain https URL.", _AS_KUBELET_WRITES)
    return server


def _token(files: _Files, user: Mapping[str, Any]) -> str:
    path = _text(user, "tokenFile")
    token = (files.named(path, "tokenFile") if path else _text(user, "token")).strip()
    if token and not _HEADER_TEXT.fullmatch(token):
        raise KubeletError("The kubelet's token is not one word.", _SEE_KUBELET)
    return token


def _trusting(bundle: str) -> ssl.SSLContext:
    if not bundle:
        raise KubeletError("The kubelet's kubeconfig names no CA for its API server.", _AS_KUBELET_WRITES)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # As Go does, in which the kubelet is written: a certificate of the bundle is trusted even if its issuer is not in it.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=bundle)
    except (ssl.SSLError, ValueError):
        raise KubeletError("The CA in the kubelet's kubeconfig is no certificate.", _AS_KUBELET_WRITES) from None
    return context


def _show(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Have the context show the client certificate; Python reads one from a path only, so it gets a file in memory."""
    descriptor = os.memfd_create("kubelet", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            # The kubelet's own file holds both, and is named for both.
            file.write((certificate if key == certificate else f"{certificate}\n{key}\n").encode())
        # Without a password, OpenSSL would ask for one on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")
    except (ssl.SSLError, ValueError):
        raise KubeletError(
            "The kubelet's client certificate and key cannot be used, or do not belong together.",
            "Wait a moment if the kubelet is just renewing them; else see journalctl -u kubelet.",
        ) from None
    finally:
        os.close(descriptor)


def _node(certificate: str, user: Mapping[str, Any]) -> str:
    names = [_text(user, "name")]
    if certificate:
        try:
            names.insert(0, common_name(certificate))
        except ValueError:
            raise KubeletError("The kubelet's client certificate cannot be understood.", _SEE_KUBELET) from None
    for name in names:
        found = _NODE_USER.fullmatch(name)
        if found:
            return found.group(1)
    raise KubeletError(
        "The kubelet's credentials do not say which Node they are for: their user is not system:node:NAME.",
        "Let the kubelet join by itself; its own certificate has the Node's name.",
    )
