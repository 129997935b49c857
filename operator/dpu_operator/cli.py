"""dpu-operator: run it in a cluster, render without one, check a tenant's kubeconfig."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from dpu_operator import __version__
from dpu_shared.errors import UserError

_EPILOG = """\
examples:
  dpu-operator render                                    the example tenant that comes with this program
  dpu-operator render -f config.yaml --tenant DIR        what would be applied for a tenant, from a folder of YAML
  dpu-operator check --kubeconfig tenant.kubeconfig      what a tenant's kubeconfig can and cannot do, and until when
  dpu-operator run                                       in the cluster, with the pod's own ServiceAccount

exit codes: 0 all is well; 1 an error, in two sentences; 2 the command line is wrong; 3 checked or rendered, and
something is missing for the DPUs to run.
"""

_RUN_EPILOG = """\
environment:
  RELATED_IMAGE_AGENT      the agent's image for the DPUs, by digest
  RELATED_IMAGE_OVNKUBE    an ovnkube image to use for every tenant (default: found by the tenant's version)

examples:
  dpu-operator run --log-format json                     in the cluster, with the pod's own ServiceAccount
  dpu-operator run --kubeconfig infra.kubeconfig         from outside of it
"""
_RENDER_EPILOG = """\
The objects go to standard output, what is in the way to standard error; the exit code is then 3.

examples:
  dpu-operator render                                    the example that comes with this program
  oc adm inspect ns/openshift-ovn-kubernetes networks.operator.openshift.io/cluster \\
      clusterversions.config.openshift.io/version nodes --dest-dir=tenant
  dpu-operator render -f config.yaml --tenant tenant     what the DPUs of that tenant would get
  dpu-operator render -f config.yaml --tenant tenant --infra infra -o json
"""
_CHECK_EPILOG = """\
It only reads; nothing is written to the tenant. The exit code is 3 where something is missing that is always needed.

examples:
  dpu-operator check --kubeconfig tenant.kubeconfig
  oc extract secret/tenant-kubeconfig -n tenant-1 --keys=config --to=- | dpu-operator check --kubeconfig -
  dpu-operator check --kubeconfig tenant.kubeconfig -o json | jq '.objects[] | select(.missing != [])'
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The command's entry point; returns its exit code."""
    code = 0
    try:
        try:
            code = _command(argv)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return code


def _command(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.action(arguments)
    except UserError as error:
        print(f"error: {error.message}\n{error.hint}", file=sys.stderr)
        if arguments.debug:
            traceback.print_exc()
        return 1
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dpu-operator",
        description="Joins BlueField-2 DPUs of this infra cluster to the OVN-Kubernetes of tenant clusters.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dpu-operator {__version__}")
    parser.add_argument("--debug", action="store_true", help="show a traceback with an error")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _run(commands)
    _render(commands)
    _check(commands)
    return parser


def _run(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    run = commands.add_parser(
        "run",
        help="reconcile every OVNKubeConfig of the infra cluster, until SIGTERM",
        description="Reconcile every OVNKubeConfig of the infra cluster, until SIGTERM. Runs as one replica.",
        epilog=_RUN_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument(
        "--kubeconfig",
        metavar="FILE",
        default=os.environ.get("KUBECONFIG"),
        help="of the infra cluster; default $KUBECONFIG, else the pod's own ServiceAccount",
    )
    run.add_argument("--log-format", choices=("text", "json"), default="text", help="default: text")
    run.add_argument("--verbose", action="store_true", help="log what only a developer wants to see")
    run.add_argument("--liveness", metavar="URL", help="answer liveness probes, e.g. http://0.0.0.0:8080/healthz")
    run.set_defaults(action=_do_run)


def _render(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    render = commands.add_parser(
        "render",
        help="print what would be applied for a tenant, from folders of YAML, without any cluster",
        description="Print what would be applied for a tenant, from folders of YAML objects (one file an object, or\n"
        "what `oc adm inspect` writes), without any cluster. Without arguments: the example that comes with it.",
        epilog=_RENDER_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    render.add_argument("-f", "--filename", metavar="FILE", help="the OVNKubeConfig; default: the example")
    render.add_argument("--tenant", metavar="DIR", help="the tenant cluster's objects; default: the example")
    render.add_argument("--infra", metavar="DIR", help="the infra cluster's objects (pool, Nodes, …); default: assumed")
    render.add_argument(
        "-o", "--output", choices=("yaml", "json"), default="yaml",
        help="yaml: a stream of objects; json: one object with `objects`, `conditions` and `facts`",
    )  # fmt: skip
    render.set_defaults(action=_do_render)


def _check(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    check = commands.add_parser(
        "check",
        help="try a tenant's kubeconfig: what works, what is missing, when it expires",
        description="Try a tenant's kubeconfig: is it accepted, does the API server answer, may it get, list and watch\n"
        "each object that the operator needs, and when does it expire.",
        epilog=_CHECK_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument(
        "--kubeconfig", metavar="FILE", required=True, help="the tenant's kubeconfig; - reads it from standard input"
    )
    check.add_argument(
        "--tenant-namespace", metavar="NAME", default="openshift-ovn-kubernetes",
        help="default: openshift-ovn-kubernetes",
    )  # fmt: skip
    check.add_argument("-o", "--output", choices=("text", "json"), default="text", help="default: text")
    check.set_defaults(action=_do_check)


# The imports are late: `--help` and `render` need neither kopf nor a client, and should be instant.


def _do_run(arguments: argparse.Namespace) -> int:
    from dpu_operator.commands import run  # noqa: PLC0415

    return run.main(arguments)


def _do_render(arguments: argparse.Namespace) -> int:
    from dpu_operator.commands import render  # noqa: PLC0415

    return render.main(arguments)


def _do_check(arguments: argparse.Namespace) -> int:
    from dpu_operator.commands import check  # noqa: PLC0415

    return check.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
