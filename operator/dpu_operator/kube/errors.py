"""How a request to a cluster fails: either the server answered with an error, or there was no usable answer."""

NAMESPACES = "namespaces"


class ClusterError(Exception):
    """A request that did not succeed. `message` is safe to show: nothing of a credential is in it.

    It never carries a cause or a context: those of the HTTP library hold request headers.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ApiError(ClusterError):
    """The API server answered, with an error.

    Args:
        status: the HTTP status code.
        reason: the Status object's reason (`NotFound`, `Conflict`, …), or the HTTP reason where there is none.
        message: the Status object's message, on one line and cut to a readable length.
        retry_after: seconds that the server asks to wait, where it does.
        details_kind: the resource type that the Status object's details name, or an empty string.

    """

    def __init__(
        self, status: int, reason: str, message: str, *, retry_after: float | None = None, details_kind: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after
        self.details_kind = details_kind

    def __str__(self) -> str:
        return f"HTTP {self.status} {self.reason}: {self.message}"

    @property
    def not_found(self) -> bool:
        return self.status == 404

    @property
    def conflict(self) -> bool:
        return self.status == 409

    @property
    def namespace_missing(self) -> bool:
        """Whether it is the namespace that does not exist, rather than what was asked for in it."""
        return self.status == 404 and self.details_kind == NAMESPACES


class Unreachable(ClusterError):  # noqa: N818 - a state of the world, and that is how it reads where it is handled
    """There was no usable answer: no connection, no TLS, a timeout, a cut, or something that is not a Kubernetes API.

    Args:
        message: a short phrase without a full stop, such as `connection refused` or `timed out after 10 s`.
        sent: whether the request may have reached the server. The outcome of a write is then unknown: read back.

    """

    def __init__(self, message: str, *, sent: bool = False) -> None:
        super().__init__(message)
        self.sent = sent
