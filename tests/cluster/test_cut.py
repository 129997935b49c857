"""A long time without the tenant. Most of it is waiting, so it has a file, and thereby a worker, of its own."""

import time

import pytest

from tests.cluster import longcut, spaces
from tests.cluster.longcut import LongCut
from tests.lab.stage import Stage
from tests.lab.tenant import NAMESPACE

PROMISED = 5.0
UNREACHABLE, SYNCED = "TenantClusterApiServerUnreachable", "TenantObjectsSynced"


def noted(stage: Stage, space: str, note: str) -> bool:
    """Whether the copy in a namespace has the tenant's latest note."""
    copy = stage.lab.infra.admin.get("v1/ConfigMap", "ovnkube-config", space)
    return bool(copy["data"].get("lab-note") == note)


@pytest.mark.timeout(longcut.SECONDS + 120)
def test_two_minutes_without_the_tenant_change_nothing_and_end_without_a_restart(
    stage: Stage, long_cut: LongCut
) -> None:
    tenant = stage.lab.tenant.admin
    long_cut.begin()
    # tenant-1's tenant is the same cluster, and not cut off: it shows that the operator lives meanwhile.
    tenant.patch("v1/ConfigMap", "ovnkube-config", {"data": {"lab-note": "early"}}, NAMESPACE)
    stage.wait(lambda: noted(stage, "tenant-1", "early"), "the change to reach the resource that is not cut off")
    long_cut.wait()
    found = stage.conditions(longcut.SPACE)
    assert (found[UNREACHABLE]["status"], found[SYNCED]["status"]) == ("True", "Unknown")
    assert long_cut.made() == long_cut.before
    tenant.patch("v1/ConfigMap", "ovnkube-config", {"data": {"lab-note": "late"}}, NAMESPACE)
    began = time.monotonic()
    long_cut.mend()
    stage.wait_condition(UNREACHABLE, "False", namespace=longcut.SPACE)
    assert time.monotonic() - began < PROMISED
    stage.wait(lambda: noted(stage, longcut.SPACE, "late"), "what was changed meanwhile to arrive")
    stage.wait(lambda: spaces.settled(stage, longcut.SPACE), "all to be well")
    assert {name: uid for name, (uid, _) in long_cut.made().items()} == {
        name: uid for name, (uid, _) in long_cut.before.items()
    }
    assert long_cut.same_operator()
