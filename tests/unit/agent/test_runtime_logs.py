"""One line an event."""

import json
import logging
import sys

import pytest

from dpu_agent import logs
from dpu_shared.log_lines import JsonFormatter, TextFormatter


def record(message: str, step: str = "", *, error: bool = False) -> logging.LogRecord:
    made = logging.LogRecord("dpu_agent.engine", logging.WARNING, "f.py", 1, message, (), None)
    made.__dict__.update(logs.about(step))
    if error:
        try:
            int("two\nlines")
        except ValueError:
            made.exc_info = sys.exc_info()
    return made


@pytest.mark.parametrize("formatter", [TextFormatter("step"), JsonFormatter("step")])
def test_an_event_is_one_line_whatever_is_in_it(formatter: logging.Formatter) -> None:
    line = formatter.format(record("a\nb\r\x1b[2J\u2028", "AddPort", error=True))
    assert "\n" not in line
    assert "\x1b" not in line
    assert len(line.splitlines()) == 1


def test_the_text_has_time_level_step_and_message() -> None:
    time, level, step, rest = TextFormatter("step").format(record("It is busy.", "AddPort")).split(maxsplit=3)
    assert time.endswith("Z")
    assert (level, step, rest) == ("WARNING", "AddPort:", "It is busy.")


def test_the_json_has_the_same_under_names() -> None:
    line = json.loads(JsonFormatter("step").format(record("It is busy.", "AddPort", error=True)))
    assert (line["level"], line["step"], line["message"]) == ("warning", "AddPort", "It is busy.")
    assert "ValueError" in line["exception"]
    assert "step" not in json.loads(JsonFormatter("step").format(record("It is busy.")))
