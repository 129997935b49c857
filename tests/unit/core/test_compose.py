"""The whole plan: it converges from anywhere, leaves alone what is not ours, and deletes only what is surely needless."""

import copy
import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpu_operator import plan as planning
from dpu_operator.observe.essentials import ALWAYS
from dpu_operator.plan.diff import retyped
from dpu_operator.plan.machineconfig import ref_of
from dpu_operator.world import (
    CONFIG_MAP,
    DAEMON_SET,
    HASH_ANNOTATION,
    MACHINE_CONFIG,
    OWNER_ANNOTATION,
    SECRET,
    Apply,
    Delete,
    LinkState,
    Obj,
    Ref,
    Seen,
    Sight,
    TenantKey,
    TenantWorld,
    Truth,
)
from dpu_shared.steps import Disruption
from tests.unit.core.worlds import (
    IMAGE,
    NAMESPACE,
    OPERAND,
    TREE,
    World,
    central,
    config_map,
    example_tenant,
    foreign,
    healthy,
    secret,
)

NODE_ENV = config_map("ovnkube-node-env")
COPY = config_map("ovnkube-config")


# Situations from which a plan has something to do. Each is also the start of every interrupted plan below.


def fresh() -> World:
    return World()


def fresh_central() -> World:
    world = World(tenant=central())
    world.config["spec"]["ovnKubeImage"] = IMAGE
    return world


def upgraded() -> World:
    """The tenant has gone from central OVN to interconnect."""
    world = healthy(central())
    world.tenant = example_tenant()
    return world


def changed() -> World:
    """The tenant's settings, its CA and the host configuration are others now."""
    world = healthy()
    world.edit_tenant(
        TenantKey.OVNKUBE_CONFIG,
        lambda obj: obj["data"].update(
            {"ovnkube.conf": obj["data"]["ovnkube.conf"].replace('mtu="1400"', 'mtu="8900"')}
        ),
    )
    world.edit_tenant(TenantKey.ROOT_CA, lambda obj: obj["data"].update({"ca.crt": "another CA"}))
    world.config["spec"]["hostConfig"]["bridge"] = "br-other"
    return world


def meddled() -> World:
    """Somebody has changed, extended and deleted objects of ours."""
    world = healthy()
    world.edit(COPY, lambda obj: obj["data"].update({"ovnkube.conf": "mine", "more": "x"}))
    world.edit(config_map("ovnkube-node-scripts"), lambda obj: obj.update({"binaryData": {"more": "eA=="}}))
    world.edit(OPERAND, lambda obj: obj["spec"]["template"]["spec"]["containers"].pop())
    world.edit(ref_of(world.infra()), lambda obj: obj["spec"]["config"]["storage"]["files"].pop())
    world.server.remove(config_map("tenant-cluster-ca.crt"))
    world.server.remove(Ref(SECRET, NAMESPACE, "no-such"))
    return world


def unmapped_and_extended() -> World:
    """No DPU has a tenant node, and somebody has put a key into the ConfigMap that is therefore empty."""
    world = healthy()
    for ref in world.nodes():
        world.edit(ref, lambda node: node["metadata"]["annotations"].pop("dpu.openshift.io/tenant-node"))
    world.converge()
    world.edit(NODE_ENV, lambda obj: obj.update({"data": {"dpu-0": "TENANT_K8S_NODE=dpu-host-0"}}))
    return world


SITUATIONS = [fresh, fresh_central, upgraded, changed, meddled, unmapped_and_extended]


def content(world: World) -> dict[Ref, Obj]:
    """What is in the cluster, without what differs from one run to the next."""
    passing = ("uid", "resourceVersion", "generation")
    return {
        ref: {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k not in passing}}
        for ref, obj in world.server.objects.items()
    }


@pytest.mark.parametrize("start", SITUATIONS)
def test_when_all_steps_are_done_nothing_is_left_to_do(start: Callable[[], World]) -> None:
    world = start()
    assert world.plan().steps
    assert world.converge().steps == ()


@pytest.mark.parametrize("tenant", [None, central()], ids=["interconnect", "central"])
def test_a_healthy_world_needs_no_step(tenant: TenantWorld | None) -> None:
    assert healthy(tenant).plan().steps == ()


@pytest.mark.parametrize("start", SITUATIONS)
def test_after_any_prefix_of_the_steps_planning_again_converges_to_the_same_end(start: Callable[[], World]) -> None:
    whole = start()
    whole.converge()
    for done in range(len(start().plan().steps)):
        world = start()
        world.do(world.plan().steps[:done])
        assert world.converge().steps == ()
        assert content(world) == content(whole)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), start=st.sampled_from(SITUATIONS))
def test_after_any_choice_of_the_steps_in_any_order_planning_again_converges(
    data: st.DataObject, start: Callable[[], World]
) -> None:
    """Steps that do not depend on each other are carried out at once, so that any of them may be the last one done."""
    world, whole = start(), start()
    whole.converge()
    steps = data.draw(st.permutations(world.plan().steps))
    world.do(steps[: data.draw(st.integers(0, len(steps)))])
    assert world.converge().steps == ()
    assert content(world) == content(whole)


def test_half_a_step_is_mended_too() -> None:
    """A copy with foreign keys takes two requests, and the power may fail between them."""
    world = healthy()
    world.edit(COPY, lambda obj: obj["data"].update({"more": "x", "ovnkube.conf": "mine"}))
    (step,) = (step for step in world.plan().steps if step.ref == COPY)
    assert isinstance(step, Apply)
    assert step.drop_keys == ("more",)
    world.server.patch_now(COPY, {"data": {"more": None}})
    assert world.converge().steps == ()
    assert world.live(COPY)["data"] == (world.tenant.object(TenantKey.OVNKUBE_CONFIG) or {})["data"]


def test_a_secret_of_another_type_is_made_anew_and_one_of_the_same_is_not() -> None:
    """Only a Secret that the tenant has made anew can have another type, and then nobody can change its copy's."""
    secret = {"kind": "Secret", "data": {"tls.key": "YQ=="}}
    assert retyped(secret | {"type": "kubernetes.io/tls"}, secret | {"type": "Opaque"})
    assert not retyped(secret | {"type": "Opaque"}, secret)
    assert not retyped(secret, secret | {"type": "Opaque"})
    assert not retyped({"kind": "ConfigMap", "type": "a"}, {"kind": "ConfigMap"})


def test_the_same_worlds_give_the_same_plan_and_are_not_changed() -> None:
    world = meddled()
    infra, tenant = world.infra(), world.tenant
    before = copy.deepcopy((infra, tenant))
    assert planning.plan(infra, tenant, tree=TREE) == planning.plan(infra, tenant, tree=TREE)
    assert (infra, tenant) == before


def test_the_copies_are_the_tenants_objects_to_the_byte() -> None:
    world = healthy(central())
    for key, ref in world.plan().copies.items():
        original = world.tenant.object(key) or {}
        assert world.live(ref)["data"] == original["data"]
        assert world.live(ref).get("type") == original.get("type")


def test_nothing_is_planned_while_it_is_not_known_what_is_there() -> None:
    world = World(infra_changes={"live_complete": False})
    assert world.plan().steps == ()


def test_only_the_machine_config_reboots_anything() -> None:
    steps = World().plan().steps
    reboots = [step for step in steps if step.disruption is not Disruption.NONE]
    assert [(step.ref.kind, step.disruption) for step in reboots] == [(MACHINE_CONFIG, Disruption.REBOOT)]


def test_each_step_says_why_and_no_value_of_a_secret_is_in_it() -> None:
    world = healthy(central())
    world.edit(secret("ovn-cert"), lambda obj: obj["data"].update({"tls.key": "c3dhcHBlZA=="}))
    (step,) = world.plan().steps
    assert (step.ref, step.why) == (secret("ovn-cert"), "data[tls.key] is not as it should be.")


# what is not ours

FOREIGN = [
    foreign("ConfigMap", "ovnkube-config", data={"ovnkube.conf": "somebody's"}),
    foreign("ConfigMap", "tenant-cluster-ca.crt"),
    foreign("ConfigMap", "ovnkube-config-dpu"),
    foreign("ConfigMap", "ovnkube-node-scripts"),
    foreign("ConfigMap", "ovnkube-node-env"),
    foreign("ServiceAccount", "ovn-kubernetes-node"),
    foreign("DaemonSet", "ovnkube-node", spec={"selector": {}, "template": {"spec": {"containers": []}}}),
    foreign("Secret", "ovn-cert", type="example.com/other", data={"tls.key": "bWluZQ=="}),
]


@pytest.mark.parametrize("obj", FOREIGN, ids=lambda obj: f"{obj['kind']}-{obj['metadata']['name']}")
def test_a_foreign_object_is_in_no_step_and_no_pod_starts_that_would_mount_it(obj: Obj) -> None:
    world = fresh_central()
    world.server.put(obj)
    (ref,) = (r for r in world.server.objects if (r.kind.kind, r.name, r.namespace) == _place(obj))
    before = copy.deepcopy(world.live(ref))
    plan = world.plan()
    assert ref not in [step.ref for step in plan.steps]
    assert OPERAND not in [step.ref for step in plan.steps]
    assert ref not in plan.copies.values()
    world.converge()
    assert world.live(ref) == before
    if ref.kind != DAEMON_SET:
        assert OPERAND not in world.server.objects


def _place(obj: Obj) -> tuple[str, str, str]:
    return obj["kind"], obj["metadata"]["name"], NAMESPACE


def test_a_foreign_machine_config_is_left_alone_and_the_pods_go_their_way() -> None:
    world = World()
    ref = ref_of(world.infra())
    world.server.put(
        {"apiVersion": MACHINE_CONFIG.api_version, "kind": "MachineConfig", "metadata": {"name": ref.name}}
    )
    steps = [step.ref for step in world.plan().steps]
    assert ref not in steps
    assert OPERAND in steps


@pytest.mark.parametrize("mark", ["label", "annotation", "owner"])
def test_an_object_that_bears_only_half_of_our_marks_is_foreign(mark: str) -> None:
    world = healthy()

    def unmark(obj: Obj) -> None:
        if mark == "label":
            obj["metadata"]["labels"].pop("app.kubernetes.io/managed-by")
        elif mark == "annotation":
            obj["metadata"]["annotations"].pop(OWNER_ANNOTATION)
        else:
            obj["metadata"]["annotations"][OWNER_ANNOTATION] = f"{NAMESPACE}/another"
        obj["data"]["ovnkube.conf"] = "somebody's"

    world.edit(COPY, unmark)
    assert world.plan().steps == ()
    assert world.condition("TenantObjectsSynced").reason == "ForeignObject"
    world.tenant = central()  # and now it is not even needed
    assert COPY not in [step.ref for step in world.plan().steps]


def test_an_object_of_ours_that_became_foreign_and_ours_again_is_mended() -> None:
    world = healthy()
    world.server.remove(COPY)
    world.server.put(FOREIGN[0])
    assert world.plan().steps == ()
    world.server.remove(COPY)
    assert [step.ref for step in world.plan().steps] == [COPY]


# deletion


def test_what_the_topology_no_longer_needs_is_deleted_by_its_uid() -> None:
    world = upgraded()
    deletions = {step.ref: step for step in world.plan().steps if isinstance(step, Delete)}
    assert set(deletions) == {config_map("ovn-ca"), secret("ovn-cert")}
    for ref, step in deletions.items():
        assert step.uid == world.live(ref)["metadata"]["uid"]
    world.converge()
    assert not set(deletions) & set(world.server.objects)


def test_what_is_being_deleted_is_not_deleted_again() -> None:
    world = upgraded()
    for ref in (config_map("ovn-ca"), secret("ovn-cert")):
        world.edit(ref, lambda obj: obj["metadata"].update({"deletionTimestamp": "2026-05-20T00:00:00Z"}))
    assert not [step for step in world.plan().steps if isinstance(step, Delete)]


def test_an_older_operators_object_of_another_name_is_pruned_and_somebody_elses_is_not() -> None:
    world = healthy()
    old = copy.deepcopy(world.live(COPY))
    old["metadata"] |= {"name": "of-an-older-release"}
    world.server.put(old)
    world.server.put(foreign("ConfigMap", "env-overrides", data={}))
    assert [(type(s), s.ref.name) for s in world.plan().steps] == [(Delete, "of-an-older-release")]


def test_a_tenant_object_that_is_gone_for_sure_takes_its_copy_with_it() -> None:
    world = healthy()
    world.tenant_object(TenantKey.ROOT_CA, Seen(Sight.ABSENT))
    steps = world.plan().steps
    assert [(type(step), step.ref) for step in steps] == [(Delete, config_map("tenant-cluster-ca.crt"))]
    world.do(steps)
    assert world.plan().steps == ()
    assert OPERAND in world.server.objects, "the pods that run keep running"
    assert world.condition("TenantObjectsSynced").reason == "TenantObjectMissing"


NOT_KNOWN = [Sight.UNSEEN, Sight.FORBIDDEN, Sight.UNSERVED]


@pytest.mark.parametrize("sight", NOT_KNOWN)
@pytest.mark.parametrize("key", list(TenantKey), ids=lambda key: key.name)
@pytest.mark.parametrize("tenant", [example_tenant(), central()], ids=["interconnect", "central"])
def test_nothing_is_deleted_while_a_tenant_object_cannot_be_seen(
    tenant: TenantWorld, key: TenantKey, sight: Sight
) -> None:
    world = healthy(tenant)
    world.report()
    world.tenant_object(key, Seen(sight))
    assert not [step for step in world.plan().steps if isinstance(step, Delete)]


@pytest.mark.parametrize("tenant", [example_tenant(), central()], ids=["interconnect", "central"])
def test_nothing_is_done_at_all_while_nothing_of_the_tenant_has_been_seen(tenant: TenantWorld) -> None:
    world = healthy(tenant)
    world.report()
    world.tenant = TenantWorld(credential=tenant.credential)
    assert world.plan().steps == ()
    del world.config["status"]  # an operator that has just been installed anew does not know the topology either
    assert world.plan().steps == ()


def test_an_unreachable_tenant_changes_nothing_but_conditions_and_what_is_here_is_still_kept_right() -> None:
    world = healthy()
    world.link(LinkState.DOWN, "timed out after 10 s")
    assert world.plan().steps == ()
    world.server.remove(COPY)
    assert [step.ref for step in world.plan().steps] == [COPY]
    assert world.converge().steps == ()


@pytest.mark.parametrize(
    "change",
    [
        lambda obj: obj["data"].pop("ovnkube.conf"),
        lambda obj: obj.update({"data": ["not", "a", "map"]}),
        lambda obj: obj["data"].update({"ovnkube.conf": "[broken"}),
    ],
    ids=["a key is missing", "no map", "no INI file"],
)
def test_a_tenant_object_that_cannot_be_used_leaves_the_pods_as_they_are(change: Callable[[Obj], object]) -> None:
    world = healthy()
    world.edit_tenant(TenantKey.OVNKUBE_CONFIG, change)
    touched = [step.ref for step in world.plan().steps]
    assert OPERAND not in touched
    assert config_map("ovnkube-config-dpu") not in touched
    assert not [step for step in world.plan().steps if isinstance(step, Delete)]


def test_the_pods_keep_their_image_while_the_tenants_release_has_none_for_them() -> None:
    world = healthy()
    for key in (TenantKey.NODE_DAEMON_SET, TenantKey.DPU_HOST_DAEMON_SET):
        world.edit_tenant(
            key, lambda obj: obj["metadata"]["annotations"].update({"release.openshift.io/version": "4.20.9"})
        )
    world.converge()
    containers = world.live(OPERAND)["spec"]["template"]["spec"]["containers"]
    assert "a420" in containers[0]["image"]
    assert world.condition("VersionAligned").status is Truth.FALSE


# what is watched


def test_every_topology_is_found_from_what_is_watched_at_first_and_what_each_plan_asks_for() -> None:
    """The feed watches ALWAYS, and `plan.tenant_keys` of each plan: what is never asked for is never seen."""
    for everything, wanted in ((example_tenant(), "interconnect"), (central(), "central")):
        watched = set(ALWAYS)
        world = World()
        world.config["spec"]["ovnKubeImage"] = IMAGE
        for _ in range(3):
            seen = {key: everything.objects[key] for key in watched if key in everything.objects}
            world.tenant = dataclasses.replace(everything, objects=seen)
            plan = world.plan()
            watched |= set(plan.tenant_keys)
        assert plan.facts["topology"] == wanted
        assert {step.ref for step in plan.steps} >= {OPERAND}


def test_an_interconnect_tenant_is_not_asked_for_the_objects_of_central_ovn() -> None:
    plan = World().plan()
    assert set(plan.tenant_keys) == {TenantKey.OVNKUBE_CONFIG, TenantKey.ROOT_CA}


def test_a_restarted_operator_asks_for_what_tells_central_ovn_before_it_has_seen_anything_of_it() -> None:
    """The status still says `central`; the watches of what proves it must start again all the same."""
    everything = central()
    world = healthy(everything)
    world.report()
    world.tenant = dataclasses.replace(everything, objects={key: everything.objects[key] for key in ALWAYS})
    assert {TenantKey.MASTER_DAEMON_SET, TenantKey.DB_SERVICE} <= set(world.plan().tenant_keys)


def test_a_copy_step_writes_what_the_plan_would_write() -> None:
    world = healthy()
    world.edit_tenant(TenantKey.OVNKUBE_CONFIG, lambda obj: obj["data"].update({"more": "x"}))
    planned = next(step for step in world.plan().steps if step.ref == COPY)
    obj = world.tenant.object(TenantKey.OVNKUBE_CONFIG)
    assert obj is not None
    assert isinstance(planned, Apply)
    short = planning.copy_step(TenantKey.OVNKUBE_CONFIG, obj, COPY, world.config)
    assert (short.object, short.replaces) == (planned.object, True)
    assert short.object["metadata"]["annotations"][HASH_ANNOTATION]


# the MachineConfig


def test_no_machine_is_rebooted_for_a_tenant_that_cannot_be_used() -> None:
    world = World(tenant=TenantWorld())
    assert MACHINE_CONFIG not in [step.ref.kind for step in world.plan().steps]
    assert "waits until the tenant can be used" in world.condition("MachineConfigApplied").message


def test_a_machine_config_that_is_there_follows_its_inputs_whatever_the_tenant_does() -> None:
    world = healthy()
    world.tenant = TenantWorld()
    world.config["spec"]["hostConfig"]["bridge"] = "br-other"
    assert [step.ref for step in world.plan().steps] == [ref_of(world.infra())]


def test_without_the_agents_image_there_is_no_machine_config_and_a_sentence_says_so() -> None:
    world = World(infra_changes={"images": {}})
    assert MACHINE_CONFIG not in [step.ref.kind for step in world.plan().steps]
    assert "RELATED_IMAGE_AGENT" in world.condition("MachineConfigApplied").message


# two resources


def rival(world: World, *, created: str, namespace: str = "elsewhere", pool: str = "dpu") -> Obj:
    config = copy.deepcopy(world.config)
    config["metadata"] |= {"name": "rival", "namespace": namespace, "uid": "uid-z", "creationTimestamp": created}
    config["spec"]["poolName"] = pool
    return config


OLDER, YOUNGER = "2026-05-01T00:00:00Z", "2026-05-21T00:00:00Z"


@pytest.mark.parametrize(("namespace", "pool"), [("elsewhere", "dpu"), (NAMESPACE, "another")])
def test_the_younger_of_two_resources_does_nothing_and_says_why_on_every_condition(namespace: str, pool: str) -> None:
    world = fresh()
    world.infra_changes["others"] = (rival(world, created=OLDER, namespace=namespace, pool=pool),)
    plan = world.plan()
    assert (plan.steps, plan.desired, dict(plan.copies)) == ((), (), {})
    assert {c.type for c in plan.conditions} == set(world_conditions())
    said = [c for c in plan.conditions if c.type not in ("TenantClusterApiServerUnreachable", "TenantCredentialsValid")]
    assert {c.reason for c in said} == {"PoolConflict"}
    assert all(f"{namespace}/rival" in c.message for c in said)


def world_conditions() -> list[str]:
    return [c.type for c in World().plan().conditions]


@pytest.mark.parametrize(
    ("created", "namespace", "pool"),
    [(YOUNGER, "elsewhere", "dpu"), (YOUNGER, NAMESPACE, "another"), (OLDER, "elsewhere", "another")],
)
def test_the_older_of_two_resources_and_one_that_shares_nothing_work_on(
    created: str, namespace: str, pool: str
) -> None:
    world = healthy()
    plan = world.plan()
    world.infra_changes["others"] = (rival(world, created=created, namespace=namespace, pool=pool),)
    assert world.plan() == plan


def test_when_the_older_resource_is_gone_the_younger_one_starts() -> None:
    world = fresh()
    world.infra_changes["others"] = (rival(world, created=OLDER),)
    world.report()
    del world.infra_changes["others"]
    assert OPERAND in [step.ref for step in world.plan().steps]


# removal


def removal(world: World) -> tuple[list[tuple[str, Ref]], str]:
    plan, waits_for = planning.removal(world.infra())
    return [(type(step).__name__, step.ref) for step in plan.steps], waits_for


def test_a_removal_deletes_the_machine_config_and_then_waits_for_every_machine_of_the_pool() -> None:
    world = healthy()
    ours = ref_of(world.infra())
    steps, waits_for = removal(world)
    assert steps == [("Delete", ours)]
    assert waits_for
    world.do(planning.removal(world.infra())[0].steps)
    steps, waits_for = removal(world)
    assert steps == []
    assert "still made with" in waits_for
    world.machine_config_operator()
    assert removal(world) == ([], "")


def test_a_removal_leaves_the_namespace_to_garbage_collection_and_says_that_it_is_under_way() -> None:
    world = healthy()
    world.report()
    plan, _ = planning.removal(world.infra())
    assert [step.ref.kind for step in plan.steps] == [MACHINE_CONFIG]
    said = {c.type: (str(c.status), c.reason) for c in plan.conditions}
    assert said["MachineConfigApplied"] == ("False", "Removing")
    assert said["Progressing"] == ("True", "Removing")
    assert said["OvnKubeReady"] == ("True", "Ready"), "what nobody looks at any more stays as it was"
    assert set(said) == set(world_conditions())


def test_a_removal_does_not_delete_twice_nor_what_is_not_ours() -> None:
    world = healthy()
    ours = ref_of(world.infra())
    world.edit(ours, lambda obj: obj["metadata"].update({"deletionTimestamp": "2026-05-20T00:00:00Z"}))
    steps, waits_for = removal(world)
    assert (steps, bool(waits_for)) == ([], True)
    world = healthy()
    world.edit(ours, lambda obj: obj["metadata"]["annotations"].update({OWNER_ANNOTATION: "elsewhere/rival"}))
    assert removal(world) == ([], "")


def test_a_removal_does_not_look_at_the_tenant() -> None:
    world = healthy()
    world.tenant = TenantWorld()
    assert removal(world)[0]
    world.do(planning.removal(world.infra())[0].steps)
    world.machine_config_operator()
    assert removal(world) == ([], "")


def test_a_removal_waits_while_it_is_not_known_whether_the_machine_config_is_there() -> None:
    world = World(infra_changes={"live_complete": False})
    steps, waits_for = removal(world)
    assert (steps, bool(waits_for)) == ([], True)


# failed writes


def test_failed_writes_are_on_degraded_and_nowhere_else() -> None:
    plan = healthy().plan()
    after = planning.with_failures(plan, ("ConfigMap tenant-1/x could not be written (HTTP 403 Forbidden: no).",))
    changed_ones = [c for c, before in zip(after.conditions, plan.conditions, strict=True) if c != before]
    assert [(c.type, str(c.status), c.reason) for c in changed_ones] == [("Degraded", "True", "WriteFailed")]
    assert changed_ones[0].message == (
        "ConfigMap tenant-1/x could not be written (HTTP 403 Forbidden: no). It is tried again."
    )
    assert planning.with_failures(plan, ()) is plan


@pytest.mark.parametrize(("count", "words"), [(2, "So is 1 other."), (4, "So are 3 others.")])
def test_several_failed_writes_are_counted(count: int, words: str) -> None:
    after = planning.with_failures(healthy().plan(), ("A could not be written (x).",) * count)
    message = next(c.message for c in after.conditions if c.type == "Degraded")
    assert message == f"A could not be written (x). It is tried again. {words}"


def test_no_step_ever_touches_the_secret_with_the_key_of_the_tenants_ca() -> None:
    for start in SITUATIONS:
        for step in start().plan().steps:
            assert step.ref != secret("ovn-ca")
            assert step.ref.kind is not CONFIG_MAP or not isinstance(step, Apply) or step.object["kind"] == "ConfigMap"
