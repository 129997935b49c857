"""The command `dpu-agent`. Only its skeleton is here: the agent itself is built by a later issue."""

import argparse
import sys
from collections.abc import Sequence

from dpu_agent import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0 for done, 1 for not done and 2 for a wrong command line."""
    parser = argparse.ArgumentParser(
        prog="dpu-agent",
        description="Keeps a BlueField DPU's host network as the DPU Network Operator's MachineConfig wants it.",
    )
    parser.add_argument("--version", action="version", version=f"dpu-agent {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("run", help="keep the host as configured, for ever (what dpu-agent.service runs)")
    commands.add_parser("apply", help="bring the host to its configuration once").add_argument(
        "--dry-run", action="store_true", help="only say what would be done"
    )
    commands.add_parser("status", help="say how the host is")
    chosen = parser.parse_args(arguments)
    sys.stderr.write(
        f"The command `dpu-agent {chosen.command}` does nothing in this release. Configure the DPU's host by hand.\n"
    )
    return 1
