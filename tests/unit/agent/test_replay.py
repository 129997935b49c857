"""An observation travels as JSON and comes back as it was, or not at all."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpu_agent.replay import from_json, to_json
from dpu_agent.world import (
    Bridge,
    Configuration,
    EswitchMode,
    Flavour,
    Interface,
    Netdev,
    Ovs,
    OvsPort,
    PciFunction,
    Platform,
    Port,
    Rules,
    Unseen,
    World,
)
from dpu_shared.errors import UserError
from dpu_shared.host_config import HostConfig, Mode
from dpu_shared.steps import Disruption

FULL = World(
    boot_id="b",
    platform=Platform("aarch64", "BlueField-2 DPU", acpi_bluefield=True, root_port_vendor="15b3"),
    functions=(
        PciFunction(
            "0000:03:00.0",
            "a2d6",
            "mlx5_core",
            EswitchMode.SWITCHDEV,
            (
                Port(262143, Flavour.PHYSICAL, "p0", number=0),
                Port(
                    196608, Flavour.PCI_PF, "c1pf0hpf", controller=1, external=True, pf=0, hw_addr="02:00:00:00:00:01"
                ),
            ),
        ),
    ),
    netdevs=(Netdev("p0", 3, up=True, carries_host=True), Netdev("c1pf0hpf", 9, unmanaged=True)),
    ovs=Ovs(
        (Bridge("br-ex", "system", (OvsPort("p0", (Interface("p0", ofport=-1, error="No such device"),)),)),), "true"
    ),
    rules=Rules.EDITED,
    configuration=Configuration(
        HostConfig(max_disruption=Disruption.OVS_RESTART, mode=Mode.REPORT_ONLY), last_good=HostConfig(bridge="br1")
    ),
    other_managers=("NVIDIA DPF's agent (/opt/dpf/dpuagent)",),
    unseen=(Unseen("udev", 'It said "no"\n\U0001f600 ü \x00.', "Wait."),),
)


def document(**world: Any) -> str:
    data = json.loads(to_json(FULL))
    data["world"].update(world)
    return json.dumps(data)


def refused(text: str) -> UserError:
    with pytest.raises(UserError) as caught:
        from_json(text)
    return caught.value


@given(st.from_type(World))
@settings(max_examples=60, deadline=None)
def test_every_world_comes_back_as_it_was(world: World) -> None:
    text = to_json(world)
    assert from_json(text) == world
    assert to_json(from_json(text)) == text


def test_a_world_in_full_comes_back_with_its_types() -> None:
    assert from_json(to_json(FULL)) == FULL
    assert type(from_json(to_json(FULL)).functions[0].mode) is EswitchMode


def test_the_document_is_for_people_too() -> None:
    text = to_json(FULL)
    assert text.endswith("\n}\n")
    assert json.loads(text)["schemaVersion"] == 1
    assert list(json.loads(text)["world"])[:3] == ["boot_id", "platform", "functions"]
    assert json.loads(text)["world"]["functions"][0]["ports"][1]["flavour"] == "pcipf"


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1.5])
def test_another_schema_version_is_refused(version: object) -> None:
    data = json.loads(to_json(FULL))
    data["schemaVersion"] = version
    error = refused(json.dumps(data))
    assert f"schema version {version!r}, and this program reads 1" in error.message
    assert error.hint == "Use the release of the agent that wrote it."


@pytest.mark.parametrize("text", ["", "{", "nonsense", "\ufeff{}", "[" * 100_000])
def test_what_is_no_json_is_refused(text: str) -> None:
    assert refused(text).message == "The observation is no JSON."


@pytest.mark.parametrize("text", ["[]", "3", '"world"', "{}", '{"schemaVersion": 1}', '{"world": {}, "a": 1}'])
def test_what_is_no_observation_is_refused(text: str) -> None:
    assert "is no JSON object of" in refused(text).message


def test_a_field_that_is_missing_is_named() -> None:
    data = json.loads(to_json(FULL))
    del data["world"]["functions"][0]["ports"][0]["netdev"]
    assert "world.functions[0].ports[0] lacks netdev." in refused(json.dumps(data)).message


def test_a_field_that_is_unknown_is_named() -> None:
    assert "world has the unknown field mood, zeal." in refused(document(mood=1, zeal=2)).message


def test_a_key_that_is_given_twice_is_refused() -> None:
    text = to_json(FULL).replace('"boot_id": "b",', '"boot_id": "b", "boot_id": "c",')
    assert refused(text).message == "The observation is no JSON."


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("boot_id", 3, "world.boot_id is not a string."),
        ("boot_id", None, "world.boot_id is not a string."),
        ("rules", "tidy", "world.rules is not one of absent, edited, present, unknown."),
        ("rules", [], "world.rules is not one of"),
        ("rules", None, "world.rules is not one of"),
        ("netdevs", {}, "world.netdevs is not a list."),
        ("netdevs", [3], "world.netdevs[0] is not an object."),
        ("ovs", [], "world.ovs is not an object."),
        ("other_managers", ["a", 1], "world.other_managers[1] is not a string."),
    ],
)
def test_a_value_of_another_type_is_refused_where_it_is(field: str, value: object, message: str) -> None:
    assert message in refused(document(**{field: value})).message


@pytest.mark.parametrize(("name", "value"), [("ifindex", True), ("ifindex", 1.0), ("ifindex", "1"), ("up", 1)])
def test_true_is_no_number_and_one_is_not_true(name: str, value: object) -> None:
    data = json.loads(to_json(FULL))
    data["world"]["netdevs"][0][name] = value
    assert f"world.netdevs[0].{name} is not" in refused(json.dumps(data)).message


def test_only_what_may_be_absent_is_read_from_null() -> None:
    data = json.loads(document(ovs=None))
    data["world"]["configuration"]["current"] = None
    found = from_json(json.dumps(data))
    assert found.ovs is None
    assert found.configuration.current is None
