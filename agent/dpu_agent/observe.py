"""One look at the machine: every part asked once, bounded in time, changing nothing.

What cannot be looked at is left out and has its sentence in `World.unseen`; the rest is seen all the same.
"""

import dataclasses
import errno
from collections.abc import Callable
from typing import TypeVar

from dpu_agent.machine import HostError, Machine
from dpu_agent.world import Configuration, EswitchMode, Netdev, Ovs, PciFunction, Platform, Port, Rules, Unseen, World

_T = TypeVar("_T")


def observe(machine: Machine, configuration: Configuration) -> World:
    """Look at the machine. Never fails: see `World.unseen`.

    With every part dead it takes a few seconds: each question has its own deadline in `host/`, and a part that did not
    answer one is not asked another.
    """
    look = _Look()
    sysfs = machine.sysfs
    functions = _functions(look, machine)
    netdevs = _netdevs(look, machine)
    return World(
        boot_id=look.at("sysfs", sysfs.boot_id, ""),
        platform=look.at("sysfs", sysfs.platform, Platform()),
        functions=functions,
        netdevs=netdevs,
        ovs=_ovs(look, machine),
        rules=look.at("udev", machine.udev.rules, Rules.UNKNOWN),
        configuration=configuration,
        other_managers=look.at("sysfs", sysfs.other_managers, ()),
        unseen=tuple(look.unseen),
    )


class _Look:
    """Asks, and remembers what could not be seen."""

    def __init__(self) -> None:
        self.unseen: list[Unseen] = []

    def at(self, what: str, question: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return question()
        except HostError as error:
            self.missed(what, error)
            return otherwise

    def missed(self, what: str, error: HostError) -> None:
        found = Unseen(what, error.message, error.hint)
        if found not in self.unseen:
            self.unseen.append(found)

    def saw(self, what: str) -> bool:
        return not any(each.what == what for each in self.unseen)


def _functions(look: _Look, machine: Machine) -> tuple[PciFunction, ...]:
    nothing: tuple[tuple[str, str, str], ...] = ()
    return tuple(_function(look, machine, *found) for found in look.at("sysfs", machine.sysfs.functions, nothing))


def _function(look: _Look, machine: Machine, address: str, device: str, driver: str) -> PciFunction:
    mode = EswitchMode.UNKNOWN
    ports: tuple[Port, ...] = ()
    if look.saw("devlink"):
        try:
            mode = machine.devlink.mode(address)
            ports = machine.devlink.ports(address)
        except HostError as error:
            # No devlink at all is one sentence and not one for each function.
            look.missed("devlink" if error.errno == errno.ENOENT else address, error)
    return PciFunction(address=address, device=device, driver=driver, mode=mode, ports=ports)


def _netdevs(look: _Look, machine: Machine) -> tuple[Netdev, ...]:
    nothing: tuple[Netdev, ...] = ()
    found = look.at("sysfs", machine.sysfs.netdevs, nothing)
    if not found:
        return ()
    carrying = look.at("links", machine.links.carrying, frozenset[str]())
    return tuple(
        dataclasses.replace(each, carries_host=each.name in carrying, unmanaged=_unmanaged(look, machine, each))
        for each in found
    )


def _unmanaged(look: _Look, machine: Machine, netdev: Netdev) -> bool:
    """Of a PCI function's netdevs only: a node has hundreds of others, and the rules are about none of them."""
    if not netdev.function or not look.saw("udev"):
        return False
    return look.at("udev", lambda: machine.udev.unmanaged(netdev.name), otherwise=False)


def _ovs(look: _Look, machine: Machine) -> Ovs | None:
    found = look.at("ovsdb", machine.ovsdb.read, None)
    if found is None:
        return None
    return dataclasses.replace(found, vswitchd=look.at("sysfs", machine.sysfs.vswitchd, ""))
