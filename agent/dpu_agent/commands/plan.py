"""`dpu-agent plan`: what would be done on a machine that was observed elsewhere. It looks at nothing but the file."""

import argparse
import sys
from pathlib import Path

from dpu_agent import replay
from dpu_agent.commands.output import exit_code, show
from dpu_agent.console import plan_text
from dpu_agent.decision import Stage
from dpu_agent.documents import plan_document
from dpu_agent.plan import plan
from dpu_shared.errors import UserError

LIMIT = 64 << 20
"""Bytes of an observation; a real one has some ten thousand."""


def main(arguments: argparse.Namespace) -> int:
    """Print the plan; see `--help` for the exit code."""
    stage = Stage(arguments.stage)
    world = replay.from_json(_read(arguments.observation))
    document = plan_document(plan(world, stage), world, stage=stage)
    show(document, output=arguments.output, text=plan_text)
    return exit_code(document)


def _read(name: str) -> str:
    again = "Write one with `dpu-agent observe -o json > FILE`."
    try:
        if name == "-":
            data = sys.stdin.buffer.read(LIMIT + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(LIMIT + 1)
    except OSError as error:
        raise UserError(f"The observation {name} cannot be read: {error.strerror}.", again) from error
    if len(data) > LIMIT:
        raise UserError(f"The observation {name} is larger than {LIMIT >> 20} MiB.", again)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"The observation {name} is not UTF-8 text.", again) from error
