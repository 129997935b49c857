"""One line an event, as text or as JSON, with the resource that it is about."""

import contextvars
import datetime as dt
import json
import logging

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


_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", 0x2028: "\\u2028", 0x2029: "\\u2029",
}  # fmt: skip
"""What would break a line in two, or repaint a terminal: a message may quote somebody else's server."""


class TextFormatter(logging.Formatter):
    """`time level resource: message`, for people; a traceback follows in the same line."""

    def format(self, record: logging.LogRecord) -> str:
        time = dt.datetime.fromtimestamp(record.created, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        about = f"{name}: " if (name := getattr(record, "resource", "")) else ""
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"{time}Z {record.levelname:<7} {about}{record.getMessage()}{trace}".translate(_ESCAPES)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for scripts."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "resource": getattr(record, "resource", ""),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({key: value for key, value in line.items() if value})


def configure(*, style: str, verbose: bool) -> None:
    """Send everything to standard error.

    Args:
        style: `text` or `json`.
        verbose: also what only a developer wants to see.

    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    handler.addFilter(_WithResource())
    handler.addFilter(_SaidBetter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbose else logging.INFO)
    if not verbose:
        # kopf tells of each handler that it calls; ours say what they do themselves.
        logging.getLogger("kopf").setLevel(logging.WARNING)
        logging.getLogger("asyncio").setLevel(logging.WARNING)
