"""`make demo`: the operator between two real control planes, from nothing to a table of conditions.

KEEP=1 leaves everything up. The demo asserts what it shows: it fails when the resource does not become available.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.lab import binaries, cli, places
from tests.lab.client import Object, kind_of, name_of
from tests.lab.errors import LabError
from tests.lab.lab import DPUS, POOL, Lab
from tests.lab.stage import Stage, config

SPACE = "tenant-1"
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
MADE = (
    "v1/ConfigMap", "v1/Secret", "v1/ServiceAccount", "rbac.authorization.k8s.io/v1/RoleBinding", "apps/v1/DaemonSet",
    "machineconfiguration.openshift.io/v1/MachineConfig",
)  # fmt: skip
QUIET = 5.0
"""Seconds after which a wait says that it still waits."""
PATIENCE = 60.0
"""Seconds for one step; a loaded machine needs more than an idle one."""


class Steps:
    """Prints each step with the seconds since the beginning, and what is waited for when that takes long."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self._began:6.1f} s  {what}", flush=True)

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Say so every QUIET seconds."""
        over = threading.Event()

        def remind() -> None:
            while not over.wait(QUIET):
                self.say(f"… {what}")

        reminder = threading.Thread(target=remind, daemon=True)
        reminder.start()
        try:
            yield
        finally:
            over.set()
            reminder.join()


def main() -> int:
    """Run the demo; 0 when all of it came true, 130 when it was interrupted."""
    keep = os.environ.get("KEEP", "") not in ("", "0")
    steps = Steps()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C: nothing is left running
    try:
        binaries.find()
        steps.say("the programs are there: etcd, kube-apiserver, kubectl, …")
        folder = _kept_folder() if keep else Path(tempfile.mkdtemp(prefix="dpu-demo-"))
    except KeyboardInterrupt:
        print("\nInterrupted. Nothing had been started.", file=sys.stderr)
        return 130
    lab = Lab(folder, detach=keep)
    stage = Stage(lab, folder, detach=keep)
    well = False
    code = 0
    try:
        _play(lab, stage, steps)
        well = True
    except KeyboardInterrupt:
        print("\nInterrupted: what was started is being ended.", file=sys.stderr, flush=True)
        well = not keep
        code = 130
    finally:
        if not (keep and well):
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # a second one must not leave half of it running
            _end(lab, stage, steps)
        if well and not keep:
            lab.remove()
        elif not well:
            print(f"The logs are in {folder}.", file=sys.stderr)
    if keep and well:
        _how_to_look(folder)
    return code


def _kept_folder() -> Path:
    """The folder of the one lab that outlives its command, empty."""
    folder = places.state()
    if (folder / "lab.json").exists():
        raise LabError(
            f"A lab is already there, in {folder}.",
            "Look at it with `.venv/bin/dpu-lab status`, end it with `.venv/bin/dpu-lab down`.",
        )
    cli.end_leftovers(folder)
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _end(lab: Lab, stage: Stage, steps: Steps) -> None:
    with steps.waiting("ending what was started"):
        if stage.process.alive():
            stage.process.terminate()
        lab.down()
    (lab.folder / "lab.json").unlink(missing_ok=True)
    steps.say("everything that was started has ended")


def _play(lab: Lab, stage: Stage, steps: Steps) -> None:
    admin = lab.infra.admin
    with steps.waiting("starting two control planes"):
        lab.up()
    steps.say(
        "two control planes answer: infra with three DPU nodes and their MachineConfigPool, and a tenant with OVN"
    )
    with steps.waiting("installing"):
        stage.install()
        stage.tenant_namespace(SPACE)
        for index, node in enumerate(DPUS):
            patch = {"metadata": {"annotations": {"dpu.openshift.io/tenant-node": f"dpu-host-{index}"}}}
            admin.patch("v1/Node", node, patch)
    steps.say(f"installed in infra: CRD, least-privilege account, namespace {SPACE} with the tenant's kubeconfig")
    stage.process.start()
    steps.say("dpu-operator runs under that account")
    with steps.waiting("creating the resource"):
        admin.create(config(SPACE))
    steps.say(f"created: OVNKubeConfig {SPACE}/cluster, all that a user writes")
    _wait(stage, steps, "TenantObjectsSynced")
    steps.say("the tenant's objects are copied to infra")
    _wait(stage, steps, "OvnKubeReady")
    steps.say(f"DaemonSet ovnkube-node: {len(DPUS)} of {len(DPUS)} pods are ready")
    _wait(stage, steps, "MachineConfigApplied")
    steps.say(f"MachineConfigPool {POOL}: {len(DPUS)} of {len(DPUS)} machines run the operator's MachineConfig")
    for kind, status in WANTED.items():
        _wait(stage, steps, kind, status)
    _show(lab, stage.resource(SPACE))


def _wait(stage: Stage, steps: Steps, kind: str, status: str = "True") -> None:
    with steps.waiting(f"waiting for {kind}={status}"):
        stage.wait_condition(kind, status, namespace=SPACE, timeout=PATIENCE)


def _show(lab: Lab, resource: Object) -> None:
    width = min(shutil.get_terminal_size((120, 24)).columns, 120)
    print("\n$ kubectl get ovnkubeconfig -A", flush=True)
    kubectl = [binaries.path("kubectl"), "--kubeconfig", str(lab.infra.admin_kubeconfig)]
    subprocess.run([*kubectl, "get", "ovnkubeconfig", "-A"], check=True)
    print(f"\nThe conditions of {SPACE}/{name_of(resource)}:\n")
    for line in table(resource["status"]["conditions"], width):
        print(line)
    print()
    hint = "HostsConfigured is Unknown because dpu-agent, which reports from the DPUs, is not there yet."
    print("\n".join(wrapped(hint, width)))
    made = [
        f"{kind_of(item).rpartition('/')[2]} {name_of(item)}".replace(" ", "\N{NO-BREAK SPACE}")
        for kind in MADE
        for item in lab.infra.admin.list(kind, labels="app.kubernetes.io/managed-by=dpu-network-operator")
    ]
    print("\n".join(wrapped(f"The operator has made: {', '.join(made)}.", width)).replace("\N{NO-BREAK SPACE}", " "))
    print(flush=True)


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most that width, but for a word that is longer: a name is never cut in two."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def table(conditions: Sequence[Object], width: int) -> list[str]:
    """The conditions in columns; on a narrow terminal the message stands below."""
    rows = [("TYPE", "STATUS", "REASON", "MESSAGE")]
    rows += [(each["type"], each["status"], each["reason"], each["message"]) for each in conditions]
    sizes = [max(len(row[column]) for row in rows) for column in range(3)]
    heads = ["  " + "  ".join(word.ljust(size) for word, size in zip(row[:3], sizes, strict=True)) for row in rows]
    left = len(heads[0]) + 2
    beside = width - left >= 48
    lines: list[str] = []
    for head, (*_, message) in zip(heads, rows, strict=True):
        first, *rest = wrapped(message, width - left if beside else width - 6)
        if beside:
            lines += [f"{head}  {first}", *(" " * left + line for line in rest)]
        else:
            lines += [head.rstrip(), *(" " * 6 + line for line in (first, *rest))]
    return lines


def _how_to_look(folder: Path) -> None:
    program = places.REPOSITORY / ".venv/bin/dpu-lab"
    shown = program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program
    lab = f"DPU_LAB_DIR={folder} {shown}" if os.environ.get("DPU_LAB_DIR") else str(shown)
    hints = (
        ("status", "what runs, and what is broken"),
        ("kubectl infra get okc -A -o wide", "the resource; kubectl takes all that it usually does"),
        (f"kubectl infra describe okc cluster -n {SPACE}", "its conditions, and how they came (Events)"),
        ("kubectl tenant get nodes", "the other cluster"),
        ("break tenant-api cut", "pull the cable: Unreachable within 5 s, and all else stays"),
        ("mend", "put everything right again"),
        ("logs operator -f", "what the operator says; Ctrl-C leaves it"),
        ("down", "end it all, the operator too"),
    )
    width = max(len(command) for command, _ in hints)
    print(f"It is all left running, in {folder}. Look around, break it, mend it, end it:\n")
    for command, what in hints:
        print(f"  {lab} {command:<{width}}  {what}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            print(textwrap.indent(note.strip(), "  "), file=sys.stderr)
        sys.exit(1)
