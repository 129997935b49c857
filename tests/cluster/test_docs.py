"""The shell commands of the documents, run in their order, as an administrator, on the real infra cluster.

What differs from what a person does:
- `tenant-1` is another namespace, since other tests live in that one. The text of the commands is changed for it, and
  so is the example resource that they apply.
- `dpu-operator run` runs here as a process with a kubeconfig of its ServiceAccount, and answers its probe on a free port
  of loopback; in a pod it finds the account by itself.
- The documents' manifests of a MachineConfigPool and of a MachineConfiguration are only judged by the API server (a dry
  run), since the lab has a pool already.
- Nothing is waited for between the commands in the document; here it is, by looking at conditions.
"""

import json
import os
import shlex
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import health
from tests.lab import binaries, places
from tests.lab.lab import POOL, Lab
from tests.lab.ports import free_port
from tests.lab.stage import CONFIG, Stage
from tests.unit.docpages import blocks, page

SPACE = "tenant-docs"
EXAMPLE = Path("operator/dpu_operator/examples/ovnkubeconfig.yaml")
RBAC = "rbac.authorization.k8s.io/v1"
WRITTEN = "v1/ConfigMap", "ovnkube-config", SPACE


@dataclass
class Shell:
    """A person's terminal: `kubectl` as the infra cluster's administrator, `dpu-operator`, and a clone's files."""

    lab: Lab
    folder: Path

    def __post_init__(self) -> None:
        self._program("kubectl", binaries.path("kubectl"))
        self._program("dpu-operator", sys.executable, "-m", "dpu_operator.cli")
        (self.folder / "charts").symlink_to(places.REPOSITORY / "charts")
        (self.folder / EXAMPLE).parent.mkdir(parents=True)
        (self.folder / EXAMPLE).write_text(self.here((places.REPOSITORY / EXAMPLE).read_text()))

    def _program(self, name: str, *argv: str) -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    @staticmethod
    def here(text: str) -> str:
        return text.replace("tenant-1", SPACE)

    def run(self, text: str, stdin: str = "") -> str:
        """A block of a document; what it prints. Every command in it must succeed."""
        env = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "KUBECONFIG": str(self.lab.infra.direct_kubeconfig),
            "HOME": str(self.folder),
        }
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.here(text)],
            cwd=self.folder, env=env, input=stdin, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{text}\n{ran.stdout}{ran.stderr}"
        return ran.stdout


@pytest.fixture
def shell(idle: Stage, tmp_path: Path) -> Shell:
    """The terminal, in a cluster where no right of the operator is left: the documents have to grant them."""
    admin = idle.lab.infra.admin
    for role in ("dpu-network-operator", "dpu-network-operator-tenant", "dpu-network-operator-ovnkube-node"):
        admin.delete(f"{RBAC}/ClusterRole", role)
    admin.delete(f"{RBAC}/ClusterRoleBinding", "dpu-network-operator")
    for kind in ("Role", "RoleBinding"):
        admin.delete(f"{RBAC}/{kind}", "dpu-network-operator", "openshift-ovn-kubernetes")
    admin.patch("v1/Node", "dpu-0", {"metadata": {"annotations": {"dpu.openshift.io/tenant-node": None}}})
    made = Shell(idle.lab, tmp_path)
    (tmp_path / "tenant.kubeconfig").write_text(idle.lab.credentials.kubeconfig())
    (tmp_path / "new.kubeconfig").write_text(idle.lab.credentials.kubeconfig(seconds=3 * 86400))
    return made


def started(lab: Lab, folder: Path, command: str) -> Stage:
    """The document's `dpu-operator run`, as a process with the account's kubeconfig."""
    program, verb, *options = shlex.split(command)
    assert (program, verb) == ("dpu-operator", "run")
    options = [each.replace("0.0.0.0:8080", f"127.0.0.1:{free_port()}") for each in options]
    stage = Stage(lab, folder / "operator", options=options)
    stage.account.write_kubeconfig(stage.kubeconfig)
    stage.process.start()
    return stage


@pytest.fixture
def operators() -> Iterator[list[Stage]]:
    """Whatever was started ends."""
    found: list[Stage] = []
    yield found
    for stage in found:
        if stage.process.alive():
            stage.process.kill()


def test_the_commands_of_the_documents_lead_to_a_tenant_and_away_from_it(shell: Shell, operators: list[Stage]) -> None:
    for language, text in blocks(page("install.md")):
        if language == "yaml":
            shell.run("kubectl apply --dry-run=server -f -", stdin=text)
        elif text.startswith("dpu-operator run"):
            operators.append(started(shell.lab, shell.folder, text))
        else:
            said = shell.run(text)
    (stage,) = operators
    assert f"{SPACE}   cluster" in said, "the last command shows the resource"
    stage.wait_condition("TenantObjectsSynced", "True", namespace=SPACE)
    assert shell.lab.infra.admin.find(*WRITTEN) is not None
    check_that_it_runs_as_the_document_says(stage)
    for _, text in blocks(page("troubleshooting.md")):
        assert "TenantObjectsSynced" in shell.run(text)
    operate(shell, stage)


def check_that_it_runs_as_the_document_says(stage: Stage) -> None:
    url = next(option for option in stage.options if option.startswith("http"))
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=10) as answer:
        assert answer.status == 200
    lines = [json.loads(line) for line in stage.process.text().splitlines()]
    assert f"{SPACE}/cluster" in {line.get("resource") for line in lines}


def operate(shell: Shell, stage: Stage) -> None:
    """docs/operations.md: each block has its part here, and they are as many."""
    renew, remove, skip, by_hand = [text for _, text in blocks(page("operations.md"))]

    before = stage.wait_condition("TenantCredentialsValid", "True", namespace=SPACE)["message"]
    shell.run(renew)
    stage.wait(lambda: valid(stage) not in {"", before}, "the new kubeconfig's date")

    stage.wait_condition("MachineConfigApplied", "True", namespace=SPACE)
    shell.run(remove)  # returns when the pool's machines are rid of the MachineConfig
    assert gone(stage)
    assert health.OURS not in health.rendered_from(stage)

    again(shell, stage)
    stage.wait_condition("MachineConfigApplied", "True", namespace=SPACE)
    stage.lab.mco.pause(POOL)
    shell.run(remove.replace("delete okc", "delete --wait=false okc"))  # it would wait until the next command
    stage.wait(lambda: "the pool is paused" in removing(stage), "the removal to say that the pool is paused")
    shell.run(skip)
    stage.wait(lambda: gone(stage), "a resource whose pool is not waited for to be gone")
    stage.lab.mco.pause(POOL, paused=False)

    again(shell, stage)
    stage.process.kill()
    shell.run(by_hand)
    stage.wait(lambda: gone(stage), "a resource without an operator to be gone")
    assert stage.lab.infra.admin.find(health.MACHINE_CONFIG, health.OURS) is None


def again(shell: Shell, stage: Stage) -> None:
    shell.run(f"kubectl apply -f {EXAMPLE}")
    stage.wait(lambda: stage.lab.infra.admin.find(health.MACHINE_CONFIG, health.OURS), "the MachineConfig")


def valid(stage: Stage) -> str:
    """The message of TenantCredentialsValid, while it is True."""
    condition = stage.conditions(SPACE).get("TenantCredentialsValid", {})
    return str(condition["message"]) if condition.get("status") == "True" else ""


def removing(stage: Stage) -> str:
    """What a removal waits for; '' when nothing is being removed."""
    condition = stage.conditions(SPACE).get("MachineConfigApplied", {})
    return str(condition["message"]) if condition.get("reason") == "Removing" else ""


def gone(stage: Stage) -> bool:
    return stage.lab.infra.admin.find(CONFIG, "cluster", SPACE) is None
