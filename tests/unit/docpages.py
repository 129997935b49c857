"""Reading the documents: sections, tables, fenced blocks. For the tests that compare them with the code."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one of its level."""
    level = heading.split(" ", maxsplit=1)[0]
    _, found, below = text.partition(f"{heading}\n")
    assert found, heading
    return re.split(rf"^{level} ", below, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of a section's tables, without their heads."""
    lines = text.splitlines()
    found = []
    for before, line in zip(["", *lines], lines, strict=False):
        is_rule = bool(re.fullmatch(r"[|\s:-]+", line))
        if line.startswith("| ") and not is_rule:
            found.append([cell.strip() for cell in line.strip("|").split(" | ")])
        elif is_rule and before.startswith("|"):
            found.pop()
    return found


def prose(text: str) -> str:
    """All but the fenced blocks."""
    return FENCED.sub("", text)


def ticked(text: str) -> list[str]:
    """What stands in backticks in the prose, each on one line."""
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", prose(text))]


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """The fenced blocks: language and content."""
    for found in FENCED.finditer(text):
        yield found[2], textwrap.dedent(found[3])
