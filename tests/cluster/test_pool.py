"""MachineConfigApplied follows the pool and its machines, and the removal waits for them."""

from collections.abc import Iterator

import pytest

from dpu_operator.world import FINALIZER, TENANT_NODE_ANNOTATION
from tests.cluster import health
from tests.lab import mco, mco_rules
from tests.lab.client import name_of
from tests.lab.lab import DPUS, POOL
from tests.lab.stage import CONFIG, Stage, config

APPLIED = "MachineConfigApplied"


def set_rolling(stage: Stage) -> None:
    """Somebody adds a MachineConfig for the pool: every machine has something new to run."""
    file = {"path": "/etc/lab-rollout", "mode": 420, "contents": {"source": "data:,"}}
    stage.lab.infra.admin.create(
        {
            "apiVersion": f"{mco_rules.PREFIX}/v1",
            "kind": "MachineConfig",
            "metadata": {"name": f"{health.OTHER}lab-rollout", "labels": {mco_rules.ROLE: POOL}},
            "spec": {"config": {"ignition": {"version": "3.2.0"}, "storage": {"files": [file]}}},
        }
    )


def pool_spec(stage: Stage, **spec: object) -> None:
    """Change the pool as its owner would."""
    stage.lab.infra.admin.patch(mco.POOL, POOL, {"spec": spec})


def delete(stage: Stage) -> None:
    """Delete tenant-1/cluster as its owner would."""
    stage.lab.infra.admin.delete(CONFIG, "cluster", "tenant-1")


def wait_gone(stage: Stage, timeout: float = 30) -> None:
    """Wait until the resource is gone, and with it what was made for it."""
    stage.wait(lambda: health.gone(stage), "tenant-1/cluster to be gone", timeout)
    stage.wait(lambda: not health.made(stage, "tenant-1"), "what was made to be collected", health.COLLECTED_WITHIN)
    assert stage.lab.infra.admin.find(health.MACHINE_CONFIG, health.OURS) is None


def test_a_stalled_update_is_told_with_count_and_names_and_ends_when_the_machines_follow(stage: Stage) -> None:
    stage.lab.mco.stall(POOL)
    set_rolling(stage)
    found = stage.wait_condition(APPLIED, "False", reason="Updating")
    assert "0 of 3 machines of pool dpu run rendered-dpu-" in found["message"]
    assert "not yet dpu-0, dpu-1, dpu-2" in found["message"]
    assert stage.wait_condition("Progressing", "True")["reason"] == "Updating"
    assert stage.conditions()["Degraded"]["status"] == "False"
    admin = stage.lab.infra.admin

    def works() -> bool:
        return mco_rules.annotations(admin.get("v1/Node", "dpu-0")).get(mco_rules.STATE) == "Working"

    # A machine that was told what to run, and works on it, does not run it yet. The other condition shows that the
    # operator has looked since.
    stage.wait(works, "the first machine to begin")
    admin.patch("v1/Node", "dpu-2", {"metadata": {"annotations": {TENANT_NODE_ANNOTATION: None}}})
    stage.wait_condition("NodesMapped", "False")
    assert "0 of 3 machines of pool dpu run" in stage.conditions()[APPLIED]["message"]
    stage.lab.mco.resume()
    assert "All 3 machines" in stage.wait_condition(APPLIED, "True")["message"]
    stage.wait_condition("Progressing", "False")


def test_a_paused_pool_is_told_with_the_command_that_resumes_it(stage: Stage) -> None:
    stage.lab.mco.pause(POOL)
    set_rolling(stage)
    found = stage.wait_condition(APPLIED, "False", reason="PoolPaused")
    assert """oc patch machineconfigpool dpu --type merge -p '{"spec":{"paused":false}}'""" in found["message"]
    assert stage.wait_condition("Degraded", "True")["reason"] == "PoolPaused"
    stage.lab.mco.pause(POOL, paused=False)
    stage.wait_condition(APPLIED, "True")
    stage.wait_condition("Degraded", "False")


def test_a_degraded_machine_is_named_with_its_daemons_own_words(stage: Stage) -> None:
    stage.lab.mco.degrade("dpu-1", "unexpected on-disk state: mode mismatch")
    found = stage.wait_condition(APPLIED, "False", reason="NodeDegraded")
    assert "Node dpu-1 is Degraded: unexpected on-disk state: mode mismatch." in found["message"]
    assert stage.wait_condition("Degraded", "True")["reason"] == "NodeDegraded"
    stage.lab.mco.resume()
    stage.wait_condition(APPLIED, "True")
    stage.wait_condition("Degraded", "False")


def test_a_pool_that_cannot_be_rendered_is_told_with_the_renderers_own_words(stage: Stage) -> None:
    stage.lab.mco.render_fail(POOL, "could not merge 98-other")
    set_rolling(stage)
    found = stage.wait_condition(APPLIED, "False", reason="RenderFailed")
    assert "could not merge 98-other" in found["message"]
    stage.wait_condition("Degraded", "True")
    stage.lab.mco.resume()
    stage.wait_condition(APPLIED, "True")


def test_a_cordoned_machine_that_runs_our_configuration_counts(stage: Stage) -> None:
    admin = stage.lab.infra.admin
    mark = stage.conditions()[APPLIED]["lastTransitionTime"]
    admin.patch("v1/Node", "dpu-1", {"spec": {"unschedulable": True}})
    stage.wait(lambda: admin.get(mco.POOL, POOL)["status"]["readyMachineCount"] == 2, "the pool to count it out")
    admin.patch("v1/Node", "dpu-1", {"spec": {"unschedulable": None}})
    stage.wait(lambda: admin.get(mco.POOL, POOL)["status"]["readyMachineCount"] == 3, "the pool to count it in")
    now = stage.conditions()[APPLIED]
    assert (now["status"], now["lastTransitionTime"]) == ("True", mark)


def test_a_pool_without_machines_is_neither_applied_nor_ready(stage: Stage) -> None:
    pool_spec(stage, nodeSelector={"matchLabels": {"node-role.kubernetes.io/dpu-worker": None, "none": "such"}})
    assert "has no machines" in stage.wait_condition(APPLIED, "False", reason="NoMachines")["message"]
    assert "matches no node" in stage.wait_condition("OvnKubeReady", "False", reason="NoMachines")["message"]
    stage.wait_condition("NodesMapped", "False", reason="NoMachines")
    stage.wait_condition("HostsConfigured", "False", reason="NoMachines")
    stage.wait_condition("Available", "False")
    stage.wait_condition("Degraded", "False")
    pool_spec(stage, nodeSelector={"matchLabels": {"node-role.kubernetes.io/dpu-worker": "", "none": None}})
    health.wait_well(stage)


def test_a_pool_that_does_not_select_ours_is_told_and_ours_comes_back_with_the_selector(stage: Stage) -> None:
    workers = {"matchExpressions": [{"key": mco_rules.ROLE, "operator": "In", "values": ["worker"]}]}
    pool_spec(stage, machineConfigSelector=workers)
    found = stage.wait_condition(APPLIED, "False", reason="PoolDoesNotSelect")
    assert "Let it select machineconfiguration.openshift.io/role In [worker, dpu]." in found["message"]
    stage.wait_condition("Degraded", "True")
    both = {"matchExpressions": [{"key": mco_rules.ROLE, "operator": "In", "values": ["worker", "dpu"]}]}
    pool_spec(stage, machineConfigSelector=both)
    health.wait_well(stage)


def test_a_pool_without_selector_is_refused_and_the_pods_stay_where_they_are(stage: Stage) -> None:
    # To Kubernetes an empty selector is every node of the cluster; to the pool it is none.
    admin = stage.lab.infra.admin
    before = admin.get("apps/v1/DaemonSet", "ovnkube-node", "tenant-1")["metadata"]["generation"]
    pool_spec(stage, nodeSelector=None)
    found = stage.wait_condition(APPLIED, "False", reason="PoolInvalid")
    assert "has no nodeSelector" in found["message"]
    assert admin.get("apps/v1/DaemonSet", "ovnkube-node", "tenant-1")["metadata"]["generation"] == before
    pool_spec(stage, nodeSelector={"matchLabels": {"node-role.kubernetes.io/dpu-worker": ""}})
    health.wait_well(stage)


@pytest.fixture
def poolless(stage: Stage) -> Iterator[Stage]:
    """The pool is deleted, and with it what was rendered for it."""
    admin = stage.lab.infra.admin
    admin.delete(mco.POOL, POOL)

    def rendered() -> list[str]:
        return [n for each in admin.list(health.MACHINE_CONFIG) if (n := name_of(each)).startswith("rendered-dpu-")]

    stage.wait(lambda: not rendered(), "what was rendered to be collected")
    stage.wait_condition(APPLIED, "False", reason="PoolNotFound")
    yield stage
    mco.furnish(admin)


def test_a_deleted_pool_is_told_and_nothing_that_serves_is_touched(poolless: Stage) -> None:
    stage, admin = poolless, poolless.lab.infra.admin
    found = stage.conditions()
    assert found[APPLIED]["message"] == "MachineConfigPool dpu does not exist. Create it, for the DPUs' nodes."
    assert found["OvnKubeReady"]["status"] == "True"
    assert admin.find(health.MACHINE_CONFIG, health.OURS)
    stage.wait_condition("Degraded", "True")
    mco.furnish(admin)
    health.wait_well(stage)


# -- removal ----------------------------------------------------------------------------------------------------------


def test_the_removal_takes_the_machine_config_away_and_waits_for_the_machines(stage: Stage) -> None:
    admin = stage.lab.infra.admin
    stage.lab.mco.stall(POOL)
    delete(stage)
    stage.wait(lambda: admin.find(health.MACHINE_CONFIG, health.OURS) is None, "the MachineConfig to be deleted")

    def waits() -> bool:
        found = stage.conditions()[APPLIED]
        return found["reason"] == "Removing" and "not yet dpu-0" in found["message"]

    stage.wait(waits, "the removal to say whom it waits for")
    said = stage.conditions()
    assert "0 of 3 machines of pool dpu are rid of the MachineConfig" in said[APPLIED]["message"]
    assert said["Progressing"]["message"] == said[APPLIED]["message"]
    # Until the last machine is done, everything else stays.
    assert admin.find("apps/v1/DaemonSet", "ovnkube-node", "tenant-1")
    assert stage.resource()["metadata"]["finalizers"] == [FINALIZER]
    stage.lab.mco.resume()
    wait_gone(stage)
    for node in DPUS:
        current = mco_rules.annotations(admin.get("v1/Node", node))[mco_rules.CURRENT]
        used = admin.get(health.MACHINE_CONFIG, current)["spec"]["config"]["storage"]["files"]
        assert [each["path"] for each in used] == ["/etc/lab-worker"]


def test_the_removal_ends_while_the_tenant_is_unreachable(stage: Stage) -> None:
    stage.lab.tenant.network().set("cut")
    stage.wait_condition("TenantClusterApiServerUnreachable", "True")
    delete(stage)
    wait_gone(stage)


def test_the_removal_waits_for_a_paused_pool_and_says_how_not_to(stage: Stage) -> None:
    admin = stage.lab.infra.admin
    stage.lab.mco.pause(POOL)
    delete(stage)

    def waits() -> bool:
        return "the pool is paused" in stage.conditions()[APPLIED]["message"]

    stage.wait(waits, "the removal to say that it waits")
    way_out = "oc annotate ovnkubeconfig cluster -n tenant-1 dpu.openshift.io/skip-pool-wait=true"
    assert way_out in stage.conditions()[APPLIED]["message"]
    assert not health.gone(stage)
    admin.patch(CONFIG, "cluster", health.SKIP_WAIT, "tenant-1")
    wait_gone(stage)


def test_the_removal_ends_without_the_pool(poolless: Stage) -> None:
    delete(poolless)
    wait_gone(poolless)


def test_a_removal_goes_on_where_a_restart_has_interrupted_it(idle: Stage) -> None:
    stage, admin = idle, idle.lab.infra.admin
    health.bring_up(stage)
    stage.lab.mco.stall(POOL)
    delete(stage)
    stage.wait(lambda: admin.find(health.MACHINE_CONFIG, health.OURS) is None, "the MachineConfig to be deleted")
    stage.process.kill()
    assert not health.gone(stage)
    stage.lab.mco.resume()
    stage.process.start()
    wait_gone(stage, 60)


def test_a_resource_that_was_deleted_while_no_operator_ran_is_removed_by_the_next_one(idle: Stage) -> None:
    health.bring_up(idle)
    idle.process.terminate()
    delete(idle)
    assert not health.gone(idle)
    idle.process.start()
    wait_gone(idle, 60)
    idle.lab.infra.admin.create(config())
    health.wait_well(idle)
