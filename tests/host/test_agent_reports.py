"""The agent in the virtual DPU reports to a real API server on this machine, with a kubelet's own certificate."""

import datetime as dt
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dpu_agent import __version__
from dpu_shared import node_report
from dpu_shared.node_report import NodeReport, State, believed
from dpu_shared.steps import Disruption
from tests.host.dpu import command, configure, quick_start, ready, status, stop
from tests.host.vm import HOST, DpuVm
from tests.lab import kwok
from tests.lab.controlplane import ControlPlane
from tests.lab.kubelet import CURRENT, KubeletFiles
from tests.lab.waiting import eventually

NODE = "dpu-0"


@pytest.fixture(scope="module")
def infra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The API server alone, with Node authorizer and NodeRestriction, and one Node. Nobody else has a part in this."""
    cluster = ControlPlane("infra", tmp_path_factory.mktemp("infra"), controllers=False)
    try:
        cluster.start_etcd()
        cluster.wait_etcd()
        cluster.start_api()
        cluster.wait_api()
        cluster.admin.create(kwok.dpu_node(NODE, "198.51.100.31"))
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="module")
def vm(running_dpu_vm: DpuVm) -> DpuVm:
    """A DPU as configured. No agent runs, and the kubelet has not joined."""
    stop(running_dpu_vm)
    return running_dpu_vm


def join(vm: DpuVm, infra: ControlPlane, folder: Path) -> None:
    """What the kubelet leaves when it has joined. The guest sees this machine's loopback at another address."""
    files = KubeletFiles(folder)
    files.join(infra.node_access(NODE).at(f"https://{HOST}:{infra.ports.api}"), **{"tls-server-name": "localhost"})
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.is_symlink():
            vm.write(f"/{file.relative_to(folder)}", file.read_text(), mode=0o600)
    link = folder / CURRENT.lstrip("/")
    vm.sh(f"ln -sfn {link.readlink()} {CURRENT}")


def report(infra: ControlPlane) -> NodeReport | None:
    return node_report.parse(infra.admin.get("v1/Node", NODE)["metadata"]["annotations"])


def reported(infra: ControlPlane, state: State) -> NodeReport:
    """The report on the Node, once it has this state."""

    def ask() -> NodeReport | None:
        found = report(infra)
        return found if found is not None and found.state is state else None

    return eventually(ask, f"the Node to say {state}", timeout=90)


def error(vm: DpuVm, start: str) -> str:
    """Why the report is not on the Node, once that begins so."""
    document = status(vm, lambda document: document["reportError"].startswith(start), f"the sentence {start!r}")
    return str(document["reportError"])


def test_the_dpu_is_reported_on_its_node_as_soon_as_the_kubelet_has_joined_and_the_clock_is_right(
    vm: DpuVm, infra: ControlPlane, tmp_path: Path
) -> None:
    vm.sh("date --set=2001-01-01")
    quick_start(vm)
    assert error(vm, "The kubelet's kubeconfig is not there yet (/var/lib/kubelet/kubeconfig).").endswith(
        "The kubelet writes it when it joins the cluster; see journalctl -u kubelet if this lasts."
    )
    assert ready(vm)["ready"], "the DPU is ready, whoever knows it"
    assert (
        "The Node does not have this report: The kubelet's kubeconfig is not there yet" in command(vm, "status").stdout
    )
    join(vm, infra, tmp_path / "host")
    assert error(
        vm, "The API server's certificate is not valid yet by this DPU's clock, which says 2001-01-01"
    ).endswith("See chronyc tracking if the clock is wrong; the agent tries again.")
    assert report(infra) is None
    vm.sh(f"date --set=@{time.time():.3f}")
    said = reported(infra, State.READY)
    assert said.boot_id == vm.boot_id()
    assert said.config_hash == configure(vm, disruption=Disruption.LINK_FLAP).config_hash()
    assert believed(said, config_hash=said.config_hash, boot_id=vm.boot_id())
    assert said.version == __version__
    assert said.message == "The DPU is as configured."
    macs = vm.sh("ip netns exec host cat /sys/class/net/hostpf0/address; cat /sys/class/net/hostpf1/address")
    assert list(said.host_pf_macs) == macs.split()
    assert said.time is not None
    assert abs(said.time - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
    status(vm, lambda document: document["reportError"] == "", "the error to be gone")


def test_what_changes_on_the_dpu_changes_on_the_node_and_stays_there_after_the_agents_end(
    vm: DpuVm, infra: ControlPlane
) -> None:
    before = infra.admin.get("v1/Node", NODE)
    vm.sh("ovs-vsctl --timeout=15 del-br br-ex")
    assert reported(infra, State.PROGRESSING).message.startswith("Open vSwitch has no bridge br-ex (it has: ")
    vm.bridge()
    last = reported(infra, State.READY)
    stop(vm)
    assert report(infra) == last
    after = infra.admin.get("v1/Node", NODE)
    for node in (before, after):
        for key in ("resourceVersion", "managedFields"):
            node["metadata"].pop(key)
        for key in last.to_annotations():
            node["metadata"]["annotations"].pop(key)
    assert after == before
