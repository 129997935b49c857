"""The start scripts and probes, run by bash as the rendered containers say, with the programs replaced by recorders."""

import os
import shutil
import signal
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from dpu_operator.plan.objects import scripts
from dpu_operator.world import TenantWorld
from tests.unit.plan.worlds import (
    Planned,
    central_tenant,
    example_infra,
    example_tenant,
    of_release,
    planned,
    single_zone_tenant,
)

RECORDER = r"""#!/bin/bash
# Writes one line for each call; behaves as its RULES file says, and ends at once otherwise.
name=${0##*/}
for flag in $REFUSED; do [[ "$name $*" == "ovnkube --$flag"*" --version" ]] && exit 1; done
[[ "$name $*" == "ovnkube "*" --version" ]] && exit 0
printf '%s' "$name" >>"$CALLS"
printf ' %s' "$@" >>"$CALLS"
printf '\n' >>"$CALLS"
[[ "$name" == nft ]] && cat >>"$CALLS"
[[ -r "$STUBS/$name.out" ]] && cat "$STUBS/$name.out"
[[ -x "$STUBS/$name.run" ]] && exec "$STUBS/$name.run"
[[ -r "$STUBS/$name.rc" ]] && exit "$(<"$STUBS/$name.rc")"
exit 0
"""
PROGRAMS = (
    "ovnkube ovs-vsctl iptables ip6tables nft ip ovn-controller ovn-northd ovn-ctl ovn-nbctl ovn-sbctl ovn-appctl"
)


class Box:
    """One container of a plan, with folders of its own in place of the DPU's."""

    def __init__(self, folder: Path, plan: Planned | None = None, container: str = "ovnkube-controller") -> None:
        self.folder = folder
        self.stubs = folder / "bin"
        self.calls_file = folder / "calls"
        self.env_dir = folder / "env"
        self.run_ovn = folder / "run-ovn"
        self.etc_ovn = folder / "etc-ovn"
        self.scripts = folder / "scripts"
        for path in (
            self.stubs,
            self.env_dir,
            self.run_ovn,
            self.etc_ovn,
            self.scripts,
            folder / "net",
            folder / "log",
        ):
            path.mkdir()
        for name, text in scripts().items():
            (self.scripts / name).write_text(text, encoding="utf-8")
        for name in PROGRAMS.split():
            (self.stubs / name).write_text(RECORDER, encoding="utf-8")
            (self.stubs / name).chmod(0o755)
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text("one", encoding="utf-8")
        self.command, self.env = self._of(plan, container) if plan else ([], {})
        self.refused: tuple[str, ...] = ()

    def _of(self, plan: Planned, container: str) -> tuple[list[str], dict[str, str]]:
        spec = plan.container(container)
        fields = {"spec.nodeName": "dpu-0", "metadata.name": "ovnkube-node-abcde", "status.hostIP": "198.51.100.31"}
        env = {
            e["name"]: e["value"] if "value" in e else fields[e["valueFrom"]["fieldRef"]["fieldPath"]]
            for e in spec["env"]
        }
        words = [*spec["command"], *spec.get("args", [])]
        assert words[1].startswith("/dpu-scripts/")
        return [words[0], str(self.scripts / Path(words[1]).name), *words[2:]], env

    def says(self, program: str, out: str | None = None, *, rc: int | None = None, run: str | None = None) -> None:
        if out is not None:
            (self.stubs / f"{program}.out").write_text(out, encoding="utf-8")
        if rc is not None:
            (self.stubs / f"{program}.rc").write_text(str(rc), encoding="utf-8")
        if run is not None:
            path = self.stubs / f"{program}.run"
            path.write_text(f"#!/bin/bash\n{run}\n", encoding="utf-8")
            path.chmod(0o755)

    def maps(self, tenant_node: str = "dpu-host-0", **more: str) -> None:
        lines = {"TENANT_K8S_NODE": tenant_node, **more}
        fresh = self.env_dir / ".new"
        fresh.write_text("".join(f"{k}={v}\n" for k, v in sorted(lines.items())), encoding="utf-8")
        fresh.rename(self.env_dir / "dpu-0")  # at once, as the kubelet does

    def environment(self) -> dict[str, str]:
        return {
            "K8S_NODE": "dpu-0",
            **self.env,
            "PATH": f"{self.stubs}:{os.environ['PATH']}",
            "STUBS": str(self.stubs),
            "CALLS": str(self.calls_file),
            "REFUSED": " ".join(self.refused),
            "ENV_DIR": str(self.env_dir),
            "RUN_OVN": str(self.run_ovn),
            "ETC_OVN": str(self.etc_ovn),
            "SYS_NET": str(self.folder / "net"),
            "LOG_DIR": str(self.folder / "log"),
            "WAITING": str(self.folder / "waiting"),
            "KUBECONFIG_FILE": str(self.kubeconfig),
            "OVN_CTL": str(self.stubs / "ovn-ctl"),
            "POLL_SECONDS": "0.1",
            "STOP_SECONDS": "0.3",
        }

    def start(self, *command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            list(command) or self.command,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *command: str) -> tuple[int, str]:
        process = self.start(*command)
        out, _ = process.communicate(timeout=30)
        return process.returncode, out

    def calls(self, program: str) -> list[list[str]]:
        text = self.calls_file.read_text(encoding="utf-8") if self.calls_file.exists() else ""
        return [line.split(" ")[1:] for line in text.splitlines() if line.split(" ")[0] == program]

    def script(self, name: str, *arguments: str) -> list[str]:
        return ["/bin/bash", str(self.scripts / name), *arguments]


def eventually(what: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def stop(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.fixture
def interconnect(tmp_path: Path) -> Box:
    box = Box(tmp_path, planned())
    box.maps()
    return box


def central_box(tmp_path: Path, tenant: TenantWorld, container: str = "ovnkube-node") -> Box:
    box = Box(tmp_path, planned(tenant, example_infra(ovnKubeImage="image")), container)
    box.maps()
    return box


def argv(box: Box) -> list[str]:
    code, out = box.run()
    assert code == 0, out
    (found,) = box.calls("ovnkube")
    return found


def option(words: list[str], name: str) -> str:
    """The value of a flag, in either form."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return ""


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    tool = shutil.which("shellcheck")
    assert tool, "shellcheck is missing. Install it: apt-get install shellcheck."
    box = Box(tmp_path)
    found = subprocess.run(
        [tool, "-x", "-P", str(box.scripts), *map(str, sorted(box.scripts.glob("*.sh")))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout


def test_every_script_that_a_container_names_is_there_and_none_is_idle() -> None:
    named = {"lib.sh"}
    for plan in (planned(), planned(central_tenant(), example_infra(ovnKubeImage="image"))):
        for container in plan.pod["containers"] + plan.pod["initContainers"]:
            commands = [container["command"]]
            commands += [container[p]["exec"]["command"] for p in container if p.endswith("Probe")]
            commands += [hook["exec"]["command"] for hook in container.get("lifecycle", {}).values()]
            named |= {Path(command[1]).name for command in commands}
    assert named == set(scripts())


def test_4_20_is_started_by_the_tenants_name_in_dpu_mode(interconnect: Box) -> None:
    found = argv(interconnect)
    assert option(found, "--init-node") == "dpu-host-0"
    assert option(found, "--init-ovnkube-controller") == "dpu-host-0"
    assert option(found, "--zone") == "dpu-host-0"
    assert option(found, "--ovnkube-node-mode") == "dpu"
    assert option(found, "--config-file") == "/run/ovnkube-config/ovnkube.conf"
    assert option(found, "--k8s-kubeconfig") == str(interconnect.kubeconfig)
    assert option(found, "--encap-ip") == "198.51.100.31"
    assert option(found, "--loglevel") == "4"
    assert "--enable-multicast" in found
    assert "dpu-0" not in found, "no name of the DPU's own reaches the tenant"
    assert not [word for word in found if "mgmt-port" in word or "address" in word or "exgw" in word]


def test_4_13_is_started_with_the_databases_of_the_masters_and_a_management_port(tmp_path: Path) -> None:
    found = argv(central_box(tmp_path, central_tenant()))
    assert option(found, "--init-node") == "dpu-host-0"
    assert option(found, "--ovnkube-node-mgmt-port-netdev") == "c1pf0vf0"
    assert option(found, "--nb-address") == "ssl:192.0.2.11:9641,ssl:192.0.2.12:9641,ssl:192.0.2.13:9641"
    assert option(found, "--sb-address") == "ssl:192.0.2.11:9642,ssl:192.0.2.12:9642,ssl:192.0.2.13:9642"
    assert option(found, "--sb-client-cert") == "/ovn-cert/tls.crt"
    assert not [word for word in found if "zone" in word or "controller" in word or "multicast" in word]


def test_a_single_zone_is_joined_under_its_one_name(tmp_path: Path) -> None:
    found = argv(central_box(tmp_path, single_zone_tenant()))
    assert option(found, "--zone") == "global"
    assert option(found, "--nb-address")
    assert not [word for word in found if "mgmt-port" in word or "init-ovnkube-controller" in word]


def test_a_flag_that_this_ovnkube_does_not_know_is_not_passed(interconnect: Box) -> None:
    interconnect.refused = ("zone",)
    assert "--zone" not in argv(interconnect)


def test_the_gateway_of_one_dpu_is_taken_from_its_variables(interconnect: Box) -> None:
    interconnect.maps(
        GATEWAY_NEXTHOP="198.51.100.1", GATEWAY_VLANID="7", GATEWAY_ROUTER_SUBNET="192.0.2.0/24", OVN_KUBE_LOG_LEVEL="5"
    )
    found = argv(interconnect)
    assert option(found, "--gateway-nexthop") == "198.51.100.1"
    assert option(found, "--gateway-vlanid") == "7"
    assert option(found, "--gateway-router-subnet") == "192.0.2.0/24"
    assert option(found, "--loglevel") == "5"


def test_the_management_port_of_4_13_can_be_another_one(tmp_path: Path) -> None:
    box = central_box(tmp_path, central_tenant())
    box.maps(MGMT_IFNAME="pf0vf3")
    assert option(argv(box), "--ovnkube-node-mgmt-port-netdev") == "pf0vf3"


def test_a_second_external_bridge_is_used_where_it_exists(interconnect: Box) -> None:
    (interconnect.folder / "net" / "br-ex1").mkdir()
    assert option(argv(interconnect), "--exgw-interface") == "br-ex1"


@pytest.mark.parametrize(
    ("override", "provisioned", "local", "expected"),
    [
        ("", "", False, "198.51.100.31"),
        ("", "198.51.100.77", True, "198.51.100.77"),
        ("", "198.51.100.77", False, "198.51.100.31"),
        ("198.51.100.88", "198.51.100.77", True, "198.51.100.88"),
    ],
)
def test_the_encap_ip_is_the_override_then_what_ovs_has_then_the_kubelets(
    interconnect: Box, override: str, provisioned: str, *, local: bool, expected: str
) -> None:
    if override:
        interconnect.maps(NODE_IP=override)
    interconnect.says("ovs-vsctl", f'"{provisioned}"\n' if provisioned else "")
    interconnect.says("ip", f"2: p0    inet {provisioned}/24\n" if local else "")
    assert option(argv(interconnect), "--encap-ip") == expected


def test_ovs_is_told_the_tenants_name(interconnect: Box) -> None:
    argv(interconnect)
    assert [c for c in interconnect.calls("ovs-vsctl") if "external_ids:hostname=dpu-host-0" in c]


def test_geneve_is_kept_out_of_connection_tracking_once(interconnect: Box) -> None:
    argv(interconnect)
    assert [c[2] for c in interconnect.calls("iptables")] == ["-C", "-C"], "the rules are there: none is added"
    assert all("6081" in c for c in interconnect.calls("iptables"))


def test_missing_rules_are_added_for_both_families(tmp_path: Path) -> None:
    box = Box(tmp_path, planned())
    box.maps()
    for tool in ("iptables", "ip6tables"):
        text = RECORDER.rstrip().removesuffix("exit 0") + '[[ "$3" == -C ]] && exit 1\nexit 0\n'
        (box.stubs / tool).write_text(text, encoding="utf-8")
    argv(box)
    for tool in ("iptables", "ip6tables"):
        added = [c for c in box.calls(tool) if c[2] == "-A"]
        assert [c[3] for c in added] == ["PREROUTING", "OUTPUT"]
        assert all(c[-5:] == ["udp", "--dport", "6081", "-j", "NOTRACK"] for c in added)


def test_newer_releases_do_it_by_nftables(tmp_path: Path) -> None:
    box = central_box(tmp_path, of_release(example_tenant(), "5.2.0-ec.1"), "ovnkube-controller")
    argv(box)
    assert box.calls("nft")
    assert not box.calls("iptables")
    assert "udp dport 6081 notrack" in box.calls_file.read_text(encoding="utf-8")


def test_without_a_tenant_node_nothing_starts_and_it_says_what_for(interconnect: Box) -> None:
    (interconnect.env_dir / "dpu-0").unlink()
    process = interconnect.start()
    try:
        eventually((interconnect.folder / "waiting").exists)
        assert not interconnect.calls("ovnkube")
        interconnect.maps()
        # It ends, so that the kubelet gives ovnkube a whole startup probe's time.
        out, _ = process.communicate(timeout=15)
    finally:
        stop(process)
    assert process.returncode == 0
    assert "no tenant node" in out
    assert "NodesMapped" in out
    assert not interconnect.calls("ovnkube")
    assert not (interconnect.folder / "waiting").exists()
    assert option(argv(interconnect), "--init-node") == "dpu-host-0"


FOR_EVER = 'echo lingers >>"$CALLS"\nfor ((;;)); do sleep 0.05; done'
LINGER = 'trap "echo stopped >>\\"$CALLS\\"; exit 0" TERM\n' + FOR_EVER
STUBBORN = 'trap "" TERM\n' + FOR_EVER


@pytest.mark.parametrize("change", ["node", "ip", "gone", "kubeconfig"])
def test_a_change_of_its_inputs_restarts_ovnkube(interconnect: Box, change: str) -> None:
    interconnect.says("ovnkube", run=LINGER)
    process = interconnect.start()
    try:
        eventually(lambda: interconnect.calls("lingers") == [[]])
        time.sleep(0.5)
        assert process.poll() is None, "it ended without a reason"
        match change:
            case "node":
                interconnect.maps("dpu-host-2")
            case "ip":
                interconnect.maps(NODE_IP="198.51.100.99")
            case "gone":
                (interconnect.env_dir / "dpu-0").unlink()
            case "kubeconfig":
                interconnect.kubeconfig.write_text("two", encoding="utf-8")
        out, _ = process.communicate(timeout=15)
    finally:
        stop(process)
    assert "has changed" in out
    assert "stopped" in interconnect.calls_file.read_text(encoding="utf-8"), "ovnkube was not asked to stop"


def test_a_change_of_another_dpus_variables_or_of_unused_ones_restarts_nothing(interconnect: Box) -> None:
    interconnect.says("ovnkube", run=LINGER)
    process = interconnect.start()
    try:
        eventually(lambda: interconnect.calls("lingers") == [[]])
        (interconnect.env_dir / "dpu-1").write_text("TENANT_K8S_NODE=dpu-host-1\n", encoding="utf-8")
        interconnect.maps(OVN_LOG_LEVEL="dbg")
        time.sleep(0.6)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=15)
    finally:
        stop(process)
    assert "stopped" in interconnect.calls_file.read_text(encoding="utf-8")


def test_a_program_that_does_not_stop_is_killed(interconnect: Box) -> None:
    interconnect.says("ovnkube", run=STUBBORN)
    process = interconnect.start()
    try:
        eventually(lambda: interconnect.calls("lingers") == [[]])
        interconnect.maps("dpu-host-2")
        process.communicate(timeout=15)
    finally:
        stop(process)
    assert process.returncode == 128 + signal.SIGKILL


def test_the_end_of_the_pod_is_the_end_of_the_program(interconnect: Box) -> None:
    interconnect.says("ovnkube", run=LINGER)
    process = interconnect.start()
    try:
        eventually(lambda: interconnect.calls("lingers") == [[]])
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=15)
    finally:
        stop(process)
    assert "stopped" in interconnect.calls_file.read_text(encoding="utf-8")


def test_the_exit_code_of_the_program_is_that_of_the_container(interconnect: Box) -> None:
    interconnect.says("ovnkube", run="exit 7")
    code, _ = interconnect.run()
    assert code == 7


def test_ovn_controller_takes_keys_in_central_topology_only(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    box = Box(tmp_path / "a", planned(), "ovn-controller")
    assert box.run()[0] == 0
    (found,) = box.calls("ovn-controller")
    assert found[0] == "unix:/var/run/openvswitch/db.sock"
    assert "-vconsole:info" in found
    assert "--syslog-method=null" in found
    assert "-p" not in found
    box = central_box(tmp_path / "b", central_tenant(), "ovn-controller")
    box.maps(OVN_LOG_LEVEL="dbg")
    assert box.run()[0] == 0
    (found,) = box.calls("ovn-controller")
    assert found[found.index("-p") : found.index("-p") + 6] == [
        "-p", "/ovn-cert/tls.key", "-c", "/ovn-cert/tls.crt", "-C", "/ovn-ca/ca-bundle.crt",
    ]  # fmt: skip
    assert "-vconsole:dbg" in found


def test_northd_runs_in_the_foreground(tmp_path: Path) -> None:
    box = Box(tmp_path, planned(), "northd")
    assert box.run()[0] == 0
    (found,) = box.calls("ovn-northd")
    assert "--no-chdir" in found
    assert f"--pidfile={box.run_ovn}/ovn-northd.pid" in found


@pytest.mark.parametrize("which", ["nb", "sb"])
def test_a_database_is_started_and_a_stale_pid_file_is_no_obstacle(tmp_path: Path, which: str) -> None:
    box = Box(tmp_path, planned(), f"{which}db")
    box.maps()
    stale = box.run_ovn / f"ovn{which}_db.pid"
    stale.write_text("1", encoding="utf-8")
    assert box.run()[0] == 0
    (found,) = box.calls("ovn-ctl")
    assert found[-1] == f"run_{which}_ovsdb"
    assert f"--db-{which}-sock={box.run_ovn}/ovn{which}_db.sock" in found
    assert not stale.exists()


@pytest.mark.parametrize("which", ["nb", "sb"])
def test_a_database_of_another_tenant_node_is_not_reused(tmp_path: Path, which: str) -> None:
    box = Box(tmp_path, planned(), f"{which}db")
    file = box.etc_ovn / f"ovn{which}_db.db"
    file.write_text("zone of dpu-host-0", encoding="utf-8")
    box.maps("dpu-host-0")
    assert box.run()[0] == 0
    assert file.exists(), "the first start adopts what is there"
    assert box.run()[0] == 0
    assert file.exists(), "its own database is kept"
    box.maps("dpu-host-1")
    code, out = box.run()
    assert code == 0
    assert not file.exists()
    assert "tenant-1/cluster dpu-host-0" in out


def test_the_zone_is_named_after_the_tenant_node(tmp_path: Path) -> None:
    box = Box(tmp_path, planned(), "nbdb")
    box.maps("dpu-host-1")
    hook = planned().container("nbdb")["lifecycle"]["postStart"]["exec"]["command"]
    assert box.run(*box.script(Path(hook[1]).name))[0] == 0
    connection, settings = box.calls("ovn-nbctl")
    assert connection[-2:] == ["set-connection", f"punix:{box.run_ovn}/ovnnb_db.sock"]
    assert 'name="dpu-host-1"' in settings
    assert 'options:name="dpu-host-1"' in settings
    assert "options:northd-backoff-interval-ms=300" in settings


def test_the_southbound_database_gets_its_probe_interval(tmp_path: Path) -> None:
    box = Box(tmp_path, planned(), "sbdb")
    box.maps()
    assert box.run(*box.script("sbdb-post-start.sh"))[0] == 0
    assert "--inactivity-probe=180000" in box.calls("ovn-sbctl")[0]


def test_old_audit_logs_are_removed_and_a_big_one_is_rotated(tmp_path: Path) -> None:
    box = Box(tmp_path, planned(), "ovn-acl-logging")
    box.env |= {"ACL_LOG_MAX_MB": "0", "ACL_LOG_MAX_FILES": "2"}
    log = box.folder / "log"
    (box.run_ovn / "ovn-controller.pid").write_text("42\n", encoding="utf-8")
    (log / "acl-audit-log.log").write_text("an entry\n", encoding="utf-8")
    for day in (1, 2, 3):
        (log / f"acl-audit-log.2026-01-0{day}T00-00-00.log").write_text("old\n", encoding="utf-8")
    process = box.start()
    try:
        eventually(lambda: len(list(log.glob("acl-audit-log.2*"))) == 1)
        eventually(lambda: bool(box.calls("ovn-appctl")))
    finally:
        stop(process)
    (left,) = log.glob("acl-audit-log.2*")
    assert left.read_text(encoding="utf-8") == "an entry\n"
    assert box.calls("ovn-appctl")[0][-1] == "vlog/reopen"


class Answers(BaseHTTPRequestHandler):
    """An agent, or an ovnkube: says what the test put here."""

    status = 200
    body = ""
    asked: "list[str]" = []  # noqa: RUF012 - shared on purpose

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(self.body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def server() -> Iterator[tuple[type[Answers], int]]:
    class Mine(Answers):
        asked: "list[str]" = []  # noqa: RUF012

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mine) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Mine, listening.server_address[1]
        listening.shutdown()
        thread.join()


def test_the_agent_is_waited_for_and_its_sentence_is_repeated(
    tmp_path: Path, server: tuple[type[Answers], int]
) -> None:
    answers, port = server
    answers.status, answers.body = 503, "The eswitch of pf0 is in legacy mode. Reboot this DPU."
    box = Box(tmp_path, planned(), "wait-for-agent")
    box.env["AGENT_PORT"] = str(port)
    process = box.start()
    try:
        eventually(lambda: len(answers.asked) > 2)
        assert process.poll() is None
        answers.status = 200
        out, _ = process.communicate(timeout=15)
    finally:
        stop(process)
    assert process.returncode == 0
    assert out.count("Reboot this DPU.") == 1, "once, not at every turn"
    assert set(answers.asked) == {"/readyz"}


def test_an_agent_that_does_not_answer_is_waited_for(tmp_path: Path) -> None:
    box = Box(tmp_path, planned(), "wait-for-agent")
    box.env["AGENT_PORT"] = "1"
    process = box.start()
    try:
        assert process.stdout
        said = process.stdout.readline()
        time.sleep(0.3)
        assert process.poll() is None
    finally:
        stop(process)
    assert "does not answer on 127.0.0.1:1." in said


def test_the_mapping_is_waited_for(tmp_path: Path) -> None:
    box = Box(tmp_path, planned(), "wait-for-mapping")
    process = box.start()
    try:
        time.sleep(0.5)
        assert process.poll() is None
        box.maps()
        out, _ = process.communicate(timeout=15)
    finally:
        stop(process)
    assert process.returncode == 0
    assert "serves the tenant's node dpu-host-0" in out


@pytest.mark.parametrize(
    ("probe", "answer", "well"),
    [
        ("ovn-controller", "connected\n", True),
        ("ovn-controller", "not connected\n", False),
        ("northd", "Status: active\n", True),
        ("northd", "Status: standby\n", False),
        ("nbdb", "state: active\n", True),
        ("nbdb", "state: backup\n", False),
        ("sbdb", "state: active\n", True),
        ("sbdb", "", False),
    ],
)
def test_a_probe_asks_the_program_itself(tmp_path: Path, probe: str, answer: str, *, well: bool) -> None:
    box = Box(tmp_path)
    for name in ("ovn-controller", "ovn-northd"):
        (box.run_ovn / f"{name}.pid").write_text("42\n", encoding="utf-8")
    box.says("ovn-appctl", answer)
    code, _ = box.run(*box.script("probe.sh", probe))
    assert (code == 0) is well
    (asked,) = box.calls("ovn-appctl")
    assert asked[2].startswith(str(box.run_ovn))


@pytest.mark.parametrize("probe", ["ovn-controller", "northd"])
def test_a_probe_fails_where_the_program_has_not_started(tmp_path: Path, probe: str) -> None:
    box = Box(tmp_path)
    assert box.run(*box.script("probe.sh", probe))[0] != 0


@pytest.mark.parametrize(("status", "well"), [(200, True), (503, False)])
@pytest.mark.parametrize("probe", ["ovnkube-alive", "ovnkube-ready"])
def test_ovnkube_is_alive_and_ready_when_its_last_step_answers(
    tmp_path: Path, server: tuple[type[Answers], int], probe: str, status: int, *, well: bool
) -> None:
    answers, port = server
    answers.status = status
    box = Box(tmp_path)
    box.env["HEALTHZ_PORT"] = str(port)
    assert (box.run(*box.script("probe.sh", probe))[0] == 0) is well
    assert answers.asked == ["/healthz"]


def test_an_ovnkube_that_waits_for_its_tenant_node_is_alive_and_not_ready(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.env["HEALTHZ_PORT"] = "1"
    assert box.run(*box.script("probe.sh", "ovnkube-alive"))[0] != 0
    (box.folder / "waiting").touch()
    assert box.run(*box.script("probe.sh", "ovnkube-alive"))[0] == 0
    assert box.run(*box.script("probe.sh", "ovnkube-ready"))[0] != 0


def test_there_is_no_other_probe(tmp_path: Path) -> None:
    box = Box(tmp_path)
    assert box.run(*box.script("probe.sh", "nonsense"))[0] == 2
