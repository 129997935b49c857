"""Asks the running agent, over its local HTTP."""

import http.client
import socket

from dpu_agent.address import Address
from dpu_shared.errors import UserError


class NobodyError(Exception):
    """Nobody listens there."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._seconds = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._seconds)
        self.sock.connect(self._path)


def get(where: Address, path: str, *, patience: float, limit: int) -> tuple[int, bytes]:
    """The answer's status and body.

    Args:
        where: the agent.
        path: what is asked for.
        patience: seconds that each read waits.
        limit: bytes of a body.

    Raises:
        NobodyError: nobody listens there.
        UserError: somebody does, and gives no whole answer in time.

    """
    connection = (
        _UnixConnection(where.path, patience)
        if where.path
        else http.client.HTTPConnection(where.host, where.port, timeout=patience)
    )
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(limit)
    except (ConnectionRefusedError, FileNotFoundError) as error:
        raise NobodyError from error
    except (OSError, http.client.HTTPException) as error:
        said = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(
            f"An agent listens on {where} and does not answer: {said}.",
            "See `journalctl -u dpu-agent.service`; if it hangs, run `systemctl restart dpu-agent.service`.",
        ) from error
    finally:
        connection.close()
    return answer.status, body
