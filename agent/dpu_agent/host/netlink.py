"""Netlink requests, each bounded in time: pyroute2's messages on a plain socket.

pyroute2's own sockets are not used. Each of its blocking ones runs an asyncio loop, belongs to one thread and waits for
ever; and `import pyroute2` brings 330 modules, which is 26 MiB and more time than `dpu-agent apply --dry-run` may take as
a whole. Its messages, which are what is easily got wrong, need a tenth of that.
"""

import contextlib
import errno
import importlib.util
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any, Self


@contextlib.contextmanager
def _without_its_init(package: str) -> Iterator[None]:
    """Import parts of a package without running its `__init__`, which imports all the rest.

    They stay this module's own: whoever imports the package later gets it whole, as if nothing had been.
    """
    spec = None if package in sys.modules else importlib.util.find_spec(package)
    if spec is None:
        yield
        return
    sys.modules[package] = importlib.util.module_from_spec(spec)
    try:
        yield
    finally:
        for name in [each for each in sys.modules if each.partition(".")[0] == package]:
            del sys.modules[name]


with _without_its_init("pyroute2"):
    from pyroute2.netlink import ctrlmsg, genlmsg, nla, nlmsg

__all__ = ["Channel", "Family", "Message", "Refused", "Silent", "ctrlmsg", "family", "genlmsg", "nla", "nlmsg"]

Message = Any
"""A message of pyroute2, which has no types."""

# linux/netlink.h
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_INTERRUPTED = 0x10
_SOL_NETLINK, _ADD_MEMBERSHIP, _CAP_ACK, _EXT_ACK = 270, 1, 10, 11
_HEADER = struct.Struct("=IHHII")
_WINDOW = 65536  # bytes; the kernel never answers a dump with more at once
_DUMPS = 5  # attempts at a dump that something changed under
# linux/genetlink.h
_GENERIC, _CTRL, _GETFAMILY = 16, 0x10, 3


class Refused(Exception):  # noqa: N818 - it is the kernel's answer, which may well be expected
    """The kernel's answer is an error.

    Args:
        code: errno, positive.
        said: the extended error's text, verbatim; empty where there is none.

    """

    def __init__(self, code: int, said: str) -> None:
        super().__init__(code, said)
        self.code = code
        self.said = said

    def __str__(self) -> str:
        return self.said or os.strerror(self.code)


class Silent(Exception):  # noqa: N818 - as above
    """The kernel did not answer in time; whether it has done what it was asked is not known."""


def _opened(protocol: int) -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)


class Channel:
    """One netlink socket; to be closed, and to be used by one thread at a time.

    Raises:
        OSError: this kernel lacks the protocol.

    """

    def __init__(self, protocol: int) -> None:
        self._socket = _opened(protocol)
        try:
            # The error comes with the kernel's text, and without a copy of the request between.
            self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
            self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
            self._socket.bind((0, 0))
        except OSError:
            self._socket.close()
            raise
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def join(self, group: int) -> None:
        """Receive what is sent to a multicast group from now on."""
        self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def events(self) -> list[bytes]:
        """The messages of one datagram that has come, whole with their headers; blocks where none has.

        Raises:
            OSError: ENOBUFS: events were lost.

        """
        return [data for _, _, _, data in _split(self._socket.recv(_WINDOW))]

    def ask(self, message: Message, kind: int, reply: type[Message], *, seconds: float) -> list[Message]:
        """Send a request; the answers up to its acknowledgement.

        Args:
            message: what to ask, not yet encoded.
            kind: the message type (nlmsg_type).
            reply: what to decode answers with.
            seconds: how long to wait for all of it.

        Raises:
            Refused: the kernel says no.
            Silent: it did not answer in time.

        """
        return self._talk(message, kind, _REQUEST | _ACK, reply, seconds)

    def dump(self, message: Message, kind: int, reply: type[Message], *, seconds: float) -> list[Message]:
        """Ask for a list; see `ask`. A list that changed meanwhile is asked for again, and the last one counts."""
        deadline = time.monotonic() + seconds
        found: list[Message] = []
        for _ in range(_DUMPS):
            request = type(message)()
            request.setvalue(message)
            found = self._talk(request, kind, _REQUEST | _DUMP, reply, deadline - time.monotonic())
            if not any(each["header"]["flags"] & _INTERRUPTED for each in found):
                break
        return found

    def _talk(self, message: Message, kind: int, flags: int, reply: type[Message], seconds: float) -> list[Message]:
        deadline = time.monotonic() + seconds
        self._sequence += 1
        message["header"].update(type=kind, flags=flags, sequence_number=self._sequence, pid=0)
        message.encode()
        self._socket.sendto(bytes(message.data), (0, 0))
        found: list[Message] = []
        while True:
            for kind_of, sequence, sender_flags, data in self._receive(deadline):
                if sequence != self._sequence:
                    continue  # the end of an answer that was given up
                if kind_of in (_ERROR, _DONE):
                    _raise_if_refused(data, capped=kind_of == _ERROR)
                    if kind_of == _DONE and sender_flags & _INTERRUPTED and found:
                        found[-1]["header"]["flags"] |= _INTERRUPTED
                    return found
                decoded = reply(data)
                decoded.decode()
                found.append(decoded)

    def _receive(self, deadline: float) -> list[tuple[int, int, int, bytes]]:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise Silent
        self._socket.settimeout(remaining)
        try:
            data, (sender, _) = self._socket.recvfrom(_WINDOW)
        except TimeoutError:
            raise Silent from None
        return _split(data) if sender == 0 else []  # other processes may send here too; only the kernel counts


class Family:
    """A generic netlink family of this kernel: its message type and its multicast groups by name."""

    def __init__(self, kind: int, groups: dict[str, int]) -> None:
        self.kind = kind
        self.groups = groups


def family(name: str, *, seconds: float) -> Family:
    """Look a generic netlink family up.

    Raises:
        Refused: ENOENT: this kernel has no such family (or it is not loaded).
        Silent: no answer in time.
        OSError: this kernel has no generic netlink.

    """
    request: Message = ctrlmsg()
    request["cmd"], request["version"] = _GETFAMILY, 1
    request["attrs"] = [("CTRL_ATTR_FAMILY_NAME", name)]
    with Channel(_GENERIC) as channel:
        answers = channel.ask(request, _CTRL, ctrlmsg, seconds=seconds)
    if not answers:
        raise Refused(errno.ENOENT, "")
    groups = {
        group.get_attr("CTRL_ATTR_MCAST_GRP_NAME"): group.get_attr("CTRL_ATTR_MCAST_GRP_ID")
        for group in answers[0].get_attr("CTRL_ATTR_MCAST_GROUPS") or []
    }
    return Family(answers[0].get_attr("CTRL_ATTR_FAMILY_ID"), groups)


class _Acknowledgement(nlmsg):  # type: ignore[misc]
    """NLMSG_ERROR of a socket with NETLINK_CAP_ACK: errno, the request's header, then the extended error."""

    fields = (("error", "i"), ("length", "I"), ("type", "H"), ("flags", "H"), ("sequence", "I"), ("pid", "I"))
    nla_map = ((1, "MSG", "asciiz"),)


class _Done(nlmsg):  # type: ignore[misc]
    """NLMSG_DONE: errno of the list, then the extended error."""

    fields = (("error", "i"),)
    nla_map = ((1, "MSG", "asciiz"),)


def _raise_if_refused(data: bytes, *, capped: bool) -> None:
    if len(data) < _HEADER.size + 4:
        return
    ending: Message = (_Acknowledgement if capped else _Done)(data)
    ending.decode()
    if ending["error"] < 0:
        raise Refused(-ending["error"], ending.get_attr("MSG") or "")


def _split(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """The messages of a datagram: type, sequence number, flags and the whole message."""
    found = []
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if not _HEADER.size <= length <= len(data) - offset:
            break
        found.append((kind, sequence, flags, data[offset : offset + length]))
        offset += (length + 3) & ~3
    return found
