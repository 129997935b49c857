"""Rules of the house that no linter knows."""

import ast
import operator
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCTS = ("operator/dpu_operator", "agent/dpu_agent", "shared/dpu_shared")
LINE_LIMIT = 400


def modules() -> list[Path]:
    return [path for product in PRODUCTS for path in sorted((ROOT / product).rglob("*.py"))]


def test_the_folder_operator_does_not_shadow_the_standard_librarys_module() -> None:
    """An __init__.py there would break every program that is started in this folder, argparse and all."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    code = "import operator; print(operator.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).parent == Path(sysconfig.get_path("stdlib"))
    assert operator.add(1, 1) == 2


@pytest.mark.parametrize("folder", ["operator", "agent", "shared"])
def test_a_members_folder_is_no_package(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


def test_a_module_is_read_in_one_sitting() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert len(lengths) > 40
    assert {name: length for name, length in lengths.items() if length > LINE_LIMIT} == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path in modules() if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert silent == []


def project(folder: str) -> str:
    version: str = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return version


def test_there_is_one_version_number() -> None:
    assert len({project(folder) for folder in (".", "operator", "agent", "shared")}) == 1


def test_the_programs_say_that_version() -> None:
    import dpu_agent
    import dpu_operator

    assert dpu_operator.__version__ == dpu_agent.__version__ == project("operator")


def test_no_requirement_names_a_host() -> None:
    """A lock that names the index of whoever made it works for nobody else."""
    files = [path for path in (ROOT / "requirements").rglob("*") if path.is_file()]
    assert [path for path in files if path.suffix == ".txt"]
    named = [
        path.name for path in files if re.search(r"https?://|--(extra-)?index-url", path.read_text(encoding="utf-8"))
    ]
    assert named == []
    assert "uv.lock" in (ROOT / ".gitignore").read_text(encoding="utf-8").split(), (
        "it names hosts, and is not committed"
    )


def test_every_requirement_has_its_hash() -> None:
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        pinned = [line for line in text.splitlines() if re.match(r"[A-Za-z0-9]", line)]
        assert [line for line in pinned if "==" not in line or "--hash=sha256:" not in line] == []


def test_nothing_in_the_products_knows_of_the_tests() -> None:
    """Product code contains no simulation."""
    for path in modules():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert not [name for name in names if name.split(".")[0] in ("tests", "unittest", "pytest")], path
