"""The configuration's file: whatever is in its place is a sentence, and the last good one survives."""

import os
from pathlib import Path

import pytest

from dpu_agent import config
from dpu_agent.machine import HostError
from dpu_shared.host_config import PATH, HostConfig, Mode
from tests.unit.agent.fakes import configured

OTHER = HostConfig(bridge="br-dpu", mode=Mode.REPORT_ONLY)


def the_file(root: Path) -> Path:
    return root / PATH.lstrip("/")


def the_memory(root: Path) -> Path:
    return root / config.LAST_GOOD.lstrip("/")


def test_a_good_file_is_read(tmp_path: Path) -> None:
    found = config.read(configured(tmp_path, OTHER))
    assert (found.current, found.problem, found.last_good) == (OTHER, "", None)


def test_a_file_that_is_not_there_has_no_problem_of_its_own(tmp_path: Path) -> None:
    found = config.read(tmp_path)
    assert (found.current, found.problem, found.hint) == (None, "", "")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"[" * 60_000, "nested too deeply"),
        (b"{" + b" " * config.LIMIT + b"}", "larger than 64 KiB"),
        (b'{"schemaVersion": 99}', "schema version 99"),
        (HostConfig().to_json().replace("Enforce", "Perhaps").encode(), "mode"),
    ],
)
def test_a_bad_file_is_a_sentence_and_a_hint(tmp_path: Path, content: bytes, sentence: str) -> None:
    the_file(configured(tmp_path)).write_bytes(content)
    found = config.read(tmp_path)
    assert found.current is None
    assert sentence in found.problem
    assert PATH in found.problem
    assert found.problem.endswith(".")
    assert found.hint.endswith(".")


def test_a_folder_in_its_place_is_a_sentence(tmp_path: Path) -> None:
    the_file(tmp_path).mkdir(parents=True)
    assert "not a regular file" in config.read(tmp_path).problem


def test_a_fifo_in_its_place_does_not_hold_the_loop(tmp_path: Path) -> None:
    the_file(tmp_path).parent.mkdir(parents=True)
    os.mkfifo(the_file(tmp_path))
    assert "not a regular file" in config.read(tmp_path).problem


def test_a_loop_of_links_in_its_place_is_a_sentence(tmp_path: Path) -> None:
    the_file(tmp_path).parent.mkdir(parents=True)
    the_file(tmp_path).symlink_to(the_file(tmp_path))
    assert "cannot be opened" in config.read(tmp_path).problem


def test_what_is_kept_is_there_beside_a_file_that_went_bad(tmp_path: Path) -> None:
    configured(tmp_path, OTHER)
    config.keep(tmp_path, OTHER)
    the_file(tmp_path).write_text("{")
    found = config.read(tmp_path)
    assert (found.current, found.last_good) == (None, OTHER)


def test_garbage_in_the_memory_counts_as_none(tmp_path: Path) -> None:
    config.keep(configured(tmp_path), OTHER)
    the_memory(tmp_path).write_bytes(b"\x00" * 4096)
    found = config.read(tmp_path)
    assert found.last_good is None
    assert found.current is not None


def test_reading_leaves_nothing_behind(tmp_path: Path) -> None:
    configured(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    config.read(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_memory_is_replaced_whole_and_leaves_no_second_file(tmp_path: Path) -> None:
    config.keep(tmp_path, HostConfig())
    (the_memory(tmp_path).parent / ".host-config.json.new").write_text("what a power failure left behind")
    config.keep(tmp_path, OTHER)
    assert config.read(tmp_path).last_good == OTHER
    assert [one.name for one in the_memory(tmp_path).parent.iterdir()] == ["host-config.json"]


def test_the_same_configuration_is_not_written_again(tmp_path: Path) -> None:
    config.keep(tmp_path, OTHER)
    written = the_memory(tmp_path).stat()
    config.keep(tmp_path, OTHER)
    assert the_memory(tmp_path).stat().st_ino == written.st_ino


def test_a_place_that_takes_no_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file where the folder should be")
    with pytest.raises(HostError, match="could not be kept in /var/lib/dpu-network-operator"):
        config.keep(tmp_path, OTHER)
