"""`dpu-agent status`: what the running agent says, and where none runs, what a look shows."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from dpu_agent import address
from dpu_agent.address import Address
from dpu_agent.commands.output import show
from dpu_agent.commands.rooms import Rooms, root_of, this_machine
from dpu_agent.console import status_text
from dpu_agent.documents import SCHEMA_VERSION, status_document
from dpu_shared.errors import UserError

_PATIENCE = 5.0
_LIMIT = 16 << 20


def main(arguments: argparse.Namespace) -> int:
    """Print the status; 0 where the DPU is ready, else 1."""
    where = address.parse(arguments.listen, arguments.socket)
    document = ask(where)
    if document is None:
        document = _look(root_of(arguments))
    show(document, output=arguments.output, text=status_text)
    return 0 if document["ready"] else 1


def ask(where: Address) -> dict[str, Any] | None:
    """The running agent's status; None where no agent listens.

    Raises:
        UserError: something listens there and gives no status.

    """
    from dpu_agent.commands.client import NobodyError, get  # noqa: PLC0415 - the other commands ask nobody

    try:
        code, body = get(where, "/status", patience=_PATIENCE, limit=_LIMIT)
    except NobodyError:
        return None
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict) or not (code == 200 or "message" in document):
        raise UserError(
            f"What answers on {where} is no dpu-agent.", "Name the agent's own address with --listen or --socket."
        )
    if code != 200:
        raise UserError(str(document["message"]), "The agent answers; see `journalctl -u dpu-agent.service`.")
    if document.get("schemaVersion") != SCHEMA_VERSION or document.get("kind") != "Status":
        raise UserError(
            f"The agent on {where} is of another release.", "Use the dpu-agent command of the agent's own image."
        )
    return document


def _look(root: Path) -> dict[str, Any]:
    rooms = Rooms()
    with this_machine(root) as (_, look):
        world = look()
    found = rooms.plan(world)
    sys.stdout.flush()
    return status_document(found, world, rooms.verdict(found), ())
