"""Which addresses a kubeconfig from a tenant may make us connect to."""

import ipaddress
import re
from dataclasses import dataclass

from dpu_shared.errors import UserError

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?:(?P<userinfo>[^@/?#\\\s]*)@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[A-Za-z0-9._~/-]*)?"
)
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")

_METADATA_NAMES = {
    "instance-data",
    "instance-data.ec2.internal",
    "metadata",
    "metadata.azure.internal",
    "metadata.goog",
    "metadata.google.internal",
    "metadata.tencentyun.com",
}
# The link-local ones are refused as such; these are the clouds' exceptions.
_METADATA_ADDRESSES = {
    ipaddress.ip_address(text)
    for text in ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
}
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")
_EMBEDDING = tuple(ipaddress.IPv6Network(text) for text in ("::/96", "64:ff9b::/96"))


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of a URL that passed the grammar."""

    scheme: str
    userinfo: str
    host: str
    port: int
    path: str

    @property
    def netloc(self) -> str:
        return f"{self.host}:{self.port}"


def server_url(text: str, *, trusted: bool) -> str:
    """The API server's URL in one canonical spelling.

    A loopback address is allowed: what listens there must still prove itself with TLS by the kubeconfig's own CA.

    Raises:
        UserError: it is not `https://host[:port][/path]`, or the host is not one that we connect to.

    """
    address = _parse(text, what="server address", default_port=443)
    if address.scheme != "https":
        raise UserError(
            "The kubeconfig's server address is not https.", "Use the https address of the tenant's API server."
        )
    if address.userinfo:
        raise UserError(
            "The kubeconfig's server address holds a user name.", "Remove everything before the @, and the @ itself."
        )
    if not trusted:
        _check_host(address.host, what="server address", loopback=True)
    return f"https://{address.netloc}{address.path.rstrip('/')}"


def proxy_url(text: str, *, trusted: bool) -> str:
    """The proxy's URL, or an empty string for none.

    Raises:
        UserError: it is not `http[s]://[user:password@]host[:port]`, or the host is not one that we connect to.

    """
    if not text:
        return ""
    address = _parse(text, what="proxy address", default_port=0)
    if address.scheme not in ("http", "https"):
        raise UserError(
            "The kubeconfig's proxy is neither an http nor an https proxy.", "Use an http proxy, or none at all."
        )
    if address.path not in ("", "/"):
        raise UserError("The kubeconfig's proxy address has a path.", "Remove the path from proxy-url.")
    if not trusted:
        _check_host(address.host, what="proxy address", loopback=False)
    port = address.port or (443 if address.scheme == "https" else 80)
    userinfo = f"{address.userinfo}@" if address.userinfo else ""
    return f"{address.scheme}://{userinfo}{address.host}:{port}"


def refusal_of(ip: IpAddress, *, loopback: bool) -> str:
    """Why no connection is made to this address, as a phrase after `is`; an empty string where it is allowed."""
    inner = _embedded(ip)
    if inner is not None:
        return refusal_of(inner, loopback=loopback)
    if ip in _METADATA_ADDRESSES:
        return "a cloud's metadata service"
    if ip.is_link_local:
        return "link-local"
    if ip.is_multicast:
        return "multicast"
    if ip.is_unspecified or (ip.version == 4 and ip in _THIS_NETWORK):
        return "unspecified"
    if ip.version == 4 and ip.is_reserved:
        return "reserved"
    if ip.is_loopback and not loopback:
        return "loopback"
    return ""


def is_host_name(text: str) -> bool:
    """Whether it is a DNS name (underscores allowed) that no resolver takes for a number."""
    labels = text.removesuffix(".").split(".")
    return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and not _NUMBER.fullmatch(labels[-1])


def as_ip(host: str) -> IpAddress | None:
    """The IP address that a URL's host is, if it is one; IPv6 in brackets."""
    bare = host[1:-1] if host.startswith("[") else host
    try:
        return ipaddress.ip_address(bare)
    except ValueError:
        return None


def _parse(text: str, *, what: str, default_port: int) -> Address:
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise UserError(
            f"The kubeconfig's {what} is not a plain URL of scheme, host and port.",
            "Write it like https://api.example.com:6443, without a query, a fragment or special characters.",
        )
    path = match["path"] or ""
    # client-go joins the path with the resource's; a path that climbs or that hides a host has no honest use
    if "//" in path or any(part in (".", "..") for part in path.split("/")):
        raise UserError(
            f"The kubeconfig's {what} has a path with empty or dotted parts.", "Write the path plainly, or none."
        )
    host = match["host"].lower()
    if as_ip(host) is None and not is_host_name(host):
        raise UserError(
            f"The host of the kubeconfig's {what} is neither a DNS name nor an IP address.",
            "Write a DNS name, or an IP address in its usual spelling.",
        )
    port = int(match["port"]) if match["port"] else default_port
    if port > 65535 or (match["port"] and port == 0):
        raise UserError(f"The port of the kubeconfig's {what} is out of range.", "Use a port from 1 to 65535.")
    return Address(match["scheme"].lower(), match["userinfo"] or "", host, port, path)


def _check_host(host: str, *, what: str, loopback: bool) -> None:
    ip = as_ip(host)
    if ip is not None:
        why = refusal_of(ip, loopback=loopback)
    else:
        name = host.removesuffix(".")
        why = "a cloud's metadata service" if name in _METADATA_NAMES else ""
        if not loopback and (name == "localhost" or name.endswith(".localhost")):
            why = "loopback"
    if why:
        raise UserError(
            f"The kubeconfig's {what} is {why}, and this operator does not connect there for a tenant.",
            "Use an address that is reachable from the infra cluster's pod network.",
        )


def _embedded(ip: IpAddress) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for, where a host or a gateway would translate it."""
    if ip.version == 4:
        return None
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip.sixtofour is not None:
        return ip.sixtofour
    if ip.is_loopback or ip.is_unspecified:
        return None
    if any(ip in network for network in _EMBEDDING):
        return ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
    return None
