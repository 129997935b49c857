"""devlink's bytes: what is asked, and what answers, refusals and events are taken for."""

import errno
import threading
from collections.abc import Callable, Iterator

import pytest

from dpu_agent.host import devlink, netlink
from dpu_agent.host.devlink import Command, KernelDevlink
from dpu_agent.host.events import Events
from dpu_agent.machine import Devlink, HostError, Watch
from dpu_agent.world import EswitchMode, Flavour, Port
from tests.wire import netlink_kernel as wire
from tests.wire.netlink_kernel import Answer, Kernel, Refuse, Request, Socket

PF0, PF1 = "0000:03:00.0", "0000:03:00.1"
PATIENCE = 20  # seconds for an event to cross a thread, on a machine that does much else

Boot = Callable[..., Kernel]


@pytest.fixture
def boot(monkeypatch: pytest.MonkeyPatch) -> Iterator[Boot]:
    """A kernel whose devlink answers as told; whoever opens a socket of it has to close it."""
    running: list[Kernel] = []

    def booted(answer: Callable[[Request], Answer] | Answer = None, *, known: bool = True) -> Kernel:
        kernel = Kernel(answer if callable(answer) else lambda _: answer, known=known)
        running.append(kernel)
        monkeypatch.setattr(netlink, "_opened", lambda _: Socket(kernel))
        return kernel

    yield booted
    assert [kernel.sockets for kernel in running] == [0] * len(running)


def refused(call: Callable[[], object]) -> HostError:
    with pytest.raises(HostError) as caught:
        call()
    return caught.value


def test_it_is_the_devlink_of_the_contract() -> None:
    part: Devlink = KernelDevlink()
    assert part is not None


def test_a_change_of_mode_is_encoded_as_the_kernel_wants_it() -> None:
    """Bytes that a kernel has understood (type, flags and sequence number left out)."""
    message = devlink.request(Command.ESWITCH_SET, PF0, ("ESWITCH_MODE", 1))
    message.encode()
    assert bytes(message.data).hex() == (
        "38000000000000000000000000000000"
        "1e010000"
        "0800010070636900"
        "11000200303030303a30333a30302e3000000000"
        "0600190001000000"
    )


def test_a_question_names_the_device_and_asks_for_an_acknowledgement(boot: Boot) -> None:
    kernel = boot([wire.generic(29, wire.text(1, "pci"), wire.text(2, PF0), wire.u16(25, 1))])
    assert KernelDevlink().mode(PF0) is EswitchMode.SWITCHDEV
    asked = kernel.requests[-1]
    assert (asked.kind, asked.command, asked.flags) == (wire.DEVLINK, 29, 0x5)
    assert wire.text(1, "pci") + wire.text(2, PF0) in asked.data


@pytest.mark.parametrize(
    ("answer", "mode"),
    [
        (0, EswitchMode.LEGACY),
        (1, EswitchMode.SWITCHDEV),
        (2, EswitchMode.NONE),  # switchdev_inactive
        (Refuse(errno.EINVAL), EswitchMode.NONE),
        (Refuse(errno.EOPNOTSUPP, "eswitch mode is not supported"), EswitchMode.UNSUPPORTED),
    ],
)
def test_a_mode_is_what_the_kernel_says_or_how_it_refuses_to(boot: Boot, answer: object, mode: EswitchMode) -> None:
    boot(answer if isinstance(answer, Refuse) else [wire.generic(29, wire.u16(25, int(str(answer))))])
    assert KernelDevlink().mode(PF0) is mode


def test_a_mode_of_a_later_kernel_is_an_error_and_not_taken_for_another(boot: Boot) -> None:
    boot([wire.generic(29, wire.u16(25, 9))])
    assert "is in mode 9, which this agent does not know" in refused(lambda: KernelDevlink().mode(PF0)).message


def test_a_device_that_devlink_does_not_know_is_worth_another_look(boot: Boot) -> None:
    boot(Refuse(errno.ENODEV))
    error = refused(lambda: KernelDevlink().mode(PF0))
    assert error.message == f"The eswitch of {PF0} cannot be read: No such device (ENODEV)."
    assert not error.terminal


def test_the_ports_of_one_device_are_asked_for_and_those_of_others_left_out(boot: Boot) -> None:
    """Kernels before 6.6 list all devices' ports whatever was asked."""
    host_pf = wire.port(
        PF0,
        196608,
        wire.u16(4, 2),  # type: eth
        wire.text(7, "c1pf0hpf"),
        wire.u16(77, 3),
        wire.u16(127, 0),
        wire.attribute(145 | 0x8000, wire.attribute(1, bytes.fromhex("08c0EBcb0eb0")) + wire.u8(2, 0)),
        wire.u8(149, 1),
        wire.u32(150, 1),
        wire.u32(9999, 1),  # of a kernel to come
    )
    host_vf = wire.port(
        PF0, 196609, wire.text(7, "eth5"), wire.u16(77, 4), wire.u16(127, 0), wire.u16(128, 0), wire.u32(150, 1),
        wire.u8(149, 1),
    )  # fmt: skip
    uplink = wire.port(PF0, 262143, wire.text(7, "p0"), wire.u16(77, 0), wire.u32(78, 0))
    old = wire.port(PF0, 7, wire.u16(77, 3), wire.u16(127, 1))
    subfunction = wire.port(PF0, 229408, wire.u16(77, 7), wire.u32(164, 88))
    virtual = wire.port(PF0, 8, wire.u16(77, 5))
    foreign = wire.port(PF1, 262144, wire.u16(77, 3))
    kernel = boot([uplink, foreign, subfunction, host_vf, host_pf, virtual, old])
    assert KernelDevlink().ports(PF0) == (
        Port(7, Flavour.PCI_PF, pf=1),
        Port(8, Flavour.OTHER),
        Port(196608, Flavour.PCI_PF, "c1pf0hpf", controller=1, external=True, pf=0, hw_addr="08:c0:eb:cb:0e:b0"),
        Port(196609, Flavour.PCI_VF, "eth5", controller=1, external=True, pf=0, vf=0),
        Port(229408, Flavour.PCI_SF),
        Port(262143, Flavour.PHYSICAL, "p0", number=0),
    )
    asked = kernel.requests[-1]
    assert asked.dump
    assert asked.command == 5
    assert wire.text(1, "pci") + wire.text(2, PF0) in asked.data


def test_a_list_that_changed_while_it_was_read_is_read_again(boot: Boot) -> None:
    kernel = boot([wire.port(PF0, 1, wire.u16(77, 0))])
    kernel.interrupted = 2
    assert [port.index for port in KernelDevlink().ports(PF0)] == [1]
    assert [request.dump for request in kernel.requests] == [False, True, True, True]


def test_a_list_that_never_holds_still_is_taken_as_it_is(boot: Boot) -> None:
    kernel = boot([wire.port(PF0, 1, wire.u16(77, 0))])
    kernel.interrupted = 10**9
    assert [port.index for port in KernelDevlink().ports(PF0)] == [1]


def test_the_socket_asks_for_the_kernels_text_and_is_closed_after_each_call(boot: Boot) -> None:
    kernel = boot([])
    link = KernelDevlink()
    link.set_switchdev(PF0)
    link.ports(PF0)
    assert kernel.sockets == 0
    with netlink.Channel(16) as channel:
        socket: object = channel._socket
        assert isinstance(socket, Socket)
        assert {(270, 11, 1), (270, 10, 1)} <= set(socket.options)


REFUSALS = [
    (errno.EBUSY, "mlx5_core: Can't change mode, E-Switch is busy.", False, "tc qdisc del"),
    (errno.EBUSY, "mlx5_core: Can't change eswitch mode during firmware reset", False, "reset of the card's firmware"),
    (errno.EOPNOTSUPP, "mlx5_core: Can't change mode while devlink traps are active", True, "devlink trap set"),
    (
        errno.EOPNOTSUPP,
        "mlx5_core: Can't change eswitch mode when IPsec SA and/or policies are configured",
        True,
        "ip xfrm state flush",
    ),
    (
        errno.EINVAL,
        "mlx5_core: Can't change E-Switch mode to switchdev when netdev net namespace has diverged from the devlink's.",
        True,
        "network namespace of the DPU",
    ),
    (errno.EINVAL, "mlx5_core: Failed setting eswitch to offloads", False, "went back to legacy mode"),
    (errno.EINVAL, "mlx5_core: Can't set offloads mode, SRIOV legacy not enabled", True, "the ARM side"),
    (errno.EOPNOTSUPP, "", True, "INTERNAL_CPU_MODEL=EMBEDDED_CPU"),
    (errno.EINVAL, "", True, "firmware's syndrome"),
    (errno.EBUSY, "", False, "tries again"),
    (errno.ENODEV, "", False, "mlx5_core"),
    (errno.EPERM, "", True, "CAP_NET_ADMIN"),
    (errno.EIO, "something new", False, "dmesg"),
]


@pytest.mark.parametrize(("code", "said", "terminal", "remedy"), REFUSALS)
def test_a_refused_change_of_mode_repeats_the_kernels_words_and_says_what_to_do(
    boot: Boot, code: int, said: str, *, terminal: bool, remedy: str
) -> None:
    boot(Refuse(code, said))
    error = refused(lambda: KernelDevlink().set_switchdev(PF0))
    assert said in error.message
    assert remedy in error.hint
    assert (error.errno, error.terminal) == (code, terminal)
    assert error.message.startswith(f"The kernel does not put the eswitch of {PF0} into switchdev mode: ")
    assert error.message.endswith(").")
    assert error.hint.endswith(".")


def test_an_error_of_the_family_says_that_the_kernel_has_no_devlink(boot: Boot) -> None:
    boot(known=False)
    link = KernelDevlink()
    for call in (lambda: link.mode(PF0), lambda: link.ports(PF0), lambda: link.watch(print)):
        error = refused(call)
        assert "this kernel has no devlink" in error.message
        assert "CONFIG_NET_DEVLINK" in error.hint
        assert (error.errno, error.terminal) == (errno.ENOENT, True)


def test_a_kernel_that_does_not_answer_is_not_waited_for_for_ever(boot: Boot) -> None:
    boot(None)
    link = KernelDevlink()
    assert "within 2 s" in refused(lambda: link.mode(PF0)).message
    assert "within 2 s" in refused(lambda: link.ports(PF0)).message
    silent = refused(lambda: link.set_switchdev(PF0))
    assert "within 80 s" in silent.message
    assert not silent.terminal, "it may have happened all the same"


def test_only_the_kernel_is_believed_and_only_about_what_was_asked(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = boot([wire.generic(29, wire.u16(25, 0))])
    honest = kernel.answers

    def crowded(data: bytes) -> list[tuple[bytes, int]]:
        forged = wire.message(wire.DEVLINK, wire.generic(29, wire.u16(25, 1)), sequence=1)
        late = wire.message(wire.DEVLINK, wire.generic(29, wire.u16(25, 1)), sequence=77)
        return [(forged, 4711), (late, 0), *honest(data)]

    monkeypatch.setattr(kernel, "answers", crowded)
    assert KernelDevlink().mode(PF0) is EswitchMode.LEGACY


def datagram(*commands: int) -> bytes:
    return b"".join(wire.message(wire.DEVLINK, wire.generic(command)) for command in commands)


class Woken:
    """Counts what woke it."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.came = threading.Event()

    def __call__(self, name: str) -> None:
        self.names.append(name)
        self.came.set()

    def woken(self) -> bool:
        came = self.came.wait(PATIENCE)
        self.came.clear()
        return came


@pytest.fixture
def watched(boot: Boot, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Socket, Woken, Watch]]:
    kernel = boot()
    made: list[Socket] = []

    def opened(_: int) -> Socket:
        made.append(Socket(kernel))
        return made[-1]

    monkeypatch.setattr(netlink, "_opened", opened)
    events = Woken()
    watch = KernelDevlink().watch(events)
    yield made[-1], events, watch
    watch.close()


def test_a_watch_joins_the_group_that_tells_of_ports(watched: tuple[Socket, Woken, Watch]) -> None:
    assert (270, 1, wire.GROUP) in watched[0].options


@pytest.mark.parametrize("command", [Command.NEW, Command.DEL, Command.PORT_NEW, Command.PORT_DEL])
def test_a_port_or_device_that_comes_or_goes_wakes(watched: tuple[Socket, Woken, Watch], command: Command) -> None:
    socket, events, watch = watched
    socket.far.send(datagram(49, command))  # a health report before it in the same datagram
    assert events.woken()
    assert events.names == ["devlink"]
    assert watch.alive


def test_other_events_of_the_group_wake_nobody(watched: tuple[Socket, Woken, Watch]) -> None:
    socket, events, _ = watched
    socket.far.send(datagram(49, 53, 59))  # health, flashing
    socket.far.send(datagram(Command.PORT_NEW))
    assert events.woken()
    assert events.names == ["devlink"]


def test_events_that_were_lost_wake_too(watched: tuple[Socket, Woken, Watch], monkeypatch: pytest.MonkeyPatch) -> None:
    socket, events, watch = watched
    real = socket.recv
    losses = [OSError(errno.ENOBUFS, "no buffer space")]

    def losing(size: int) -> bytes:
        data = real(size)
        if losses:
            raise losses.pop()
        return data

    monkeypatch.setattr(socket, "recv", losing)
    socket.far.send(datagram(49))
    assert events.woken()
    assert watch.alive
    socket.far.send(datagram(Command.PORT_DEL))
    assert events.woken()


def test_a_watch_whose_socket_broke_says_so_and_wakes_once(
    watched: tuple[Socket, Woken, Watch], monkeypatch: pytest.MonkeyPatch
) -> None:
    socket, events, watch = watched

    def broken(_: int) -> bytes:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(socket, "recv", broken)
    socket.far.send(datagram(49))
    assert events.woken()
    assert isinstance(watch, Events)
    watch._thread.join(PATIENCE)
    assert not watch.alive


def test_a_closed_watch_wakes_nobody_and_may_be_closed_again(watched: tuple[Socket, Woken, Watch]) -> None:
    socket, events, watch = watched
    assert watch.alive
    for _ in range(2):
        watch.close()
    assert events.names == []
    assert isinstance(watch, Events)
    assert not watch._thread.is_alive()
    assert socket.near.fileno() == -1
