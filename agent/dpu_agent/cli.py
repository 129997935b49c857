"""dpu-agent: keep a DPU's host network as configured, do it once, or only say what that would take."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from dpu_agent import __version__, address
from dpu_shared.errors import UserError

_EPILOG = """\
examples:
  dpu-agent apply --dry-run                 what would change, why, and how much each step disturbs; changes nothing
  dpu-agent apply --dry-run -o json         the same for a script
  dpu-agent apply                           do it once, step by step, each verified
  dpu-agent status                          what the running agent says, else what a look at this machine shows
  dpu-agent observe -o json > dpu.json      take a DPU's state along, and on another machine:
  dpu-agent plan --from dpu.json            what would be done there
  dpu-agent run --log-format json           the service

exit codes:
  0  all is as wanted           2  changes are needed (apply --dry-run, plan), or steps wait (apply)
  1  an error, in two sentences, or not ready; also a wrong command line, so that 2 never means that
  130  ended by Ctrl-C
"""
_APPLY_EPILOG = """\
examples:
  dpu-agent apply --dry-run                 problems, steps in their order, steps held back, what could not be seen
  dpu-agent apply                           do it and end
  dpu-agent apply --stage early             at boot: eswitches and udev rules only
  dpu-agent apply --retry-for 0             without patience for a busy eswitch or a late bridge

exit codes:
  --dry-run:  0 nothing to do; 2 changes are needed; 1 an error, or a problem that no step mends
  otherwise:  0 all is as configured; 2 steps wait, for a reboot or a person's leave; 1 something failed or is in the way
  1 as well for a wrong command line
"""
_RUN_EPILOG = """\
endpoints: /livez /readyz /status /plan /metrics, and their description at /openapi.json

examples:
  dpu-agent run                             answers on http://127.0.0.1:9917, which ovnkube-node's pod asks
  dpu-agent run --socket /run/dpu-agent/http.sock
  curl --fail http://127.0.0.1:9917/readyz

exit codes: 0 ended by SIGTERM, the machine left as it is; 1 it could not start.
"""
_STATUS_EPILOG = "exit codes: 0 ready; 1 not ready, or an error.\n"
_OBSERVE_EPILOG = "What could not be seen is told, and is no error.\n\nexit codes: 0 observed; 1 an error.\n"
_PLAN_EPILOG = """\
examples:
  dpu-agent observe -o json > dpu.json      on the DPU
  dpu-agent plan --from dpu.json            anywhere

exit codes: 0 nothing to do; 2 changes are needed; 1 an error, or a problem that no step mends.
"""


class _Parser(argparse.ArgumentParser):
    """A wrong command line exits with 1, as in `terraform plan`: a script must not take it for `changes are needed`."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"error: {message[:1].upper()}{message[1:]}.\nSee `{self.prog} --help`.\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command's entry point; returns its exit code."""
    code = 0
    try:
        try:
            code = _command(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return code


def _command(arguments: Sequence[str] | None) -> int:
    chosen = _parser().parse_args(arguments)
    try:
        code: int = chosen.action(chosen)
    except UserError as error:
        sys.stderr.write(f"error: {error.message}\n{error.hint}\n")
        _trace(wanted=chosen.debug)
        return 1
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception as error:  # noqa: BLE001 - a person on a console is told what to do with it
        sys.stderr.write(f"error: dpu-agent has a defect: {type(error).__name__}: {error}\n")
        sys.stderr.write("Report it with what the same command says with --debug.\n")
        _trace(wanted=chosen.debug)
        return 1
    return code


def _trace(*, wanted: bool) -> None:
    if wanted:
        import traceback  # noqa: PLC0415

        traceback.print_exc()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dpu-agent",
        description="Keeps a BlueField DPU's host network as the DPU Network Operator's MachineConfig wants it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dpu-agent {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _run(commands)
    _apply(commands)
    _status(commands)
    _observe(commands)
    _plan(commands)
    return parser


def _add(
    commands: "argparse._SubParsersAction[_Parser]", name: str, text: str, *, epilog: str
) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=text,
        description=f"{text[:1].upper()}{text[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--debug", action="store_true", help="show a traceback with an error")
    return command


def _run(commands: "argparse._SubParsersAction[_Parser]") -> None:
    run = _add(commands, "run", "keep this machine as configured, until SIGTERM", epilog=_RUN_EPILOG)
    _root(run)
    _address(run, "answer")
    run.add_argument("--log-format", choices=("text", "json"), default="text", help="default: text")
    run.set_defaults(action=_do_run)


def _apply(commands: "argparse._SubParsersAction[_Parser]") -> None:
    apply = _add(commands, "apply", "bring this machine to its configuration once", epilog=_APPLY_EPILOG)
    _root(apply)
    apply.add_argument("--dry-run", action="store_true", help="only say what would be done; change nothing")
    _stage(apply)
    apply.add_argument(
        "--retry-for", metavar="SECONDS", type=_seconds, default=60.0,
        help="patience with failures that may pass, and with what is not there yet; default: 60",
    )  # fmt: skip
    _output(apply)
    apply.set_defaults(action=_do_apply)


def _status(commands: "argparse._SubParsersAction[_Parser]") -> None:
    status = _add(commands, "status", "say how this DPU is", epilog=_STATUS_EPILOG)
    _root(status)
    _address(status, "ask the running agent")
    _output(status)
    status.set_defaults(action=_do_status)


def _observe(commands: "argparse._SubParsersAction[_Parser]") -> None:
    observe = _add(commands, "observe", "print what the agent sees of this machine", epilog=_OBSERVE_EPILOG)
    _root(observe)
    _output(observe)
    observe.set_defaults(action=_do_observe)


def _plan(commands: "argparse._SubParsersAction[_Parser]") -> None:
    plan = _add(
        commands, "plan", "print what would be done on a machine that was observed elsewhere", epilog=_PLAN_EPILOG
    )
    plan.add_argument(
        "--from",
        dest="observation",
        metavar="FILE",
        required=True,
        help="what `dpu-agent observe -o json` wrote; - is standard input",
    )
    _stage(plan)
    _output(plan)
    plan.set_defaults(action=_do_plan)


def _root(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--host-root", metavar="DIR",
        help="where the machine's root is mounted; default: /host in the agent's container, else /",
    )  # fmt: skip


def _stage(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--stage", choices=("early", "late"), default="late",
        help="early: eswitches and udev rules only, before NetworkManager and Open vSwitch; default: late, everything",
    )  # fmt: skip


def _output(command: argparse.ArgumentParser) -> None:
    command.add_argument("-o", "--output", choices=("text", "json"), default="text", help="default: text")


def _address(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "--listen", metavar="[HOST:]PORT", default=f"{address.HOST}:{address.PORT}",
        help=f"{what} there, on loopback only; default: {address.HOST}:{address.PORT}",
    )  # fmt: skip
    command.add_argument("--socket", metavar="PATH", default="", help=f"{what} on a Unix socket instead")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0 to 86400")
    return seconds


# The imports are late: on a DPU's cores each costs time, and a dry run needs few of them.


def _do_run(arguments: argparse.Namespace) -> int:
    from dpu_agent.commands import run  # noqa: PLC0415

    return run.main(arguments)


def _do_apply(arguments: argparse.Namespace) -> int:
    from dpu_agent.commands import apply  # noqa: PLC0415

    return apply.main(arguments)


def _do_status(arguments: argparse.Namespace) -> int:
    from dpu_agent.commands import status  # noqa: PLC0415

    return status.main(arguments)


def _do_observe(arguments: argparse.Namespace) -> int:
    from dpu_agent.commands import observe  # noqa: PLC0415

    return observe.main(arguments)


def _do_plan(arguments: argparse.Namespace) -> int:
    from dpu_agent.commands import plan  # noqa: PLC0415

    return plan.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
