"""Commands in the guest, through qemu-guest-agent: one JSON line for each, on a socket that QEMU offers."""

import base64
import json
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab.errors import LabError


class GuestSilentError(LabError):
    """The guest's agent doesn't answer (yet)."""


@dataclass(frozen=True)
class Result:
    """What a command in the guest said."""

    rc: int
    stdout: str
    stderr: str

    @property
    def ok(self) -> bool:
        """Whether it exited with 0."""
        return self.rc == 0


class GuestAgent:
    """A connection to qemu-guest-agent; made anew whenever it was lost, since a guest that resets forgets it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket: socket.socket | None = None
        self._rest = b""

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def ask(self, command: str, *, timeout: float = 20, **arguments: Any) -> Any:
        """One command of the guest agent's own protocol."""
        deadline = time.monotonic() + timeout
        try:
            if self._socket is None:
                self._connect(deadline)
            return self._exchange(command, arguments, deadline)
        except (OSError, json.JSONDecodeError) as error:
            self.close()
            raise GuestSilentError(
                f"The guest's agent did not answer {command} within {timeout:g} s.", str(error)
            ) from error

    def run(self, argv: list[str], *, timeout: float = 60, stdin: bytes | None = None) -> Result:
        """A program in the guest, to its end."""
        arguments: dict[str, Any] = {"path": argv[0], "arg": argv[1:], "capture-output": True}
        if stdin is not None:
            arguments["input-data"] = base64.b64encode(stdin).decode()
        pid = self.ask("guest-exec", **arguments)["pid"]
        deadline = time.monotonic() + timeout
        pause = 0.005
        while True:
            status = self.ask("guest-exec-status", pid=pid)
            if status["exited"]:
                code = status.get("exitcode", 128 + int(status.get("signal", 0)))
                return Result(int(code), _text(status, "out-data"), _text(status, "err-data"))
            if time.monotonic() > deadline:
                raise LabError(
                    f"In the guest this did not end within {timeout:g} s: {' '.join(argv)}.", "It still runs there."
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)

    def _connect(self, deadline: float) -> None:
        """A new connection; what an earlier one left unread is skipped up to an answer that only this one can get."""
        self.close()
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(max(0.05, deadline - time.monotonic()))
        connection.connect(str(self.path))
        self._socket = connection
        self._rest = b""
        token = secrets.randbelow(2**31)
        # The delimiter makes the guest's parser forget half a line that it may hold.
        connection.sendall(b"\xff" + _line("guest-sync-delimited", {"id": token}))
        while True:
            line = self._read(deadline).rpartition(b"\xff")[2]
            try:
                answer = json.loads(line)
            except json.JSONDecodeError:
                continue
            if answer.get("return") == token:
                return

    def _exchange(self, command: str, arguments: dict[str, Any], deadline: float) -> Any:
        if self._socket is None:
            raise OSError("no connection")
        self._socket.settimeout(max(0.05, deadline - time.monotonic()))
        self._socket.sendall(_line(command, arguments))
        answer = json.loads(self._read(deadline))
        if "error" in answer:
            raise LabError(f"The guest's agent refused {command}: {answer['error'].get('desc')}.", "")
        return answer["return"]

    def _read(self, deadline: float) -> bytes:
        while b"\n" not in self._rest:
            if self._socket is None:
                raise OSError("no connection")
            self._socket.settimeout(max(0.05, deadline - time.monotonic()))
            chunk = self._socket.recv(65536)
            if not chunk:
                raise OSError("QEMU closed the connection")
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def _line(command: str, arguments: dict[str, Any]) -> bytes:
    message: dict[str, Any] = {"execute": command}
    if arguments:
        message["arguments"] = arguments
    return json.dumps(message).encode() + b"\n"


def _text(status: dict[str, Any], name: str) -> str:
    return base64.b64decode(status.get(name, "")).decode(errors="replace")
