"""One line an event, as text or as JSON, with the resource that it is about."""

import asyncio
import contextvars
import json
import logging
from collections.abc import Callable, Iterator

import pytest

from dpu_operator.report import logs

NASTY = "first\nsecond\r\n2026-01-01T00:00:00.000Z INFO    forged\x1b[31m\u2028end\x85.\ttab"

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def stream(capsys: Capture) -> Iterator[Capture]:
    """What goes to standard error; logging is afterwards as it was before."""
    root, names = logging.getLogger(), ("kopf", "asyncio")
    before = (root.handlers[:], root.level, [logging.getLogger(name).level for name in names])
    yield capsys
    root.handlers[:], root.level = before[0], before[1]
    for name, level in zip(names, before[2], strict=True):
        logging.getLogger(name).setLevel(level)


Configured = Callable[[str], logging.Logger]


@pytest.fixture
def configured(stream: Capture) -> Configured:
    def make(style: str) -> logging.Logger:
        logs.configure(style=style, verbose=False)
        return logging.getLogger("dpu_operator.test")

    return make


def lines(stream: Capture) -> list[str]:
    text = stream.readouterr().err
    assert text.endswith("\n")
    return text[:-1].split("\n")


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_message_with_line_breaks_is_one_line_without_control_characters(
    style: str, configured: Configured, stream: Capture
) -> None:
    """Some of what is logged comes from other people's servers: nobody can forge a line or repaint a terminal."""
    configured(style).info("%s", NASTY)
    (line,) = lines(stream)
    assert line.isprintable()
    assert "first" in line
    assert "end" in line


@pytest.mark.parametrize("style", ["text", "json"])
def test_an_exception_is_on_the_line_of_its_event(style: str, configured: Configured, stream: Capture) -> None:
    try:
        int(NASTY)
    except ValueError:
        configured(style).exception("It failed.")
    (line,) = lines(stream)
    assert line.isprintable()
    assert "It failed." in line
    assert "test_logs.py" in line
    assert "ValueError" in line


@pytest.mark.parametrize("style", ["text", "json"])
def test_other_alphabets_stay_readable_as_text(style: str, configured: Configured, stream: Capture) -> None:
    configured(style).info("Größe 漢字 …")
    (line,) = lines(stream)
    assert (json.loads(line)["message"] if style == "json" else line).endswith("Größe 漢字 …")


def test_a_text_line_has_time_level_resource_and_message(configured: Configured, stream: Capture) -> None:
    logger = configured("text")
    logger.warning("Nobody works for a resource.")
    logs_for("tenant-1/cluster", lambda: logger.info("It %s.", "works"))
    first, second = lines(stream)
    assert first[10] == "T"
    assert first[24:] == " WARNING Nobody works for a resource."
    assert second[23:] == "Z INFO    tenant-1/cluster: It works."


def test_a_json_line_has_the_same_as_fields(configured: Configured, stream: Capture) -> None:
    logger = configured("json")
    logs_for("tenant-1/cluster", lambda: logger.info("It %s.", "works"))
    logger.warning("Nobody works for a resource.")
    first, second = (json.loads(line) for line in lines(stream))
    assert {k: v for k, v in first.items() if k != "time"} == {
        "level": "info",
        "logger": "dpu_operator.test",
        "resource": "tenant-1/cluster",
        "message": "It works.",
    }
    assert first["time"].endswith("+00:00")
    assert "resource" not in second


def logs_for(name: str, do: Callable[[], object]) -> None:
    def inside() -> None:
        logs.resource.set(name)
        do()

    contextvars.copy_context().run(inside)


async def test_tasks_for_several_resources_do_not_mix_their_names(configured: Configured, stream: Capture) -> None:
    logger = configured("json")

    async def work(name: str) -> None:
        logs.resource.set(name)
        await asyncio.sleep(0)
        logger.info("At work for %s.", name)
        await asyncio.create_task(later(name))

    async def later(name: str) -> None:
        logger.info("And for %s.", name)

    await asyncio.gather(*(work(f"ns/{n}") for n in range(3)))
    for line in map(json.loads, lines(stream)):
        assert line["resource"] in line["message"]
    assert logs.resource.get() == ""


@pytest.mark.parametrize(("verbose", "count"), [(False, 1), (True, 3)])
def test_only_verbose_shows_what_developers_want(*, verbose: bool, count: int, stream: Capture) -> None:
    logs.configure(style="text", verbose=verbose)
    logging.getLogger("dpu_operator.test").debug("a detail")
    logging.getLogger("kopf.objects").info("a handler")
    logging.getLogger("dpu_operator.test").info("news")
    assert len(lines(stream)) == count
    logging.getLogger("kopf").setLevel(logging.NOTSET)


def test_configuring_twice_does_not_say_everything_twice(configured: Configured, stream: Capture) -> None:
    configured("text")
    configured("text").info("once")
    assert len(lines(stream)) == 1
