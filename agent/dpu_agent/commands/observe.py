"""`dpu-agent observe`: all that the agent sees of this machine, for a replay elsewhere."""

import argparse
import sys

from dpu_agent import replay
from dpu_agent.commands.rooms import root_of, this_machine
from dpu_agent.console import world_text


def main(arguments: argparse.Namespace) -> int:
    """Print the observation. What could not be seen is a part of it and no error."""
    with this_machine(root_of(arguments)) as (_, look):
        world = look()
    if arguments.output == "json":
        sys.stdout.write(replay.to_json(world).rstrip("\n") + "\n")
    else:
        sys.stdout.write(world_text(world))
    return 0
