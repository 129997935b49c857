"""Which machine this is, and which port is what."""

from dataclasses import replace

import pytest

from dpu_agent.identity import (
    expected_names,
    functions,
    host_pf_macs,
    host_pfs,
    in_use,
    is_dpu,
    named_right,
    ports,
    representors,
    ruled,
    says_two_ports,
    uplink_names,
)
from dpu_agent.world import EswitchMode, Flavour, Platform, Port, Rules
from tests.unit.agent.worlds import (
    BLUEFIELD,
    F0,
    F1,
    SERVER,
    first_boot,
    function_of,
    healthy,
    host_pf_port,
    host_vf_port,
    netdev,
    ofed_names,
    unseen,
    untold,
    uplink_port,
    with_function,
    with_netdev,
    with_ovs,
)


@pytest.mark.parametrize(
    "platform",
    [
        BLUEFIELD,
        Platform(acpi_bluefield=True),
        Platform(architecture="x86_64", acpi_bluefield=True),
        Platform(product_name="BlueField-3 SmartNIC Main Card"),
        Platform(architecture="aarch64", root_port_vendor="15b3"),
    ],
)
def test_each_sign_of_the_arm_side_is_enough(platform: Platform) -> None:
    assert is_dpu(platform)


@pytest.mark.parametrize(
    "platform",
    [
        SERVER,
        Platform(),
        Platform(architecture="aarch64", product_name="HPE ProLiant RL300", root_port_vendor="1def"),
        Platform(architecture="x86_64", root_port_vendor="15b3"),
        Platform(architecture="aarch64", product_name="Board for BlueField-2"),
    ],
)
def test_a_host_is_no_dpu_whatever_cards_it_holds(platform: Platform) -> None:
    assert not is_dpu(platform)


@pytest.mark.parametrize(
    ("name", "two"),
    [
        ("BlueField-2 DPU 25GbE, 2-port", True),
        ("BlueField-2 DPU 25GbE Dual-Port SFP56", True),
        ("BlueField-2 E-Series DPU 100GbE, 1-port", False),
        ("BlueField-2 SmartNIC Main Card", False),
        ("BlueField-2 DPU 25GbE, 12-port", False),
        ("", False),
    ],
)
def test_the_products_name_tells_of_two_ports(name: str, two: bool) -> None:  # noqa: FBT001
    assert says_two_ports(Platform(product_name=name)) is two


def test_functions_come_once_each_and_in_the_order_of_their_addresses() -> None:
    world = healthy()
    shuffled = replace(world, functions=(*reversed(world.functions), world.functions[0]))
    assert [function.address for function in functions(shuffled)] == [F0, F1]


@pytest.mark.parametrize(
    ("said", "flavour", "pf", "vf"),
    [
        ("c1pf0", Flavour.PCI_PF, 0, None),
        ("pf0", Flavour.PCI_PF, 0, None),
        ("c1pf1", Flavour.PCI_PF, 1, None),
        ("c1pf0vf12", Flavour.PCI_VF, 0, 12),
        ("pf0vf3", Flavour.PCI_VF, 0, 3),
        ("p1", Flavour.PHYSICAL, None, None),
    ],
)
def test_a_port_name_tells_where_devlink_does_not(said: str, flavour: Flavour, pf: int | None, vf: int | None) -> None:
    function = replace(healthy().functions[0], ports=())
    world = replace(healthy(), functions=(function,), netdevs=(netdev("x", 9, F0, said), netdev("y", 10, F1, said)))
    (port,) = ports(world, function)
    assert (port.flavour, port.pf, port.vf, port.netdev) == (flavour, pf, vf, "x")


@pytest.mark.parametrize("said", ["pf0sf0", "c1pf0sf4", "p0s1", "12", "-1", "eth0", ""])
def test_a_port_name_of_something_else_tells_nothing_in_switchdev_mode(said: str) -> None:
    function = replace(healthy().functions[0], ports=())
    world = replace(healthy(), functions=(function,), netdevs=(netdev("x", 9, F0, said),))
    assert ports(world, function) == ()


def test_a_netdev_of_a_legacy_function_is_its_uplink_even_without_a_port_name() -> None:
    function = replace(first_boot().functions[0], ports=())
    world = replace(first_boot(), functions=(function,), netdevs=(netdev("eth0", 4, F0),))
    assert set(uplink_names(world)) == {"eth0"}


def test_a_netdev_of_a_legacy_function_with_another_kind_of_port_name_is_no_uplink() -> None:
    function = replace(first_boot().functions[0], ports=())
    world = replace(first_boot(), functions=(function,), netdevs=(netdev("eth0", 4, F0, "pf0sf0"),))
    assert uplink_names(world) == {}


def test_devlinks_word_counts_more_than_a_name() -> None:
    world = with_netdev(healthy(), "c1pf0hpf", phys_port_name="p0")
    assert ports(world, function_of(world, F0)) == function_of(world, F0).ports
    assert set(uplink_names(world)) == {"p0", "p1"}


def test_uplinks_are_the_physical_ports_by_function() -> None:
    assert {name: function.address for name, function in uplink_names(healthy()).items()} == {"p0": F0, "p1": F1}


def test_the_hosts_pf_is_the_pci_pf_of_an_external_controller() -> None:
    own = Port(1, Flavour.PCI_PF, "pf0", controller=0, external=False, pf=0)
    subfunction = Port(2, Flavour.PCI_SF, "pf0sf0", controller=1, external=True, pf=0)
    function = replace(
        function_of(healthy(), F0), ports=(uplink_port(0), own, subfunction, host_vf_port(0, 0), host_pf_port(0))
    )
    assert host_pfs(healthy(), function) == (host_pf_port(0),)
    world = replace(healthy(), functions=(function,), netdevs=(*healthy().netdevs, netdev("pf0", 30, F0, "pf0")))
    assert [one.netdev.name for one in representors(world)] == ["c1pf0hpf", "c1pf0vf0"]


def test_a_kernel_that_tells_no_controller_shows_the_hosts_pf() -> None:
    world = ofed_names()
    assert [port.netdev for port in host_pfs(world, function_of(world, F0))] == ["pf0hpf"]


def test_the_hosts_mac_addresses_are_sorted_and_in_lower_case() -> None:
    backwards = with_function(healthy(), F0, ports=(replace(host_pf_port(0), hw_addr="08:C0:EB:CB:0E:FF"),))
    assert host_pf_macs(backwards) == ("08:c0:eb:cb:0e:b1", "08:c0:eb:cb:0e:ff")


@pytest.mark.parametrize("mac", ["", "00:00:00:00:00:00"])
def test_an_address_that_is_not_set_finds_no_tenant_node(mac: str) -> None:
    blank = with_function(healthy(), F0, ports=(replace(host_pf_port(0), hw_addr=mac),))
    assert host_pf_macs(blank) == ("08:c0:eb:cb:0e:b1",)


def test_representors_are_the_hosts_pfs_and_vfs_that_have_a_netdev() -> None:
    assert [one.netdev.name for one in representors(healthy())] == ["c1pf0hpf", "c1pf0vf0", "c1pf1hpf"]
    assert [one.netdev.name for one in representors(untold())] == ["c1pf0hpf", "c1pf0vf0", "c1pf1hpf"]
    backwards = with_function(healthy(), F0, ports=tuple(reversed(function_of(healthy(), F0).ports)))
    assert representors(backwards) == representors(healthy())
    gone = with_function(healthy(), F1, ports=(uplink_port(1), replace(host_pf_port(1), netdev="elsewhere")))
    assert [one.netdev.name for one in representors(gone)] == ["c1pf0hpf", "c1pf0vf0"]


def test_the_rules_in_the_field_give_one_of_two_names() -> None:
    assert expected_names(host_pf_port(0)) == ("c1pf0hpf", "pf0hpf")
    assert expected_names(host_vf_port(1, 3)) == ("c1pf1vf3", "pf1vf3")
    assert expected_names(replace(host_pf_port(0), controller=2)) == ("c2pf0hpf", "pf0hpf")
    assert expected_names(replace(host_pf_port(0), controller=None)) == ("c1pf0hpf", "pf0hpf")
    assert expected_names(replace(host_pf_port(0), pf=None)) == ()
    assert expected_names(replace(host_vf_port(0, 3), vf=None)) == ()


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("c1pf0hpf", True),
        ("pf0hpf", True),
        ("c1pf0", True),
        ("host0", True),
        ("enp3s0f0nc1pf0", False),
        ("eth3", False),
    ],
)
def test_a_name_that_somebody_chose_is_as_good_as_ours(name: str, right: bool) -> None:  # noqa: FBT001
    (one, *_) = representors(healthy())
    assert named_right(replace(one, netdev=replace(one.netdev, name=name))) is right


@pytest.mark.parametrize("rules", list(Rules))
def test_our_rules_count_where_they_are_or_will_be(rules: Rules) -> None:
    (one, *_) = representors(healthy())
    assert ruled(replace(healthy(), rules=rules), one) is (rules in (Rules.ABSENT, Rules.PRESENT))
    assert not ruled(unseen(replace(healthy(), rules=rules), "udev"), one)


@pytest.mark.parametrize("said", ["", "-1", "B21c1pf0", "pf0sf0"])
def test_our_rules_do_nothing_to_a_port_name_that_they_do_not_know(said: str) -> None:
    (one, *_) = representors(healthy())
    assert ruled(healthy(), one)
    assert not ruled(healthy(), replace(one, netdev=replace(one.netdev, phys_port_name=said)))


def test_a_representor_is_in_use_that_is_up_or_carries_or_is_on_a_bridge() -> None:
    world = with_netdev(healthy(), "c1pf0hpf", up=False)
    one = next(one for one in world.netdevs if one.name == "c1pf0hpf")
    idle = with_ovs(world, bridges=())
    assert in_use(world, one)
    assert not in_use(idle, one)
    assert in_use(idle, replace(one, up=True))
    assert in_use(idle, replace(one, carries_host=True))
    assert not in_use(replace(world, ovs=None), one)


def test_a_function_in_no_mode_has_no_representors_by_name() -> None:
    function = replace(healthy().functions[0], ports=(), mode=EswitchMode.NONE)
    world = replace(healthy(), functions=(function,), netdevs=(netdev("eth0", 4, F0),))
    assert representors(world) == ()
