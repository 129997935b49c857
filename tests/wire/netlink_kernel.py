"""A kernel's side of netlink, byte by byte and without pyroute2, for what no kernel does on request."""

import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

HEADER = struct.Struct("=IHHII")
ERROR, DONE = 2, 3
CTRL, DEVLINK = 0x10, 0x1E
INTERRUPTED = 0x10
GROUP = 17


def attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + b"\0" * (-len(payload) % 4)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=B", value))


def u16(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=H", value))


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def message(kind: int, body: bytes, *, sequence: int = 0, flags: int = 0) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def generic(command: int, *attributes: bytes) -> bytes:
    return struct.pack("=BBH", command, 1, 0) + b"".join(attributes)


def port(address: str, index: int, *attributes: bytes) -> bytes:
    """The body of DEVLINK_CMD_PORT_NEW."""
    return generic(7, text(1, "pci"), text(2, address), u32(3, index), *attributes)


@dataclass
class Refuse:
    """An error instead of an answer, with the extended error's text."""

    code: int
    said: str = ""


@dataclass
class Request:
    """What the program under test sent."""

    kind: int
    flags: int
    sequence: int
    data: bytes

    @property
    def dump(self) -> bool:
        return self.flags & 0x300 == 0x300

    @property
    def command(self) -> int:
        return self.data[16]


Answer = Sequence[bytes] | Refuse | None
"""Bodies of messages; an error; or silence."""


@dataclass
class Kernel:
    """Answers devlink requests with what `devlink` says, and the question for the family by itself."""

    devlink: Callable[[Request], Answer]
    known: bool = True
    interrupted: int = 0
    """How many dumps are interrupted before one is not."""
    requests: list[Request] = field(default_factory=list)
    sockets: int = 0
    """How many are open."""

    def answers(self, data: bytes) -> list[tuple[bytes, int]]:
        """Datagrams and who sent them."""
        _, kind, flags, sequence, _ = HEADER.unpack_from(data)
        request = Request(kind, flags, sequence, data)
        self.requests.append(request)
        said = self._family() if kind == CTRL else self.devlink(request)
        if said is None:
            return []
        if isinstance(said, Refuse):
            return [(self._end(request, said), 0)]
        extra = 0
        if request.dump and self.interrupted:
            self.interrupted -= 1
            extra = INTERRUPTED
        flagged = 2 | extra if request.dump else 0
        found = [(message(kind, body, sequence=sequence, flags=flagged), 0) for body in said]
        return [*found, (self._end(request, None), 0)]

    def _family(self) -> Answer:
        if not self.known:
            return Refuse(2)
        group = attribute(1, text(1, "config") + u32(2, GROUP))
        return [generic(1, u16(1, DEVLINK), text(2, "devlink"), u32(3, 1), attribute(7, group))]

    def _end(self, request: Request, refusal: Refuse | None) -> bytes:
        said = text(1, refusal.said) if refusal and refusal.said else b""
        code = struct.pack("=i", -refusal.code if refusal else 0)
        if request.dump and refusal is None:
            return message(DONE, code, sequence=request.sequence, flags=2)
        capped = request.data[: HEADER.size]
        return message(ERROR, code + capped + said, sequence=request.sequence, flags=0x300 if said else 0x100)


class Socket:
    """What `socket.socket` makes for the program under test."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.kernel.sockets += 1
        self.queue: list[tuple[bytes, int]] = []
        self.options: list[tuple[int, int, int]] = []
        self.patience: float | None = None
        self.far, self.near = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.options.append((level, option, value))

    def bind(self, _: object) -> None: ...

    def settimeout(self, seconds: float) -> None:
        self.patience = seconds

    def sendto(self, data: bytes, _: object) -> int:
        self.queue += self.kernel.answers(data)
        return len(data)

    def recvfrom(self, _: int) -> tuple[bytes, tuple[int, int]]:
        if not self.queue:
            raise TimeoutError
        data, sender = self.queue.pop(0)
        return data, (sender, 0)

    def recv(self, size: int) -> bytes:
        return self.near.recv(size)

    def fileno(self) -> int:
        return self.near.fileno()

    def close(self) -> None:
        if self.far.fileno() >= 0:
            self.kernel.sockets -= 1
        self.far.close()
        self.near.close()
