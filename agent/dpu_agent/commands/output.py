"""Standard output of the commands."""

import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

Document = Mapping[str, Any]


def show(document: Document, *, output: str, text: Callable[[Document], str]) -> None:
    """Print a document, as `json` or as what `text` makes of it."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n" if output == "json" else text(document))


def exit_code(document: Document) -> int:
    """Of a plan that is shown: 2 where changes are needed, 1 where none of them is to be made but not all is well, else 0."""
    if document["steps"] or document["held"]:
        return 2
    return 1 if document["problems"] else 0
