"""The agent's report on a real API server, with a kubelet's own certificate: Node authorizer and NodeRestriction on."""

import asyncio
import contextlib
import copy
import dataclasses
import datetime as dt
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from dpu_agent import kubelet
from dpu_agent.node_patch import NodePatcher, PatchError
from dpu_agent.report import NodeReporter, Pacing
from dpu_shared import node_report
from dpu_shared.host_config import HostConfig
from dpu_shared.node_report import NodeReport, State
from tests.lab import audit
from tests.lab.client import Object
from tests.lab.controlplane import ControlPlane
from tests.lab.kubeconfig import Access
from tests.lab.kubelet import KubeletFiles
from tests.lab.lab import DPUS, Lab
from tests.lab.pki import Pair
from tests.lab.stage import Stage

NODE = "dpu-1"
NEW = "dpu-new"
"""A Node that only the test for it makes."""
USER = f"system:node:{NODE}"
READY = NodeReport(State.READY, "All is as configured.", "c0ffee", "boot-now", version="0.1.0", host_pf_macs=("aa:bb:cc:dd:ee:ff",))  # fmt: skip
OURS = frozenset(READY.to_annotations())
QUICK = Pacing(heartbeat=3600, spacing=0.1, first_delay=0.05, longest_delay=0.5, local_delay=0.1)
PATIENCE = 30


@pytest.fixture(autouse=True)
def clean_nodes(running_lab: Lab) -> Iterator[None]:
    """Afterwards no Node says what an agent has said."""
    yield
    admin = running_lab.infra.admin
    for node in DPUS:
        admin.patch("v1/Node", node, {"metadata": {"annotations": dict.fromkeys(OURS)}})
    admin.delete("v1/Node", NEW)


@pytest.fixture
def infra(lab: Lab) -> ControlPlane:
    return lab.infra


@pytest.fixture
def files(infra: ControlPlane, tmp_path: Path) -> KubeletFiles:
    """What the kubelet of dpu-1 has; it reaches the API through the lab's proxy."""
    made = KubeletFiles(tmp_path / "host")
    made.join(infra.node_access(NODE).at(infra.url))
    return made


@contextlib.asynccontextmanager
async def running(files: KubeletFiles, pacing: Pacing = QUICK) -> AsyncIterator[NodeReporter]:
    reporter = NodeReporter(files.root, pacing=pacing, timeout=5.0)
    task = asyncio.create_task(reporter.run())
    try:
        yield reporter
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], object], what: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - what is waited for happens in other processes
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"waited in vain for {what}") from None


def notes(infra: ControlPlane, node: str = NODE) -> dict[str, str]:
    found: dict[str, str] = infra.admin.get("v1/Node", node)["metadata"].get("annotations") or {}
    return found


def state(infra: ControlPlane, node: str = NODE) -> str:
    return notes(infra, node).get(node_report.STATE, "")


def send(files: KubeletFiles, report: NodeReport = READY, *, node: str | None = None) -> None:
    credentials = kubelet.read(files.root)
    NodePatcher(timeout=10).send(
        dataclasses.replace(credentials, node=node or credentials.node), report.to_annotations()
    )


def without_ours(node: Object) -> Object:
    """A Node without what every write changes, without our annotations, and without what its kubelet reports."""
    rest = copy.deepcopy(node)
    for key in ("resourceVersion", "managedFields"):
        del rest["metadata"][key]
    for key in OURS:
        rest["metadata"]["annotations"].pop(key, None)
    for condition in rest["status"]["conditions"]:
        del condition["lastHeartbeatTime"]
    return rest


def test_a_kubelets_own_certificate_may_annotate_its_node_and_nothing_else_of_it_changes(
    infra: ControlPlane, files: KubeletFiles
) -> None:
    before = infra.admin.get("v1/Node", NODE)
    send(files)
    after = infra.admin.get("v1/Node", NODE)
    assert without_ours(after) == without_ours(before)
    assert {key: after["metadata"]["annotations"][key] for key in OURS} == READY.to_annotations()
    (entry,) = [each for each in after["metadata"]["managedFields"] if each["manager"] == "dpu-agent"]
    assert entry["operation"] == "Update"
    assert "subresource" not in entry
    owned = entry["fieldsV1"]["f:metadata"]["f:annotations"]
    assert {key.removeprefix("f:") for key in owned} - {"."} == OURS
    assert entry["fieldsV1"].keys() == {"f:metadata"}
    assert entry["fieldsV1"]["f:metadata"].keys() == {"f:annotations"}


def test_another_node_is_refused_in_two_sentences(infra: ControlPlane, files: KubeletFiles) -> None:
    before = infra.admin.get("v1/Node", "dpu-2")["metadata"]["annotations"]
    with pytest.raises(PatchError) as caught:
        send(files, node="dpu-2")
    assert "The API server forbids the agent to annotate the Node dpu-2 (HTTP 403: " in caught.value.message
    assert 'node "dpu-1"' in caught.value.message
    assert "Node authorizer" in caught.value.hint
    assert infra.admin.get("v1/Node", "dpu-2")["metadata"]["annotations"] == before


def test_who_is_no_node_is_refused_in_two_sentences(infra: ControlPlane, files: KubeletFiles) -> None:
    """The kubeconfig may claim what it likes; it is the certificate that counts."""
    pair = infra.authority.client(USER)  # the name of a node, and not the group
    files.join(Access(infra.direct_url, infra.trust(), pair))
    with pytest.raises(PatchError, match=r"forbids the agent to annotate the Node dpu-1 \(HTTP 403: "):
        send(files)
    assert state(infra) == ""


async def test_a_node_that_is_not_there_yet_is_waited_for_and_one_that_comes_back_is_told_again(
    infra: ControlPlane, files: KubeletFiles
) -> None:
    files.join(infra.node_access(NEW))
    node: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NEW}}
    async with running(files, dataclasses.replace(QUICK, heartbeat=0.5)) as reporter:
        reporter.submit(READY)
        await until(lambda: reporter.status.failures > 1, "a refusal")
        assert f"The API server has no Node {NEW} (HTTP 404: " in reporter.status.error
        assert "restart the kubelet" in reporter.status.error
        infra.admin.create(node)
        await until(lambda: state(infra, NEW) == "Ready", "the report")
        infra.admin.delete("v1/Node", NEW)
        await until(lambda: reporter.status.failures, "a refusal")
        infra.admin.create(node)
        await until(lambda: state(infra, NEW) == "Ready", "the report")


def short_lived(infra: ControlPlane, seconds: float) -> Pair:
    return infra.authority.client(USER, ("system:nodes",), dt.timedelta(seconds=seconds))


async def test_a_certificate_that_ended_is_refused_and_the_renewed_one_is_picked_up(
    infra: ControlPlane, files: KubeletFiles
) -> None:
    files.renew(short_lived(infra, 3))
    async with running(files, dataclasses.replace(QUICK, heartbeat=0.2)) as reporter:
        reporter.submit(READY)
        await until(lambda: state(infra) == "Ready", "the report")
        await until(lambda: reporter.status.failures > 1, "the end of the certificate")
        assert "does not accept the kubelet's credential (HTTP 401: Unauthorized)" in reporter.status.error
        assert "oc get csr" in reporter.status.error
        reporter.submit(dataclasses.replace(READY, state=State.DEGRADED))
        files.renew(infra.authority.node(NODE))
        await until(lambda: state(infra) == "Degraded", "the report with the renewed certificate")
        await until(lambda: reporter.status.error == "", "the status to be well")


def patches(infra: ControlPlane, since: dt.datetime) -> list[audit.Request]:
    """What the kubelet's account has asked for; nobody else has it in this lab."""
    return audit.requests(infra.audit_log, user=USER, since=since)


async def test_a_heartbeat_is_one_patch_and_nothing_else_is_asked_of_the_api(
    infra: ControlPlane, files: KubeletFiles
) -> None:
    heartbeat = 0.5
    began = audit.now()
    async with running(files, dataclasses.replace(QUICK, heartbeat=heartbeat)) as reporter:
        reporter.submit(READY)
        for _ in range(60):
            await asyncio.sleep(0.05)
            reporter.submit(READY)  # after every look, as the daemon does
    took = (audit.now() - began).total_seconds()
    found = patches(infra, began)
    assert {(each.verb, each.resource, each.name, each.subresource, each.code) for each in found} == {
        ("patch", "nodes", NODE, "", 200)
    }
    assert all(each.uri == f"/api/v1/nodes/{NODE}?fieldManager=dpu-agent" for each in found)
    assert {each.agent for each in found} == {"dpu-agent/0.1.0"}
    assert 2 <= len(found) <= took / heartbeat + 1
    # from the answer to one of them until the next: the server has noted the one before a little earlier
    assert min((after.at - before.at).total_seconds() for before, after in itertools.pairwise(found)) > heartbeat * 0.9


async def test_after_an_outage_the_newest_report_gets_out_in_exactly_one_patch(
    infra: ControlPlane, files: KubeletFiles
) -> None:
    async with running(files) as reporter:
        reporter.submit(READY)
        await until(lambda: state(infra) == "Ready", "the report")
        began = audit.now()
        infra.network().set("cut")
        for index in range(20):
            reporter.submit(dataclasses.replace(READY, state=State.PROGRESSING, message=str(index)))
            await asyncio.sleep(0.1)
        await until(lambda: reporter.status.failures > 2, "some attempts")
        assert "cannot be used: " in reporter.status.error
        assert patches(infra, began) == []
        infra.network().set("pass")
        await until(lambda: state(infra) == "Progressing", "the report")
        await asyncio.sleep(1)
        assert notes(infra)[node_report.MESSAGE] == "19"
        assert [each.code for each in patches(infra, began)] == [200]
        assert reporter.status.failures == 0


async def test_a_restart_of_the_api_server_is_survived(infra: ControlPlane, files: KubeletFiles) -> None:
    files.join(infra.node_access(NODE))
    async with running(files, dataclasses.replace(QUICK, heartbeat=0.2)) as reporter:
        reporter.submit(READY)
        await until(lambda: state(infra) == "Ready", "the report")
        await asyncio.to_thread(infra.restart_api)
        reporter.submit(dataclasses.replace(READY, state=State.BLOCKED))
        await until(lambda: state(infra) == "Blocked", "the report")
        await until(lambda: reporter.status.error == "", "the status to be well")


async def test_an_api_server_that_freezes_holds_up_nobody(infra: ControlPlane, files: KubeletFiles) -> None:
    async with running(files) as reporter:
        infra.network().set("freeze")
        reporter.submit(READY)
        await until(lambda: reporter.status.failures, "the write to be given up")
        assert "does not answer in time" in reporter.status.error
        infra.network().set("pass")
        await until(lambda: state(infra) == "Ready", "the report")


async def test_a_ready_of_the_boot_before_is_not_believed_and_is_gone_with_the_first_report(
    infra: ControlPlane, files: KubeletFiles
) -> None:
    send(files, dataclasses.replace(READY, boot_id="boot-before"))
    left = node_report.parse(notes(infra))
    assert left is not None
    assert left.state is State.READY
    assert not node_report.believed(left, config_hash="c0ffee", boot_id="boot-now")
    async with running(files) as reporter:
        reporter.submit(NodeReport(State.PROGRESSING, boot_id="boot-now"))
        await until(lambda: state(infra) == "Progressing", "the first report")
    found = notes(infra)
    assert {key: found[key] for key in OURS - {node_report.TIME}} == {
        node_report.STATE: "Progressing",
        node_report.MESSAGE: "",
        node_report.CONFIG_HASH: "",
        node_report.BOOT_ID: "boot-now",
        node_report.VERSION: "",
        node_report.HOST_PF_MACS: "",
    }
    at = dt.datetime.fromisoformat(found[node_report.TIME])
    assert abs((dt.datetime.now(dt.UTC) - at).total_seconds()) < PATIENCE + 2


@dataclasses.dataclass
class Agent:
    """The reporting part of the agent on one DPU."""

    reporter: NodeReporter
    report: NodeReport

    def say(self, **changes: str) -> None:
        self.report = dataclasses.replace(self.report, **changes)  # type: ignore[arg-type]
        self.reporter.submit(self.report)


async def test_hosts_are_configured_by_what_the_agents_report_until_one_of_them_reboots(
    stage: Stage, tmp_path: Path
) -> None:
    infra = stage.lab.infra
    config_hash = HostConfig.from_spec(stage.resource()["spec"]["hostConfig"]).config_hash()
    boots = {node: infra.admin.get("v1/Node", node)["status"]["nodeInfo"]["bootID"] for node in DPUS}

    def boot(node: str, name: str) -> None:
        infra.admin.patch("v1/Node", node, {"status": {"nodeInfo": {"bootID": name}}}, subresource="status")

    async with contextlib.AsyncExitStack() as stack:
        agents: dict[str, Agent] = {}
        for node in DPUS:
            files = KubeletFiles(tmp_path / node)
            files.join(infra.node_access(node))
            reporter = await stack.enter_async_context(running(files))
            agents[node] = Agent(reporter, dataclasses.replace(READY, config_hash=config_hash, boot_id=boots[node]))
            agents[node].say()
        found = await asyncio.to_thread(stage.wait_condition, "HostsConfigured", "True")
        assert "All 3 DPUs report that they are as configured." in found["message"]
        stack.callback(boot, NODE, boots[NODE])
        boot(NODE, "boot-after")
        found = await asyncio.to_thread(stage.wait_condition, "HostsConfigured", "False", reason="StaleReport")
        assert f"{NODE}: its agent's report is about another configuration or boot" in found["message"]
        agents[NODE].say(boot_id="boot-after", state=State.PROGRESSING, message="The eswitch is being set.")
        found = await asyncio.to_thread(stage.wait_condition, "HostsConfigured", "False", reason="Progressing")
        assert f"{NODE}: The eswitch is being set." in found["message"]
        agents[NODE].say(state=State.READY)
        await asyncio.to_thread(stage.wait_condition, "HostsConfigured", "True")
