"""Whether a cluster answers, judged once for all the watches of it."""

import asyncio
import contextlib
import datetime as dt
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator

from dpu_operator.kube.errors import ApiError, ClusterError, Unreachable
from dpu_operator.world import Link, LinkState

FIRST_DELAY = 0.2
"""Seconds until the second attempt; doubled for each further one."""
DOWN_DELAY = 2.0
"""Seconds between two attempts at most while nothing answers: recovery is to be seen within 5 s."""
REFUSED_DELAY = 30.0
"""Seconds between two attempts at most while the credential is refused."""
LISTS_AT_ONCE = 2
"""First lists that run at the same time. More only take the processor from each other, TLS handshakes most of all, and
the first answer comes later."""
LISTS_FIRST = 0.5
"""Seconds that a first watch waits at most for the lists of the others: what was just listed is fresh, and a watch that is
opened a moment later misses nothing."""
SERVER_ERRORS = 3
"""So many answers with HTTP 5xx in a row, and no stream alive, are as good as no answer."""


class LinkGate:
    """The state of the connection to one cluster, shared by all its list-watches.

    While the cluster does not answer, one of them at a time tries (so a dead tenant costs one attempt in two seconds
    and not ten), and the others wait here for its success. The end of one stream is no verdict: only a new request is.

    Args:
        server: the host to show in `Link.server`.
        on_change: called with the new `Link` whenever its state or message changes. Must not block or raise.
        first_delay: seconds until the second attempt.
        down_delay: seconds between two attempts at most while nothing answers.
        refused_delay: seconds between two attempts at most while the credential is refused.

    """

    def __init__(
        self,
        *,
        server: str = "",
        on_change: Callable[[Link], None] | None = None,
        first_delay: float = FIRST_DELAY,
        down_delay: float = DOWN_DELAY,
        refused_delay: float = REFUSED_DELAY,
    ) -> None:
        self.link = Link(server=server)
        self._on_change = on_change
        self._first_delay = first_delay
        self._longest = {LinkState.REFUSED: refused_delay}
        self._down_delay = down_delay
        self._doubted = False
        self._lists = 0
        self._no_list = asyncio.Event()
        self._no_list.set()
        self._list_places = asyncio.Semaphore(LISTS_AT_ONCE)
        self._streams = 0
        self._attempts = 0
        self._server_errors = 0
        self._retry_at = float("-inf")
        self._probe = asyncio.Lock()
        self._kicked = asyncio.Event()

    @property
    def is_open(self) -> bool:
        """Whether requests need not queue: the last one was answered, and no stream broke since."""
        return self.link.state is LinkState.UP and not self._doubted

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until it makes sense to send a request; say how it went by `answered` or `failed` inside of it."""
        probing = not self.is_open and await self._become_prober()
        try:
            yield
        finally:
            if probing:
                self._probe.release()

    @contextlib.asynccontextmanager
    async def listing(self) -> AsyncIterator[None]:
        """While a list is wanted; few run at once."""
        self._lists += 1
        self._no_list.clear()
        try:
            async with self._list_places:
                yield
        finally:
            self._lists -= 1
            if not self._lists:
                self._no_list.set()

    async def lists_first(self) -> None:
        """Wait a little for the lists that are wanted, before a first watch is opened."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LISTS_FIRST):
                await self._no_list.wait()

    async def pause(self, seconds: float) -> None:
        """Sleep, but not beyond the next `kick` or the return of the server."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._kicked.wait()

    def kick(self) -> None:
        """Let everything that waits try again at once."""
        self._retry_at = float("-inf")
        # who waits has the old event in hand; who comes later waits for the next kick
        self._kicked.set()
        self._kicked = asyncio.Event()

    def answered(self) -> None:
        """A request got an answer, be it a refusal: the server is there."""
        came_back = self.link.state in (LinkState.DOWN, LinkState.REFUSED)
        self._attempts = 0
        self._server_errors = 0
        self._retry_at = float("-inf")
        self._doubted = False
        self._become(LinkState.UP, "")
        if came_back:
            self.kick()

    def failed(self, error: ClusterError) -> None:
        """A request failed; what that says about the link depends on how."""
        if isinstance(error, Unreachable):
            self._become(LinkState.DOWN, error.message)
        elif isinstance(error, ApiError) and error.status == 401:
            self._become(LinkState.REFUSED, str(error))
        elif isinstance(error, ApiError) and error.status >= 500:
            self._server_errors += 1
            if self._server_errors >= SERVER_ERRORS and not self._streams:
                self._become(LinkState.DOWN, str(error))
        else:
            self.answered()
            return
        self._schedule()

    def doubt(self) -> None:
        """A stream broke. The next request is made alone, and tells whether it was more than this stream."""
        self._doubted = True

    @contextlib.contextmanager
    def streaming(self) -> Iterator[None]:
        """While a stream is open."""
        self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1

    async def _become_prober(self) -> bool:
        """Whether it is our turn to try, and nobody else's; False once the gate is open."""
        await self._probe.acquire()
        try:
            while not self.is_open and (wait := self._retry_at - time.monotonic()) > 0:
                await self.pause(wait)
        except BaseException:
            self._probe.release()
            raise
        if self.is_open:
            self._probe.release()
        return not self.is_open

    def _schedule(self) -> None:
        longest = self._longest.get(self.link.state, self._down_delay)
        self._retry_at = time.monotonic() + backoff(self._attempts, first=self._first_delay, longest=longest)
        self._attempts += 1

    def _become(self, state: LinkState, message: str) -> None:
        before = self.link
        if (state, message) == (before.state, before.message):
            return
        since = before.since if state is before.state else dt.datetime.now(dt.UTC)
        self.link = Link(state=state, message=message, since=since, server=before.server)
        if self._on_change is not None:
            self._on_change(self.link)


def backoff(attempts: int, *, first: float, longest: float) -> float:
    """Seconds until the next attempt: doubled each time up to a limit, and up to a quarter less, so that many spread."""
    return min(longest, first * 2.0 ** min(attempts, 30)) * random.uniform(0.75, 1.0)  # noqa: S311 - no secret
