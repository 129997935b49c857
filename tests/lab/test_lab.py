"""The lab itself: what it promises to other tests, seen on the real clusters."""

import http.client
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import audit, binaries, kwok, operator_run, processes
from tests.lab.client import ApiError, Client, Object, name_of
from tests.lab.lab import DPUS, Lab
from tests.lab.tenant import NAMESPACE
from tests.lab.waiting import eventually
from tests.lab.writegate import WriteGate


def daemon_set(name: str, **template: object) -> Object:
    """A DaemonSet for the DPUs, in the shape of ovnkube-node."""
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "node-role.kubernetes.io/dpu-worker", "operator": "Exists"}]}
                ]
            }
        }
    }
    pod = {
        "hostNetwork": True,
        "affinity": affinity,
        "terminationGracePeriodSeconds": 1,
        "initContainers": [{"name": "wait", "image": "example.invalid/wait"}],
        "containers": [{"name": "main", "image": "example.invalid/main"}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": "lab-test"},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}, **template}, "spec": pod},
        },
    }


@pytest.fixture
def space(lab: Lab) -> Iterator[Client]:
    """The namespace `lab-test`, emptied afterwards."""
    admin = lab.infra.admin
    operator_run.namespace(admin, "lab-test")
    eventually(lambda: admin.find("v1/ServiceAccount", "default", "lab-test"), "its default ServiceAccount")
    yield admin
    for item in admin.list("apps/v1/DaemonSet", "lab-test"):
        admin.delete("apps/v1/DaemonSet", name_of(item), "lab-test")


def ready_count(admin: Client, name: str) -> int:
    status = admin.get("apps/v1/DaemonSet", name, "lab-test")["status"]
    return int(status.get("numberReady", 0)) if status.get("updatedNumberScheduled") else 0


def test_programs_fit_and_an_old_etcd_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(binaries.find()) == set(binaries.NEEDED)
    old = tmp_path / "etcd"
    old.write_text("#!/bin/sh\necho 'etcd Version: 3.4.23'\n")
    old.chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert binaries.prebuilt("etcd") is None
    assert "is 3.4.23, the lab wants 3.5 or newer" in capsys.readouterr().err
    old.write_text("#!/bin/sh\necho 'etcd Version: 3.6.1'\n")
    found = binaries.prebuilt("etcd")
    assert found is not None
    assert found.origin == "KUBEBUILDER_ASSETS"


def test_daemon_set_with_node_affinity_becomes_ready_on_every_dpu(space: Client) -> None:
    space.create(daemon_set("plain"))
    eventually(lambda: ready_count(space, "plain") == 3, "3 of 3 ready")
    pods = space.list("v1/Pod", "lab-test", labels="app=plain")
    assert {pod["spec"]["nodeName"] for pod in pods} == set(DPUS)
    assert {pod["status"]["hostIP"] for pod in pods} == {"198.51.100.31", "198.51.100.32", "198.51.100.33"}


def test_pods_are_held_unready_and_released(space: Client) -> None:
    space.create(daemon_set("held"))
    eventually(lambda: ready_count(space, "held") == 3, "3 of 3 ready")
    kwok.hold(space, "lab-test", "held")
    eventually(lambda: ready_count(space, "held") == 0, "none ready")
    space.patch(
        "apps/v1/DaemonSet", "held", {"spec": {"template": {"metadata": {"annotations": {"a": "b"}}}}}, "lab-test"
    )

    def replaced() -> bool:
        pods = space.list("v1/Pod", "lab-test", labels="app=held")
        return any("b" in (pod["metadata"].get("annotations") or {}).values() for pod in pods)

    eventually(replaced, "a pod of the new revision")
    assert ready_count(space, "held") == 0
    kwok.release(space, "lab-test", "held")
    eventually(lambda: ready_count(space, "held") == 3, "3 of 3 ready again")
    assert kwok.held(space) == []


def test_kubelet_writes_its_own_node_and_no_other(lab: Lab) -> None:
    kubelet = Client(lab.infra.node_access("dpu-0"))
    note = {"metadata": {"annotations": {"dpu.openshift.io/lab": "was here"}}}
    answer = kubelet.patch("v1/Node", "dpu-0", note)
    assert answer["metadata"]["annotations"]["dpu.openshift.io/lab"] == "was here"
    with pytest.raises(ApiError, match="not allowed to modify") as refused:
        kubelet.patch("v1/Node", "dpu-1", note)
    assert refused.value.status == 403
    kubelet.close()


def test_proxy_cuts_freezes_slows_and_mends(lab: Lab) -> None:
    proxy = lab.tenant.network()
    client = Client(lab.credentials.access(), timeout=1)
    client.get("v1/ConfigMap", "ovnkube-config", NAMESPACE)
    proxy.set("cut")
    assert proxy.state().open == 0
    with pytest.raises(ConnectionRefusedError):
        client.get("v1/ConfigMap", "ovnkube-config", NAMESPACE)
    proxy.set("pass")
    client.get("v1/ConfigMap", "ovnkube-config", NAMESPACE)
    proxy.set("freeze")
    with pytest.raises(TimeoutError):
        client.get("v1/ConfigMap", "ovnkube-config", NAMESPACE)
    assert proxy.state().open >= 1
    proxy.set("slow", 100)
    client.timeout = 10
    started = time.monotonic()
    client.get("v1/ConfigMap", "ovnkube-config", NAMESPACE)
    assert time.monotonic() - started > 0.2
    client.close()


def test_api_server_restarts_on_its_old_data(lab: Lab) -> None:
    uid = lab.infra.admin.get("v1/Node", "dpu-0")["metadata"]["uid"]
    lab.infra.restart_api()
    assert lab.infra.admin.get("v1/Node", "dpu-0")["metadata"]["uid"] == uid
    lab.wait_pool()


def test_write_gate_lets_exactly_n_writes_through(lab: Lab, space: Client) -> None:
    account = operator_run.Account(lab.infra, "lab-test", "writer")
    space.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "writer", "namespace": "lab-test"}})
    space.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "writer", "namespace": "lab-test"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", "name": "writer", "namespace": "lab-test"}],
        }
    )
    for number in range(4):
        space.delete("v1/ConfigMap", f"gated-{number}", "lab-test")
    may_watch = Client(account.access())
    eventually(lambda: may_watch.list("v1/ConfigMap", "lab-test"), "its rights", retry=(ApiError,))
    may_watch.close()
    since = audit.now()
    with WriteGate(lab.infra, account.token(), allowed=2) as gate:
        client = Client(gate.access(), timeout=5)
        seen: list[str] = []

        def watch() -> None:
            watcher = Client(gate.access())
            events = watcher.watch("v1/ConfigMap", "lab-test", seconds=3)
            seen.extend(name_of(event["object"]) for event in events if event["type"] != "BOOKMARK")
            watcher.close()

        def write() -> None:
            for number in range(4):
                config = {"name": f"gated-{number}", "namespace": "lab-test"}
                client.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": config})

        def writer() -> None:
            with pytest.raises((OSError, http.client.HTTPException)):
                write()

        watching, writing = threading.Thread(target=watch), threading.Thread(target=writer)
        watching.start()
        writing.start()
        assert gate.reached.wait(5)
        assert gate.holding.wait(5)
        eventually(lambda: "gated-1" in seen, "the watch to stream through the gate")
        assert gate.writes == [("POST", "/api/v1/namespaces/lab-test/configmaps")] * 2
        reader = Client(gate.access())
        assert {name_of(item) for item in reader.list("v1/ConfigMap", "lab-test")} >= {"gated-0", "gated-1"}
        reader.close()
        watching.join(10)
    writing.join(10)
    client.close()
    names = {name_of(item) for item in space.list("v1/ConfigMap", "lab-test")}
    assert {"gated-0", "gated-1"} <= names
    assert not {"gated-2", "gated-3"} & names
    assert len(audit.writes(lab.infra.audit_log, user=account.user, since=since)) == 2


def test_audit_log_has_each_request_once_and_at_once(lab: Lab) -> None:
    since = audit.now()
    client = Client(lab.credentials.access())
    client.get("v1/ConfigMap", "ovnkube-config", NAMESPACE)
    found = audit.requests(lab.tenant.audit_log, user=lab.credentials.token_user, since=since)
    assert [(each.verb, each.resource) for each in found if each.resource] == [("get", "configmaps")]
    client.close()


def test_operator_process_starts_stops_and_dies(tmp_path: Path) -> None:
    program = operator_run.OperatorProcess([sys.executable, "-c", "import time; print('up'); time.sleep(60)"], tmp_path)
    first = program.start()
    eventually(lambda: "up" in program.text(), "its first line")
    assert program.resident_mib() > 1
    program.kill()
    assert not program.alive()
    second = program.restart()
    assert second.pid != first.pid
    assert program.terminate() == -signal.SIGTERM


def test_nothing_outlives_a_killed_test_run(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tests.lab import processes\n"
        "process = processes.start('sleeper', ['sleep', '60'], Path(sys.argv[1])); print(process.pid, flush=True)\n"
        "time.sleep(60)"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    pid = int(run.stdout.readline())
    assert processes.start_time(pid) is not None
    run.kill()
    run.wait()
    run.stdout.close()
    eventually(lambda: processes.start_time(pid) is None, "the sleeper to be gone", timeout=5)


def test_a_foreign_process_with_our_old_pid_is_left_alone(tmp_path: Path) -> None:
    mine = processes.start("sleeper", ["sleep", "60"], tmp_path)
    stranger = processes.Process("stranger", mine.pid, mine.started - 1, mine.log, tmp_path / "other.pid.json")
    stranger.stop()
    assert mine.alive()
    mine.stop()
    assert not mine.alive()
