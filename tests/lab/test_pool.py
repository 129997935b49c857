"""The stand-in for the machine-config-operator: what pools and nodes do, and how they misbehave on command."""

import threading
import time
from collections.abc import Iterator

import pytest

from tests.lab import kwok, mco, mco_rules
from tests.lab.client import ApiError, Client, Object, name_of
from tests.lab.lab import DPUS, Lab
from tests.lab.waiting import eventually

MACHINE_CONFIG = f"{mco_rules.PREFIX}/v1/MachineConfig"


def machine_config(name: str, path: str, role: str = "dpu", **file: object) -> Object:
    """A MachineConfig with one file."""
    content = {"path": path, "mode": 420, "contents": {"source": "data:,lab"}} | file
    return {
        "apiVersion": f"{mco_rules.PREFIX}/v1",
        "kind": "MachineConfig",
        "metadata": {"name": name, "labels": {mco_rules.ROLE: role}},
        "spec": {"config": {"ignition": {"version": "3.2.0"}, "storage": {"files": [content]}}},
    }


@pytest.fixture
def configs(lab: Lab) -> Iterator[Client]:
    """Infra as admin; MachineConfigs named 99-… are deleted afterwards and the pool is Updated again."""
    admin = lab.infra.admin
    yield admin
    lab.mend()
    for item in admin.list(MACHINE_CONFIG):
        if name_of(item).startswith("99-"):
            admin.delete(MACHINE_CONFIG, name_of(item))
    eventually(lambda: not any(name.startswith("99-") for name in rendered_from(lab)), "the pool without 99-…")
    lab.wait_pool()


def rendered_from(lab: Lab) -> list[str]:
    pool = lab.infra.admin.get(mco.POOL, "dpu")
    return [each["name"] for each in pool["spec"]["configuration"]["source"]]


def conditions(lab: Lab) -> dict[str, Object]:
    pool = lab.infra.admin.get(mco.POOL, "dpu")
    return {each["type"]: each for each in pool["status"]["conditions"]}


def test_node_goes_not_ready_and_comes_back(lab: Lab) -> None:
    kwok.set_node_ready(lab.infra.admin, "dpu-1", ready=False)
    eventually(lambda: conditions(lab)["Updated"]["status"] == "False", "the pool to notice")
    kwok.set_node_ready(lab.infra.admin, "dpu-1", ready=True)
    lab.wait_pool()


def test_pool_without_the_worker_configs_is_refused(lab: Lab) -> None:
    alone = mco.pool("lonely", {"matchLabels": {"a": "b"}}, ["lonely"])
    with pytest.raises(ApiError, match="custom-machine-config-pool-selector"):
        lab.infra.admin.create(alone)


def test_pool_renders_a_machine_config_and_rolls_it_out_one_node_at_a_time(lab: Lab, configs: Client) -> None:
    boots = {name: configs.get("v1/Node", name)["status"]["nodeInfo"]["bootID"] for name in DPUS}
    least: list[int] = []
    stop = threading.Event()

    def look() -> None:
        with_pool = Client(lab.infra.admin.access)
        while not stop.is_set():
            status = with_pool.get(mco.POOL, "dpu")["status"]
            least.append(int(status["unavailableMachineCount"]))
            time.sleep(0.02)
        with_pool.close()

    watcher = threading.Thread(target=look)
    watcher.start()
    before = configs.get(mco.POOL, "dpu")["spec"]["configuration"]["name"]
    configs.create(machine_config("99-dpu-lab", "/etc/lab"))
    eventually(lambda: "99-dpu-lab" in rendered_from(lab), "the pool to be rendered")
    lab.wait_pool()
    stop.set()
    watcher.join()
    target = configs.get(mco.POOL, "dpu")["spec"]["configuration"]
    assert target["name"] != before
    assert [each["name"] for each in target["source"]] == ["00-worker", "99-dpu-lab"]
    content = configs.get(MACHINE_CONFIG, target["name"])["spec"]["config"]
    assert content["ignition"]["version"] == "3.5.0"
    assert "/etc/lab" in [each["path"] for each in content["storage"]["files"]]
    assert max(least) == 1
    for name in DPUS:
        item = configs.get("v1/Node", name)
        assert item["status"]["nodeInfo"]["bootID"] != boots[name]
        assert not item["spec"].get("unschedulable")


def test_stalled_pool_never_finishes_until_told(lab: Lab, configs: Client) -> None:
    lab.mco.stall("dpu")
    configs.create(machine_config("99-dpu-stall", "/etc/stall"))
    eventually(lambda: conditions(lab)["Updating"]["status"] == "True", "the pool to be updating")
    time.sleep(1)
    assert configs.get(mco.POOL, "dpu")["status"]["updatedMachineCount"] < 3
    lab.mco.resume()
    lab.wait_pool()


def test_degraded_node_degrades_the_pool(lab: Lab, configs: Client) -> None:
    lab.mco.degrade("dpu-2", "unexpected on-disk state")
    eventually(lambda: conditions(lab)["NodeDegraded"]["status"] == "True", "the pool to be degraded")
    assert "unexpected on-disk state" in conditions(lab)["NodeDegraded"]["message"]
    assert configs.get(mco.POOL, "dpu")["status"]["degradedMachineCount"] == 1
    lab.mco.resume()
    lab.wait_pool()
    assert conditions(lab)["Degraded"]["status"] == "False"


def test_paused_pool_is_rendered_and_not_rolled_out(lab: Lab, configs: Client) -> None:
    before = configs.get(mco.POOL, "dpu")["status"]["configuration"]["name"]
    lab.mco.pause("dpu")
    configs.create(machine_config("99-dpu-paused", "/etc/paused"))
    eventually(lambda: "99-dpu-paused" in rendered_from(lab), "the pool to be rendered")
    target = configs.get(mco.POOL, "dpu")["spec"]["configuration"]["name"]
    eventually(lambda: conditions(lab)["Updated"]["status"] == "False", "the pool to be outdated")
    assert conditions(lab)["Updating"]["status"] == "False"
    assert conditions(lab)["Updating"]["message"] == f"Pool is paused; will not update to {target}"
    assert configs.get(mco.POOL, "dpu")["status"]["configuration"]["name"] == before
    lab.mco.pause("dpu", paused=False)
    lab.wait_pool()


def test_render_failure_is_said_and_mended(lab: Lab, configs: Client) -> None:
    lab.mco.render_fail("dpu", "told to")
    eventually(lambda: conditions(lab)["RenderDegraded"]["status"] == "True", "the failure")
    assert conditions(lab)["RenderDegraded"]["message"].endswith("told to")
    lab.mco.resume()
    eventually(lambda: conditions(lab)["RenderDegraded"]["status"] == "False", "the mend")
    configs.create(machine_config("99-dpu-bad", "/etc/bad", mode=0o1363))
    eventually(lambda: conditions(lab)["RenderDegraded"]["status"] == "True", "a bad MachineConfig to be refused")
    assert "cannot exceed 0777" in conditions(lab)["RenderDegraded"]["message"]
