"""A person's terminal joined to the guest's serial line."""

import os
import select
import shutil
import socket
import sys
import termios
import tty
from pathlib import Path

LEAVE = b"\x1d"
"""Ctrl-], as in telnet and virsh."""


def join(serial: Path) -> None:
    """Pass bytes both ways until the key to leave is pressed, or either side ends."""
    line = socket.socket(socket.AF_UNIX)
    line.connect(str(serial))
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        tty.setraw(keyboard)
        line.sendall(b"\n")  # what the shell said before anyone listened is gone: have it say its prompt again
        _pump(line, keyboard)
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        line.close()
        print(file=sys.stderr)


def size() -> tuple[int, int]:
    """Rows and columns, which a serial line can't tell the guest."""
    columns, rows = shutil.get_terminal_size()
    return rows, columns


def _pump(line: socket.socket, keyboard: int) -> None:
    sources: list[socket.socket | int] = [line, keyboard]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if keyboard in ready:
            typed = os.read(keyboard, 1024)
            if not typed or LEAVE in typed:
                return
            line.sendall(typed)
        if line in ready:
            said = line.recv(65536)
            if not said:
                return
            os.write(sys.stdout.fileno(), said)
