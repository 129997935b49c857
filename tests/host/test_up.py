"""`python -m tests.host up`: a person on the virtual DPU's console."""

import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.lab import places

COMMAND = [sys.executable, "-m", "tests.host", "up"]


class Person:
    """Someone at a terminal, who reads and types."""

    def __init__(self) -> None:
        self.terminal, theirs = pty.openpty()
        environment = dict(os.environ, TERM="vt100")
        self.program = subprocess.Popen(
            COMMAND, cwd=places.REPOSITORY, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""

    def reads(self, pattern: str, *, timeout: float) -> str:
        """All up to what the pattern matches, since the last time."""
        deadline = time.monotonic() + timeout
        while not (found := re.search(pattern, self.seen)):
            ready, _, _ = select.select([self.terminal], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{pattern} did not come within {timeout:g} s, but:\n{self.seen}"
            try:
                self.seen += os.read(self.terminal, 4096).decode(errors="replace")
            except OSError:  # what a terminal says when its program has ended
                pytest.fail(f"It ended before {pattern} came:\n{self.seen}")
        before, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return before

    def types(self, text: str) -> None:
        os.write(self.terminal, text.encode())


@pytest.fixture
def person() -> Iterator[Person]:
    someone = Person()
    yield someone
    someone.program.terminate()
    someone.program.wait(30)
    os.close(someone.terminal)


@pytest.mark.timeout(900)  # it waits for its turn, like the fixtures
def test_a_person_gets_a_whole_dpu_and_the_way_out(person: Person) -> None:
    said = person.reads(r"Ctrl-\]", timeout=840)
    assert "up in" in said
    person.reads(r"root@dpu.*# ", timeout=30)
    person.types("ip -br link show br-ex; systemctl is-active dpu-agent; echo do''ne\n")
    said = person.reads("done", timeout=30)
    assert "br-ex" in said
    person.types("\x1d")
    assert person.program.wait(30) == 0


def test_without_a_terminal_it_says_so() -> None:
    result = subprocess.run(
        COMMAND, cwd=places.REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert "wants a terminal" in result.stderr
