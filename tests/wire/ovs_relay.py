"""A relay before ovsdb-server that loses, delays and garbles what passes, and does things in between."""

import contextlib
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

Hook = Callable[[bytes], bytes]


class CutError(Exception):
    """Raised by a hook: both ends of this connection are closed, and what it looked at goes nowhere."""


class Relay:
    """Passes on what a client says (`asked`) and what the server answers (`answered`), as the hooks return it."""

    def __init__(self, path: Path, upstream: Path) -> None:
        self.path = path
        self.remote = f"unix:{path}"
        self.connections = 0
        self.asked: Hook = bytes
        self.answered: Hook = bytes
        self._upstream = upstream
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._threads = [threading.Thread(target=self._accept)]
        self._closing = threading.Event()
        self._threads[0].start()

    def before(self, mark: bytes, act: Callable[[], object], *, times: int = 1) -> None:
        """Do something when a request that contains the mark is on its way, just before the server gets it."""
        left = [times]

        def hook(data: bytes) -> bytes:
            if mark in data and left[0]:
                left[0] -= 1
                act()
            return data

        self.asked = hook

    def close(self) -> None:
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._pass_on, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _pass_on(self, client: socket.socket) -> None:
        with (
            client,
            socket.socket(socket.AF_UNIX) as server,
            selectors.DefaultSelector() as selector,
            contextlib.suppress(OSError, CutError),
        ):
            server.connect(str(self._upstream))
            selector.register(client, selectors.EVENT_READ, (server, "asked"))
            selector.register(server, selectors.EVENT_READ, (client, "answered"))
            while not self._closing.is_set():
                for key, _ in selector.select(0.05):
                    assert isinstance(key.fileobj, socket.socket)
                    data = key.fileobj.recv(1 << 20)
                    if not data:
                        return
                    other, hook = key.data
                    other.sendall(getattr(self, hook)(data))


@contextlib.contextmanager
def relay(path: Path, upstream: Path) -> Iterator[Relay]:
    made = Relay(path, upstream)
    try:
        yield made
    finally:
        made.close()
