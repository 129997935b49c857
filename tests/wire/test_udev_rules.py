"""The agent's udev rules, as udev itself takes them."""

from pathlib import Path

import pytest

from dpu_agent.host.udev import RULES
from tests.wire.udev_room import Room

OURS = {RULES.name: RULES.read_text()}
GENERATED = "enp3s0f0npf0vf0"


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path, dict(OURS), systemd_name=GENERATED)


def test_udev_has_nothing_to_say_about_the_file(room: Room) -> None:
    assert room.event().complaints == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('ENV{NM_UNMANAGED}="1"', 'ENV{NM_UNMANAGED="1"'),
        ('NAME="$attr{phys_port_name}hpf"', 'NAM="$attr{phys_port_name}hpf"'),
        ('LABEL="dpu_network_operator_end"', 'LABEL="elsewhere"'),
    ],
)
def test_udev_would_have_said_something_about_a_mistake(room: Room, before: str, after: str) -> None:
    assert before in room.rules[RULES.name]
    room.rules[RULES.name] = room.rules[RULES.name].replace(before, after)
    assert room.event().complaints != []


@pytest.mark.parametrize(
    ("port", "name"),
    [
        ("c1pf0", "c1pf0hpf"),
        ("c1pf1", "c1pf1hpf"),
        ("pf0", "pf0hpf"),
        ("c1pf0vf0", "c1pf0vf0"),
        ("c2pf1vf126", "c2pf1vf126"),
        ("pf0vf3", "pf0vf3"),
    ],
)
@pytest.mark.parametrize("systemd_name", ["", GENERATED, "eth4"])
def test_a_representor_gets_its_name_and_networkmanager_leaves_it(
    room: Room, port: str, name: str, systemd_name: str
) -> None:
    room.phys_port_name, room.systemd_name = port, systemd_name
    verdict = room.event()
    assert (verdict.name, verdict.given) == (name, [name])
    assert verdict.unmanaged


@pytest.mark.parametrize("port", ["p0", "p1", "c1pf0sf1", "pf0sf88", "", None, "12", "sw1p2"])
def test_uplinks_subfunctions_and_others_are_left_alone(room: Room, port: str | None) -> None:
    room.phys_port_name = port
    verdict = room.event()
    assert verdict.name == GENERATED
    assert not verdict.unmanaged


def test_another_vendors_representor_is_left_alone(room: Room) -> None:
    room.vendor = "0x8086"
    assert not room.event().unmanaged
    room.vendor, room.driver = "0x15b3", "vfio-pci"
    assert not room.event().unmanaged


@pytest.mark.parametrize("action", ["change", "move", "bind", "online"])
def test_networkmanagers_hands_are_kept_off_at_every_event_and_names_are_given_only_once(
    room: Room, action: str
) -> None:
    """Of a property that one event does not set, udev's database has nothing any more."""
    room.systemd_name = ""
    verdict = room.event(action)
    assert verdict.unmanaged
    assert verdict.name == room.name
    assert verdict.given == []


def test_a_netdev_that_goes_is_not_touched(room: Room) -> None:
    assert not room.event("remove").unmanaged


@pytest.mark.parametrize("name", ["pf0hpf", "c1pf0hpf", "rep0"])
def test_a_netdev_that_has_been_renamed_keeps_its_name(room: Room, name: str) -> None:
    """systemd keeps such a name: that is how the agent's own trigger finds a netdev that is well."""
    room.name = room.systemd_name = name
    verdict = room.event()
    assert verdict.name == name
    assert verdict.unmanaged


def test_a_name_that_an_earlier_rule_gave_stays(room: Room) -> None:
    room.others = {"20-switchdev-0000:03:00.0.rules": 'SUBSYSTEM=="net", ACTION=="add", NAME="p0_0"\n'}
    verdict = room.event()
    assert verdict.name == "p0_0"
    assert verdict.unmanaged


def test_the_vendors_own_naming_rule_wins_whatever_it_calls_it(room: Room) -> None:
    """MLNX_OFED's rule and the one of the earlier operator have this file's name."""
    room.others = {
        "82-net-setup-link.rules": (
            'SUBSYSTEM=="net", ACTION=="add", ATTR{phys_port_name}!="", NAME="$attr{phys_port_name}vendor"\n'
        )
    }
    verdict = room.event()
    assert verdict.name == "c1pf0vendor"
    assert verdict.unmanaged
