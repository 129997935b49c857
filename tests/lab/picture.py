"""A picture of a terminal, from the text that a real run printed: `make demo | python -m tests.lab.picture > x.svg`."""

import sys
from xml.sax.saxutils import escape

CELL, LINE, MARGIN = 7.2, 16.0, 14.0


def svg(text: str) -> str:
    """The text on a dark ground; times and commands in colour, for people who skim."""
    lines = text.rstrip("\n").split("\n")
    width = max(len(line) for line in lines) * CELL + 2 * MARGIN
    height = len(lines) * LINE + 2 * MARGIN
    rows = "\n".join(
        f'<text x="{MARGIN}" y="{MARGIN + (index + 0.75) * LINE:.0f}" xml:space="preserve">{_coloured(line)}</text>'
        for index, line in enumerate(lines)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="12" fill="#d8dee9">\n'
        f'<rect width="100%" height="100%" rx="8" fill="#1d2330"/>\n{rows}\n</svg>\n'
    )


def _coloured(line: str) -> str:
    if line.startswith("$"):
        return f'<tspan fill="#88c0d0">{escape(line)}</tspan>'
    head, mark, rest = line.partition(" s  ")
    if mark and head.strip().replace(".", "").isdigit():
        return f'<tspan fill="#a3be8c">{escape(head + mark)}</tspan>{escape(rest)}'
    return escape(line)


if __name__ == "__main__":
    sys.stdout.write(svg(sys.stdin.read()))
