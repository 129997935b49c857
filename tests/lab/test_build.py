"""Finding and building the lab's programs, with a `go` that is only a script."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab import gobuild, gotoolchain, places
from tests.lab.errors import LabError

FAKE_GO = """#!/bin/sh
[ "$1" = env ] && { echo go1.26.9; exit; }
while [ "$1" != -o ]; do shift; done
echo half > "$2"; sleep 0.5
[ "$FAKE_FAILS" ] && { echo "package is broken" >&2; exit 1; }
echo whole > "$2"
"""


@pytest.fixture
def fake_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    go = tmp_path / "go"
    go.write_text(FAKE_GO)
    go.chmod(0o755)
    monkeypatch.setenv("DPU_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(gotoolchain, "go", lambda cache: go)
    monkeypatch.setattr(gobuild, "SILENCE", 0.2)
    return go


def files(cache: Path) -> list[str]:
    return sorted(path.name for path in (cache / "bin").rglob("*") if path.is_file())


def test_build_speaks_while_it_works_and_leaves_a_whole_binary(
    fake_go: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = gobuild.ensure(["etcd", "kwok"])
    assert [path.read_text() for path in built.values()] == ["whole\n", "whole\n"]
    assert files(places.cache()) == ["etcd", "kwok"]
    said = capsys.readouterr().err
    assert said.count("building etcd") >= 3
    assert "[2/2] kwok is built" in said
    assert gobuild.ensure(["etcd", "kwok"]) == built
    assert capsys.readouterr().err == ""


def test_failed_build_says_why_and_leaves_nothing_that_looks_whole(
    fake_go: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_FAILS", "1")
    with pytest.raises(LabError, match="Building etcd failed:\npackage is broken"):
        gobuild.ensure(["etcd"])
    assert files(places.cache()) == [".etcd.log"]


def test_killed_build_leaves_nothing_that_looks_whole(fake_go: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.lab import gobuild, gotoolchain\n"
        f"gotoolchain.go = lambda cache: Path({str(fake_go)!r})\n"
        "gobuild.ensure(['etcd'])"
    )
    run = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, cwd=places.REPOSITORY)
    assert run.stderr is not None
    run.stderr.readline()
    time.sleep(0.1)
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stderr.close()
    assert "etcd" not in files(places.cache())
    assert gobuild.ensure(["etcd"])["etcd"].read_text() == "whole\n"
    assert files(places.cache()) == ["etcd"]


def test_key_changes_with_the_modules_and_the_compiler(fake_go: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    newer.write_text(FAKE_GO.replace("1.26.9", "1.26.10"))
    newer.chmod(0o755)
    assert gobuild.key("tools", fake_go) != gobuild.key("tools", newer)
    assert gobuild.key("tools", fake_go) != gobuild.key("controlplane", fake_go)


def test_no_module_file_names_a_host_to_fetch_from() -> None:
    for path in places.MODULES.rglob("*"):
        if path.is_file() and path.name != "go.sum":
            assert "://" not in path.read_text(), path
