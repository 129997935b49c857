"""The running answer of a watch, as events."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import aiohttp

from dpu_operator.kube.answers import Lines, to_event
from dpu_operator.kube.errors import ClusterError, Unreachable
from dpu_operator.kube.transport import HTTP_ERRORS
from dpu_operator.world import Obj


class Stream(AsyncIterator[tuple[str, Obj]]):
    """Events of one watch: (`ADDED` | `MODIFIED` | `DELETED` | `BOOKMARK`, object). Must be closed.

    A bare generator would not do: closed before its first event, it would never have seen the connection.

    Args:
        response: the answer, of which only the head was read.
        explained: turns an error of the HTTP library into ours.
        secret: the credential, should the server repeat it in an error.

    """

    def __init__(
        self, response: aiohttp.ClientResponse, explained: Callable[[BaseException], Unreachable], *, secret: str
    ) -> None:
        self._response = response
        self._explained = explained
        self._secret = secret
        self._events = self._read()

    def __anext__(self) -> Awaitable[tuple[str, Obj]]:
        return self._events.__anext__()

    async def aclose(self) -> None:
        """Break the connection off, unless the server has ended the stream: then it can be used again."""
        await self._events.aclose()
        self._response.close()

    async def _read(self) -> AsyncGenerator[tuple[str, Obj], None]:
        failure: ClusterError | None = None
        try:
            lines = Lines()
            async for chunk in self._response.content.iter_any():
                for line in lines.feed(chunk):
                    yield to_event(line, secret=self._secret)
            if lines.unfinished:
                failure = Unreachable("the stream was cut in the middle of a line", sent=True)
        except HTTP_ERRORS as error:
            failure = self._explained(error)
        # outside of the except block: inside of it, the error would become the context of ours
        if failure is not None:
            raise failure
