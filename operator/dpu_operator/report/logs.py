"""One line an event, as text or as JSON, with the resource that it is about."""

import contextvars
import logging

from dpu_shared import log_lines

resource: contextvars.ContextVar[str] = contextvars.ContextVar("resource", default="")
"""`namespace/name` of the OVNKubeConfig that the running task works for."""


class _WithResource(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.__dict__["resource"] = resource.get()
        return True


class _SaidBetter(logging.Filter):
    """Drops kopf's line about a removal that still waits: it is no error, and the conditions have said the sentence."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.name.startswith("kopf") and "failed temporarily" in record.getMessage())


def configure(*, style: str, verbose: bool) -> None:
    """Send everything to standard error.

    Args:
        style: `text` or `json`.
        verbose: also what only a developer wants to see.

    """
    handler = logging.StreamHandler()
    handler.setFormatter(log_lines.formatter(style, subject="resource"))
    handler.addFilter(_WithResource())
    handler.addFilter(_SaidBetter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    if not verbose:
        # kopf tells of each handler that it calls; ours say what they do themselves.
        logging.getLogger("kopf").setLevel(logging.WARNING)
        logging.getLogger("asyncio").setLevel(logging.WARNING)
