"""Each step: planned where it is needed, with its reason and its disruption, and nowhere else."""

from dataclasses import replace

import pytest

from dpu_agent.decision import Plan, Stage
from dpu_agent.plan import plan
from dpu_agent.steps import (
    AddPort,
    InstallRules,
    MovePort,
    RecreatePort,
    RemovePort,
    RestartVswitchd,
    SetLink,
    SetOffload,
    SetSwitchdev,
    Step,
    TriggerUdev,
)
from dpu_agent.world import OWNER, Bridge, EswitchMode, Interface, OvsPort, Rules, World
from dpu_shared.host_config import Mode, Offload
from dpu_shared.steps import Disruption
from tests.unit.agent.worlds import (
    BLUEFIELD,
    F0,
    F1,
    MACS,
    VSWITCHD,
    actions,
    configured,
    early_boot,
    first_boot,
    healthy,
    held,
    host_vf_port,
    internal,
    legacy,
    netdev,
    ofed_names,
    one_port,
    our_port,
    patch,
    ports_of,
    renamed,
    somebodys_port,
    unseen,
    untold,
    uplink_on,
    with_bridge,
    with_function,
    with_netdev,
    with_ovs,
    with_port,
    without_port,
)


def step_of(found: Plan, kind: type) -> Step:
    (step,) = [step for step in (*found.steps, *found.held) if isinstance(step.action, kind)]
    assert step.why.endswith(".")
    assert not step.why.endswith("..")
    assert step.why[0].isupper() or step.why.startswith("hw-offload")
    return step


@pytest.mark.parametrize("world", [healthy(), ofed_names(), untold(), one_port()])
@pytest.mark.parametrize("stage", list(Stage))
def test_a_healthy_dpu_needs_nothing(world: World, stage: Stage) -> None:
    found = plan(world, stage)
    assert (found.problems, found.steps, found.held) == ((), (), ())


def test_a_plan_names_the_hosts_mac_addresses() -> None:
    assert plan(healthy()).host_pf_macs == tuple(MACS.values())
    assert plan(first_boot()).host_pf_macs == ()


def test_a_fresh_dpu_at_boot_gets_both_eswitches_in_order() -> None:
    found = plan(early_boot(), Stage.EARLY)
    assert actions(found) == [SetSwitchdev(F0), SetSwitchdev(F1)]
    assert [(step.disruption, step.at_boot) for step in found.steps] == [(Disruption.NONE, True)] * 2


def test_the_rules_are_there_before_the_representors_are() -> None:
    found = plan(replace(early_boot(), rules=Rules.ABSENT), Stage.EARLY)
    assert [step.name for step in found.steps] == ["InstallRules", "SetSwitchdev", "SetSwitchdev"]


def test_a_fresh_dpu_in_service_waits_with_its_eswitches_and_does_the_rest() -> None:
    found = plan(first_boot())
    assert actions(found) == [InstallRules(), SetOffload(enabled=True)]
    assert held(found) == [SetSwitchdev(F0), SetSwitchdev(F1), RestartVswitchd()]


# The eswitch.


@pytest.mark.parametrize(
    ("mode", "said"), [(EswitchMode.LEGACY, "in legacy mode"), (EswitchMode.NONE, "has no mode yet")]
)
def test_a_function_that_is_not_in_switchdev_mode_is_put_there(mode: EswitchMode, said: str) -> None:
    world = with_function(early_boot(), F1, mode=mode)
    found = plan(with_function(world, F0, mode=EswitchMode.SWITCHDEV), Stage.EARLY)
    assert actions(found) == [SetSwitchdev(F1)]
    assert said in step_of(found, SetSwitchdev).why


def test_no_eswitch_is_touched_while_another_could_not_be_asked() -> None:
    world = with_function(early_boot(), F1, mode=EswitchMode.UNKNOWN)
    assert plan(world, Stage.EARLY).steps == ()


def test_an_idle_functions_eswitch_disturbs_nobody() -> None:
    step = step_of(plan(legacy(healthy(), F1)), SetSwitchdev)
    assert (step.action, step.disruption, step.at_boot) == (SetSwitchdev(F1), Disruption.NONE, True)


def test_an_uplink_on_a_bridge_would_lose_its_link() -> None:
    step = step_of(plan(legacy(healthy(), F0)), SetSwitchdev)
    assert (step.disruption, step.at_boot) == (Disruption.LINK_FLAP, True)
    assert "p0 is on the bridge br-ex" in step.why


def test_an_uplink_that_the_machine_needs_would_lose_its_link() -> None:
    world = with_netdev(legacy(healthy(), F1), "p1", carries_host=True)
    step = step_of(plan(world), SetSwitchdev)
    assert (step.disruption, step.at_boot) == (Disruption.LINK_FLAP, True)
    assert "p1" in step.why


def test_at_boot_another_boot_does_not_help() -> None:
    world = with_netdev(early_boot(), "enp3s0f0np0", carries_host=True, up=True)
    found = plan(world, Stage.EARLY)
    assert held(found) == [SetSwitchdev(F0), SetSwitchdev(F1)]
    assert [(step.disruption, step.at_boot) for step in found.held] == [
        (Disruption.LINK_FLAP, False),
        (Disruption.NONE, True),
    ]


def test_where_the_database_is_dead_what_is_up_counts_as_in_use() -> None:
    world = replace(legacy(healthy(), F1), ovs=None)
    assert step_of(plan(world), SetSwitchdev).disruption is Disruption.LINK_FLAP
    assert step_of(plan(world, Stage.EARLY), SetSwitchdev).disruption is Disruption.NONE
    down = with_netdev(world, "p1", up=False)
    assert step_of(plan(down), SetSwitchdev).disruption is Disruption.NONE


def test_where_routes_could_not_be_seen_what_is_up_counts_as_in_use() -> None:
    world = legacy(healthy(), F1)
    assert step_of(plan(unseen(world, "links")), SetSwitchdev).disruption is Disruption.LINK_FLAP
    for what in ("devlink", "udev", F0):
        assert step_of(plan(unseen(world, what)), SetSwitchdev).disruption is Disruption.NONE


def test_a_netdev_that_only_devlink_ties_to_the_function_counts() -> None:
    world = with_netdev(legacy(healthy(), F1), "p1", carries_host=True, function="")
    assert step_of(plan(world), SetSwitchdev).disruption is Disruption.LINK_FLAP


def test_a_netdev_that_only_sysfs_ties_to_the_function_counts() -> None:
    world = with_function(with_netdev(legacy(healthy(), F1), "p1", carries_host=True), F1, ports=())
    assert step_of(plan(world), SetSwitchdev).disruption is Disruption.LINK_FLAP


def test_one_eswitch_does_not_go_ahead_of_another_that_must_wait() -> None:
    world = legacy(legacy(healthy(), F0), F1)
    assert held(plan(world)) == [SetSwitchdev(F0), SetSwitchdev(F1)]
    allowed = configured(world, max_disruption=Disruption.LINK_FLAP)
    assert actions(plan(allowed))[:2] == [SetSwitchdev(F0), SetSwitchdev(F1)]


def test_an_eswitch_does_not_wait_for_a_step_of_another_kind() -> None:
    world = with_ovs(legacy(healthy(), F1), offload_set_under=VSWITCHD)
    assert actions(plan(world)) == [SetSwitchdev(F1)]
    assert held(plan(world)) == [RestartVswitchd()]


def test_an_idle_functions_step_speaks_of_nobodys_traffic() -> None:
    idle = "It is in legacy mode, in which the card's flows can't be offloaded."
    assert step_of(plan(legacy(healthy(), F1)), SetSwitchdev).why == idle
    assert step_of(plan(legacy(healthy(), F0)), SetSwitchdev).why == idle[:-1] + "; its p0 is on the bridge br-ex."


# udev.


def test_rules_that_are_not_there_are_installed() -> None:
    found = plan(replace(healthy(), rules=Rules.ABSENT))
    assert actions(found) == [InstallRules()]
    assert step_of(found, InstallRules).disruption is Disruption.NONE


@pytest.mark.parametrize("rules", [Rules.EDITED, Rules.UNKNOWN])
def test_rules_that_are_not_ours_to_judge_are_neither_written_nor_applied(rules: Rules) -> None:
    world = with_netdev(replace(healthy(), rules=rules), "c1pf0hpf", unmanaged=False)
    assert plan(world).steps == ()


@pytest.mark.parametrize("name", ["c1pf0hpf", "c1pf1hpf", "c1pf0vf0"])
@pytest.mark.parametrize("stage", list(Stage))
def test_a_representor_in_networkmanagers_hands_is_taken_out_of_them(name: str, stage: Stage) -> None:
    found = plan(with_netdev(healthy(), name, unmanaged=False), stage)
    assert actions(found) == [TriggerUdev(name)]
    assert "NetworkManager" in step_of(found, TriggerUdev).why


def test_networkmanager_keeps_the_uplinks_and_all_that_is_not_the_cards() -> None:
    assert not any(one.unmanaged for one in healthy().netdevs if one.name in ("p0", "p1", "oob_net0"))
    assert plan(healthy()).steps == ()


def test_an_uplink_keeps_whatever_name_it_has() -> None:
    assert plan(renamed(healthy(), "p0", "enp3s0f0np0")).steps == ()


def test_an_idle_representor_gets_its_name_at_once() -> None:
    world = renamed(healthy(), "c1pf1hpf", "enp3s0f1nc1pf1")
    found = plan(world)
    assert actions(found) == [TriggerUdev("enp3s0f1nc1pf1")]
    assert step_of(found, TriggerUdev).why == "It is not called c1pf1hpf or pf1hpf."
    early = step_of(plan(world, Stage.EARLY), TriggerUdev)
    assert (early.disruption, early.at_boot) == (Disruption.NONE, True)


@pytest.mark.parametrize("stage", list(Stage))
def test_a_representor_in_use_gets_its_name_at_the_next_boot(stage: Stage) -> None:
    found = plan(renamed(healthy(), "c1pf0vf0", "eth3"), stage)
    step = step_of(found, TriggerUdev)
    assert held(found) == [TriggerUdev("eth3")]
    assert step.why == "It is not called c1pf0vf0 or pf0vf0; it is in use, and loses its traffic with its name."
    assert (step.disruption, step.at_boot) == (Disruption.LINK_FLAP, stage is Stage.LATE)


def test_a_name_of_somebodys_choice_is_left_and_the_port_follows_it() -> None:
    world = renamed(without_port(healthy(), "br-ex", "c1pf0hpf"), "c1pf0hpf", "host0")
    world = with_port(world, "br-ex", our_port("c1pf0hpf", -1, "No such device"))
    assert actions(plan(world)) == [RemovePort("br-ex", "c1pf0hpf"), AddPort("br-ex", "host0")]


def test_where_udev_could_not_be_asked_no_netdev_is_called_managed() -> None:
    world = with_netdev(healthy(), "c1pf0hpf", unmanaged=False)
    assert plan(unseen(world, "udev")).steps == ()


def test_a_vf_that_the_host_has_not_made_is_not_missed() -> None:
    world = without_port(healthy(), "br-int", "c1pf0vf0")
    world = with_function(world, F0, ports=world.functions[0].ports[:2])
    world = replace(world, netdevs=tuple(one for one in world.netdevs if one.name != "c1pf0vf0"))
    assert plan(world).problems == ()
    assert plan(world).steps == ()


def test_a_vf_that_came_later_is_looked_after_as_well() -> None:
    late = host_vf_port(1, 0, "eth7")
    world = with_function(healthy(), F1, ports=(*healthy().functions[1].ports, late))
    world = replace(world, netdevs=(*world.netdevs, netdev("eth7", 20, F1, "c1pf1vf0", up=False)))
    assert actions(plan(world)) == [TriggerUdev("eth7")]


# hw-offload.


@pytest.mark.parametrize(
    ("said", "wanted", "changed"),
    [
        ("", Offload.ENABLED, True),
        ("false", Offload.ENABLED, True),
        ("true", Offload.ENABLED, False),
        ("TRUE", Offload.ENABLED, False),
        ("", Offload.DISABLED, False),
        ("false", Offload.DISABLED, False),
        ("true", Offload.DISABLED, True),
    ],
)
def test_offload_is_set_where_it_differs(said: str, wanted: Offload, changed: bool) -> None:  # noqa: FBT001
    found = plan(configured(with_ovs(healthy(), hw_offload=said), hardware_offload=wanted))
    if not changed:
        assert (found.steps, found.held) == ((), ())
        return
    assert actions(found) == [SetOffload(enabled=wanted is Offload.ENABLED)]
    assert held(found) == [RestartVswitchd()]
    assert step_of(found, SetOffload).disruption is Disruption.NONE


def test_what_hw_offload_is_now_is_said_as_it_is() -> None:
    assert "hw-offload is not set, and Enabled" in step_of(plan(with_ovs(healthy(), hw_offload="")), SetOffload).why
    assert "hw-offload is 'no', and Enabled" in step_of(plan(with_ovs(healthy(), hw_offload="no")), SetOffload).why


def test_offload_that_was_set_under_the_running_vswitchd_needs_its_restart() -> None:
    found = plan(with_ovs(healthy(), offload_set_under=VSWITCHD))
    step = step_of(found, RestartVswitchd)
    assert (step.disruption, step.at_boot) == (Disruption.OVS_RESTART, True)
    assert "vswitch.xml" in step.why
    assert held(found) == [RestartVswitchd()]


def test_offload_that_an_earlier_vswitchd_saw_set_is_in_force() -> None:
    assert plan(with_ovs(healthy(), offload_set_under="7c0ffee0/7/11")).held == ()


def test_a_vswitchd_that_does_not_run_needs_no_restart() -> None:
    found = plan(with_ovs(healthy(), vswitchd="", hw_offload="", offload_set_under=""))
    assert actions(found) == [SetOffload(enabled=True)]
    assert held(found) == []


def test_a_restart_that_is_allowed_comes_after_the_setting_and_before_the_port() -> None:
    world = without_port(with_ovs(healthy(), hw_offload=""), "br-ex", "c1pf0hpf")
    found = plan(configured(world, max_disruption=Disruption.OVS_RESTART))
    assert actions(found) == [SetOffload(enabled=True), RestartVswitchd(), AddPort("br-ex", "c1pf0hpf")]


# The link.


def test_a_representor_that_is_down_is_brought_up() -> None:
    found = plan(with_netdev(healthy(), "c1pf0hpf", up=False))
    assert actions(found) == [SetLink("c1pf0hpf", up=True, mtu=None)]
    assert step_of(found, SetLink).why == "It is down."


@pytest.mark.parametrize(("own", "uplinks", "mtu"), [(1500, 9000, 9000), (9000, 1500, None), (1500, 1500, None)])
def test_the_mtu_lets_through_what_the_uplink_does_and_is_never_lowered(
    own: int, uplinks: int, mtu: int | None
) -> None:
    found = plan(with_netdev(with_netdev(healthy(), "p0", mtu=uplinks), "c1pf0hpf", mtu=own))
    assert actions(found) == ([SetLink("c1pf0hpf", up=True, mtu=mtu)] if mtu else [])
    assert [step.why for step in found.steps] == ([f"Its MTU {own} is below the {uplinks} of p0."] if mtu else [])


def test_down_and_short_are_mended_in_one_step() -> None:
    found = plan(with_netdev(with_netdev(healthy(), "p0", mtu=9000), "c1pf0hpf", up=False))
    assert actions(found) == [SetLink("c1pf0hpf", up=True, mtu=9000)]
    assert step_of(found, SetLink).why == "It is down and its MTU 1500 is below the 9000 of p0."


def test_the_other_ports_representor_and_the_vfs_are_not_ours_to_bring_up() -> None:
    world = with_netdev(with_netdev(healthy(), "c1pf0vf0", up=False), "p1", mtu=9000)
    assert plan(world).steps == ()


def test_a_uplink_whose_netdev_is_not_seen_asks_for_no_mtu() -> None:
    world = replace(healthy(), netdevs=tuple(one for one in healthy().netdevs if one.name != "p0"))
    assert plan(world).steps == ()


# The port.


def test_a_lost_port_is_added_again() -> None:
    found = plan(without_port(healthy(), "br-ex", "c1pf0hpf"))
    assert actions(found) == [AddPort("br-ex", "c1pf0hpf")]
    step = step_of(found, AddPort)
    assert step.disruption is Disruption.NONE
    assert "p0 is on br-ex" in step.why


@pytest.mark.parametrize("world", [untold(), ofed_names()])
def test_a_lost_port_is_found_by_identity_and_added_under_its_name(world: World) -> None:
    name = next(port.name for port in ports_of(world, "br-ex") if "hpf" in port.name)
    assert actions(plan(without_port(world, "br-ex", name))) == [AddPort("br-ex", name)]


def test_the_link_is_up_before_the_port_is_added() -> None:
    world = with_netdev(without_port(healthy(), "br-ex", "c1pf0hpf"), "c1pf0hpf", up=False)
    assert [step.name for step in plan(world).steps] == ["SetLink", "AddPort"]


@pytest.mark.parametrize(
    "port",
    [
        somebodys_port(),
        our_port(ofport=1),
        replace(somebodys_port(), network_manager=True),
        OvsPort("rep0", (Interface("c1pf0hpf", "system", 5),)),
        # Without `transient` it is stale for a moment after a boot and then made anew; now it works, so it stays.
        replace(our_port(), transient=False),
    ],
)
def test_a_port_that_works_is_left_alone_whoever_added_it(port: OvsPort) -> None:
    world = with_port(without_port(healthy(), "br-ex", "c1pf0hpf"), "br-ex", port)
    assert (plan(world).steps, plan(world).held, plan(world).problems) == ((), (), ())


@pytest.mark.parametrize(
    ("ofport", "error"),
    [(-1, "could not open network device c1pf0hpf (No such device)"), (-1, ""), (0, ""), (None, "it is gone.")],
)
def test_our_port_that_could_not_be_opened_is_made_anew(ofport: int | None, error: str) -> None:
    found = plan(with_port(healthy(), "br-ex", our_port(ofport=ofport, error=error)))
    assert found.problems == ()
    assert actions(found) == [RecreatePort("br-ex", "c1pf0hpf")]
    assert (error or f"ofport {ofport}") in step_of(found, RecreatePort).why


def elsewhere(port: OvsPort) -> World:
    return with_port(without_port(healthy(), "br-ex", "c1pf0hpf"), "br-int", port)


def test_our_port_on_another_bridge_is_moved() -> None:
    found = plan(elsewhere(our_port()))
    assert actions(found) == [MovePort("br-int", "br-ex", "c1pf0hpf")]
    assert step_of(found, MovePort).disruption is Disruption.NONE


def test_somebody_elses_port_on_another_bridge_waits_for_permission() -> None:
    found = plan(elsewhere(somebodys_port()))
    step = step_of(found, MovePort)
    assert held(found) == [MovePort("br-int", "br-ex", "c1pf0hpf")]
    assert (step.disruption, step.at_boot) == (Disruption.LINK_FLAP, False)
    allowed = plan(configured(elsewhere(somebodys_port()), max_disruption=Disruption.LINK_FLAP))
    assert actions(allowed) == [MovePort("br-int", "br-ex", "c1pf0hpf")]


def test_a_port_under_an_old_name_is_removed_before_the_new_one_is_added() -> None:
    world = with_port(without_port(healthy(), "br-ex", "c1pf0hpf"), "br-ex", our_port("pf0hpf", -1, "No such device"))
    found = plan(world)
    assert actions(found) == [RemovePort("br-ex", "pf0hpf"), AddPort("br-ex", "c1pf0hpf")]
    assert "c1pf0hpf now" in step_of(found, RemovePort).why


def test_our_stale_port_is_removed_from_whichever_bridge_it_is_on() -> None:
    found = plan(with_port(healthy(), "br-int", our_port("pf0hpf", -1, "No such device")))
    assert actions(found) == [RemovePort("br-int", "pf0hpf")]


def test_the_host_pf_of_a_former_uplink_leaves_the_bridge() -> None:
    ports = (internal("br-ex"), uplink_on("p1"), our_port("c1pf0hpf"))
    found = plan(with_netdev(with_bridge(healthy(), "br-ex", ports=ports), "c1pf1hpf", up=True))
    assert actions(found) == [RemovePort("br-ex", "c1pf0hpf"), AddPort("br-ex", "c1pf1hpf")]


@pytest.mark.parametrize(
    "port",
    [
        replace(uplink_on("p0"), owner=OWNER, network_manager=False),
        replace(internal("br-ex"), owner=OWNER, network_manager=False),
        replace(patch("patch-br-ex-to-br-int"), owner=OWNER),
        replace(somebodys_port("veth7"), owner="somebody"),
        somebodys_port("pf0hpf", -1, "No such device"),
        replace(our_port("pf0hpf", -1, "No such device"), network_manager=True),
    ],
)
def test_only_a_stale_port_of_ours_is_removed(port: OvsPort) -> None:
    world = with_port(healthy(), "br-ex", port)
    assert port in ports_of(world, "br-ex")
    assert (plan(world).steps, plan(world).held) == ((), ())


def test_a_port_that_holds_the_host_pf_among_others_is_not_stale() -> None:
    both = replace(our_port("bond7"), interfaces=(Interface("x", "", 8), Interface("c1pf0hpf", "", 9)))
    world = with_port(without_port(healthy(), "br-ex", "c1pf0hpf"), "br-ex", both)
    assert plan(world).steps == ()


def test_a_stale_port_of_two_interfaces_is_removed_once() -> None:
    both = replace(our_port("bond7"), interfaces=(Interface("x", "", -1), Interface("y", "", -1)))
    assert actions(plan(with_port(healthy(), "br-ex", both))) == [RemovePort("br-ex", "bond7")]


# What waits.


@pytest.mark.parametrize("limit", list(Disruption))
def test_no_step_is_above_the_limit(limit: Disruption) -> None:
    world = configured(elsewhere_and_fresh(), max_disruption=limit)
    found = plan(world)
    assert not [step for step in found.steps if step.disruption.exceeds(limit)]
    assert {step.name for step in (*found.steps, *found.held)} == {
        "InstallRules",
        "TriggerUdev",
        "SetOffload",
        "RestartVswitchd",
        "MovePort",
    }


def elsewhere_and_fresh() -> World:
    world = renamed(elsewhere(somebodys_port()), "c1pf0vf0", "eth3")
    return replace(with_ovs(world, hw_offload=""), rules=Rules.ABSENT)


@pytest.mark.parametrize("limit", list(Disruption))
def test_in_report_only_mode_everything_waits(limit: Disruption) -> None:
    world = elsewhere_and_fresh()
    everything = plan(configured(world, max_disruption=Disruption.REBOOT))
    found = plan(configured(world, max_disruption=limit, mode=Mode.REPORT_ONLY))
    assert found.steps == ()
    assert found.held == everything.steps


def test_the_bridge_of_the_configuration_is_the_one() -> None:
    wan = Bridge("br-wan", ports=(internal("br-wan"), uplink_on("p1")))
    world = configured(with_ovs(healthy(), bridges=(wan,)), bridge="br-wan")
    assert actions(plan(world)) == [SetLink("c1pf1hpf"), AddPort("br-wan", "c1pf1hpf")]


def test_nothing_is_ever_put_back_into_legacy_mode() -> None:
    world = configured(healthy(), hardware_offload=Offload.DISABLED)
    assert {step.name for step in (*plan(world).steps, *plan(world).held)} == {"SetOffload", "RestartVswitchd"}


def test_the_firmwares_name_of_the_card_changes_no_plan() -> None:
    world = replace(first_boot(), platform=replace(BLUEFIELD, product_name="BlueField-2 SmartNIC Main Card"))
    assert plan(world) == plan(first_boot())
