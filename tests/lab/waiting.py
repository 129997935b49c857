"""Waiting for a thing to be true, by asking it. The lab has no fixed sleeps."""

import time
from collections.abc import Callable
from typing import TypeVar

from tests.lab.errors import LabError

T = TypeVar("T")


def eventually(
    probe: Callable[[], T | None],
    what: str,
    *,
    timeout: float = 30,
    every: float = 0.05,
    retry: tuple[type[Exception], ...] = (),
    on_timeout: Callable[[], str] | None = None,
) -> T:
    """The first truthy answer of `probe`; exceptions named in `retry` count as "not yet"."""
    deadline = time.monotonic() + timeout
    last: object = None
    while True:
        try:
            answer = probe()
            last = answer
        except retry as error:
            answer = None
            last = error
        if answer:
            return answer
        if time.monotonic() > deadline:
            detail = on_timeout() if on_timeout else f"The last answer was {last!r}."
            raise LabError(f"Waited {timeout:g} s in vain for: {what}.", detail)
        time.sleep(every)
