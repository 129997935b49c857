"""Free ports, taken outside the kernel's ephemeral range.

A cut proxy closes its listener and opens it again later on the same port; a port of the ephemeral range could have
been given to some outgoing connection in between.
"""

import random
import socket
import threading

from tests.lab.errors import LabError

_LOWEST, _HIGHEST = 20000, 30000
_given: set[int] = set()
_lock = threading.Lock()


def free_port() -> int:
    """A loopback port that nobody listens on, and that this process has not given away before."""
    with _lock:
        for _ in range(200):
            port = random.randint(_LOWEST, _HIGHEST)
            if port in _given:
                continue
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            _given.add(port)
            return port
    raise LabError(f"No free port between {_LOWEST} and {_HIGHEST}.", "End what listens there, then try again.")
