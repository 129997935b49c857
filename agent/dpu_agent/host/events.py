"""Events of a socket of the kernel's, from a thread of its own."""

import errno
import os
import select
import threading
from collections.abc import Callable

from dpu_agent.machine import Wake


class Events:
    """`machine.Watch`: reads a socket until it is closed, and wakes whoever waits.

    Args:
        name: of the source, as `wake` is told it.
        descriptor: of the socket.
        read: takes what has come from the socket, and says whether it may matter.
        wake: see `machine.Wake`.
        release: frees the socket; called once, after the last `read`.

    """

    def __init__(
        self, name: str, descriptor: int, read: Callable[[], bool], wake: Wake, release: Callable[[], None]
    ) -> None:
        self._name = name
        self._descriptor = descriptor
        self._read = read
        self._wake = wake
        self._release = release
        self._closed = False
        self._stop, self._stopper = os.pipe()
        self._thread = threading.Thread(target=self._run, name=f"{name}-events", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        os.write(self._stopper, b"x")
        self._thread.join()
        self._release()
        os.close(self._stop)
        os.close(self._stopper)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        while self._stop not in (ready := dict(poll.poll())):
            # Whatever is wrong with the socket, reading it says so.
            usable = not ready[self._descriptor] & select.POLLNVAL
            try:
                interesting = self._read() if usable else True
            except OSError as error:
                interesting = True  # ENOBUFS: events were lost, so anything may have happened
                usable = error.errno in (errno.ENOBUFS, errno.EINTR, errno.EAGAIN)
            if interesting:
                self._wake(self._name)
            if not usable:
                return  # and `alive` says so
