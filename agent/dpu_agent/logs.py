"""One line an event, as text or as JSON, with the step that it is about."""

import datetime as dt
import json
import logging
from typing import Any

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", 0x2028: "\\u2028", 0x2029: "\\u2029",
}  # fmt: skip
"""What would break a line in two, or repaint a terminal: a message quotes the kernel and other programs."""


def about(step: str) -> dict[str, Any]:
    """For a log call's `extra`: names the step (`AddPort`) that the line is about."""
    return {"step": step}


class TextFormatter(logging.Formatter):
    """`time level step: message`, for people; a traceback follows in the same line."""

    def format(self, record: logging.LogRecord) -> str:
        time = dt.datetime.fromtimestamp(record.created, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        step = f"{name}: " if (name := getattr(record, "step", "")) else ""
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"{time}Z {record.levelname:<7} {step}{record.getMessage()}{trace}".translate(_ESCAPES)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for scripts."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "step": getattr(record, "step", ""),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({key: value for key, value in line.items() if value})


def configure(*, style: str, debug: bool = False) -> None:
    """Send everything to standard error.

    Args:
        style: `text` or `json`.
        debug: also what only a developer wants to see.

    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries tell of each message they send; ours say what they do themselves.
    root.setLevel(logging.WARNING)
    logging.getLogger("dpu_agent").setLevel(logging.DEBUG if debug else logging.INFO)
