"""The one thread that touches the machine: the host's libraries are bound to their thread, and their calls block."""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


class Worker:
    """Runs calls one after another. Its thread is a daemon: a call that hangs must not keep the process from ending."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._open = 0
        threading.Thread(target=self._work, name="machine", daemon=True).start()

    @property
    def busy(self) -> bool:
        """Whether a call is running or waits."""
        return self._open > 0

    async def call(self, function: Callable[[], _T]) -> _T:
        """What the function returns or raises. Cancelling the wait leaves the call running: nothing can end it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T] = loop.create_future()

        def finish(result: _T | None, error: BaseException | None) -> None:
            self._open -= 1
            if future.cancelled():
                return
            if error is None:
                future.set_result(result)  # type: ignore[arg-type] # where there is no error, it is a _T
            else:
                future.set_exception(error)

        def job() -> None:
            result, failure = None, None
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - it is raised where the call was made
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                loop.call_soon_threadsafe(finish, result, failure)

        self._open += 1
        self._jobs.put(job)
        return await future

    def _work(self) -> None:
        while True:
            self._jobs.get()()
