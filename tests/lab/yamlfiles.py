"""Reading YAML into plain objects, with libyaml's loader: OpenShift's CRDs are a megabyte of it."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from tests.lab.client import Object

_LOADER: type[yaml.SafeLoader] | type[yaml.CSafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def documents(path: Path) -> Iterator[Object]:
    """The objects of a file; a List is opened."""
    for document in yaml.load_all(path.read_text(), Loader=_LOADER):
        if not document:
            continue
        if str(document.get("kind", "")).endswith("List") and "items" in document:
            yield from document["items"]
        else:
            yield document


def everything(path: Path) -> list[Object]:
    """The objects of a file, or of all YAML files below a folder, in the order of their names."""
    files = [path] if path.is_file() else sorted([*path.rglob("*.yaml"), *path.rglob("*.yml")])
    return [item for file in files for item in documents(file)]
