"""Keys of what is cached: a hash of all that an artefact is made of."""

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest(*parts: str | bytes) -> str:
    """A short hash of these parts."""
    total = hashlib.sha256()
    for part in parts:
        content = part.encode() if isinstance(part, str) else part
        total.update(f"{len(content)}:".encode())
        total.update(content)
    return total.hexdigest()[:16]


def of_files(files: Iterable[Path], base: Path) -> str:
    """A short hash of files, by name, content and whether they can be executed."""
    parts: list[str | bytes] = []
    for file in sorted(files):
        parts += [str(file.relative_to(base)), file.read_bytes(), str(file.stat().st_mode & 0o100)]
    return digest(*parts)


def tree(folder: Path) -> list[Path]:
    """All files below a folder, without what Python leaves behind."""
    return [file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts]
