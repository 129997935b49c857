"""The reconcile loop of one resource: what it waits for, what it writes, and what it does when something fails."""

import asyncio
import copy
import dataclasses
import json
import logging

import pytest

from dpu_operator import plan as planning
from dpu_operator import reconcile
from dpu_operator.kube.errors import ApiError, ClusterError, Unreachable
from dpu_operator.observe import folder
from dpu_operator.plan.machineconfig import machine_config_name
from dpu_operator.world import (
    MACHINE_CONFIG,
    MACHINE_CONFIG_POOL,
    NODE,
    OWNER_ANNOTATION,
    Obj,
    Plan,
    Ref,
    Seen,
    Sight,
    TenantKey,
)
from tests.unit.core.server import ApiServer
from tests.unit.core.stage import CONFIG, Stage, kubeconfig, kubeconfig_secret, objects_of, opened
from tests.unit.core.worlds import (
    EXAMPLES,
    IMAGE,
    NAMESPACE,
    OPERAND,
    TENANT_NAMESPACE,
    World,
    central,
    config_map,
    example_config,
    foreign,
    secret,
)

COPY = config_map("ovnkube-config")
MACHINES = Ref(MACHINE_CONFIG, None, machine_config_name("dpu"))
TENANT_CONFIG = TenantKey.OVNKUBE_CONFIG.ref(TENANT_NAMESPACE)
GONE = Unreachable("connection refused")
Patch = pytest.MonkeyPatch


def forbid(server: ApiServer, *refs: Ref, verb: str = "apply") -> None:
    server.refuse = lambda v, r: ApiError(403, "Forbidden", "not allowed") if v == verb and r in refs else None


# the usual course


async def test_a_new_resource_gets_everything_once_and_one_report(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        assert [ref for _, ref, _ in stage.infra.writes[:-1]] == [step.ref for step in World().plan().steps]
        assert len(stage.reports()) == 1, "nothing is said of what is about to be written"
        await stage.quiet()
        assert len(stage.infra.writes) == 10, "the echoes of all that wake nobody"


async def test_each_condition_of_the_first_report_is_an_event(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        said = {c["type"]: c for c in stage.status()["conditions"]}
        assert len(stage.infra.events) == len(said)
        for event in stage.infra.events:
            kind = event["message"].split("=")[0]
            assert event["message"] == f"{kind}={said[kind]['status']}: {said[kind]['message']}"
            assert event["reason"] == said[kind]["reason"]


async def test_a_restart_writes_nothing_that_was_right(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as first:
        await first.start()
        await first.settled()
        await first.stop()
        infra = first.infra
    async with opened(monkeypatch) as second:
        second.infra.objects = dict(infra.objects)
        second.infra._applied, second.infra._version = infra._applied, infra._version
        await second.start(infra.objects[CONFIG])
        await second.until(lambda: second.session._ended)
        await second.quiet()
        assert second.infra.writes == []
        assert second.infra.events == []


async def test_a_changed_object_is_put_right(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        stage.edit(stage.infra, OPERAND, lambda obj: obj["spec"]["template"]["spec"]["containers"].pop())
        count = len(stage.writes())
        await stage.until(lambda: len(stage.writes()) > count)
        assert stage.writes()[count:] == [f"apply {OPERAND}"]


async def test_the_status_is_written_only_when_it_differs(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        for _ in range(5):
            before = stage.session._ended
            stage.session.wake()
            await stage.until(lambda before=before: stage.session._ended > before)  # type: ignore[misc]
        assert len(stage.reports()) == 1


async def test_a_status_that_somebody_changed_is_written_again(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        right = stage.status()
        stage.edit(stage.infra, CONFIG, lambda obj: obj["status"]["conditions"].pop())
        stage.session.wake()
        await stage.until(lambda: stage.status() == right)


async def test_the_generation_in_the_status_is_that_which_was_judged(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        stage.fleet.images = {}  # so that there is no MachineConfig, and each look at it is a request
        hold, asked = asyncio.Event(), []

        async def gate(ref: Ref) -> None:
            if ref == MACHINES:
                asked.append(ref)
                if len(asked) == 2:  # the look after the writes
                    await hold.wait()

        stage.infra.read_gate = gate
        await stage.start()
        await stage.until(lambda: len(asked) == 2)
        stage.edit(stage.infra, CONFIG, lambda obj: obj["metadata"].update(generation=2))
        await stage.until(lambda: stage.session._config["metadata"]["generation"] == 2)
        hold.set()
        await stage.until(lambda: stage.status().get("observedGeneration") == 2)
        assert [(r["observedGeneration"], r["conditions"][0]["observedGeneration"]) for r in stage.reports()] == [
            (1, 1),
            (2, 2),
        ]


# first answers


async def holding(server: ApiServer, hold: asyncio.Event, *kinds: str) -> None:
    async def gate(ref: Ref) -> None:
        if not kinds or ref.kind.plural in kinds:
            await hold.wait()

    server.read_gate = gate


@pytest.mark.parametrize("cluster", ["infra", "tenant"])
async def test_nothing_is_said_or_done_before_the_first_answers(
    monkeypatch: Patch, caplog: pytest.LogCaptureFixture, cluster: str
) -> None:
    async with opened(monkeypatch) as stage:
        hold, plan = asyncio.Event(), planning.plan
        await holding(stage.infra if cluster == "infra" else stage.tenant, hold, "configmaps", "nodes")
        monkeypatch.setattr(planning, "plan", None)
        await stage.start()
        await stage.quiet()
        assert stage.infra.writes == []
        monkeypatch.setattr(planning, "plan", plan)
        assert "failed" not in caplog.text, "it is not even thought about"
        hold.set()
        await stage.settled()
        assert not stage.reasons() & {"NotObservedYet", "TenantNotRead", "NotProbedYet"}


async def test_a_tenant_with_central_ovn_is_not_called_unknown_in_between(monkeypatch: Patch) -> None:
    """What proves central OVN is watched only after the first plan has asked for it."""
    async with opened(monkeypatch, tenant=objects_of(central())) as stage:
        config = example_config()
        config["spec"]["ovnKubeImage"] = IMAGE
        await stage.start(config)
        await stage.settled()
        assert stage.status()["topology"] == "central"
        assert secret("ovn-cert") in stage.infra.objects
        assert not stage.reasons() & {"NotObservedYet", "TenantNotRead", "NotProbedYet", "TenantObjectsIncomplete"}


async def test_a_tenant_that_gives_no_answer_is_waited_for_only_so_long(monkeypatch: Patch) -> None:
    async with opened(monkeypatch, PATIENCE=0.05) as stage:
        hold = asyncio.Event()
        await holding(stage.tenant, hold)
        await stage.start()
        await stage.until(lambda: stage.condition("TenantObjectsSynced") == ("Unknown", "TenantNotRead"))
        assert stage.writes() == []
        hold.set()
        await stage.settled()


async def test_a_tenant_that_refuses_the_connection_is_not_waited_for(monkeypatch: Patch) -> None:
    async with opened(monkeypatch, PATIENCE=60) as stage:
        stage.tenant.cut(GONE)
        await stage.start()
        await stage.until(lambda: stage.condition("TenantClusterApiServerUnreachable") == ("True", "Unreachable"))
        assert stage.writes() == []


async def test_a_namespace_that_may_not_be_read_is_said(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        stage.infra.refuse = lambda verb, ref: (
            ApiError(403, "Forbidden", "no") if verb in ("list", "watch") and ref.kind.plural == "configmaps" else None
        )
        await stage.start()
        await stage.until(lambda: stage.condition("TenantObjectsSynced") == ("False", "NamespaceForbidden"))
        assert stage.writes() == []


# the tenant's kubeconfig


async def test_a_replaced_kubeconfig_is_used_at_once_and_keeps_what_the_old_one_knew(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        other = ApiServer(folder.load(EXAMPLES / "tenant-4.20").values(), host="other.tenant.example:6443")
        stage.tenants["https://other.tenant.example:6443"] = other
        hold = asyncio.Event()
        await holding(other, hold)
        count = len(stage.infra.writes)
        stage.replace_kubeconfig(kubeconfig("https://other.tenant.example:6443"))
        await stage.until(lambda: len(stage.feeds) == 2)
        await stage.quiet()
        assert len(stage.infra.writes) == count, "its first answers are waited for"
        hold.set()
        stage.edit(other, TENANT_CONFIG, lambda obj: obj["data"].update({"more": "x"}))
        await stage.until(lambda: stage.infra.objects[COPY]["data"].get("more") == "x")
        assert "TenantNotRead" not in stage.reasons()
        assert not [write for write in stage.writes() if write.startswith("delete")]


async def test_while_a_new_kubeconfigs_server_is_silent_what_the_old_one_knew_still_holds(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        monkeypatch.setattr(reconcile, "PATIENCE", 0.05)
        silent = ApiServer(host="silent.tenant.example:6443")
        await holding(silent, asyncio.Event())
        stage.tenants["https://silent.tenant.example:6443"] = silent
        stage.replace_kubeconfig(kubeconfig("https://silent.tenant.example:6443"))
        await stage.until(lambda: stage.condition("TenantClusterApiServerUnreachable")[1] == "NotProbedYet")
        stage.infra.remove(COPY)
        await stage.until(lambda: COPY in stage.infra.objects)
        assert stage.status()["topology"] == "interconnect"
        assert stage.condition("NodesMapped") == ("True", "Mapped")


@pytest.mark.parametrize(
    ("text", "reason"), [("garbage", "KubeconfigRefused"), (None, "SecretNotFound")], ids=["refused", "deleted"]
)
async def test_a_kubeconfig_that_is_no_use_turns_a_condition_and_keeps_the_copies(
    monkeypatch: Patch, text: str | None, reason: str
) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        there = {
            ref: obj for ref, obj in stage.infra.objects.items() if ref.kind.plural in ("configmaps", "daemonsets")
        }
        if text is None:
            stage.infra.remove(secret("tenant-kubeconfig"))
        else:
            stage.replace_kubeconfig(text)
        await stage.until(lambda: stage.condition("TenantCredentialsValid") == ("False", reason))
        assert stage.condition("TenantClusterApiServerUnreachable") == ("Unknown", "NoCredential")
        assert stage.condition("NodesMapped") == ("True", "Mapped")
        await stage.quiet(0.05)
        assert {ref: stage.infra.objects[ref] for ref in there} == there
        stage.infra.remove(COPY)
        await stage.until(lambda: COPY in stage.infra.objects)
        stage.replace_kubeconfig(kubeconfig(token="a-new-one"))
        await stage.until(lambda: stage.condition("TenantCredentialsValid") == ("True", "Valid"))
        await stage.until(lambda: stage.condition("TenantObjectsSynced") == ("True", "Synced"))


async def test_the_same_kubeconfig_written_again_starts_no_new_watches(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        stage.edit(stage.infra, secret("tenant-kubeconfig"), lambda obj: obj["metadata"].update(labels={"a": "b"}))
        await stage.quiet()
        assert len(stage.feeds) == 1


@pytest.mark.parametrize("token", ["token-m4rk3r", "another-token"], ids=["same kubeconfig", "new kubeconfig"])
async def test_another_namespace_of_the_tenant_is_not_answered_from_the_one_before(
    monkeypatch: Patch, token: str
) -> None:
    async with opened(monkeypatch, PATIENCE=0.05) as stage:
        await stage.start()
        await stage.settled()
        hold = asyncio.Event()
        await holding(stage.tenant, hold)
        stage.infra.put(kubeconfig_secret(kubeconfig(token=token)))
        stage.edit(stage.infra, CONFIG, lambda obj: obj["spec"].update(tenantNamespace="elsewhere"))
        await stage.until(lambda: stage.condition("TenantObjectsSynced") == ("Unknown", "TenantNotRead"))
        hold.set()
        await stage.until(lambda: stage.condition("TenantObjectsSynced")[1] == "OVNKubernetesNotFound")
        assert COPY in stage.infra.objects


# unreachable is not deleted


async def test_a_tenant_that_is_lost_changes_conditions_and_nothing_else(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        writes, there = stage.writes(), set(stage.infra.objects)
        stage.tenant.cut(GONE)
        await stage.until(lambda: stage.condition("TenantClusterApiServerUnreachable") == ("True", "Unreachable"))
        assert stage.condition("TenantObjectsSynced") == ("Unknown", "TenantNotAnswering")
        assert (stage.writes(), set(stage.infra.objects)) == (writes, there)
        stage.tenant.remove(TENANT_CONFIG)
        stage.tenant.mend()
        await stage.until(lambda: stage.condition("TenantObjectsSynced") == ("False", "TenantObjectMissing"))
        assert COPY not in stage.infra.objects, "now a complete list has said so"
        assert OPERAND in stage.infra.objects


async def test_a_tenant_that_refuses_everything_changes_nothing_else_either(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        writes = stage.writes()
        stage.tenant.cut(ApiError(403, "Forbidden", "no"))
        await stage.until(lambda: stage.condition("TenantObjectsSynced") == ("False", "TenantAccessDenied"))
        stage.tenant.cut(ApiError(401, "Unauthorized", "no"))
        await stage.until(lambda: stage.condition("TenantCredentialsValid") == ("False", "Unauthorized"))
        assert stage.writes() == writes


# the short way of copies


def slow_plan(monkeypatch: Patch) -> None:
    """After a copy that went the short way, no plan is made as long as the test lasts."""
    monkeypatch.setattr(reconcile, "PAUSE_AFTER_COPY", 60.0)
    monkeypatch.setattr(reconcile, "COPYING_LIMIT", 60.0)


def values(stage: Stage) -> list[str]:
    return [body["data"].get("v", "") for verb, ref, body in stage.infra.writes if verb == "apply" and ref == COPY]


async def test_a_changed_tenant_object_is_copied_without_a_plan(monkeypatch: Patch) -> None:
    """From the first change on: its copy was made a moment ago."""
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        slow_plan(monkeypatch)
        monkeypatch.setattr(planning, "plan", None)
        for value in "123":
            stage.edit(stage.tenant, TENANT_CONFIG, lambda obj, value=value: obj["data"].update(v=value))  # type: ignore[misc]
            await stage.until(lambda value=value: values(stage)[-1] == value)  # type: ignore[misc]
        assert values(stage) == ["", "1", "2", "3"]


async def test_the_full_plan_follows_a_copy_and_does_what_is_derived_from_it(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        before = stage.infra.objects[OPERAND]["metadata"]["generation"]
        mtu = ('mtu="1400"', 'mtu="8900"')
        stage.edit(
            stage.tenant,
            TENANT_CONFIG,
            lambda obj: obj["data"].update({"ovnkube.conf": obj["data"]["ovnkube.conf"].replace(*mtu)}),
        )
        await stage.until(lambda: stage.infra.objects[OPERAND]["metadata"]["generation"] > before)
        assert mtu[1] in stage.infra.objects[COPY]["data"]["ovnkube.conf"]
        assert "8900" in stage.infra.objects[config_map("ovnkube-config-dpu")]["data"]["ovnkube.conf"]


async def flood(stage: Stage, seconds: float) -> int:
    """Changes of one tenant object, one right after the other."""
    count, end = 0, asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        count += 1
        stage.edit(stage.tenant, TENANT_CONFIG, lambda obj, v=str(count): obj["data"].update(v=v))  # type: ignore[misc]
        await asyncio.sleep(0.004)
    return count


async def test_a_flood_of_changes_is_copied_as_it_comes_and_planned_when_it_ends(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        monkeypatch.setattr(reconcile, "PAUSE_AFTER_COPY", 0.1)
        monkeypatch.setattr(reconcile, "COPYING_LIMIT", 60.0)
        before = stage.session._ended
        count = await flood(stage, 0.3)
        assert stage.session._ended == before
        await stage.until(lambda: values(stage)[-1] == str(count))
        await stage.until(lambda: stage.session._ended > before)


async def test_a_flood_without_an_end_is_planned_all_the_same(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        monkeypatch.setattr(reconcile, "PAUSE_AFTER_COPY", 60.0)
        monkeypatch.setattr(reconcile, "COPYING_LIMIT", 0.05)
        before = stage.session._ended
        await flood(stage, 0.3)
        assert stage.session._ended > before


async def test_a_lost_tenant_is_reported_in_the_midst_of_a_flood(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        slow_plan(monkeypatch)
        count = await flood(stage, 0.02)
        await stage.until(lambda: values(stage)[-1] == str(count))
        stage.tenant.cut(GONE)
        await stage.until(lambda: stage.condition("TenantClusterApiServerUnreachable") == ("True", "Unreachable"))


async def test_a_new_pool_is_seen_in_the_midst_of_a_flood(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        slow_plan(monkeypatch)
        count = await flood(stage, 0.02)
        await stage.until(lambda: values(stage)[-1] == str(count))
        stage.edit(stage.infra, Ref(MACHINE_CONFIG_POOL, None, "dpu"), lambda obj: obj["spec"].update(paused=True))
        before = stage.session._ended
        await stage.until(lambda: stage.session._ended > before)


async def test_a_changed_kubeconfig_secret_is_seen_in_the_midst_of_a_flood(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        slow_plan(monkeypatch)
        count = await flood(stage, 0.02)
        await stage.until(lambda: values(stage)[-1] == str(count))
        before = stage.session._ended
        stage.edit(stage.infra, secret("tenant-kubeconfig"), lambda obj: obj["metadata"].update(labels={"a": "b"}))
        await stage.until(lambda: stage.session._ended > before)


async def test_a_session_that_is_closed_in_the_midst_of_a_flood_ends_at_once(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        slow_plan(monkeypatch)
        count = await flood(stage, 0.02)
        await stage.until(lambda: values(stage)[-1] == str(count))
        stage.infra.remove(CONFIG)
        async with asyncio.timeout(5):
            await stage.loops()


@pytest.mark.parametrize("how", ["never ours", "just taken over"])
async def test_the_short_way_is_not_taken_to_an_object_that_is_not_ours(monkeypatch: Patch, how: str) -> None:
    async with opened(monkeypatch) as stage:
        if how == "never ours":
            stage.infra.put(foreign("ConfigMap", COPY.name, data={"theirs": "x"}))
        await stage.start()
        if how == "never ours":
            await stage.until(lambda: stage.condition("TenantObjectsSynced") == ("False", "ForeignObject"))
        else:
            await stage.settled()
            monkeypatch.setattr(reconcile, "PAUSE", 60.0)  # the plan that would notice comes too late
            stage.session.wake()
            await stage.quiet(0.02)
            stage.infra.remove(COPY)
            stage.infra.put(foreign("ConfigMap", COPY.name, data={"theirs": "x"}))
            await stage.until(lambda: "theirs" in (stage.session._namespace.live().get(COPY) or {}).get("data", {}))
        theirs = stage.infra.objects[COPY]
        stage.edit(stage.tenant, TENANT_CONFIG, lambda obj: obj["data"].update(v="1"))
        await stage.quiet()
        assert stage.infra.objects[COPY] == theirs


async def test_a_tenant_object_that_is_malformed_is_not_copied(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        before = stage.infra.objects[COPY]
        stage.edit(stage.tenant, TENANT_CONFIG, lambda obj: obj["data"].pop("ovnkube.conf"))
        await stage.until(lambda: stage.condition("TenantObjectsSynced") == ("False", "TenantObjectMalformed"))
        assert stage.infra.objects[COPY] == before


async def test_a_step_that_was_made_from_an_older_object_is_not_carried_out(monkeypatch: Patch) -> None:
    """Between the plan and its write the short way may have written a newer one."""
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        infra, tenant = await stage.session._infra_world(), stage.session._tenant_world()
        live = {ref: obj for ref, obj in infra.live.items() if ref != COPY}
        plan = planning.plan(dataclasses.replace(infra, live=live), tenant, tree=stage.fleet.tree)
        (step,) = plan.steps
        assert not stage.session._outdated(step)
        slow_plan(monkeypatch)
        stage.edit(stage.tenant, TENANT_CONFIG, lambda obj: obj["data"].update(v="new"))
        await stage.until(lambda: values(stage)[-1] == "new")
        assert stage.session._outdated(step)
        assert await stage.session._execute(plan) == ()
        assert stage.infra.objects[COPY]["data"]["v"] == "new"


async def test_a_copy_that_fails_the_short_way_is_tried_by_the_plan_and_reported(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        forbid(stage.infra, COPY)
        stage.edit(stage.tenant, TENANT_CONFIG, lambda obj: obj["data"].update(v="1"))
        await stage.until(lambda: stage.condition("Degraded") == ("True", "WriteFailed"))
        stage.infra.mend()
        stage.session.wake()  # its own next try would be in a second
        await stage.until(lambda: values(stage)[-1] == "1")


# failures


async def test_a_failed_write_is_on_degraded_with_its_sentence_and_stops_the_users_of_its_object(
    monkeypatch: Patch,
) -> None:
    async with opened(monkeypatch) as stage:
        forbid(stage.infra, COPY)
        await stage.start()
        await stage.until(lambda: stage.condition("Degraded") == ("True", "WriteFailed"))
        message = next(c["message"] for c in stage.status()["conditions"] if c["type"] == "Degraded")
        assert message == (
            f"ConfigMap {NAMESPACE}/ovnkube-config could not be written (HTTP 403 Forbidden: not allowed). "
            "It is tried again."
        )
        assert {OPERAND, MACHINES}.isdisjoint(stage.infra.objects)
        stage.infra.mend()
        stage.session.wake()  # its own next try would be in a second
        await stage.until(lambda: OPERAND in stage.infra.objects)
        await stage.until(lambda: stage.condition("Degraded")[0] == "False")


async def test_failed_writes_are_tried_again_ever_more_rarely(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        forbid(stage.infra, COPY)
        stage.fleet.saw(stage.infra.put(example_config()))
        session = stage.session
        await stage.until(lambda: stage.fleet.infra.settled and session._namespace.settled)
        while (delay := await session._turn()) != 1.0:
            await asyncio.sleep(0.01)
            assert delay is not None
        assert [await session._turn() for _ in range(6)] == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
        stage.infra.mend()
        assert await session._turn() is None
        forbid(stage.infra, OPERAND)
        stage.infra.remove(OPERAND)
        await stage.until(lambda: OPERAND not in session._namespace.live())
        assert await session._turn() == 1.0, "after a success it begins anew"


@pytest.mark.parametrize("error", [ApiError(500, "InternalError", "no"), GONE])
async def test_a_report_that_is_not_taken_is_written_again(
    monkeypatch: Patch, caplog: pytest.LogCaptureFixture, error: ClusterError
) -> None:
    async with opened(monkeypatch) as stage:
        stage.infra.refuse = lambda verb, ref: error if ref == CONFIG and verb == "patch" else None
        await stage.start()
        await stage.until(lambda: "does not take our report" in caplog.text)
        assert OPERAND in stage.infra.objects, "the work does not wait for the report"
        assert stage.infra.events == []
        stage.infra.mend()
        stage.session.wake()
        await stage.settled()
        assert len(stage.infra.events) == len(stage.status()["conditions"])


async def test_events_that_are_not_taken_are_no_obstacle(monkeypatch: Patch, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(monkeypatch) as stage:
        stage.infra.refuse = lambda verb, _ref: ApiError(403, "Forbidden", "no") if verb == "create" else None
        await stage.start()
        await stage.settled()
        assert "An Event could not be written" in caplog.text
        assert len(stage.reports()) == 1


async def test_the_loop_survives_a_defect_of_ours_and_says_so(
    monkeypatch: Patch, caplog: pytest.LogCaptureFixture
) -> None:
    original, calls = planning.plan, []

    def fails_once(*arguments: object, **more: object) -> Plan:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("a defect")
        return original(*arguments, **more)  # type: ignore[arg-type]

    async with opened(monkeypatch) as stage:
        monkeypatch.setattr(planning, "plan", fails_once)
        await stage.start()
        await stage.until(lambda: "This reconcile failed" in caplog.text)
        stage.session.wake()
        await stage.settled()
        assert "RuntimeError: a defect" in caplog.text


async def test_the_log_names_the_resource(monkeypatch: Patch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    from dpu_operator.report import logs

    caplog.handler.addFilter(logs._WithResource())
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        await stage.stop()
    ours = [record for record in caplog.records if record.name.startswith("dpu_operator")]
    assert len(ours) == 9 + len(stage.status()["conditions"])
    assert {record.__dict__["resource"] for record in ours} == {f"{NAMESPACE}/cluster"}


async def test_nothing_of_a_secret_is_ever_in_a_log_an_event_or_a_status(
    monkeypatch: Patch, caplog: pytest.LogCaptureFixture
) -> None:
    """The marker is in the kubeconfig, in the tenant's Secret, and in what the API server says about both."""
    caplog.set_level(logging.DEBUG)
    mark = "m4rk3r"
    tenant = central()
    cert = copy.deepcopy(tenant.object(TenantKey.OVN_CERT))
    assert cert is not None
    cert["data"] = {"tls.crt": "bTRyazNy", "tls.key": "bTRyazNy", mark: "bTRyazNy"}
    seen = {**tenant.objects, TenantKey.OVN_CERT: Seen(Sight.PRESENT, cert)}
    async with opened(monkeypatch, tenant=objects_of(dataclasses.replace(tenant, objects=seen))) as stage:
        config = example_config()
        config["spec"]["ovnKubeImage"] = IMAGE
        quotes = ApiError(422, "Invalid", f"Secret is invalid: {mark} bTRyazNy")
        stage.infra.refuse = lambda verb, ref: quotes if ref == secret("ovn-cert") and verb == "apply" else None
        await stage.start(config)
        await stage.until(lambda: stage.condition("Degraded") == ("True", "WriteFailed"))
        stage.infra.mend()
        stage.session.wake()  # its own next try would be in a second
        await stage.until(lambda: secret("ovn-cert") in stage.infra.objects)
        stage.edit(stage.infra, secret("ovn-cert"), lambda obj: obj["data"].update({"more": "bTRyazNy"}))
        await stage.until(lambda: "more" not in stage.infra.objects[secret("ovn-cert")]["data"])
        stage.replace_kubeconfig(f"{mark}: [")
        await stage.until(lambda: stage.condition("TenantCredentialsValid")[1] == "KubeconfigRefused")
        shown = json.dumps([stage.reports(), stage.infra.events]) + caplog.text
        assert mark not in shown
        assert "bTRyazNy" not in shown


# the end


async def test_after_its_end_a_session_writes_nothing_more(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        await stage.stop()
        count = len(stage.infra.writes)
        stage.edit(stage.tenant, TENANT_CONFIG, lambda obj: obj["data"].update(v="1"))
        stage.infra.remove(OPERAND)
        await stage.quiet()
        assert len(stage.infra.writes) == count


async def test_a_cancelled_loop_waits_for_nothing_any_more(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        (loop,) = stage._loops
        before = asyncio.all_tasks()
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
        stage.session.wake = lambda: None  # type: ignore[method-assign]  # nor is it woken to its end
        await asyncio.sleep(0)
        ended = before - asyncio.all_tasks()
        names = [str(getattr(task.get_coro(), "__qualname__", "")) for task in ended]
        assert (names.count("Fleet.run"), names.count("Event.wait")) == (1, 2), "neither for news nor for its end"


async def test_a_closed_session_leaves_no_task_behind(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        before = asyncio.all_tasks()
        await stage.start()
        await stage.settled()
        await stage.close()
        await asyncio.sleep(0)
        assert asyncio.all_tasks() - before == set()


async def deleting(stage: Stage) -> None:
    await stage.stop()
    stage.edit(stage.infra, CONFIG, lambda obj: obj["metadata"].update(deletionTimestamp="2026-05-20T12:00:00Z"))
    await stage.until(lambda: stage.session._config["metadata"].get("deletionTimestamp"))


def pool_without_us(stage: Stage) -> None:
    stage.edit(stage.infra, Ref(MACHINE_CONFIG_POOL, None, "dpu"), lambda obj: obj["spec"].pop("configuration", None))
    for ref in [ref for ref in stage.infra.objects if ref.kind == NODE]:
        stage.edit(stage.infra, ref, lambda obj: obj["metadata"]["labels"].pop("node-role.kubernetes.io/dpu"))


async def test_a_removal_deletes_the_machine_config_says_what_it_waits_for_and_ends(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        await deleting(stage)
        assert await stage.session.remove()
        assert MACHINES not in stage.infra.objects
        assert stage.condition("MachineConfigApplied") == ("False", "Removing")
        pool_without_us(stage)
        await stage.quiet(0.05)
        assert await stage.session.remove() == ""
        assert OPERAND in stage.infra.objects, "the namespace's objects go by garbage collection"


async def test_a_removal_ends_although_the_namespace_may_no_longer_be_read(monkeypatch: Patch) -> None:
    """A namespace that is being deleted loses the operator's RoleBinding first, and waits for our finalizer then."""
    async with opened(monkeypatch) as stage:
        config = example_config()
        config["metadata"]["deletionTimestamp"] = "2026-05-20T12:00:00Z"
        config["metadata"]["finalizers"] = ["dpu.openshift.io/finalizer"]
        namespaced = ("configmaps", "secrets", "serviceaccounts", "rolebindings")
        stage.infra.refuse = lambda verb, ref: (
            ApiError(403, "Forbidden", "no") if verb in ("list", "watch") and ref.kind.plural in namespaced else None
        )
        stage.infra.put(machine_config())
        pool_without_us(stage)
        stage.fleet.saw(stage.infra.put(config))
        await stage.until(lambda: stage.fleet.infra.settled and stage.session._namespace.settled)
        await stage.session.remove()
        assert MACHINES not in stage.infra.objects
        assert await stage.session.remove() == ""


def machine_config() -> Obj:
    """Ours, as a run before has left it."""
    return next(obj for obj in World().plan().desired if obj["kind"] == "MachineConfig")


async def test_a_removal_does_not_need_the_tenant(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        stage.tenant.cut(GONE)
        await deleting(stage)
        async with asyncio.timeout(5):
            await stage.session.remove()
            pool_without_us(stage)
            await stage.quiet(0.05)
            assert await stage.session.remove() == ""


async def test_a_removal_tells_why_a_deletion_fails_and_goes_on(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        await deleting(stage)
        stage.infra.refuse = lambda _verb, ref: GONE if ref == CONFIG else None
        assert await stage.session.remove(), "a status that cannot be written stops no removal"
        assert MACHINES not in stage.infra.objects
        stage.infra.put(machine_config())
        await stage.until(lambda: any(stage.fleet.infra.machine_configs))
        forbid(stage.infra, MACHINES, verb="delete")
        assert await stage.session.remove() == f"{MACHINES} could not be deleted (HTTP 403 Forbidden: not allowed)."
        assert stage.condition("Degraded") == ("True", "WriteFailed")
        stage.infra.mend()
        await stage.session.remove()
        assert MACHINES not in stage.infra.objects


async def test_a_removal_waits_for_the_infra_clusters_first_answers(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        hold = asyncio.Event()
        await holding(stage.infra, hold)
        stage.fleet.saw(stage.infra.put(example_config()))
        assert "first answers" in await stage.session.remove()
        hold.set()


async def test_a_resource_that_is_being_deleted_is_not_reconciled(monkeypatch: Patch) -> None:
    """Else the MachineConfig that the removal took away would be written again."""
    async with opened(monkeypatch) as stage:
        config = example_config()
        config["metadata"]["deletionTimestamp"] = "2026-05-20T12:00:00Z"
        await stage.start(config)
        await stage.until(lambda: stage.session._ended)
        await stage.until(lambda: stage.fleet.infra.settled and stage.session._namespace.settled)
        stage.session.wake()
        await stage.quiet()
        assert stage.infra.writes == []


async def test_a_resource_that_was_deleted_by_force_ends_its_loop_without_a_complaint(
    monkeypatch: Patch, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        count = len(stage.infra.writes)
        stage.infra.remove(CONFIG)
        await stage.until(lambda: not stage.fleet._sessions)
        async with asyncio.timeout(5):
            await stage.loops()
        stage.infra.remove(OPERAND)
        await stage.quiet()
        assert len(stage.infra.writes) == count
        assert "Please report it" not in caplog.text


# what of the infra cluster is looked at besides


async def test_a_foreign_machine_config_without_our_label_is_seen_and_so_is_its_going(monkeypatch: Patch) -> None:
    """The watch asks for our label only, so that of a foreign one nothing would ever be heard."""
    async with opened(monkeypatch) as stage:
        theirs = {
            "apiVersion": MACHINE_CONFIG.api_version,
            "kind": "MachineConfig",
            "metadata": {"name": MACHINES.name},
        }
        stage.infra.put(theirs)
        await stage.start()
        await stage.until(lambda: stage.condition("MachineConfigApplied") == ("False", "MachineConfigForeign"))
        await stage.settled()
        assert "spec" not in stage.infra.objects[MACHINES]
        stage.infra.remove(MACHINES)
        await stage.until(lambda: stage.infra.objects.get(MACHINES, {}).get("spec"))
        stage.infra.remove(MACHINES)
        await stage.until(lambda: stage.infra.objects.get(MACHINES, {}).get("spec"))


async def test_a_rendered_machine_config_is_read_once(monkeypatch: Patch) -> None:
    """Its name ends in the hash of its content."""
    async with opened(monkeypatch) as stage:
        name = Ref(MACHINE_CONFIG, None, "rendered-dpu-1")
        read: list[Ref] = []

        async def gate(ref: Ref) -> None:
            read.append(ref)

        stage.infra.read_gate = gate
        stage.infra.put(
            {"apiVersion": MACHINE_CONFIG.api_version, "kind": "MachineConfig", "metadata": {"name": name.name}}
        )
        pool = Ref(MACHINE_CONFIG_POOL, None, "dpu")
        source = {"name": name.name, "source": [{"name": MACHINES.name}]}
        stage.edit(stage.infra, pool, lambda obj: obj["spec"].update(configuration=source))
        await stage.start()
        await stage.settled()
        for _ in range(3):
            before = stage.session._ended
            stage.session.wake()
            await stage.until(lambda before=before: stage.session._ended > before)  # type: ignore[misc]
        assert read.count(name) == 1
        assert "does not have" in stage.status()["conditions"][0]["message"]


@pytest.mark.parametrize(
    ("error", "reason"), [(ApiError(403, "Forbidden", "no"), "Forbidden"), (GONE, "NotObservedYet")]
)
async def test_a_machine_config_that_cannot_be_read_is_not_called_absent(
    monkeypatch: Patch, error: ClusterError, reason: str
) -> None:
    async with opened(monkeypatch) as stage:
        stage.infra.refuse = lambda verb, ref: error if verb == "get" and ref.kind == MACHINE_CONFIG else None
        pool = Ref(MACHINE_CONFIG_POOL, None, "dpu")
        source = {"name": "rendered-dpu-1", "source": [{"name": MACHINES.name}]}
        stage.edit(stage.infra, pool, lambda obj: obj["spec"].update(configuration=source))
        await stage.start()
        await stage.until(lambda: stage.condition("MachineConfigApplied")[0] == "Unknown")
        assert stage.writes() == [], "nothing is done while it is not known what is there"
        stage.infra.put(machine_config())
        await stage.until(lambda: stage.condition("MachineConfigApplied") == ("Unknown", reason))


async def test_the_weaker_kubeconfig_of_the_dpus_is_judged_too(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        config = example_config()
        config["spec"]["nodeKubeConfigFile"] = "node-kubeconfig"
        await stage.start(config)
        await stage.until(lambda: stage.condition("TenantCredentialsValid") == ("False", "SecretNotFound"))
        stage.infra.put(kubeconfig_secret("garbage", "node-kubeconfig"))
        await stage.until(lambda: stage.condition("TenantCredentialsValid") == ("False", "KubeconfigRefused"))
        stage.infra.put(kubeconfig_secret(kubeconfig(), "node-kubeconfig"))
        await stage.until(lambda: stage.condition("TenantCredentialsValid") == ("True", "Valid"))
        assert len(stage.feeds) == 1, "it is for the DPUs, and not used here"


# several resources


def second(namespace: str = "tenant-2", created: str = "2026-05-20T09:00:00Z") -> Obj:
    config = example_config()
    config["metadata"] |= {"name": "second", "namespace": namespace, "uid": "uid-2", "creationTimestamp": created}
    return config


async def test_the_younger_of_two_waits_and_takes_over_when_the_older_is_gone(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        stage.infra.put(
            {**kubeconfig_secret(kubeconfig()), "metadata": {"name": "tenant-kubeconfig", "namespace": "tenant-2"}}
        )
        other = Ref(CONFIG.kind, "tenant-2", "second")
        await stage.start(example_config(), second())
        await stage.settled()
        await stage.until(lambda: stage.condition("Degraded", other) == ("True", "PoolConflict"))
        assert not [
            ref for ref in stage.infra.objects if ref.namespace == "tenant-2" and ref.kind.plural == "configmaps"
        ]
        stage.infra.remove(CONFIG)
        stage.infra.remove(MACHINES)
        await stage.until(lambda: stage.condition("TenantObjectsSynced", other) == ("True", "Synced"))
        await stage.until(lambda: MACHINES in stage.infra.objects)
        owner = stage.infra.objects[MACHINES]["metadata"]["annotations"][OWNER_ANNOTATION]
        assert owner == "tenant-2/second"


async def test_our_own_status_is_no_news_and_a_new_spec_is(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        woken: list[int] = []
        monkeypatch.setattr(stage.session, "wake", lambda: woken.append(1))
        stage.edit(stage.infra, CONFIG, lambda obj: obj["status"].update(topology="x"))
        await stage.quiet(0.05)
        assert woken == []
        stage.edit(stage.infra, CONFIG, lambda obj: obj["spec"]["hostConfig"].update(bridge="br-x"))
        await stage.until(lambda: woken)


async def test_a_heartbeat_of_a_node_wakes_nobody_and_its_labels_do(monkeypatch: Patch) -> None:
    async with opened(monkeypatch) as stage:
        await stage.start()
        await stage.settled()
        before = stage.session._ended
        for server in (stage.infra, stage.tenant):
            for ref in [ref for ref in server.objects if ref.kind == NODE]:
                beat = {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-05-20T13:00:00Z"}
                stage.edit(server, ref, lambda obj, beat=beat: obj["status"].update(images=[{"names": [str(beat)]}]))  # type: ignore[misc]
        await stage.quiet(0.05)
        assert stage.session._ended == before
        stage.infra.remove(Ref(NODE, None, "dpu-2"))
        await stage.until(lambda: stage.status()["dpus"]["total"] == 2)
