"""Problems of Open vSwitch, the bridge, and the host PF's port on it: each both ways."""

from dataclasses import replace

import pytest

from dpu_agent.decision import Blocks
from dpu_agent.plan import plan
from dpu_agent.steps import AddPort, SetOffload
from dpu_agent.world import Bridge, EswitchMode, Flavour, Interface, OvsPort, Port, Rules, World
from dpu_shared.node_report import State
from tests.unit.agent.worlds import (
    F0,
    F1,
    actions,
    configured,
    first_boot,
    function_of,
    healthy,
    held,
    host_pf_port,
    internal,
    legacy,
    our_port,
    patch,
    ports_of,
    problem_of,
    reasons,
    renamed,
    somebodys_port,
    unseen,
    uplink_on,
    uplink_port,
    with_bridge,
    with_function,
    with_netdev,
    with_ovs,
    with_port,
    without_host_pf,
    without_port,
)


def test_a_database_that_does_not_answer_keeps_us_from_the_bridge_only() -> None:
    world = replace(healthy(), ovs=None, rules=Rules.ABSENT)
    found = plan(world)
    problem = problem_of(found, "OvsUnavailable")
    assert (problem.state, problem.blocks) == (State.DEGRADED, Blocks.BRIDGE)
    assert [step.name for step in found.steps] == ["InstallRules"]


def test_why_the_database_does_not_answer_is_said_once() -> None:
    world = unseen(replace(healthy(), ovs=None), "ovsdb")
    assert problem_of(plan(world), "OvsUnavailable").message == "The part ovsdb did not answer."


def test_a_dead_vswitchd_is_reported_and_its_old_answers_are_not_believed() -> None:
    world = with_port(with_ovs(healthy(), vswitchd="", hw_offload=""), "br-ex", our_port(ofport=-1, error="old."))
    found = plan(world)
    problem = problem_of(found, "VswitchdDown")
    assert (problem.state, problem.blocks) == (State.DEGRADED, Blocks.BRIDGE)
    assert actions(found) == [SetOffload(enabled=True)]
    foreign = with_port(world, "br-ex", somebodys_port(ofport=-1, error="old"))
    assert reasons(plan(foreign)) == ["VswitchdDown"]
    pending = with_port(world, "br-ex", our_port(ofport=None))
    assert reasons(plan(pending)) == ["VswitchdDown"]


def test_a_bridge_that_is_not_there_is_waited_for() -> None:
    found = plan(configured(healthy(), bridge="br-wan"))
    problem = problem_of(found, "BridgeAbsent")
    assert (problem.state, problem.blocks) == (State.PROGRESSING, Blocks.BRIDGE)
    assert "br-wan" in problem.message
    assert "(it has: br-ex, br-int)" in problem.message
    assert found.steps == ()
    ovs = healthy().ovs
    assert ovs is not None
    backwards = with_ovs(healthy(), bridges=(*reversed(ovs.bridges), Bridge("br-a")))
    assert (
        "(it has: br-a, br-ex, br-int)" in problem_of(plan(configured(backwards, bridge="b")), "BridgeAbsent").message
    )
    assert "(it has: none)" in problem_of(plan(with_ovs(healthy(), bridges=())), "BridgeAbsent").message


@pytest.mark.parametrize(("kind", "fine"), [("", True), ("system", True), ("netdev", False)])
def test_only_a_bridge_of_the_kernels_datapath_will_do(kind: str, fine: bool) -> None:  # noqa: FBT001
    found = plan(with_bridge(without_port(healthy(), "br-ex", "c1pf0hpf"), "br-ex", datapath_type=kind))
    if fine:
        assert found.problems == ()
        assert actions(found) == [AddPort("br-ex", "c1pf0hpf")]
    else:
        problem = problem_of(found, "BridgeNotKernel")
        assert (problem.state, problem.blocks) == (State.BLOCKED, Blocks.BRIDGE)
        assert found.steps == ()


@pytest.mark.parametrize("ports", [(), (internal("br-ex"), patch("to-br-int")), (internal("br-ex"), our_port())])
def test_a_bridge_that_is_being_built_has_no_uplink_yet(ports: tuple[OvsPort, ...]) -> None:
    found = plan(with_bridge(healthy(), "br-ex", ports=ports))
    problem = problem_of(found, "UplinkAbsent")
    assert (problem.state, problem.blocks) == (State.PROGRESSING, Blocks.BRIDGE)
    assert found.steps == ()


@pytest.mark.parametrize("name", ["oob_net0", "bond0", "p0.100"])
def test_a_bridge_on_another_device_needs_a_person(name: str) -> None:
    found = plan(with_bridge(healthy(), "br-ex", ports=(internal("br-ex"), uplink_on(name))))
    problem = problem_of(found, "UplinkAbsent")
    assert (problem.state, problem.blocks) == (State.BLOCKED, Blocks.BRIDGE)
    assert name in problem.message
    assert found.steps == ()


def test_an_uplink_is_not_missed_where_the_pci_bus_was_not_seen() -> None:
    world = replace(healthy(), functions=())
    assert "UplinkAbsent" in reasons(plan(world))
    assert reasons(plan(unseen(world, "sysfs"))) == ["Unseen"]
    assert plan(unseen(world, "sysfs")).steps == ()
    bare = unseen(with_bridge(healthy(), "br-ex", ports=()), "sysfs")
    assert reasons(plan(bare)) == ["UplinkAbsent", "Unseen"]


BOND = OvsPort("bond0", (Interface("p0", "system", 1), Interface("p1", "system", 2)))


@pytest.mark.parametrize("uplinks", [(uplink_on("p0"), uplink_on("p1")), (BOND,)])
def test_several_uplinks_are_not_chosen_from(uplinks: tuple[OvsPort, ...]) -> None:
    found = plan(with_bridge(healthy(), "br-ex", ports=(internal("br-ex"), *uplinks)))
    problem = problem_of(found, "SeveralUplinks")
    assert (problem.state, problem.blocks) == (State.BLOCKED, Blocks.BRIDGE)
    assert "p0, p1" in problem.message
    assert found.steps == ()


def test_the_uplink_may_be_either_port_of_the_card() -> None:
    world = with_bridge(healthy(), "br-ex", ports=(internal("br-ex"), uplink_on("p1")))
    found = plan(world)
    assert found.problems == ()
    assert AddPort("br-ex", "c1pf1hpf") in actions(found)


def test_a_missing_host_pf_may_be_late_or_the_cards_mode_is_wrong() -> None:
    found = plan(without_host_pf(without_port(healthy(), "br-ex", "c1pf0hpf"), F0))
    problem = problem_of(found, "HostPfAbsent")
    assert (problem.state, problem.blocks) == (State.PROGRESSING, Blocks.BRIDGE)
    assert F0 in problem.message
    assert "separated-host mode" in problem.hint
    assert f"mstconfig -d {F0}" in problem.hint
    assert found.steps == ()


def test_our_port_waits_for_a_host_pf_that_went_away() -> None:
    world = without_host_pf(with_port(healthy(), "br-ex", our_port(ofport=-1, error="No such device")), F0)
    assert reasons(plan(world)) == ["HostPfAbsent"]
    assert plan(world).steps == ()


def test_the_host_pf_of_the_other_port_is_not_missed() -> None:
    assert plan(without_host_pf(healthy(), F1)).problems == ()


def test_without_a_bridge_a_card_that_shows_no_host_pf_at_all_is_told_of() -> None:
    bridgeless = configured(healthy(), bridge="br-wan")
    assert reasons(plan(bridgeless)) == ["BridgeAbsent"]
    assert reasons(plan(without_host_pf(bridgeless, F0))) == ["BridgeAbsent"]
    assert reasons(plan(without_host_pf(without_host_pf(bridgeless, F0), F1))) == ["BridgeAbsent", "HostPfAbsent"]
    assert reasons(plan(legacy(without_host_pf(bridgeless, F0), F1))) == ["BridgeAbsent"]


def test_a_host_pf_is_not_missed_where_devlink_could_not_be_asked() -> None:
    world = unseen(without_host_pf(without_port(healthy(), "br-ex", "c1pf0hpf"), F0), F0)
    assert reasons(plan(world)) == ["EswitchUnseen"]
    unknown = with_function(world, F0, mode=EswitchMode.UNKNOWN)
    assert reasons(plan(replace(unknown, unseen=()))) == ["EswitchUnseen"]


@pytest.mark.parametrize("name", ["", "elsewhere"])
def test_a_host_pf_without_a_netdev_here_is_waited_for(name: str) -> None:
    port = replace(host_pf_port(0), netdev=name)
    world = with_function(without_port(healthy(), "br-ex", "c1pf0hpf"), F0, ports=(uplink_port(0), port))
    world = replace(world, netdevs=tuple(one for one in world.netdevs if not one.name.startswith("c1pf0")))
    problem = problem_of(plan(world), "HostPfAbsent")
    assert problem.state is State.PROGRESSING
    assert "namespace" in problem.message
    assert plan(world).steps == ()


def test_of_several_hosts_none_is_chosen() -> None:
    second = Port(77, Flavour.PCI_PF, "c2pf0hpf", controller=2, external=True, pf=0)
    world = with_function(healthy(), F0, ports=(*function_of(healthy(), F0).ports, second))
    problem = problem_of(plan(world), "SeveralHostPfs")
    assert (problem.state, problem.blocks) == (State.BLOCKED, Blocks.BRIDGE)
    assert "c1pf0hpf, c2pf0hpf" in problem.message
    assert plan(world).steps == ()
    nameless = with_function(healthy(), F0, ports=(*healthy().functions[0].ports, replace(second, netdev="")))
    assert "c1pf0hpf, 77" in problem_of(plan(nameless), "SeveralHostPfs").message


def test_before_switchdev_mode_the_host_pf_is_announced_and_not_missed() -> None:
    found = plan(first_boot())
    problem = problem_of(found, "HostPfPending")
    assert (problem.state, problem.blocks) == (State.PROGRESSING, Blocks.BRIDGE)
    assert F0 in problem.message


def test_a_card_in_the_wrong_mode_has_no_host_pf_to_wait_for() -> None:
    assert reasons(plan(with_function(first_boot(), F0, mode=EswitchMode.UNSUPPORTED))) == ["NotEswitchManager"]


def unruly(rules: Rules = Rules.PRESENT) -> World:
    """The host PF's representor as systemd names it, down, and on no bridge."""
    world = renamed(without_port(healthy(), "br-ex", "c1pf0hpf"), "c1pf0hpf", "enp3s0f0nc1pf0")
    return replace(with_netdev(world, "enp3s0f0nc1pf0", up=False, unmanaged=False), rules=rules)


@pytest.mark.parametrize("rules", [Rules.PRESENT, Rules.ABSENT])
def test_a_host_pf_is_added_under_the_name_that_it_keeps(rules: Rules) -> None:
    found = plan(unruly(rules))
    problem = problem_of(found, "HostPfPending")
    assert (problem.state, problem.blocks) == (State.PROGRESSING, Blocks.BRIDGE)
    assert [step.name for step in found.steps][-1] == "TriggerUdev"


def test_a_host_pf_that_is_seen_in_spite_of_a_silent_devlink_is_looked_after() -> None:
    world = unseen(with_function(unruly(), F0, ports=()), F0)
    assert reasons(plan(world)) == ["HostPfPending", "EswitchUnseen"]


@pytest.mark.parametrize("rules", [Rules.EDITED, Rules.UNKNOWN])
def test_a_host_pf_that_nobody_renames_is_added_as_it_is(rules: Rules) -> None:
    assert actions(plan(unruly(rules)))[-1] == AddPort("br-ex", "enp3s0f0nc1pf0")


def test_a_host_pf_that_is_up_is_added_as_it_is_and_renamed_at_the_next_boot() -> None:
    found = plan(with_netdev(unruly(), "enp3s0f0nc1pf0", up=True))
    assert actions(found) == [AddPort("br-ex", "enp3s0f0nc1pf0")]
    assert [step.name for step in found.held] == ["TriggerUdev"]


def test_somebody_elses_broken_port_is_reported_with_its_error() -> None:
    world = with_port(healthy(), "br-ex", somebodys_port(ofport=-1, error="could not open c1pf0hpf"))
    found = plan(world)
    problem = problem_of(found, "ForeignPortBroken")
    assert (problem.state, problem.blocks) == (State.DEGRADED, Blocks.NOTHING)
    assert "could not open c1pf0hpf" in problem.message
    assert "del-port br-ex c1pf0hpf" in problem.hint
    assert found.steps == ()


def test_a_port_with_our_tag_that_networkmanager_made_is_not_ours() -> None:
    port = replace(our_port(ofport=-1), network_manager=True)
    found = plan(with_port(healthy(), "br-ex", port))
    assert "ofport -1" in problem_of(found, "ForeignPortBroken").message
    assert (found.steps, held(found)) == ((), [])


@pytest.mark.parametrize("port", [our_port(ofport=None), somebodys_port(ofport=None)])
def test_a_port_that_vswitchd_has_not_opened_yet_is_waited_for(port: OvsPort) -> None:
    found = plan(with_port(healthy(), "br-ex", port))
    problem = problem_of(found, "PortPending")
    assert (problem.state, problem.blocks) == (State.PROGRESSING, Blocks.BRIDGE)
    assert found.steps == ()
    assert "last change" not in problem.message
    behind = plan(with_ovs(with_port(healthy(), "br-ex", port), pending=True))
    assert "last change" in problem_of(behind, "PortPending").message


def test_a_pending_change_of_somebody_else_is_not_our_business() -> None:
    assert plan(with_ovs(healthy(), pending=True)).problems == ()


def test_a_port_that_is_not_opened_on_another_bridge_is_moved_all_the_same() -> None:
    world = without_port(healthy(), "br-ex", "c1pf0hpf")
    world = with_port(world, "br-int", our_port(ofport=None))
    assert "PortPending" not in reasons(plan(world))
    assert [step.name for step in plan(world).steps] == ["MovePort"]


def test_the_bridge_is_found_by_its_name_among_others() -> None:
    ovs = healthy().ovs
    assert ovs is not None
    world = with_ovs(healthy(), bridges=(Bridge("br-a"), *ovs.bridges))
    assert plan(world).problems == ()
    assert ports_of(world, "br-a") == ()
