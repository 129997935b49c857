"""Open vSwitch's database as the agent reads and changes it: against a real ovsdb-server and a real ovs-vswitchd."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dpu_agent.host.ovsdb import OvsDatabase
from dpu_agent.machine import HostError, Ovsdb
from dpu_agent.world import OFFLOAD_MARK, OWNER, Interface, Ovs, OvsPort
from tests.wire.ovs_relay import Relay, relay
from tests.wire.ovs_server import PATIENCE, OvsServer, ovs_server, until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OvsServer]:
    """ovsdb-server alone: with br-ex, br-int and the uplink, and nobody but the test changes anything."""
    with ovs_server(tmp_path) as made:
        made.vsctl("add-br", "br-ex", "--", "add-port", "br-ex", "p0", "--", "add-br", "br-int")
        yield made


@pytest.fixture
def database(server: OvsServer) -> Iterator[OvsDatabase]:
    made = OvsDatabase(server.remote, patience=PATIENCE)
    yield made
    made.close()


@pytest.fixture
def between(server: OvsServer, tmp_path: Path) -> Iterator[Relay]:
    with relay(tmp_path / "relay.sock", server.socket) as made:
        yield made


@pytest.fixture
def raced(between: Relay) -> Iterator[OvsDatabase]:
    """Speaks through the relay, so that something can happen between its look and its change."""
    made = OvsDatabase(between.remote, patience=PATIENCE)
    yield made
    made.close()


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OvsServer]:
    """With ovs-vswitchd."""
    with ovs_server(tmp_path_factory.mktemp("switch"), vswitchd=True) as made:
        made.vsctl("add-br", "br-ex", "--", "add-br", "br-int", wait=True)
        yield made


@pytest.fixture
def switched(switch: OvsServer) -> Iterator[OvsDatabase]:
    made = OvsDatabase(switch.remote, patience=PATIENCE)
    yield made
    made.close()
    for bridge in ("br-ex", "br-int"):
        switch.vsctl("--if-exists", "del-port", bridge, "pf0hpf", wait=True)


def ports(world: Ovs, bridge: str = "br-ex") -> dict[str, OvsPort]:
    return {port.name: port for found in world.bridges if found.name == bridge for port in found.ports}


def test_it_is_what_the_other_rooms_call_an_ovsdb(database: OvsDatabase) -> None:
    other: Ovsdb = database
    assert other.read().bridges


def test_a_read_tells_bridges_ports_and_interfaces_in_the_order_of_their_names(
    server: OvsServer, database: OvsDatabase
) -> None:
    server.vsctl(
        "set", "Open_vSwitch", ".", "other_config:hw-offload=TRUE", "ovs_version=3.5.0", "next_cfg=7", "cur_cfg=6",
        f"external_ids:{OFFLOAD_MARK}=boot/1/2",
        "--", "set", "Bridge", "br-ex", "datapath_type=netdev",
        "--", "set", "Port", "p0", "external_ids:NM.connection.uuid=f1c2", "other_config:transient=true",
        "--", "set", "Interface", "p0", "type=system", "ofport=3",
        "--", "add-bond", "br-ex", "bond0", "b1", "b0",
        "--", "set", "Interface", "b0", "ofport=-1", 'error="could not open network device b0"',
    )  # fmt: skip
    world = database.read()
    assert [bridge.name for bridge in world.bridges] == ["br-ex", "br-int"]
    assert [bridge.datapath_type for bridge in world.bridges] == ["netdev", ""]
    assert (world.hw_offload, world.offload_set_under, world.version) == ("TRUE", "boot/1/2", "3.5.0")
    assert (world.pending, world.vswitchd) == (True, "")
    assert list(ports(world)) == ["bond0", "br-ex", "p0"]
    assert ports(world)["p0"] == OvsPort("p0", (Interface("p0", "system", 3),), transient=True, network_manager=True)
    failed = Interface("b0", "", -1, "could not open network device b0")
    assert ports(world)["bond0"].interfaces == (failed, Interface("b1"))


def test_a_read_tells_what_was_committed_before_it_every_time(server: OvsServer, database: OvsDatabase) -> None:
    for number in range(8):
        server.vsctl("set", "Open_vSwitch", ".", f"other_config:hw-offload={number}")
        assert database.read().hw_offload == str(number)


def test_a_database_that_nobody_has_set_up_reads_as_empty_and_is_not_set_up_by_us(tmp_path: Path) -> None:
    bare = OvsServer(tmp_path)
    bare.create()
    bare.start()
    database = OvsDatabase(bare.remote, patience=PATIENCE)
    try:
        assert database.read() == Ovs()
        with pytest.raises(HostError, match="has no configuration yet"):
            database.set_offload(enabled=True, under="")
        with pytest.raises(HostError, match="has no bridge br-ex"):
            database.add_port("br-ex", "pf0hpf")
    finally:
        database.close()
        bare.stop()


def test_an_added_port_is_tagged_as_ours_and_as_transient(server: OvsServer, database: OvsDatabase) -> None:
    database.add_port("br-ex", "pf0hpf")
    assert ports(database.read())["pf0hpf"] == OvsPort("pf0hpf", (Interface("pf0hpf"),), owner=OWNER, transient=True)
    assert server.ports("br-ex") == ["p0", "pf0hpf"]


def test_what_is_as_wanted_is_not_written_again(server: OvsServer, database: OvsDatabase) -> None:
    database.add_port("br-ex", "pf0hpf")
    database.set_offload(enabled=True, under="boot/1/2")
    before = server.commits()
    for _ in range(3):
        database.add_port("br-ex", "pf0hpf")
        database.set_offload(enabled=True, under="boot/1/2")
        database.move_port("br-int", "br-ex", "pf0hpf")
        database.recreate_port("br-ex", "pf0hpf")
        database.remove_port("br-ex", "pf1hpf")
        database.remove_port("br-int", "pf0hpf")
    assert server.commits() == before


def test_what_is_as_wanted_is_not_even_sent(between: Relay, raced: OvsDatabase) -> None:
    """The server would drop a change that changes nothing; so it does not show in its log."""
    said: list[bytes] = []

    def asked(data: bytes) -> bytes:
        said.append(data)
        return data

    between.asked = asked
    raced.add_port("br-ex", "pf0hpf")
    raced.set_offload(enabled=True, under="boot/1/2")
    assert b'"mutate"' in b"".join(said)
    said.clear()
    raced.add_port("br-ex", "pf0hpf")
    raced.set_offload(enabled=True, under="boot/1/2")
    raced.move_port("br-int", "br-ex", "pf0hpf")
    raced.recreate_port("br-ex", "pf0hpf")
    raced.remove_port("br-int", "pf0hpf")
    assert said
    assert all(b'"select"' in data for data in said)
    assert not any(word in b"".join(said) for word in (b"mutate", b"insert", b"update", b"delete"))


def test_offload_and_its_mark_are_one_transaction(server: OvsServer, database: OvsDatabase) -> None:
    server.vsctl("set", "Open_vSwitch", ".", "other_config:max-idle=20000", "external_ids:hostname=dpu-0")
    before = server.commits()
    database.set_offload(enabled=True, under="boot/1/2")
    assert server.commits() == before + 1
    world = database.read()
    assert (world.hw_offload, world.offload_set_under) == ("true", "boot/1/2")
    database.set_offload(enabled=False, under="boot/3/4")
    world = database.read()
    assert (world.hw_offload, world.offload_set_under) == ("false", "boot/3/4")
    database.set_offload(enabled=False, under="")
    assert server.commits() == before + 3
    assert server.column("Open_vSwitch", ".", "external_ids") == ["map", [["hostname", "dpu-0"]]]
    assert server.column("Open_vSwitch", ".", "other_config") == [
        "map",
        [["hw-offload", "false"], ["max-idle", "20000"]],
    ]


def test_a_port_that_somebody_else_added_counts_as_added(server: OvsServer, database: OvsDatabase) -> None:
    server.vsctl("add-port", "br-ex", "pf0hpf")
    before = server.commits()
    database.add_port("br-ex", "pf0hpf")
    assert server.commits() == before
    assert ports(database.read())["pf0hpf"].owner == ""


def test_a_port_of_another_bridge_is_refused_and_stays_there(server: OvsServer, database: OvsDatabase) -> None:
    server.vsctl("add-port", "br-int", "pf0hpf")
    before = server.commits()
    with pytest.raises(HostError, match="pf0hpf is on the bridge br-int, not on br-ex"):
        database.add_port("br-ex", "pf0hpf")
    with pytest.raises(HostError, match="pf0hpf is on the bridge br-int, not on br-ex"):
        database.recreate_port("br-ex", "pf0hpf")
    assert server.commits() == before


def test_an_interface_of_a_bond_is_left_in_it(server: OvsServer, database: OvsDatabase) -> None:
    server.vsctl("add-bond", "br-ex", "bond0", "pf0hpf", "pf1hpf")
    writes: tuple[Callable[[], None], ...] = (
        lambda: database.add_port("br-ex", "pf0hpf"),
        lambda: database.recreate_port("br-ex", "pf0hpf"),
        lambda: database.move_port("br-ex", "br-int", "pf0hpf"),
    )
    for write in writes:
        with pytest.raises(HostError, match=r"several interfaces of the port bond0 on br-ex|is on the bridge br-ex"):
            write()
    assert server.ports("br-ex") == ["bond0", "p0"]


def test_a_bridge_that_is_not_there_is_refused(server: OvsServer, database: OvsDatabase) -> None:
    before = server.commits()
    writes: tuple[Callable[[], None], ...] = (
        lambda: database.add_port("br-x", "pf0hpf"),
        lambda: database.move_port("br-ex", "br-x", "p0"),
        lambda: database.recreate_port("br-x", "p0"),
    )
    for write in writes:
        with pytest.raises(HostError, match="Open vSwitch has no bridge br-x"):
            write()
    assert server.commits() == before


def test_a_port_moves_in_one_transaction_and_becomes_ours(server: OvsServer, database: OvsDatabase) -> None:
    server.vsctl("add-port", "br-int", "pf0hpf", "--", "set", "Port", "pf0hpf", "tag=7")
    before = server.commits()
    database.move_port("br-int", "br-ex", "pf0hpf")
    assert server.commits() == before + 1
    assert (server.ports("br-int"), server.ports("br-ex")) == ([], ["p0", "pf0hpf"])
    assert ports(database.read())["pf0hpf"].owner == OWNER
    assert server.column("Port", "pf0hpf", "tag") == ["set", []]


def test_a_port_that_is_no_longer_where_it_was_is_not_moved(server: OvsServer, database: OvsDatabase) -> None:
    with pytest.raises(HostError, match="pf0hpf is on no bridge"):
        database.move_port("br-int", "br-ex", "pf0hpf")
    server.vsctl("add-br", "br-x", "--", "add-port", "br-x", "pf0hpf")
    with pytest.raises(HostError, match="pf0hpf is on the bridge br-x, not on br-ex"):
        database.move_port("br-int", "br-ex", "pf0hpf")
    assert server.ports("br-x") == ["pf0hpf"]


def test_only_our_port_that_was_refused_is_made_anew_and_in_one_transaction(
    server: OvsServer, database: OvsDatabase
) -> None:
    database.add_port("br-ex", "pf0hpf")
    server.vsctl("set", "Interface", "pf0hpf", "ofport=-1", "error=gone", "--", "set", "Interface", "p0", "error=gone")
    before = server.commits()
    old = server.column("Port", "pf0hpf", "_uuid")
    database.recreate_port("br-ex", "pf0hpf")
    assert server.commits() == before + 1
    assert server.column("Port", "pf0hpf", "_uuid") != old
    assert ports(database.read())["pf0hpf"] == OvsPort("pf0hpf", (Interface("pf0hpf"),), owner=OWNER, transient=True)
    with pytest.raises(HostError, match="The port p0 on br-ex is not of this agent"):
        database.recreate_port("br-ex", "p0")
    database.recreate_port("br-ex", "pf1hpf")
    assert server.ports("br-ex") == ["p0", "pf0hpf", "pf1hpf"]


def test_only_our_port_is_removed(server: OvsServer, database: OvsDatabase) -> None:
    database.add_port("br-ex", "pf0hpf")
    with pytest.raises(HostError, match="The port p0 on br-ex is not of this agent"):
        database.remove_port("br-ex", "p0")
    database.remove_port("br-ex", "pf0hpf")
    assert server.ports("br-ex") == ["p0"]


def test_no_write_waits_for_ovs_vswitchd(server: OvsServer, database: OvsDatabase) -> None:
    """There is none here; with next_cfg, ovs-vsctl would wait for ever."""
    before = server.column("Open_vSwitch", ".", "next_cfg")
    database.add_port("br-ex", "pf0hpf")
    database.set_offload(enabled=True, under="")
    assert server.column("Open_vSwitch", ".", "next_cfg") == before
    assert ports(database.read())["pf0hpf"].interfaces[0].ofport is None


def test_ovs_vswitchd_takes_up_what_was_written_by_itself(switch: OvsServer, switched: OvsDatabase) -> None:
    def interface(bridge: str) -> Interface:
        return ports(switched.read(), bridge)["pf0hpf"].interfaces[0]

    switched.add_port("br-ex", "pf0hpf")
    until(lambda: (interface("br-ex").ofport or 0) > 0)
    switched.move_port("br-ex", "br-int", "pf0hpf")
    until(lambda: (interface("br-int").ofport or 0) > 0)
    switched.remove_port("br-int", "pf0hpf")
    until(lambda: "pf0hpf" not in switch.run("ovs-appctl", "-t", f"{switch.folder}/vswitchd.ctl", "dpif/show"))


def test_a_port_that_ovs_vswitchd_refuses_shows_its_error_and_is_made_anew(
    switch: OvsServer, switched: OvsDatabase
) -> None:
    def interface() -> Interface:
        return ports(switched.read())["pf0hpf"].interfaces[0]

    switched.add_port("br-ex", "pf0hpf")
    switch.vsctl("set", "Interface", "pf0hpf", "type=unheard-of")
    until(lambda: bool(interface().error))
    assert interface().ofport == -1
    switched.recreate_port("br-ex", "pf0hpf")
    until(lambda: (interface().ofport or 0) > 0)
    assert interface().error == ""


def test_two_writers_add_exactly_one_port(server: OvsServer, database: OvsDatabase) -> None:
    other = OvsDatabase(server.remote, patience=PATIENCE)
    failures: list[HostError] = []
    start = threading.Barrier(2)

    def add(writer: OvsDatabase) -> None:
        for number in range(30):
            start.wait()
            try:
                writer.add_port("br-ex", f"r{number}")
            except HostError as error:
                failures.append(error)

    before = server.commits()
    threads = [threading.Thread(target=add, args=(writer,)) for writer in (database, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert failures == []
    assert server.commits() == before + 30
    assert server.ports("br-ex") == sorted(["p0", *(f"r{number}" for number in range(30))])


def test_somebody_who_is_faster_by_a_moment_has_added_the_port(
    server: OvsServer, between: Relay, raced: OvsDatabase
) -> None:
    between.before(b'"insert"', lambda: server.vsctl("add-port", "br-ex", "pf0hpf"))
    raced.add_port("br-ex", "pf0hpf")
    assert ports(raced.read())["pf0hpf"].owner == ""
    assert server.ports("br-ex") == ["p0", "pf0hpf"]


def test_somebody_who_is_faster_by_a_moment_keeps_the_port_on_his_bridge(
    server: OvsServer, between: Relay, raced: OvsDatabase
) -> None:
    between.before(b'"insert"', lambda: server.vsctl("add-port", "br-int", "pf0hpf"))
    with pytest.raises(HostError, match="pf0hpf is on the bridge br-int"):
        raced.add_port("br-ex", "pf0hpf")
    assert server.ports("br-int") == ["pf0hpf"]


def test_a_port_that_is_added_at_the_same_moment_is_not_lost(
    server: OvsServer, between: Relay, raced: OvsDatabase
) -> None:
    between.before(b'"insert"', lambda: server.vsctl("add-port", "br-ex", "theirs"))
    raced.add_port("br-ex", "pf0hpf")
    assert server.ports("br-ex") == ["p0", "pf0hpf", "theirs"]


def test_a_bridge_that_is_deleted_at_the_same_moment_is_not_taken_for_one_with_the_port(
    server: OvsServer, between: Relay, raced: OvsDatabase
) -> None:
    between.before(b'"insert"', lambda: server.vsctl("del-br", "br-ex"))
    with pytest.raises(HostError, match="Open vSwitch has no bridge br-ex"):
        raced.add_port("br-ex", "pf0hpf")


def test_a_bridge_that_is_rebuilt_at_the_same_moment_gets_the_port(
    server: OvsServer, between: Relay, raced: OvsDatabase
) -> None:
    def rebuild() -> None:
        server.vsctl("del-br", "br-ex")
        server.vsctl("add-br", "br-ex")

    between.before(b'"insert"', rebuild)
    raced.add_port("br-ex", "pf0hpf")
    assert server.ports("br-ex") == ["pf0hpf"]


def test_a_port_that_changes_hands_at_the_same_moment_is_not_removed(
    server: OvsServer, between: Relay, raced: OvsDatabase
) -> None:
    raced.add_port("br-ex", "pf0hpf")
    between.before(b'"delete"', lambda: server.vsctl("set", "Port", "pf0hpf", "external_ids:owner=them"))
    with pytest.raises(HostError, match="The port pf0hpf on br-ex is not of this agent"):
        raced.remove_port("br-ex", "pf0hpf")
    assert server.ports("br-ex") == ["p0", "pf0hpf"]


def test_a_settings_neighbour_that_is_written_at_the_same_moment_stays(
    server: OvsServer, between: Relay, raced: OvsDatabase
) -> None:
    between.before(b'"hw-offload"', lambda: server.vsctl("set", "Open_vSwitch", ".", "other_config:max-idle=9"))
    raced.set_offload(enabled=True, under="")
    assert server.column("Open_vSwitch", ".", "other_config") == ["map", [["hw-offload", "true"], ["max-idle", "9"]]]


def test_who_is_disturbed_each_time_gives_up_in_the_end(server: OvsServer, between: Relay, raced: OvsDatabase) -> None:
    turns = iter(range(1000))
    between.before(
        b'"hw-offload"',
        lambda: server.vsctl("set", "Open_vSwitch", ".", f"other_config:max-idle={next(turns)}"),
        times=1000,
    )
    with pytest.raises(HostError, match="Others changed the database each time"):
        raced.set_offload(enabled=True, under="")
    assert raced.read().hw_offload == ""
