"""In the guest: the agent's commands from an interpreter that has imported them already, each in a process of its own.

On an emulated CPU the imports take seconds and a command's own work a tenth of that. A request is one line of JSON on a
connection, `{"words": [...]}`, and so is its answer: exit code and what was written. With `"detach": true` the command
goes on, its output in `log`, and the answer has its process id. `"setup": "..."` is Python to run before, in that process.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, "/opt/dpu/site")
PORT = int(sys.argv[1])


def load() -> None:
    from dpu_agent import cli, settle  # noqa: F401
    from dpu_agent.commands import apply, observe, plan, status  # noqa: F401
    from dpu_agent.host import real

    real.machine(Path("/"))


def command(request: dict[str, Any], stdout: int, stderr: int) -> None:
    """Become the command, in a process that was made for it."""
    from dpu_agent import cli

    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.closerange(3, 1024)  # the connection above all: who asked would wait for its end
    code = 1
    try:
        exec(request.get("setup", ""), {})
        code = cli.main(request["words"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def attached(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            command(request, out.fileno(), err.fileno())
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        return {
            "rc": 128 - code if code < 0 else code,
            "stdout": out.read().decode(errors="replace"),
            "stderr": err.read().decode(errors="replace"),
        }


def detached(request: dict[str, Any]) -> dict[str, Any]:
    child = os.fork()
    if child == 0:
        os.setsid()
        log = os.open(request["log"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        command(request, log, log)
    return {"pid": child}


def serve(connection: socket.socket) -> None:
    with connection, connection.makefile("rwb") as stream:
        request = json.loads(stream.readline())
        answer = detached(request) if request.get("detach") else attached(request)
        stream.write(json.dumps(answer).encode() + b"\n")
        stream.flush()


def main() -> None:
    load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the processes below
    listener = socket.create_server(("127.0.0.1", PORT))
    while True:
        connection, _ = listener.accept()
        with connection:
            if b'"run"' in connection.recv(65536, socket.MSG_PEEK):
                import dpu_agent.commands.run  # noqa: F401 - it takes as long as all the rest: only where it is wanted
            # The process between is the command's parent; process 1 takes over what is detached.
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                listener.close()
                serve(connection)
                os._exit(0)


if __name__ == "__main__":
    main()
