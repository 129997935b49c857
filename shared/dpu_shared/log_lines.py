"""The log lines of both programs: one line an event, as text or as JSON, with the subject that it is about."""

import datetime as dt
import json
import logging

_ESCAPES = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))} | {
    ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", 0x2028: "\\u2028", 0x2029: "\\u2029",
}  # fmt: skip
"""What would break a line in two, or repaint a terminal: a message may quote the kernel, or somebody else's server."""


class TextFormatter(logging.Formatter):
    """`time level subject: message`, for people; a traceback follows in the same line.

    Args:
        subject: the record's attribute that names what the line is about; a record without it is about the program.

    """

    def __init__(self, subject: str) -> None:
        super().__init__()
        self._subject = subject

    def format(self, record: logging.LogRecord) -> str:
        time = dt.datetime.fromtimestamp(record.created, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
        about = f"{name}: " if (name := getattr(record, self._subject, "")) else ""
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"{time}Z {record.levelname:<7} {about}{record.getMessage()}{trace}".translate(_ESCAPES)


class JsonFormatter(logging.Formatter):
    """One JSON object a line, for log collectors; what is empty is left out.

    Args:
        subject: as for TextFormatter; it is the key as well.

    """

    def __init__(self, subject: str) -> None:
        super().__init__()
        self._subject = subject

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            self._subject: getattr(record, self._subject, ""),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({key: value for key, value in line.items() if value})


def formatter(style: str, *, subject: str) -> logging.Formatter:
    """The formatter of a style, `text` or `json`."""
    return JsonFormatter(subject) if style == "json" else TextFormatter(subject)
