"""Where the local HTTP is: on loopback, or a Unix socket."""

from dataclasses import dataclass

from dpu_shared.errors import UserError

PORT = 9917
"""The init container of ovnkube-node asks this one (`wait-for-agent.sh` in the operator's manifests)."""
HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address on loopback, or the path of a Unix socket."""

    host: str = HOST
    port: int = PORT
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def parse(listen: str, path: str = "") -> Address:
    """The address that the command line names.

    Args:
        listen: `PORT`, `HOST:PORT` or `[HOST]:PORT`.
        path: of a Unix socket, which is then used instead.

    Raises:
        UserError: it is none, or would be reachable from elsewhere.

    """
    import ipaddress  # noqa: PLC0415 - the commands that don't listen are quicker without it

    if path:
        if len(path.encode()) > 107:
            raise UserError(f"The socket's path {path} is too long.", "Choose one of at most 107 bytes (unix(7)).")
        return Address(path=path)
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or HOST
    if not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise UserError(f"{listen!r} names no port.", f"Write it as PORT or HOST:PORT, for example {HOST}:{PORT}.")
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise UserError(
            f"{host!r} is no IP address.", f"Write the address itself, for example {HOST}:{PORT}."
        ) from None
    if not loopback:
        raise UserError(
            f"{host} is reachable from other machines, and what the agent says is for this one.",
            f"Listen on loopback ({HOST} or ::1), or on a Unix socket with --socket.",
        )
    return Address(host=host, port=int(port))
