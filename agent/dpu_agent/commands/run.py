"""`dpu-agent run`: the service."""

import argparse
import asyncio
import logging
import os
import random
import sys
import time

from dpu_agent import address, logs, memory
from dpu_agent.commands.rooms import Rooms, root_of
from dpu_agent.daemon import Daemon
from dpu_agent.engine import Engine
from dpu_agent.health import application
from dpu_agent.host import real
from dpu_agent.report import NodeReporter
from dpu_agent.retries import Retries
from dpu_agent.serving import Serving


def main(arguments: argparse.Namespace) -> int:
    """Run until SIGTERM, and leave the machine as it is then. Returns 0 after a clean end."""
    memory.one_arena()
    logs.configure(style=arguments.log_format, debug=arguments.debug)
    where = address.parse(arguments.listen, arguments.socket)
    root = root_of(arguments)
    machine = real.machine(root)

    def engine(daemon: Daemon) -> Engine:
        return Engine(
            root=root,
            machine=machine,
            rooms=Rooms(),
            retries=Retries(random.random),
            clock=time.monotonic,
            publish=daemon.publish,
        )

    daemon = Daemon(
        engine=engine,
        machine=machine,
        reporter=NodeReporter(root),
        serve=lambda: Serving(app, where).run(),
    )
    app = application(daemon)
    memory.settled()
    if not asyncio.run(daemon.run()):
        # A call that hangs in a library can't be ended, and the interpreter would wait for some of them.
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)
    return 0
