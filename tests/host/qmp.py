"""QEMU's own control socket."""

import json
import socket
import time
from pathlib import Path
from typing import Any

from tests.lab.errors import LabError


class Qmp:
    """One connection to it. Events are passed over."""

    def __init__(self, path: Path, *, timeout: float = 20) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
            self._lines = self._socket.makefile("rb")
            self._lines.readline()
            self.ask("qmp_capabilities")
        except OSError as error:
            self._socket.close()
            raise LabError(f"QEMU does not answer on its control socket: {error}.", "See its log.") from error
        except LabError:
            self.close()
            raise

    def ask(self, command: str, **arguments: Any) -> Any:
        """One command and its answer."""
        message: dict[str, Any] = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
            while line := self._lines.readline():
                answer = json.loads(line)
                if "error" in answer:
                    raise LabError(f"QEMU refused {command}: {answer['error'].get('desc')}.", "")
                if "return" in answer:
                    return answer["return"]
        except OSError as error:
            raise LabError(f"QEMU did not answer {command}: {error}.", "See its log.") from error
        raise LabError(f"QEMU ended before it answered {command}.", "See its log.")

    def wait_status(self, *wanted: str, timeout: float) -> None:
        """Until the machine is in one of these states."""
        deadline = time.monotonic() + timeout
        while (status := self.ask("query-status")["status"]) not in wanted:
            if time.monotonic() > deadline:
                raise LabError(f"The machine stays in state {status}.", "See QEMU's log.")
            time.sleep(0.01)

    def migrate(self, target: str, *, timeout: float) -> None:
        """Write the machine's state."""
        self.ask("migrate", uri=target)
        deadline = time.monotonic() + timeout
        while (status := self.ask("query-migrate").get("status")) != "completed":
            if status == "failed" or time.monotonic() > deadline:
                raise LabError(f"Saving the machine's state ended as {status}.", "See that the disk has room.")
            time.sleep(0.05)

    def close(self) -> None:
        """Let go of the socket."""
        self._lines.close()
        self._socket.close()
