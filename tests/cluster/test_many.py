"""Many resources in one operator: twenty tenants after a restart, and two that want the same place."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dpu_operator.world import OWNER_ANNOTATION
from tests.cluster import health
from tests.cluster.spaces import machine_config, operating, resource, settled, spaces, statuses, writes_since
from tests.lab import audit
from tests.lab.client import Object, name_of
from tests.lab.stage import CONFIG, Stage
from tests.lab.tenant import NAMESPACE

TENANTS = [f"many-{number:02}" for number in range(20)]
IN_SERVICE = 5.0
"""Seconds from the start of the process, its interpreter included."""
COPY = "ovnkube-config"


@dataclass
class Restart:
    """How long it took until every tenant's copy was as the tenant's object, and what was written for that."""

    seconds: float
    """Without those in which the operator had to wait for a processor: machines that run tests are busy."""
    writes: list[audit.Request]
    load: float
    """Programs that wanted a processor, for each processor, in the minute before."""


@pytest.fixture
def twenty(idle: Stage, tmp_path: Path) -> Iterator[Stage]:
    """Twenty tenants with an operator that has nothing left to do; past the lab's proxies, whose time is not ours."""
    direct = Stage(idle.lab, tmp_path)
    direct.account.write_kubeconfig(direct.kubeconfig, direct.account.access(idle.lab.infra.direct_url))
    kubeconfig = idle.lab.credentials.kubeconfig(server=idle.lab.tenant.direct_url)
    with spaces(direct, TENANTS, kubeconfig), operating(direct):
        for space in TENANTS:
            direct.lab.infra.admin.create(resource(space))
        for space in TENANTS:
            direct.wait(lambda space=space: settled(direct, space), f"{space} to settle", timeout=60)  # type: ignore[misc]
        yield direct


def test_a_restart_with_twenty_tenants_is_in_service_within_five_seconds_and_rewrites_nothing(twenty: Stage) -> None:
    restart = _restart(twenty, "first")
    if restart.seconds > IN_SERVICE and restart.load > 1:
        restart = _restart(twenty, "second")
    written = sorted((each.verb, each.resource, each.namespace, each.name) for each in restart.writes)
    assert written == [("patch", "configmaps", space, COPY) for space in TENANTS], "only what has changed"
    assert restart.seconds <= IN_SERVICE, f"{restart.seconds:.1f} s with {restart.load:.1f} programs for each processor"


def _restart(stage: Stage, note: str) -> Restart:
    """SIGKILL, a change in the tenant, a start; until the change is in all twenty namespaces."""
    tenant, load = stage.lab.tenant.admin, os.getloadavg()[0] / (os.cpu_count() or 1)
    stage.process.kill()
    before = statuses(stage)
    tenant.patch("v1/ConfigMap", COPY, {"data": {"note": note}}, NAMESPACE)
    began, mark = time.monotonic(), audit.now()
    stage.process.start()
    stage.wait(lambda: _copied(stage, note), "the change in all namespaces", timeout=30)
    seconds = time.monotonic() - began - _kept_waiting(stage)
    return Restart(seconds, writes_since(stage, mark, before), load)


def _kept_waiting(stage: Stage) -> float:
    """For how many seconds the operator could have run, and other programs had the processor (0: the kernel won't say)."""
    assert stage.process.process is not None
    told = Path(f"/proc/{stage.process.process.pid}/schedstat")
    return int(told.read_text().split()[1]) / 1e9 if told.exists() else 0.0


def _copied(stage: Stage, note: str) -> bool:
    copies = stage.lab.infra.admin.list("v1/ConfigMap", fields=f"metadata.name={COPY}")
    fresh = {each["metadata"]["namespace"] for each in copies if each["data"].get("note") == note}
    return fresh >= set(TENANTS)


@pytest.fixture(scope="module")
def running(installed: Stage) -> Iterator[Stage]:
    """The operator runs, and there is room for two pairs."""
    with spaces(installed, ["rival-a", "rival-b", "rival-c", "rival-d"]), operating(installed):
        yield installed


def test_the_second_resource_of_a_namespace_waits_says_why_and_takes_over(running: Stage) -> None:
    first, second = resource("rival-a"), resource("rival-a", "other", poolName="rival-b")
    said = "OVNKubeConfig rival-a/cluster is in the same namespace and was there first, so that nothing is done for this one."
    _second_waits_and_takes_over(running, first, second, said)


def test_the_second_resource_on_a_pool_waits_says_why_and_takes_over(running: Stage) -> None:
    first, second = resource("rival-c"), resource("rival-d", poolName="rival-c")
    said = (
        "OVNKubeConfig rival-c/cluster uses the pool rival-c and was there first, so that nothing is done for this one."
    )
    _second_waits_and_takes_over(running, first, second, said)


def _second_waits_and_takes_over(stage: Stage, first: Object, second: Object, said: str) -> None:
    admin = stage.lab.infra.admin
    (space, name), (other_space, other_name) = _place(first), _place(second)
    admin.create(first)
    stage.wait(lambda: settled(stage, space, name), "the first to settle")
    mark = audit.now()
    second = _create_later(stage, second)
    for kind in ("MachineConfigApplied", "Available", "Degraded"):
        status = "True" if kind == "Degraded" else "False"
        condition = stage.wait_condition(kind, status, reason="PoolConflict", namespace=other_space, name=other_name)
        assert condition["message"].startswith(said)
    assert settled(stage, space, name)
    wrote = audit.writes(stage.lab.infra.audit_log, user=stage.account.user, since=mark)
    assert {(each.resource, each.namespace, each.name) for each in wrote if each.resource != "events"} == {
        ("ovnkubeconfigs", other_space, other_name)
    }

    admin.delete(CONFIG, name, space)
    stage.wait(lambda: settled(stage, other_space, other_name), "the second to take over")
    assert admin.find(CONFIG, name, space) is None
    owner = f"{other_space}/{other_name}"
    pool = second["spec"]["poolName"]
    made = [admin.get(health.MACHINE_CONFIG, machine_config(pool))]
    made += [admin.get(kind, each, other_space) for kind, each in health.made(stage, other_space)]
    assert len(made) == 9
    assert {each["metadata"]["annotations"][OWNER_ANNOTATION] for each in made} == {owner}
    if space != other_space:
        stage.wait(lambda: not health.made(stage, space), "the first's to be collected", health.COLLECTED_WITHIN)

    admin.delete(CONFIG, other_name, other_space)
    stage.wait(lambda: admin.find(CONFIG, other_name, other_space) is None, "the second to be gone")
    assert admin.find(health.MACHINE_CONFIG, machine_config(pool)) is None
    stage.wait(lambda: not health.made(stage, other_space), "what was made to be collected", health.COLLECTED_WITHIN)


def _create_later(stage: Stage, item: Object) -> Object:
    """Create a resource that is younger, also by the API server's clock of whole seconds."""
    admin = stage.lab.infra.admin
    born = max(each["metadata"]["creationTimestamp"] for each in admin.list(CONFIG))
    stage.wait(lambda: f"{audit.now():%Y-%m-%dT%H:%M:%SZ}" > born, "the next second")
    return admin.create(item)


def _place(item: Object) -> tuple[str, str]:
    return item["metadata"]["namespace"], name_of(item)
