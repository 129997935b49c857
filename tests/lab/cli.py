"""The command `dpu-lab`: the lab for people."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.lab import binaries, breakage, places, processes
from tests.lab.client import ApiError
from tests.lab.errors import LabError
from tests.lab.lab import DPUS, POOL, Lab
from tests.lab.mco import POOL as POOL_KIND

EPILOG = """\
a first look around:
  dpu-lab up                                 start both clusters (10 s; the very first time builds them, minutes)
  dpu-lab kubectl infra get nodes,mcp        the infra cluster: three DPUs and their pool
  dpu-lab kubectl tenant get nodes           the tenant cluster, as OVN-Kubernetes leaves it
  dpu-lab break tenant-api cut               pull the cable between the operator and the tenant
  dpu-lab mend                               put everything right again
  dpu-lab down                               end it all

The operator reaches both clusters through the lab's proxies; `dpu-lab kubectl` goes past them, so that you can watch
what a broken network does. State: $DPU_LAB_DIR or ~/.cache/dpu-network-operator/lab. Binaries: $KUBEBUILDER_ASSETS, PATH,
or built into $DPU_LAB_CACHE or ~/.cache/dpu-network-operator.
exit codes: 0 done, 1 it did not work, 2 the command line was wrong"""

WAYS = {
    "infra-api": ("cut", "freeze", "slow", "restart"),
    "tenant-api": ("cut", "freeze", "slow", "restart"),
    "credential": ("revoke", "expire"),
    "ca": ("swap",),
    "pool": ("stall", "degrade", "render-fail", "pause"),
}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="dpu-lab",
        description="Two real Kubernetes control planes on loopback, for developing the DPU network operator.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("build", help="find or build the programs that the lab runs, and say where they are")
    up = verbs.add_parser("up", help="start the lab; it keeps running until `dpu-lab down`")
    up.add_argument("--infra-only", action="store_true", help="no tenant cluster")
    up.add_argument("--no-wait", action="store_true", help="do not wait until nodes are Ready and pools Updated")
    up.add_argument("--tenant", type=Path, metavar="DIR", help="fill the tenant from this folder of YAML")
    status = verbs.add_parser("status", help="what runs, what is broken, where the kubeconfigs are")
    status.add_argument("-o", "--output", choices=("text", "json"), default="text")
    kubectl = verbs.add_parser("kubectl", help="kubectl as cluster-admin, past the proxy")
    kubectl.add_argument("cluster", choices=("infra", "tenant"))
    kubectl.add_argument("args", nargs=argparse.REMAINDER, metavar="ARGS")
    breaks = verbs.add_parser(
        "break", help="break something",
        description="\n".join(f"{what}: {' | '.join(ways)}" for what, ways in WAYS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    breaks.add_argument("what", choices=WAYS)
    breaks.add_argument("how", help="see above")
    breaks.add_argument("--ms", type=int, default=500, help="slow: milliseconds for each chunk (500)")
    breaks.add_argument("--seconds", type=float, default=20, help="expire: the certificate's lifetime (20)")
    breaks.add_argument("--node", choices=DPUS, default=DPUS[0], help=f"degrade: which node ({DPUS[0]})")
    breaks.add_argument("--message", default="broken by dpu-lab", help="degrade, render-fail: what is said")
    mends = verbs.add_parser("mend", help="undo what `break` did")
    mends.add_argument("what", choices=(*WAYS, "all"), nargs="?", default="all")
    logs = verbs.add_parser("logs", help="the log of one program, such as infra/kube-apiserver")
    logs.add_argument("name", nargs="?", help="cluster/program; without it, the names are listed")
    logs.add_argument("-f", "--follow", action="store_true")
    logs.add_argument("-n", "--lines", type=int, default=50)
    verbs.add_parser("down", help="end the lab; its logs stay until the next `up`")
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    wanted = parser().parse_args(argv)
    actions = {
        "build": build, "up": up, "status": status, "kubectl": kubectl, "break": break_, "mend": mend, "logs": logs,
        "down": down,
    }  # fmt: skip
    try:
        return actions[wanted.verb](wanted)
    except LabError as error:
        print(f"dpu-lab: {error}", file=sys.stderr)
    except ApiError as error:
        print(f"dpu-lab: The API server refused: {error.message} Look at `dpu-lab status`.", file=sys.stderr)
    except OSError as error:
        print(f"dpu-lab: {error}. Is the lab up? Look at `dpu-lab status`.", file=sys.stderr)
    except KeyboardInterrupt:
        print("dpu-lab: Interrupted.", file=sys.stderr)
    return 1


def build(wanted: argparse.Namespace) -> int:
    """`dpu-lab build`."""
    for binary in binaries.find().values():
        print(f"{binary.name:24} {binary.origin:18} {binary.path}")
    return 0


def up(wanted: argparse.Namespace) -> int:
    """`dpu-lab up`."""
    folder = places.state()
    if (folder / "lab.json").exists() and Lab.attach(folder).running():
        raise LabError(f"A lab already runs in {folder}.", "Use it, or end it with `dpu-lab down`.")
    if wanted.tenant is not None and not wanted.tenant.is_dir():
        raise LabError(
            f"{wanted.tenant} is not a folder.", "Give a folder of YAML objects, as `oc adm inspect` writes."
        )
    end_leftovers(folder)
    options = {"tenant_folder": wanted.tenant} if wanted.tenant else {}
    lab = Lab(folder, with_tenant=not wanted.infra_only, detach=True, **options)
    lab.remove()
    lab = Lab(folder, with_tenant=not wanted.infra_only, detach=True, **options)
    try:
        lab.up(wait=not wanted.no_wait, aloud=True)
        if not wanted.infra_only:
            breakage.hand_out(lab, lab.credentials.kubeconfig())
    except BaseException:
        # A second Ctrl-C must not leave half of it running.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        lab.down()
        raise
    print(
        f"The lab is up in {folder}. Look around with `dpu-lab kubectl infra get nodes,mcp`, end it with `dpu-lab down`."
    )
    return 0


def end_leftovers(folder: Path) -> None:
    """End what an earlier lab, ended in the middle of something, left running."""
    for note_folder in (folder / "tenant", folder / "infra", folder):
        for process in processes.remembered(note_folder):
            process.stop()


def status(wanted: argparse.Namespace) -> int:
    """`dpu-lab status`."""
    lab = Lab.attach(places.state())
    facts = describe(lab)
    if wanted.output == "json":
        print(json.dumps(facts, indent=1))
    else:
        print_facts(facts)
    return 0 if all(cluster["ready"] for cluster in facts["clusters"].values()) else 1


def describe(lab: Lab) -> dict[str, Any]:
    """The lab's state as data."""
    clusters: dict[str, Any] = {}
    for cluster in lab.clusters:
        programs = [each for each in processes.remembered(cluster.folder) if each.alive()]
        try:
            proxy = vars(cluster.network().state())
        except LabError as error:
            proxy = {"mode": str(error)}
        clusters[cluster.name] = {
            "ready": cluster.admin.ready(),
            "url": cluster.url,
            "proxy": proxy,
            "kubeconfig": str(cluster.admin_kubeconfig),
            "kubeconfig_past_the_proxy": str(cluster.direct_kubeconfig),
            "serving": cluster.serving,
            "audit_log": str(cluster.audit_log),
            "programs": {each.name: {"pid": each.pid, "mib": round(each.resident_mib())} for each in programs},
        }
    facts: dict[str, Any] = {"folder": str(lab.folder), "clusters": clusters}
    if clusters["infra"]["ready"]:
        pool = lab.infra.admin.find(POOL_KIND, POOL) or {}
        facts["pool"] = {
            each["type"]: each["status"] for each in (pool.get("status") or {}).get("conditions") or []
        } | {"paused": bool((pool.get("spec") or {}).get("paused"))}
    return facts


def print_facts(facts: dict[str, Any]) -> None:
    """The lab's state for eyes."""
    for name, cluster in facts["clusters"].items():
        proxy = cluster["proxy"]
        slowed = f" by {proxy['delay_ms']} ms" if proxy.get("delay_ms") else ""
        print(
            f"{name}: {'ready' if cluster['ready'] else 'NOT READY'} at {cluster['url']}, proxy: {proxy['mode']}{slowed}"
        )
        print(f"  KUBECONFIG={cluster['kubeconfig']}")
        programs = [f"{each} ({found['pid']}, {found['mib']} MiB)" for each, found in cluster["programs"].items()]
        print(f"  {', '.join(programs) or 'nothing runs'}")
    if "pool" in facts:
        print(f"pool {POOL}: " + ", ".join(f"{kind}={value}" for kind, value in facts["pool"].items()))


def kubectl(wanted: argparse.Namespace) -> int:
    """`dpu-lab kubectl CLUSTER ARGS`: become kubectl."""
    lab = Lab.attach(places.state())
    cluster = lab.infra if wanted.cluster == "infra" else lab.tenant
    program = binaries.path("kubectl")
    return become(program, f"--kubeconfig={cluster.direct_kubeconfig}", *wanted.args)


def break_(wanted: argparse.Namespace) -> int:
    """`dpu-lab break WHAT HOW`."""
    if wanted.how not in WAYS[wanted.what]:
        ways = ", ".join(WAYS[wanted.what])
        print(f"dpu-lab: {wanted.what} cannot be broken by {wanted.how!r}. Choose one of: {ways}.", file=sys.stderr)
        return 2
    lab = Lab.attach(places.state())
    options = breakage.Options(wanted.ms, wanted.seconds, wanted.node, wanted.message)
    if wanted.what.endswith("-api"):
        print(breakage.break_api(lab, wanted.what.removesuffix("-api"), wanted.how, options))
    elif wanted.what == "credential":
        print(breakage.break_credential(lab, wanted.how, options))
    elif wanted.what == "ca":
        print(breakage.break_ca(lab))
    else:
        print(breakage.break_pool(lab, wanted.how, options))
    return 0


def mend(wanted: argparse.Namespace) -> int:
    """`dpu-lab mend [WHAT]`."""
    print(breakage.mend(Lab.attach(places.state()), wanted.what))
    return 0


def logs(wanted: argparse.Namespace) -> int:
    """`dpu-lab logs [NAME]`: become tail."""
    folder = places.state()
    names = sorted(str(each.relative_to(folder).with_suffix("")) for each in folder.rglob("*.log"))
    if wanted.name is None:
        print("\n".join(names))
        return 0
    if wanted.name not in names:
        raise LabError(
            f"There is no log {wanted.name} in {folder}.", f"Choose one of: {', '.join(names) or 'none yet'}."
        )
    follow = ["-f"] if wanted.follow else []
    return become("tail", f"-n{wanted.lines}", *follow, str(folder / f"{wanted.name}.log"))


def down(wanted: argparse.Namespace) -> int:
    """`dpu-lab down`."""
    folder = places.state()
    if not folder.exists():
        raise LabError(f"No lab is running in {folder}.", "There is nothing to end.")
    if (folder / "lab.json").exists():
        Lab.attach(folder).down()
        (folder / "lab.json").unlink()
    end_leftovers(folder)
    print(f"The lab has ended. Its logs are in {folder}.")
    return 0


def become(program: str, *arguments: str) -> int:
    """Replace this process, so that signals and exit codes are the other program's own."""
    sys.stdout.flush()
    os.execvp(program, [program, *arguments])
