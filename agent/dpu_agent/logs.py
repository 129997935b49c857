"""One line an event, as text or as JSON, with the step that it is about."""

import logging
from typing import Any

from dpu_shared import log_lines


def about(step: str) -> dict[str, Any]:
    """For a log call's `extra`: names the step (`AddPort`) that the line is about."""
    return {"step": step}


def configure(*, style: str, debug: bool = False) -> None:
    """Send everything to standard error.

    Args:
        style: `text` or `json`.
        debug: also what only a developer wants to see.

    """
    handler = logging.StreamHandler()
    handler.setFormatter(log_lines.formatter(style, subject="step"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries tell of each message they send; ours say what they do themselves.
    root.setLevel(logging.WARNING)
    logging.getLogger("dpu_agent").setLevel(logging.DEBUG if debug else logging.INFO)
