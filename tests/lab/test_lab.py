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
import yaml

from tests.lab import audit, binaries, kwok, mco, mco_rules, operator_run, processes
from tests.lab.client import ApiError, Client, Object, name_of
from tests.lab.credentials import mint
from tests.lab.kubeconfig import Access
from tests.lab.lab import DPUS, Lab
from tests.lab.tenant import CENTRAL, INTERCONNECT, NAMESPACE, key_of
from tests.lab.waiting import eventually
from tests.lab.writegate import WriteGate

MACHINE_CONFIG = f"{mco_rules.PREFIX}/v1/MachineConfig"


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
def space(lab: Lab) -> Iterator[Client]:
    """The namespace `lab-test`, emptied afterwards."""
    admin = lab.infra.admin
    operator_run.namespace(admin, "lab-test")
    eventually(lambda: admin.find("v1/ServiceAccount", "default", "lab-test"), "its default ServiceAccount")
    yield admin
    for item in admin.list("apps/v1/DaemonSet", "lab-test"):
        admin.delete("apps/v1/DaemonSet", name_of(item), "lab-test")


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


def test_node_goes_not_ready_and_comes_back(lab: Lab) -> None:
    kwok.set_node_ready(lab.infra.admin, "dpu-1", ready=False)
    eventually(lambda: conditions(lab)["Updated"]["status"] == "False", "the pool to notice")
    kwok.set_node_ready(lab.infra.admin, "dpu-1", ready=True)
    lab.wait_pool()


def test_kubelet_writes_its_own_node_and_no_other(lab: Lab) -> None:
    kubelet = Client(lab.infra.node_access("dpu-0"))
    note = {"metadata": {"annotations": {"dpu.openshift.io/lab": "was here"}}}
    answer = kubelet.patch("v1/Node", "dpu-0", note)
    assert answer["metadata"]["annotations"]["dpu.openshift.io/lab"] == "was here"
    with pytest.raises(ApiError, match="not allowed to modify") as refused:
        kubelet.patch("v1/Node", "dpu-1", note)
    assert refused.value.status == 403
    kubelet.close()


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


def test_tenant_account_reads_the_named_objects_and_nothing_else(lab: Lab) -> None:
    client = Client(lab.credentials.access())
    assert client.get("v1/Secret", "ovn-cert", NAMESPACE)["type"] == "kubernetes.io/tls"
    named = client.list("v1/ConfigMap", NAMESPACE, fields="metadata.name=ovnkube-config")
    assert "ovnkube.conf" in named[0]["data"]
    assert len(client.list("v1/Node")) == 7
    for attempt in (
        lambda: client.list("v1/ConfigMap", NAMESPACE),
        lambda: client.get("v1/Secret", "ovn-ca", NAMESPACE),
        lambda: client.patch("v1/ConfigMap", "ovnkube-config", {"data": {"a": "b"}}, NAMESPACE),
    ):
        with pytest.raises(ApiError) as refused:
            attempt()
        assert refused.value.status == 403
    events = client.watch("v1/ConfigMap", NAMESPACE, fields="metadata.name=ovnkube-config", seconds=5)
    assert next(events)["object"]["metadata"]["name"] == "ovnkube-config"
    events.close()  # type: ignore[attr-defined]
    client.close()


def test_revoked_token_is_refused_and_a_new_one_works(lab: Lab) -> None:
    client = Client(lab.credentials.access())
    client.list("v1/Node")
    lab.credentials.revoke()

    def refused() -> bool:
        try:
            client.list("v1/Node")
        except ApiError as error:
            return error.status == 401
        return False

    eventually(refused, "the token to be refused")
    client.close()
    again = Client(Access.read(yaml.safe_load(lab.credentials.restore())))
    again.list("v1/Node")
    again.close()


def test_client_certificate_expires(lab: Lab) -> None:
    text = lab.credentials.certificate_kubeconfig(seconds=2)
    client = Client(Access.read(yaml.safe_load(text)))
    client.list("v1/Node")

    def refused() -> bool:
        try:
            client.list("v1/Node")
        except ApiError as error:
            return error.status == 401
        return False

    eventually(refused, "the certificate to be refused", timeout=6)
    client.close()


def test_swapped_ca_is_not_trusted(lab: Lab) -> None:
    access = lab.credentials.access()
    lab.credentials.swap_ca()
    client = Client(access)
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        client.list("v1/Node")
    told = Client(Access.read(yaml.safe_load(lab.credentials.kubeconfig_for_swapped_ca())))
    told.list("v1/Node")
    lab.credentials.swap_ca_back()
    client.list("v1/Node")
    client.close()
    told.close()


def test_api_server_restarts_on_its_old_data(lab: Lab) -> None:
    uid = lab.infra.admin.get("v1/Node", "dpu-0")["metadata"]["uid"]
    lab.infra.restart_api()
    assert lab.infra.admin.get("v1/Node", "dpu-0")["metadata"]["uid"] == uid
    lab.wait_pool()


@pytest.mark.parametrize("folder", [INTERCONNECT, CENTRAL], ids=lambda path: path.name)
def test_example_tenant_loads_whole(lab: Lab, folder: Path) -> None:
    loaded = lab.contents.load(folder)
    assert loaded.skipped == ()
    admin = lab.tenant.admin
    peer = admin.get("apps/v1/DaemonSet", "ovnkube-node-dpu-host", NAMESPACE)
    assert peer["status"]["numberReady"] == 3
    assert peer["status"]["observedGeneration"] == peer["metadata"]["generation"]
    hosts = admin.list("v1/Node", labels="network.operator.openshift.io/dpu-host=")
    assert sorted(name_of(item) for item in hosts) == ["dpu-host-0", "dpu-host-1", "dpu-host-2"]
    assert all(kwok.is_ready(item) and not item["spec"].get("taints") for item in hosts)
    assert (admin.find("v1/Service", "ovnkube-db", NAMESPACE) is not None) == (folder == CENTRAL)
    admin.patch("v1/ConfigMap", "ovnkube-config", {"data": {"extra": "x"}}, NAMESPACE)
    admin.delete("v1/ConfigMap", "ovn-ca", NAMESPACE)
    lab.contents.restore()
    assert "extra" not in admin.get("v1/ConfigMap", "ovnkube-config", NAMESPACE)["data"]
    lab.contents.load()


def test_load_of_the_same_folder_changes_nothing(lab: Lab) -> None:
    def versions() -> dict[object, str]:
        loaded = lab.contents.loaded
        assert loaded is not None
        found = [lab.tenant.admin.get(kind, name, space) for kind, space, name in loaded.objects]
        return {key_of(item): item["metadata"]["resourceVersion"] for item in found}

    lab.contents.restore()
    before = versions()
    lab.contents.restore()
    assert versions() == before


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


def test_expired_or_foreign_tokens_are_what_they_seem(lab: Lab) -> None:
    token = mint(lab.tenant.admin, "dpu-operator", "dpu-operator-tenant", 600)
    stranger = Client(Access(lab.infra.url, lab.infra.authority.cert, token=token))
    with pytest.raises(ApiError) as refused:
        stranger.list("v1/Node")
    assert refused.value.status == 401
    stranger.close()
