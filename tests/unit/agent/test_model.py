"""The model machine itself: it does what a step says, and refuses what no machine does."""

from dataclasses import replace

import pytest

from dpu_agent.steps import (
    Action,
    AddPort,
    InstallRules,
    MovePort,
    RemovePort,
    RestartVswitchd,
    SetLink,
    SetOffload,
    SetSwitchdev,
    Step,
    TriggerUdev,
)
from dpu_agent.world import Bridge, EswitchMode, Rules, World
from tests.unit.agent import worlds as w
from tests.unit.agent.model import ImpossibleError, UselessError, after, check, settled


def done(world: World, action: Action) -> World:
    return after(world, Step(action, "A test."))


POSSIBLE = [
    w.healthy(),
    w.first_boot(),
    w.early_boot(),
    w.ofed_names(),
    w.untold(),
    w.one_port(),
    w.server_with_card(),
    w.legacy(w.healthy(), w.F0),
]


@pytest.mark.parametrize("world", POSSIBLE)
def test_the_worlds_of_these_tests_are_possible(world: World) -> None:
    check(world)
    assert settled(world) == world, "nothing is left to be taken up"


@pytest.mark.parametrize(
    "world",
    [
        replace(w.healthy(), functions=w.healthy().functions * 2),
        replace(w.healthy(), netdevs=(*w.healthy().netdevs, w.netdev("p0", 99))),
        replace(w.healthy(), netdevs=(*w.healthy().netdevs, w.netdev("new", 4))),
        w.with_function(w.healthy(), w.F0, mode=EswitchMode.LEGACY),
        w.with_function(w.healthy(), w.F0, driver=""),
        w.with_function(w.healthy(), w.F0, ports=(w.uplink_port(0),) * 2),
        w.with_ovs(w.healthy(), bridges=(Bridge("a"), Bridge("a"))),
        w.with_port(w.healthy(), "br-int", w.our_port()),
        w.with_port(w.healthy(), "br-int", w.our_port("nothing", 5)),
        w.with_port(w.healthy(), "br-ex", w.our_port(ofport=3, error="it is broken")),
    ],
)
def test_an_impossible_world_is_refused(world: World) -> None:
    with pytest.raises(ImpossibleError):
        check(world)


@pytest.mark.parametrize(
    "action",
    [
        SetSwitchdev(w.F0),
        TriggerUdev("p0"),
        TriggerUdev("nothing"),
        AddPort("br-ex", "c1pf0hpf"),
        RemovePort("br-ex", "nothing"),
        SetLink("nothing"),
    ],
)
def test_a_machine_refuses_what_makes_no_sense(action: Action) -> None:
    with pytest.raises(ImpossibleError):
        done(w.healthy(), action)


@pytest.mark.parametrize("action", [InstallRules(), TriggerUdev("c1pf0hpf"), SetLink("c1pf0hpf")])
def test_a_step_without_effect_is_noticed(action: Action) -> None:
    with pytest.raises(UselessError):
        done(w.healthy(), action)


def test_no_rules_are_installed_over_edited_ones_and_no_vswitchd_restarted_that_is_dead() -> None:
    with pytest.raises(ImpossibleError):
        done(replace(w.healthy(), rules=Rules.EDITED), InstallRules())
    with pytest.raises(ImpossibleError):
        done(w.with_ovs(w.healthy(), vswitchd=""), RestartVswitchd())
    with pytest.raises(ImpossibleError):
        done(replace(w.healthy(), ovs=None), SetOffload(enabled=True))


@pytest.mark.parametrize(("rules", "name"), [(Rules.PRESENT, "c1pf0hpf"), (Rules.ABSENT, "enp3s0f0nc1pf0")])
def test_switchdev_mode_brings_the_host_pf_under_the_name_that_the_rules_give(rules: Rules, name: str) -> None:
    world = done(replace(w.early_boot(), rules=rules), SetSwitchdev(w.F0))
    assert [one.name for one in world.netdevs if one.phys_port_name == "c1pf0"] == [name]


def test_a_rename_takes_the_name_from_under_open_vswitch() -> None:
    world = done(w.renamed(w.healthy(), "c1pf0hpf", "eth3"), TriggerUdev("eth3"))
    (port,) = [port for port in w.ports_of(world, "br-ex") if port.name == "eth3"]
    assert "No such device" in port.interfaces[0].error


def test_a_moved_port_is_gone_from_where_it_was() -> None:
    world = w.with_port(w.without_port(w.healthy(), "br-ex", "c1pf0hpf"), "br-int", w.our_port())
    world = done(world, MovePort("br-int", "br-ex", "c1pf0hpf"))
    assert "c1pf0hpf" in {port.name for port in w.ports_of(world, "br-ex")}
    assert "c1pf0hpf" not in {port.name for port in w.ports_of(world, "br-int")}
