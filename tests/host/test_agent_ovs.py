"""The running agent and Open vSwitch: whatever takes the port away or stops the switch, the port is back without anybody's help."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dpu_agent.daemon import Pace
from dpu_agent.world import OFFLOAD_MARK, OWNER
from dpu_shared.steps import Disruption
from tests.host.dpu import (
    PID,
    Document,
    configure,
    get,
    look,
    metric,
    pings,
    ports,
    ready,
    short,
    status,
)
from tests.host.vm import DpuVm
from tests.lab.waiting import eventually

PORT = "c1pf0hpf"
RESTARTS = 'dpu_agent_steps_done_total{step="RestartVswitchd"}'
MEASURED = {
    "cur_cfg", "next_cfg", "statistics", "status", "rstp_status", "rstp_statistics", "link_resets", "link_state", "link_speed",
    "duplex", "admin_state", "mac_in_use", "ifindex", "ofport", "mtu", "error", "system_type", "system_version", "iface_types",
    "datapath_types", "ovs_version", "db_version", "dpdk_version", "dpdk_initialized", "datapaths", "_version",
}  # fmt: skip
"""Columns in which ovs-vswitchd tells what it found; nobody else writes them."""


@pytest.fixture(scope="module")
def agent(running_dpu_vm: DpuVm) -> Iterator[DpuVm]:
    """A DPU as configured, with an agent running, and with what others have in the same Open vSwitch."""
    configure(running_dpu_vm, disruption=Disruption.OVS_RESTART)
    neighbours(running_dpu_vm)
    yield running_dpu_vm
    configure(running_dpu_vm, disruption=Disruption.LINK_FLAP)


@pytest.fixture
def vm(agent: DpuVm) -> Iterator[DpuVm]:
    """Ready before and after the test; and of what is not the agent's, not a cell has changed meanwhile."""
    ready(agent)
    before = others(agent)
    yield agent
    ready(agent)
    assert others(agent) == before


def neighbours(vm: DpuVm) -> None:
    """What OVN has in the same Open vSwitch: its keys, a bridge of its own, and a patch port to each."""
    vm.sh("""ovs-vsctl --timeout=15 set open_vswitch . external_ids:ovn-encap-ip=172.31.0.10 other_config:vlan-limit=0 \
        -- add-br br-int -- set bridge br-int fail_mode=secure external_ids:ovn=yes \
        -- add-port br-int patch-to-ex -- set interface patch-to-ex type=patch options:peer=patch-to-int \
        -- add-port br-ex patch-to-int -- set interface patch-to-int type=patch options:peer=patch-to-ex \
        -- set port patch-to-int external_ids:owner=ovn""")


def others(vm: DpuVm) -> dict[str, Any]:
    """Every row of Open vSwitch's database that is not the agent's, by its identity, with all that is configured in it."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for line in vm.sh("ovsdb-client --timeout=10 --format=json dump").splitlines():
        table = json.loads(line)
        tables[table["caption"]] = [dict(zip(table["headings"], row, strict=True)) for row in table["data"]]
    ours = [row for row in tables["Port table"] if ["owner", OWNER] in row["external_ids"][1]]
    hidden = {row["_uuid"][1] for row in ours} | {each for row in ours for each in named(row["interfaces"])}
    for row in tables["Bridge table"]:
        row["ports"] = sorted(set(named(row["ports"])) - hidden)
    for row in tables["Open_vSwitch table"]:
        row["external_ids"] = [pair for pair in row["external_ids"][1] if pair[0] != OFFLOAD_MARK]
    return {
        f"{caption} {row['_uuid'][1]}": {column: cell for column, cell in row.items() if column not in MEASURED}
        for caption, rows in tables.items()
        for row in rows
        if row["_uuid"][1] not in hidden
    }


def named(cell: list[Any]) -> list[str]:
    """The rows that a cell names; one alone is written without a set around it (RFC 7047, 5.1)."""
    return [cell[1]] if cell[0] == "uuid" else [each[1] for each in cell[1]]


def works(vm: DpuVm) -> None:
    """Until ovs-vswitchd has opened the port on br-ex."""
    vm.sh(f"ovs-vsctl --timeout=60 wait-until interface {PORT} 'ofport>=1'", timeout=90)
    assert vm.sh(f"ovs-vsctl port-to-br {PORT}").strip() == "br-ex"


def told(vm: DpuVm, reason: str) -> Document:
    """The agent's status once it has this reason; what it is not told by an event it is woken for."""
    look(vm)
    document = status(vm, lambda document: document["reason"] == reason, f"the reason {reason}")
    answer = get(vm, "/readyz")
    assert (answer.code, answer.body) == (503, f"{document['message']}\n")
    return document


def row(vm: DpuVm) -> str:
    return vm.sh(f"ovs-vsctl get port {PORT} _uuid").strip()


def test_a_lost_port_is_back_by_an_event_and_not_by_the_timer(vm: DpuVm) -> None:
    look(vm)
    events, began = metric(vm, 'dpu_agent_events_total{source="ovsdb"}'), time.monotonic()
    for _ in range(3):
        vm.sh(f"ovs-vsctl --no-wait del-port br-ex {PORT}")
        works(vm)
    took = time.monotonic() - began
    assert took < Pace().period, "three in less time than the timer takes for one"
    assert metric(vm, 'dpu_agent_events_total{source="ovsdb"}') >= events + 3
    assert vm.sh(f"ovs-vsctl get port {PORT} external_ids:owner other_config:transient").split() == [
        OWNER,
        '"true"',
    ]
    pings(vm)


def test_a_port_that_somebody_put_on_another_bridge_waits_for_leave_to_disturb(vm: DpuVm) -> None:
    vm.sh(f"ovs-vsctl del-port br-ex {PORT} -- add-port br-int {PORT}")
    document = status(vm, lambda document: document["state"] == "Blocked", "the agent to be blocked")
    assert document["reason"] == "DisruptionLimit"
    assert [(short(step), step["disruption"]) for step in document["held"]] == [
        (f"MovePort br-int br-ex {PORT}", "LinkFlap")
    ]
    assert get(vm, "/readyz").body == (
        f"Disturbs more than maxDisruption allows: move {PORT} from br-int to br-ex. Somebody else added it to br-int, and may "
        "lose traffic. Set spec.hostConfig.maxDisruption to LinkFlap, or do it by hand when it suits.\n"
    )
    look(vm)
    assert PORT in ports(vm, "br-int")
    configure(vm, disruption=Disruption.LINK_FLAP)
    look(vm)
    ready(vm)
    works(vm)
    assert ports(vm, "br-int") == ["patch-to-ex"]
    configure(vm, disruption=Disruption.OVS_RESTART)
    look(vm)


def test_the_agents_own_port_is_fetched_back_from_another_bridge_at_once(vm: DpuVm) -> None:
    vm.sh(
        f"ovs-vsctl --no-wait -- --id=@port get port {PORT} -- remove bridge br-ex ports @port -- add bridge br-int ports @port"
    )
    eventually(lambda: PORT in ports(vm), "the port on br-ex")
    works(vm)
    assert ports(vm, "br-int") == ["patch-to-ex"]


def test_a_port_that_somebody_else_added_counts_as_done_and_is_left_as_it_is(vm: DpuVm) -> None:
    vm.sh(f"ovs-vsctl del-port br-ex {PORT} -- add-port br-ex {PORT} -- set port {PORT} external_ids:owner=ovn tag=0")
    foreign, contents = row(vm), others(vm)
    look(vm)
    document = ready(vm)
    assert not document["steps"]
    assert not document["held"]
    assert row(vm) == foreign
    assert others(vm) == contents
    pings(vm)
    vm.sh(f"ovs-vsctl del-port br-ex {PORT}")
    works(vm)


def test_a_port_whose_representor_went_and_came_back_is_opened_again(vm: DpuVm) -> None:
    vm.sh("ip netns del host")
    vm.knob(0, "host_pf", 0)
    document = status(vm, lambda document: document["reason"] == "HostPfAbsent", "the host's PF to be missed")
    assert document["state"] == "Progressing"
    assert "shows no port of the host's PF" in get(vm, "/readyz").body
    vm.sh(f"ovs-vsctl --timeout=60 wait-until interface {PORT} 'error!=[]'", timeout=90)
    vm.knob(0, "host_pf", 1)
    ready(vm)
    works(vm)
    vm.host_side()
    pings(vm)


def test_a_bridge_that_is_deleted_and_rebuilt_gets_its_port_without_a_restart(agent: DpuVm) -> None:
    pid = agent.read(PID).strip()
    agent.sh("ovs-vsctl --timeout=15 --if-exists del-br br-ex -- del-br br-int")
    document = status(agent, lambda document: document["reason"] == "BridgeAbsent", "the bridge to be missed")
    assert document["state"] == "Progressing"
    answer = get(agent, "/readyz")
    assert answer.code == 503
    assert answer.body.startswith("Open vSwitch has no bridge br-ex (it has: none). Wait for ovs-configuration.service")
    agent.bridge()
    neighbours(agent)
    rebuilt = others(agent)
    ready(agent)
    works(agent)
    pings(agent)
    assert others(agent) == rebuilt
    assert agent.run(f"kill -0 {pid}").ok


@contextmanager
def without(vm: DpuVm, stop: str, start: str) -> Iterator[None]:
    """With a part of Open vSwitch out of order."""
    vm.sh(stop)
    try:
        yield
    finally:
        vm.sh(start)


def test_a_dead_ovs_vswitchd_is_told_and_a_port_lost_meanwhile_comes_back_with_it(vm: DpuVm) -> None:
    # Alone: on Debian the database's unit would end with it.
    alone = "systemctl stop --job-mode=ignore-dependencies ovs-vswitchd"
    with without(vm, alone, "systemctl start ovs-vswitchd openvswitch-switch"):
        assert told(vm, "VswitchdDown")["state"] == "Degraded"
        told_first = "ovs-vswitchd does not run, so nobody can tell whether a port works. See "
        assert get(vm, "/readyz").body.startswith(told_first)
        vm.sh(f"ovs-vsctl --no-wait del-port br-ex {PORT}")
    ready(vm)
    works(vm)
    pings(vm)


def test_a_stopped_database_is_told_and_all_is_well_once_it_is_started(vm: DpuVm) -> None:
    restarts = metric(vm, RESTARTS)
    with without(vm, "systemctl stop ovsdb-server", "systemctl start openvswitch-switch"):
        document = status(vm, lambda document: document["reason"] == "OvsUnavailable", "the database to be missed")
        assert document["state"] == "Degraded"
        answer = get(vm, "/readyz")
        assert answer.code == 503
        assert answer.body.startswith("ovsdb-server is not there: ")
        assert "`systemctl start openvswitch`" in answer.body
        assert get(vm, "/livez").code == 200
    ready(vm)
    works(vm)
    pings(vm)
    assert metric(vm, RESTARTS) == restarts, "hw-offload was in force"


def test_a_database_that_hangs_is_told_while_the_agent_lives_on(vm: DpuVm) -> None:
    with without(vm, "kill -STOP $(pidof ovsdb-server)", "kill -CONT $(pidof ovsdb-server)"):
        assert told(vm, "OvsUnavailable")["message"].startswith("ovsdb-server does not answer (waited ")
        alive = get(vm, "/livez")
        assert alive.code == 200
        assert 0 <= float(alive.body.split()[5]) < Pace().period
    ready(vm)
    works(vm)


def test_a_database_replaced_by_an_empty_one_is_configured_anew(agent: DpuVm) -> None:
    agent.sh("""systemctl stop ovsdb-server
        mv /etc/openvswitch/conf.db /etc/openvswitch/conf.db.before
        systemctl start openvswitch-switch""")
    status(agent, lambda document: document["reason"] == "BridgeAbsent", "the bridge to be missed")
    eventually(
        lambda: "true" in agent.sh("ovs-vsctl --if-exists get open_vswitch . other_config:hw-offload"),
        "hw-offload to be set again",
    )
    agent.bridge()
    neighbours(agent)
    rebuilt = others(agent)
    ready(agent)
    works(agent)
    pings(agent)
    assert others(agent) == rebuilt
