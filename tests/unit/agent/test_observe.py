"""One look at a machine: what is seen, what is not, and that nothing else happens."""

import ast
import dataclasses
import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dpu_agent import machine as protocols
from dpu_agent.host import real
from dpu_agent.machine import HostError, Machine, Wake, Watch
from dpu_agent.observe import observe
from dpu_agent.world import (
    Configuration,
    EswitchMode,
    Flavour,
    Netdev,
    Ovs,
    PciFunction,
    Platform,
    Port,
    Rules,
    Unseen,
    World,
)
from dpu_shared.host_config import HostConfig

PF0, PF1 = "0000:03:00.0", "0000:03:00.1"
PORTS = (Port(262143, Flavour.PHYSICAL, "p0", number=0), Port(196608, Flavour.PCI_PF, "c1pf0hpf", pf=0))
NETDEVS = (
    Netdev("lo", 1),
    Netdev("p0", 3, function=PF0),
    Netdev("c1pf0hpf", 9, function=PF0, phys_port_name="c1pf0"),
    Netdev("veth1", 12),
)
CONFIGURATION = Configuration(current=HostConfig())
PLATFORM = Platform("aarch64", "BlueField-2", acpi_bluefield=True, root_port_vendor="15b3")


class Part:
    """A part of a machine that answers questions, notes them, fails where it is told to, and can be changed by nobody."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failing: dict[str, HostError] = {}

    def ask(self, question: str) -> None:
        self.asked.append(question)
        if question.partition(" ")[0] in self.failing:
            raise self.failing[question.partition(" ")[0]]
        if question in self.failing:
            raise self.failing[question]

    def _forbidden(self, *_: object, **__: object) -> None:
        raise AssertionError("a look changes nothing")

    set_switchdev = set_offload = add_port = move_port = recreate_port = remove_port = _forbidden
    install_rules = trigger = set_link = restart_vswitchd = _forbidden

    def watch(self, wake: Wake) -> Watch:
        raise AssertionError("a look starts nothing")

    def close(self) -> None: ...


class Devlink(Part):
    def mode(self, function: str) -> EswitchMode:
        self.ask(f"mode {function}")
        return EswitchMode.SWITCHDEV

    def ports(self, function: str) -> tuple[Port, ...]:
        self.ask(f"ports {function}")
        return PORTS if function == PF0 else ()


class Ovsdb(Part):
    def read(self) -> Ovs:
        self.ask("read")
        return Ovs(hw_offload="true")


class Sysfs(Part):
    def boot_id(self) -> str:
        self.ask("boot_id")
        return "boot"

    def platform(self) -> Platform:
        self.ask("platform")
        return PLATFORM

    def functions(self) -> tuple[tuple[str, str, str], ...]:
        self.ask("functions")
        return ((PF0, "a2d6", "mlx5_core"), (PF1, "a2d6", ""))

    def netdevs(self) -> tuple[Netdev, ...]:
        self.ask("netdevs")
        return NETDEVS

    def vswitchd(self) -> str:
        self.ask("vswitchd")
        return "boot/812/10432"

    def other_managers(self) -> tuple[str, ...]:
        self.ask("other_managers")
        return ("somebody (/somewhere)",)


class Udev(Part):
    def rules(self) -> Rules:
        self.ask("rules")
        return Rules.PRESENT

    def unmanaged(self, netdev: str) -> bool:
        self.ask(f"unmanaged {netdev}")
        return netdev == "c1pf0hpf"


class Links(Part):
    def carrying(self) -> frozenset[str]:
        self.ask("carrying")
        return frozenset({"p0", "br-ex"})


class Services(Part):
    pass


class Scene:
    """A machine of such parts."""

    def __init__(self) -> None:
        self.devlink, self.ovsdb, self.sysfs = Devlink(), Ovsdb(), Sysfs()
        self.udev, self.links, self.services = Udev(), Links(), Services()

    @property
    def machine(self) -> Machine:
        return Machine(self.devlink, self.ovsdb, self.sysfs, self.udev, self.links, self.services)

    def look(self) -> World:
        return observe(self.machine, CONFIGURATION)


def wrong(message: str, code: int | None = None) -> HostError:
    return HostError(message, "Wait.", errno=code)


def seen_by_udev(netdev: Netdev) -> Netdev:
    return dataclasses.replace(netdev, carries_host=netdev.name == "p0", unmanaged=netdev.name == "c1pf0hpf")


WHOLE = World(
    boot_id="boot",
    platform=PLATFORM,
    functions=(
        PciFunction(PF0, "a2d6", "mlx5_core", EswitchMode.SWITCHDEV, PORTS),
        PciFunction(PF1, "a2d6", "", EswitchMode.SWITCHDEV),
    ),
    netdevs=tuple(seen_by_udev(each) for each in NETDEVS),
    ovs=Ovs(hw_offload="true", vswitchd="boot/812/10432"),
    rules=Rules.PRESENT,
    configuration=CONFIGURATION,
    other_managers=("somebody (/somewhere)",),
)


def test_a_machine_that_is_well_is_seen_in_full() -> None:
    assert Scene().look() == WHOLE


@pytest.mark.parametrize(
    ("part", "question", "what", "lost"),
    [
        ("sysfs", "boot_id", "sysfs", {"boot_id": ""}),
        ("sysfs", "platform", "sysfs", {"platform": Platform()}),
        ("sysfs", "functions", "sysfs", {"functions": ()}),
        ("sysfs", "netdevs", "sysfs", {"netdevs": ()}),
        ("sysfs", "other_managers", "sysfs", {"other_managers": ()}),
        ("sysfs", "vswitchd", "sysfs", {"ovs": Ovs(hw_offload="true")}),
        ("ovsdb", "read", "ovsdb", {"ovs": None}),
        ("udev", "rules", "udev", {"rules": Rules.UNKNOWN}),
        (
            "links",
            "carrying",
            "links",
            {"netdevs": tuple(dataclasses.replace(each, carries_host=False) for each in WHOLE.netdevs)},
        ),
        (
            "udev",
            "unmanaged",
            "udev",
            {"netdevs": tuple(dataclasses.replace(each, unmanaged=False) for each in WHOLE.netdevs)},
        ),
        (
            "devlink",
            f"ports {PF0}",
            PF0,
            {"functions": (PciFunction(PF0, "a2d6", "mlx5_core", EswitchMode.SWITCHDEV), WHOLE.functions[1])},
        ),
        (
            "devlink",
            f"mode {PF1}",
            PF1,
            {"functions": (WHOLE.functions[0], PciFunction(PF1, "a2d6", ""))},
        ),
    ],
)
def test_what_cannot_be_seen_is_said_and_the_rest_is_seen(
    part: str, question: str, what: str, lost: dict[str, object]
) -> None:
    scene = Scene()
    getattr(scene, part).failing[question] = wrong("It is broken.")
    expected = dataclasses.replace(WHOLE, unseen=(Unseen(what, "It is broken.", "Wait."),), **lost)  # type: ignore[arg-type]
    assert scene.look() == expected


def test_a_kernel_without_devlink_is_one_sentence_and_one_question() -> None:
    scene = Scene()
    scene.devlink.failing["mode"] = wrong("This kernel has no devlink.", errno.ENOENT)
    world = scene.look()
    assert world.unseen == (Unseen("devlink", "This kernel has no devlink.", "Wait."),)
    assert [each.mode for each in world.functions] == [EswitchMode.UNKNOWN] * 2
    assert scene.devlink.asked == [f"mode {PF0}"]


def test_a_function_that_does_not_answer_is_not_asked_twice() -> None:
    """Each question that is not answered costs seconds."""
    scene = Scene()
    scene.devlink.failing["mode"] = wrong("The kernel did not answer.")
    assert [each.what for each in scene.look().unseen] == [PF0, PF1]
    assert scene.devlink.asked == [f"mode {PF0}", f"mode {PF1}"]


def test_udev_is_asked_about_the_cards_netdevs_only_and_not_again_once_it_failed() -> None:
    scene = Scene()
    scene.look()
    assert scene.udev.asked == ["unmanaged p0", "unmanaged c1pf0hpf", "rules"]
    scene = Scene()
    scene.udev.failing["unmanaged"] = wrong("udev's database is not there.")
    scene.look()
    assert scene.udev.asked == ["unmanaged p0", "rules"]


def test_a_machine_of_which_nothing_is_seen_is_still_an_observation() -> None:
    scene = Scene()
    for part in (scene.devlink, scene.ovsdb, scene.sysfs, scene.udev, scene.links):
        for question in ("boot_id", "platform", "functions", "netdevs", "other_managers", "read", "rules"):
            part.failing[question] = wrong(f"No {question}.")
    world = scene.look()
    assert dataclasses.replace(world, unseen=()) == World(configuration=CONFIGURATION)
    assert {each.what for each in world.unseen} == {"sysfs", "ovsdb", "udev"}


def test_a_defect_is_not_taken_for_a_machine_that_does_not_answer() -> None:
    scene = Scene()
    scene.ovsdb.failing["read"] = ZeroDivisionError("a defect")  # type: ignore[assignment]
    with pytest.raises(ZeroDivisionError):
        scene.look()


def test_the_real_machine_is_looked_at_in_a_few_seconds_and_left_as_it_is() -> None:
    """Whatever this machine is: nothing fails, and what it lacks is in `unseen`."""
    machine = real.machine(real.default_root())
    try:
        world = observe(machine, CONFIGURATION)
    finally:
        machine.ovsdb.close()
    assert world.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert "lo" in [each.name for each in world.netdevs]
    assert world.configuration == CONFIGURATION
    assert all(each.message.endswith(".") and each.hint.endswith(".") for each in world.unseen)


def test_the_real_parts_are_those_of_the_contract() -> None:
    machine: Machine = real.machine(Path("/"))
    for part in dataclasses.fields(machine):
        protocol = getattr(protocols, part.name.capitalize())
        assert public(protocol) <= public(type(getattr(machine, part.name)))


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


MODULES = """
import json, sys
{}
print(json.dumps(sorted(sys.modules)))
"""


def imported(statement: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", MODULES.format(statement)], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "statement", ["import dpu_agent.observe", "import dpu_agent.replay", "import dpu_agent.host.real"]
)
def test_planning_from_a_file_imports_no_library_of_the_host(statement: str) -> None:
    heavy = {"pyroute2", "ovs", "pyudev", "asyncio", "ctypes", "subprocess", "socket"}
    assert {name.partition(".")[0] for name in imported(statement)} & heavy == set()


def test_a_look_does_not_import_all_of_pyroute2() -> None:
    """It is 330 modules and 26 MiB, and takes longer than a dry run may; whoever imports it later gets it whole."""
    statement = "import dpu_agent.host.devlink, dpu_agent.host.links"
    assert not {name for name in imported(statement) if name.startswith(("pyroute2", "asyncio"))}
    assert "pyroute2.ndb.main" in imported(statement + "\nimport pyroute2\npyroute2.IPRoute, pyroute2.netlink.nlmsg")


def test_only_the_room_host_imports_what_touches_the_machine() -> None:
    package = Path(real.__file__).parents[1]
    forbidden = {"pyroute2", "ovs", "pyudev", "subprocess"}

    def names(path: Path) -> set[str]:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        found |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
        return {name.partition(".")[0] for name in found}

    outside = [path for path in package.rglob("*.py") if "host" not in path.relative_to(package).parts]
    assert {path.name: sorted(names(path) & forbidden) for path in outside if names(path) & forbidden} == {}
