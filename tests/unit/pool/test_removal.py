"""The finalizer waits until no machine runs our MachineConfig, and never without saying why."""

import copy
import dataclasses
from collections.abc import Callable

import pytest

from dpu_operator.plan.pool import SKIP_WAIT_ANNOTATION, removal
from dpu_operator.world import InfraWorld, Obj, Seen, Sight
from tests.unit.pool.worlds import OLD, TARGET, config, configuration, edited, node, ours, well, with_live

CLEAN = "rendered-dpu-2"
MINE = "99-dpu-dpu-network-operator"
WAY_OUT = f"To not wait: `oc annotate ovnkubeconfig cluster -n tenant-1 {SKIP_WAIT_ANNOTATION}=true`."


def deleted(*nodes: Obj, spec: Obj | None = None, status: Obj | None = None) -> InfraWorld:
    """Our MachineConfig is gone; the pool is rendered without it, and status still names the one with it."""

    def edit(pool: Obj) -> None:
        pool["spec"]["configuration"] = spec or configuration(CLEAN, "00-worker")
        pool["status"]["configuration"] = status or configuration(TARGET, "00-worker", MINE)

    return edited(dataclasses.replace(with_live(well(), None), nodes=nodes), edit)


def test_it_waits_while_the_machine_config_is_there() -> None:
    assert not removal(well()).done


def test_it_waits_while_the_pool_is_still_made_with_it() -> None:
    state = removal(with_live(well(), None))
    assert not state.done
    assert state.message == f"Pool dpu is still made with the deleted MachineConfig {MINE}. {WAY_OUT}"


def test_it_waits_for_the_last_machine() -> None:
    state = removal(deleted(node("dpu-0", CLEAN, CLEAN), node("dpu-1", TARGET, CLEAN, "Working")))
    assert not state.done
    assert "1 of 2 machines of pool dpu are rid of" in state.message
    assert "not yet dpu-1" in state.message
    assert state.message.endswith(WAY_OUT)


def test_it_ends_when_the_last_machine_is_done() -> None:
    assert removal(deleted(node("dpu-0", CLEAN, CLEAN), node("dpu-1", CLEAN, CLEAN))).done


def test_it_ends_though_a_cordoned_machine_keeps_the_pools_status_back() -> None:
    world = deleted(node("dpu-0", CLEAN, CLEAN))
    assert "Updated" not in str(world.nodes)
    assert removal(world).done


def test_it_waits_for_a_machine_that_took_it_up_before_the_pool_as_a_whole_did() -> None:
    never_finished = configuration(OLD, "00-worker")
    world = deleted(node("dpu-0", OLD, OLD), node("dpu-1", TARGET, CLEAN, "Working"), status=never_finished)
    assert not removal(world).done
    assert removal(deleted(node("dpu-0", OLD, OLD), node("dpu-1", OLD, OLD), status=never_finished)).done


def test_it_ends_at_once_where_no_machine_ever_took_it_up_and_the_pool_is_paused() -> None:
    world = deleted(node("dpu-0", OLD, OLD), status=configuration(OLD, "00-worker"))
    assert removal(edited(world, lambda p: p["spec"].update(paused=True))).done


def test_it_ends_in_a_pool_without_machines() -> None:
    assert removal(deleted()).done


def test_a_paused_pool_is_named_with_the_way_out() -> None:
    world = edited(deleted(node("dpu-0", TARGET, TARGET)), lambda p: p["spec"].update(paused=True))
    state = removal(world)
    assert not state.done
    assert "the pool is paused" in state.message
    assert state.message.endswith(WAY_OUT)


def test_a_machine_that_cannot_be_updated_is_named_with_the_way_out() -> None:
    reason = {"machineconfiguration.openshift.io/reason": "no space"}
    state = removal(deleted(node("dpu-0", TARGET, CLEAN, "Degraded", **reason)))
    assert not state.done
    assert "Node dpu-0 is Degraded: no space." in state.message
    assert state.message.endswith(WAY_OUT)


def test_a_pool_that_cannot_be_rendered_is_named_with_the_way_out() -> None:
    def fail(pool: Obj) -> None:
        pool["status"]["conditions"] = [{"type": "RenderDegraded", "status": "True", "message": "bad 99-y"}]

    state = removal(edited(with_live(well(), None), fail))
    assert "It cannot be rendered: bad 99-y." in state.message
    assert state.message.endswith(WAY_OUT)


@pytest.mark.parametrize("sight", [Sight.ABSENT, Sight.UNSERVED])
def test_it_ends_when_the_pool_is_deleted(sight: Sight) -> None:
    assert removal(dataclasses.replace(with_live(well(), None), pool=Seen(sight))).done


@pytest.mark.parametrize("sight", [Sight.UNSEEN, Sight.FORBIDDEN])
def test_it_waits_while_nothing_is_known_of_the_pool(sight: Sight) -> None:
    assert not removal(dataclasses.replace(with_live(well(), None), pool=Seen(sight))).done


def test_it_waits_while_nothing_is_known_of_the_machine_config() -> None:
    assert not removal(dataclasses.replace(with_live(well(), None), live_complete=False)).done


@pytest.mark.parametrize(
    "world",
    [
        lambda: deleted(node("dpu-0", TARGET, TARGET)),
        lambda: with_live(well(), None),
        lambda: dataclasses.replace(with_live(well(), None), pool=Seen(Sight.FORBIDDEN)),
    ],
)
def test_the_annotation_ends_every_wait_but_that_for_our_own_deletion(world: Callable[[], InfraWorld]) -> None:
    marked = copy.deepcopy(config())
    marked["metadata"]["annotations"] = {SKIP_WAIT_ANNOTATION: "true"}
    assert removal(dataclasses.replace(world(), config=marked)).done
    assert not removal(dataclasses.replace(well(), config=marked)).done
    marked["metadata"]["annotations"] = {SKIP_WAIT_ANNOTATION: "false"}
    assert not removal(dataclasses.replace(world(), config=marked)).done


def test_a_second_resource_that_never_did_anything_goes_at_once_and_leaves_the_firsts_machine_config() -> None:
    first = config("first", "other", creationTimestamp="2026-10-01T00:00:00Z")
    assert removal(dataclasses.replace(well(), others=(first,))).done
    theirs = copy.deepcopy(ours())
    theirs["metadata"]["annotations"] = {}
    assert removal(with_live(well(), theirs)).done


def test_without_sight_of_the_nodes_the_pools_counters_decide() -> None:
    world = dataclasses.replace(deleted(), nodes_sight=Sight.FORBIDDEN)
    assert not removal(world).done, "status still names another configuration"
    done = edited(world, lambda p: p["status"].update(configuration=p["spec"]["configuration"]))
    assert removal(done).done
