"""`make demo`: the operator between two real control planes, from nothing to a table of conditions.

KEEP=1 leaves everything up. The demo asserts what it shows: it fails when the resource does not become available.
"""

import os
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from tests.lab import binaries, places
from tests.lab.client import Object, name_of
from tests.lab.errors import LabError
from tests.lab.lab import Lab
from tests.lab.stage import Stage, config

WANTED = {
    "TenantClusterApiServerUnreachable": "False",
    "TenantCredentialsValid": "True",
    "TenantObjectsSynced": "True",
    "NodesMapped": "True",
    "VersionAligned": "True",
    "OvnKubeReady": "True",
    "MachineConfigApplied": "True",
    "Available": "True",
}


class Steps:
    """Prints each step with the seconds since the beginning."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {what}", flush=True)


def main() -> int:
    """Run the demo; 0 when all of it came true."""
    keep = os.environ.get("KEEP", "") not in ("", "0")
    folder = places.state() if keep else places.cache() / "demo"
    if keep and (folder / "lab.json").exists():
        raise LabError(
            f"A lab is already there, in {folder}.", "Look at it with `dpu-lab status`, end it with `dpu-lab down`."
        )
    shutil.rmtree(folder, ignore_errors=True)
    steps = Steps()
    binaries.find()
    steps.say("etcd, kube-apiserver, … are there")
    lab = Lab(folder, detach=keep)
    stage = Stage(lab, folder, detach=keep)
    try:
        _play(lab, stage, steps)
        kept = keep
    except KeyboardInterrupt:
        kept = False
        print("\ninterrupted: ending what was started", file=sys.stderr)
        return 130
    finally:
        if not keep or not kept:
            if stage.process.alive():
                stage.process.terminate()
            lab.down()
            steps.say("everything that was started has ended")
            if not keep:
                lab.remove()
    if keep:
        _how_to_look(folder)
    return 0


def _play(lab: Lab, stage: Stage, steps: Steps) -> None:
    lab.up()
    steps.say(
        "two control planes answer: infra with three DPU nodes and a MachineConfigPool, tenant with OVN interconnect"
    )
    stage.install()
    stage.tenant_namespace()
    for index, node in enumerate(("dpu-0", "dpu-1", "dpu-2")):
        patch = {"metadata": {"annotations": {"dpu.openshift.io/tenant-node": f"dpu-host-{index}"}}}
        lab.infra.admin.patch("v1/Node", node, patch)
    steps.say("installed: CRD, least-privilege account, namespace tenant-1 with the tenant's kubeconfig")
    stage.process.start()
    steps.say("dpu-operator runs")
    admin = lab.infra.admin
    admin.create(config())
    steps.say("created: OVNKubeConfig tenant-1/cluster")
    stage.wait_condition("TenantObjectsSynced", "True")
    steps.say("the tenant's objects are copied")
    stage.wait_condition("OvnKubeReady", "True")
    steps.say("DaemonSet ovnkube-node: 3 of 3 pods ready")
    stage.wait_condition("MachineConfigApplied", "True")
    steps.say("MachineConfigPool dpu: 3 of 3 machines run the MachineConfig")
    for kind, status in WANTED.items():
        stage.wait_condition(kind, status)
    _show(lab, stage.resource())


def _show(lab: Lab, resource: Object) -> None:
    kubectl = [binaries.path("kubectl"), "--kubeconfig", str(lab.infra.admin_kubeconfig)]
    print("\n$ kubectl get ovnkubeconfig -A", flush=True)
    subprocess.run([*kubectl, "get", "ovnkubeconfig", "-A"], check=True)
    print(f"\nconditions of {name_of(resource)}:")
    width = max(24, shutil.get_terminal_size((120, 24)).columns - 60)
    for each in resource["status"]["conditions"]:
        first, *rest = textwrap.wrap(each["message"], width) or [""]
        print(f"  {each['type']:<34} {each['status']:<8} {each['reason']:<12} {first}")
        for line in rest:
            print(f"{'':59} {line}")
    made = subprocess.run(
        [*kubectl, "get", "cm,secret,sa,rolebinding,ds", "-n", "tenant-1", "-o", "name",
         "-l", "app.kubernetes.io/managed-by=dpu-network-operator"],
        check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    print(f"\nmade in namespace tenant-1: {', '.join(made)}\n", flush=True)


def _how_to_look(folder: Path) -> None:
    print(
        f"""It is all left running, in {folder}.

  dpu-lab status                              what runs
  dpu-lab kubectl infra get okc -A            the infra cluster, as its administrator
  dpu-lab kubectl tenant get cm -A            the tenant cluster
  dpu-lab break tenant-api cut                then look at the conditions; `dpu-lab mend tenant-api`
  tail -f {folder}/operator.log
  dpu-lab down                                ends everything

dpu-lab is .venv/bin/dpu-lab."""
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
