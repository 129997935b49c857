"""Serves the local HTTP inside the agent's loop: where it may listen, and what a client may cost."""

import asyncio
import ipaddress
import logging
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from dpu_agent.address import Address
from dpu_shared.errors import UserError

_log = logging.getLogger(__name__)
_MOST = 400
"""Connections at a time. One more is hung up on: the agent's memory is bounded, and two hundred fit."""
_SECONDS = 10.0
"""A connection's whole life, whether its client sends nothing, reads nothing, or does both slowly."""
_BACKLOG = 512


def listen(address: Address) -> socket.socket:
    """A socket that listens there.

    Raises:
        UserError: something else listens there, or it is not ours to listen at.

    """
    try:
        return _listen_unix(Path(address.path)) if address.path else _listen_tcp(address)
    except OSError as error:
        raise UserError(
            f"The local HTTP cannot listen on {address}: {error.strerror or error}.",
            "See whether another dpu-agent runs here, or choose another place with --listen or --socket.",
        ) from error


def _listen_tcp(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ipaddress.ip_address(address.host).version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.settimeout(0)
    return listener


def _listen_unix(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_left_behind(path)
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.settimeout(0)
    return listener


def _remove_left_behind(path: Path) -> None:
    """Remove a socket that nobody listens on any more; anything else at that place is left alone, and in the way."""
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()


def _leave(address: Address) -> None:
    if address.path:
        with suppress(OSError):
            Path(address.path).unlink()


class _Connection(H11Protocol):
    """One request, and an end in any case: h11 has a timeout only between requests, none in the middle of one."""

    _end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in the base class
        super().connection_made(transport)
        if len(self.connections) > _MOST:
            transport.abort()
            return
        self._end = self.loop.call_later(_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._end is not None:
            self._end.cancel()
        super().connection_lost(exc)


class _Server(uvicorn.Server):
    """uvicorn without its signals and without its clock, which wakes ten times a second for a Date header."""

    async def until_cancelled(self, listener: socket.socket) -> None:
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=[listener])
        self.server_state.default_headers = [(b"connection", b"close")]
        try:
            await asyncio.Event().wait()
        finally:
            for server in self.servers:
                server.close()
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            await asyncio.sleep(0)  # which the loop does in its next round


@dataclass(frozen=True, slots=True)
class Serving:
    """Where and what to serve."""

    app: Any
    address: Address

    async def run(self) -> None:
        """Serve until cancelled; where it can't listen yet, try again, for the loop goes on without it."""
        listener = await self._listen()
        _log.info("Answers on %s.", self.address)
        config = uvicorn.Config(
            self.app,
            loop="asyncio",
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
        )
        # A stranger's bad request is not the agent's news.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        try:
            await _Server(config).until_cancelled(listener)
        finally:
            listener.close()
            _leave(self.address)

    async def _listen(self) -> socket.socket:
        said = ""
        while True:
            try:
                return listen(self.address)
            except UserError as error:
                if str(error) != said:
                    said = str(error)
                    _log.error("%s", error)
            await asyncio.sleep(2)
