"""Links, addresses and routes against this machine's own kernel, in a network namespace that the test makes."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from dpu_agent.host.links import KernelLinks, Link, spread
from dpu_agent.machine import HostError, Links

SCENE = """
import json, sys
from pyroute2 import IPRoute
from dpu_agent.host.links import KernelLinks
from dpu_agent.machine import HostError

kernel, links = IPRoute(), KernelLinks()

def index(name):
    return kernel.link_lookup(ifname=name)[0]

def made(name, kind="veth", **more):
    if kind == "veth":
        more["peer"] = {"ifname": name + "-peer"}
    kernel.link("add", ifname=name, kind=kind, **more)
    kernel.link("set", index=index(name), state="up")
    if kind == "veth":
        kernel.link("set", index=index(name + "-peer"), state="up")
    return index(name)

def address(name, value, mask=24):
    kernel.addr("add", index=index(name), address=value, mask=mask)

def state(name):
    link = kernel.get_links(index(name))[0]
    return {"up": bool(link["flags"] & 1), "mtu": link.get_attr("IFLA_MTU")}

def attempt(call):
    try:
        return call()
    except HostError as error:
        return {"message": error.message, "hint": error.hint, "code": error.code}

def tell(value):
    print(json.dumps(sorted(value) if isinstance(value, frozenset) else value))
"""


def scene(body: str) -> Any:
    own = [] if os.geteuid() == 0 else ["--map-root-user"]
    done = subprocess.run(
        ["unshare", "--net", *own, sys.executable, "-c", SCENE + body],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_they_are_the_links_of_the_contract() -> None:
    part: Links = KernelLinks()
    assert part is not None


def test_nothing_carries_a_machine_without_addresses() -> None:
    assert scene("made('p0'); tell(links.carrying())") == []


def test_a_global_address_makes_a_link_carry_the_host() -> None:
    assert scene("made('a'); made('b'); address('a', '192.0.2.1'); tell(links.carrying())") == ["a", "a-peer"]


def test_a_link_local_address_does_not() -> None:
    """Every link that is up has one for IPv6, and the address of the loopback is no traffic of the network."""
    body = """
made('a')
kernel.addr("add", index=index("a"), address="fe80::1", prefixlen=64)
kernel.link("set", index=1, state="up")
tell({"carrying": sorted(links.carrying()), "all": len(list(kernel.get_addr()))})
"""
    said = scene(body)
    assert said["carrying"] == []
    assert said["all"] >= 2, "the addresses were there to be seen"


def test_a_global_ipv6_address_counts() -> None:
    body = 'made("a", "bridge"); address("a", "2001:db8::1", 64); tell(links.carrying())'
    assert scene(body) == ["a"]


def test_a_default_route_counts_whatever_has_the_address() -> None:
    body = """
made("a", "bridge"); made("b", "bridge"); address("a", "192.0.2.1")
kernel.route("add", dst="0.0.0.0/0", oif=index("b"))
tell(links.carrying())
"""
    assert scene(body) == ["a", "b"]


def test_every_way_of_a_default_route_counts() -> None:
    body = """
made("a", "bridge"); made("b", "bridge"); made("c", "bridge")
kernel.route("add", dst="0.0.0.0/0", multipath=[{"oif": index("a")}, {"oif": index("b")}])
tell(links.carrying())
"""
    assert scene(body) == ["a", "b"]


def test_other_routes_and_other_tables_do_not_count() -> None:
    body = """
made("a", "bridge"); made("b", "bridge")
kernel.route("add", dst="198.51.100.0/24", oif=index("a"))
kernel.route("add", dst="0.0.0.0/0", oif=index("b"), table=1000)
kernel.route("add", dst="0.0.0.0/0", type="unreachable", priority=4000)
tell(links.carrying())
"""
    assert scene(body) == []


def test_what_the_carrying_link_rests_on_carries_too() -> None:
    """Spoiling an uplink under a bridge or VLAN cuts the machine off as surely as the bridge itself."""
    body = """
made("p0"); made("p1"); made("br", "bridge")
kernel.link("set", index=index("p0"), master=index("br"))
address("br", "192.0.2.1")
tell(links.carrying())
"""
    assert scene(body) == ["br", "p0", "p0-peer"]


def test_a_vlan_rests_on_its_parent_and_a_circle_ends() -> None:
    links = {1: Link("p0"), 2: Link("vlan", below=1), 3: Link("a", below=4), 4: Link("b", below=3), 5: Link("idle")}
    assert spread([2], links) == {1, 2}
    assert spread([3], links) == {3, 4}
    assert spread([5, 99], links) == {5, 99}


def test_a_link_is_set_up_with_its_mtu() -> None:
    body = """
kernel.link("add", ifname="a", kind="bridge")
before = state("a")
links.set_link("a", up=True, mtu=1400)
tell([before, state("a")])
"""
    assert scene(body) == [{"up": False, "mtu": 1500}, {"up": True, "mtu": 1400}]


def test_what_is_not_asked_for_is_left() -> None:
    body = """
made("a", "bridge"); kernel.link("add", ifname="b", kind="bridge")
links.set_link("a", up=False, mtu=1300)
links.set_link("b", up=True, mtu=None)
tell([state("a"), state("b")])
"""
    assert scene(body) == [{"up": True, "mtu": 1300}, {"up": True, "mtu": 1500}]


def test_a_refused_mtu_repeats_the_kernels_words() -> None:
    said = scene('made("a", "bridge"); tell(attempt(lambda: links.set_link("a", up=True, mtu=100000000)))')
    assert said["message"] == "a cannot be set to MTU 100000000: mtu greater than device maximum."
    assert "ip -d link show" in said["hint"]
    assert said["code"] == "EINVAL"


def test_a_link_that_is_gone_is_said_to_be() -> None:
    with pytest.raises(HostError, match="there is no such network interface"):
        KernelLinks().set_link("nosuchlink0", up=True, mtu=None)
